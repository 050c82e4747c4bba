// A folder with a good job file and the prompt files it names.
#ifndef BEARING_TESTS_JOBS_JOB_FOLDER_H_
#define BEARING_TESTS_JOBS_JOB_FOLDER_H_

#include <string>

#include "jobs/job_spec.h"
#include "tests/jobs/job_text.h"
#include "tests/jobs/temporary_folder.h"

namespace bearing::jobs {

class JobFolder {
 public:
  JobFolder() {
    for (const std::string name : {"p_train", "p_val", "p_test", "n_train", "n_val", "n_test"}) {
      folder_.Write("jobs/" + name + ".json", "[\"" + name + " one\", \"" + name + " two\"]");
    }
    folder_.Write("jobs/job.yaml", kGoodJob);
  }

  const TemporaryFolder& folder() const { return folder_; }

  // The job with its paths resolved and its output inside the folder.
  bearing::v1::JobSpec Load() const {
    bearing::v1::JobSpec spec = *LoadJobFile(folder_.PathOf("jobs/job.yaml"));
    spec.set_output(folder_.PathOf("out"));
    return spec;
  }

 private:
  TemporaryFolder folder_;
};

}  // namespace bearing::jobs

#endif  // BEARING_TESTS_JOBS_JOB_FOLDER_H_
