// Test helper: a folder that is removed with its owner, and the files of this test folder.
#ifndef BEARING_TESTS_BRIDGE_TEST_FOLDER_H_
#define BEARING_TESTS_BRIDGE_TEST_FOLDER_H_

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace bearing::bridge {

inline std::string DataFile(const std::string& name) { return std::string(BEARING_SOURCE_DIR) + "/tests/bridge/data/" + name; }

class TestFolder {
 public:
  TestFolder() {
    std::string name = ::testing::TempDir() + "bridge_XXXXXX";
    EXPECT_NE(mkdtemp(name.data()), nullptr);
    path_ = name;
  }
  ~TestFolder() { std::filesystem::remove_all(path_); }
  TestFolder(const TestFolder&) = delete;
  TestFolder& operator=(const TestFolder&) = delete;

  const std::string& path() const { return path_; }

  // Returns the file's path.
  std::string Write(const std::string& name, const std::string& text) const {
    std::string file = path_ + "/" + name;
    std::ofstream(file, std::ios::binary) << text;
    return file;
  }

  void CopyTiny(const std::string& name) const { std::filesystem::copy_file(DataFile("tiny/" + name), path_ + "/" + name); }

 private:
  std::string path_;
};

}  // namespace bearing::bridge

#endif  // BEARING_TESTS_BRIDGE_TEST_FOLDER_H_
