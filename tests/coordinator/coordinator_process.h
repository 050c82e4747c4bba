// The coordinator's program as a child process.
#ifndef BEARING_TESTS_COORDINATOR_COORDINATOR_PROCESS_H_
#define BEARING_TESTS_COORDINATOR_COORDINATOR_PROCESS_H_

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

extern char** environ;

namespace bearing::coordinator {

// One run of the program; killed with the object.
class Process {
 public:
  // `variables` ("NAME=VALUE") are added to the environment.
  Process(std::vector<std::string> args, const std::string& log, std::vector<std::string> variables = {}) {
    std::vector<char*> environment;
    for (std::string& variable : variables) environment.push_back(variable.data());
    for (char** entry = environ; *entry != nullptr; ++entry) environment.push_back(*entry);
    environment.push_back(nullptr);
    args.insert(args.begin(), BEARING_COORDINATOR_BINARY);
    std::vector<char*> raw;
    for (std::string& arg : args) raw.push_back(arg.data());
    raw.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 1, log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
    posix_spawn_file_actions_adddup2(&actions, 1, 2);
    EXPECT_EQ(posix_spawn(&pid_, raw[0], &actions, nullptr, raw.data(), environment.data()), 0);
    posix_spawn_file_actions_destroy(&actions);
  }
  ~Process() {
    if (pid_ > 0) End(SIGKILL);
  }
  // The status of waitpid.
  int End(int signal) {
    kill(pid_, signal);
    return Wait();
  }
  int Wait() {
    int status = 0;
    EXPECT_EQ(waitpid(pid_, &status, 0), pid_);
    pid_ = -1;
    return status;
  }

  // Has it ended by itself? The status of waitpid then.
  bool Ended(int* status) {
    if (pid_ > 0 && waitpid(pid_, status, WNOHANG) != pid_) return false;
    pid_ = -1;
    return true;
  }
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = -1;
};

inline std::string ReadAll(const std::string& path) {
  std::ifstream in(path);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

// Waits until the program has written the file of its ports; false when it ended or took too long.
inline bool WaitForPorts(Process* process, const std::string& path) {
  int status = 0;
  for (int i = 0; i < 30000 && !std::filesystem::exists(path); ++i) {
    if (process->Ended(&status)) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return std::filesystem::exists(path);
}

}  // namespace bearing::coordinator

#endif  // BEARING_TESTS_COORDINATOR_COORDINATOR_PROCESS_H_
