// A folder that is gone with the test, and plain reading and writing of small files in it.
#ifndef BEARING_TESTS_SHARDING_TEMP_FOLDER_H_
#define BEARING_TESTS_SHARDING_TEMP_FOLDER_H_

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>

#include "gtest/gtest.h"

namespace bearing::testing {

class TempFolder {
 public:
  TempFolder() : path_(::testing::TempDir() + "/bearing-XXXXXX") {
    if (::mkdtemp(path_.data()) == nullptr) ADD_FAILURE() << "cannot make a folder: " << path_;
  }
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

inline void WriteText(const std::string& path, std::string_view text) { std::ofstream(path, std::ios::binary) << text; }

inline std::string ReadText(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

}  // namespace bearing::testing

#endif  // BEARING_TESTS_SHARDING_TEMP_FOLDER_H_
