// Runs a program under test: output in files, signals, exit code, and what it left behind.
#ifndef BEARING_TESTS_CLI_PROGRAM_H_
#define BEARING_TESTS_CLI_PROGRAM_H_

#include <sys/types.h>

#include <chrono>
#include <map>
#include <string>
#include <vector>

namespace bearing::testing {

using Environment = std::map<std::string, std::string>;

class Program {
 public:
  // Starts it with standard input from `input` (a file, or /dev/null when empty). `folder` gets its output. It and all its
  // descendants carry a mark in their environment.
  Program(const std::vector<std::string>& arguments, const Environment& environment, const std::string& folder,
          const std::string& input = "");
  ~Program();
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  void Signal(int signal) const;

  // The exit code, or 128 + the signal; -1 when it did not end in time (it is then killed).
  int Wait(std::chrono::seconds timeout = std::chrono::seconds(60));

  std::string Output() const;
  std::string Errors() const;

  // Waits until standard error holds the text.
  bool WaitForError(const std::string& text, std::chrono::seconds timeout = std::chrono::seconds(60)) const;

  // Command lines of the processes that carry the mark and live.
  std::vector<std::string> Living() const;
  // The same after waiting for them to go.
  std::vector<std::string> LivingAfter(std::chrono::seconds timeout) const;

 private:
  std::string base_;
  std::string mark_;
  pid_t pid_ = -1;
};

}  // namespace bearing::testing

#endif  // BEARING_TESTS_CLI_PROGRAM_H_
