#include "tests/jobs/temporary_folder.h"

#include <stdlib.h>

#include <filesystem>
#include <fstream>

namespace bearing::jobs {

TemporaryFolder::TemporaryFolder() {
  path_ = (std::filesystem::temp_directory_path() / "bearing-test-XXXXXX").string();
  if (mkdtemp(path_.data()) == nullptr) abort();
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string TemporaryFolder::PathOf(std::string_view relative) const { return path_ + "/" + std::string(relative); }

std::string TemporaryFolder::Write(std::string_view relative, std::string_view content) const {
  const std::string path = PathOf(relative);
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  std::ofstream(path, std::ios::binary) << content;
  return path;
}

}  // namespace bearing::jobs
