// A folder with a model of a few kilobytes, prompts and a job file that `bearing run` accepts.
#ifndef BEARING_TESTS_CLI_JOB_FOLDER_H_
#define BEARING_TESTS_CLI_JOB_FOLDER_H_

#include <filesystem>
#include <string>

#include "tests/coordinator/tiny_job.h"
#include "tests/sharding/temp_folder.h"

namespace bearing::testing {

class JobFolder {
 public:
  JobFolder() {
    coordinator::WriteTinyJob(path(), "tiny");
    WriteText(job_file(),
              "apiVersion: bearing/v1\nkind: Job\nname: tiny\nmodel:\n  path: model\nconcept:\n  name: refusal\nprompts:\n" +
                  Side("positive") + Side("negative") + "output: " + out() + "\n");
  }

  // As the program prints it: absolute and normal.
  const std::string& path() const { return path_; }
  std::string job_file() const { return path_ + "/job.yaml"; }
  std::string out() const { return path_ + "/out"; }

 private:
  static std::string Side(const std::string& side) {
    std::string text = "  " + side + ":\n";
    for (const char* set : {"train", "validation", "test"}) {
      text += std::string("    ") + set + ": {file: " + side + "-" + set + ".txt}\n";
    }
    return text;
  }

  TempFolder folder_;
  std::string path_ = std::filesystem::canonical(folder_.path()).string();
};

}  // namespace bearing::testing

#endif  // BEARING_TESTS_CLI_JOB_FOLDER_H_
