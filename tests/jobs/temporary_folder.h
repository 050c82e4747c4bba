// A fresh folder for one test, removed at its end.
#ifndef BEARING_TESTS_JOBS_TEMPORARY_FOLDER_H_
#define BEARING_TESTS_JOBS_TEMPORARY_FOLDER_H_

#include <string>
#include <string_view>

namespace bearing::jobs {

class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string PathOf(std::string_view relative) const;

  // Writes a file below the folder, making folders on the way; returns its path.
  std::string Write(std::string_view relative, std::string_view content) const;

 private:
  std::string path_;
};

}  // namespace bearing::jobs

#endif  // BEARING_TESTS_JOBS_TEMPORARY_FOLDER_H_
