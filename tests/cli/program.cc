#include "tests/cli/program.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <string>
#include <thread>

#include "tests/sharding/temp_folder.h"

namespace bearing::testing {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kPoll = std::chrono::milliseconds(20);

std::string NextName() {
  static std::atomic<int> count{0};
  return "program-" + std::to_string(getpid()) + "-" + std::to_string(++count);
}

}  // namespace

Program::Program(const std::vector<std::string>& arguments, const Environment& environment, const std::string& folder,
                 const std::string& input) {
  const std::string name = NextName();
  base_ = folder + "/" + name;
  mark_ = "BEARING_TEST_MARK=" + name + ";";
  std::vector<std::string> variables = {mark_};
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text(*entry);
    // Settings of whoever runs the tests must not decide them.
    const bool ours = text.starts_with("BEARING_") || text.starts_with("OMP_") || text.starts_with("OMPI_");
    const std::string key = text.substr(0, text.find('='));
    if (!ours && key != "XDG_CONFIG_HOME" && !environment.contains(key)) variables.push_back(text);
  }
  for (const auto& [key, value] : environment) variables.push_back(key + "=" + value);
  // Nor their contexts.
  if (!environment.contains("XDG_CONFIG_HOME")) variables.push_back("XDG_CONFIG_HOME=" + folder + "/no-config");
  std::vector<std::string> copy = arguments;
  const auto pointers = [](std::vector<std::string>& strings) {
    std::vector<char*> all;
    for (std::string& text : strings) all.push_back(text.data());
    all.push_back(nullptr);
    return all;
  };
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, 0, input.empty() ? "/dev/null" : input.c_str(), O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&files, 1, (base_ + ".out").c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  posix_spawn_file_actions_addopen(&files, 2, (base_ + ".err").c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  EXPECT_EQ(posix_spawn(&pid_, copy[0].c_str(), &files, nullptr, pointers(copy).data(), pointers(variables).data()), 0)
      << copy[0];
  posix_spawn_file_actions_destroy(&files);
}

Program::~Program() {
  if (pid_ <= 0) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

void Program::Signal(int signal) const { kill(pid_, signal); }

int Program::Wait(std::chrono::seconds timeout) {
  const auto deadline = Clock::now() + timeout;
  int status = 0;
  while (waitpid(pid_, &status, WNOHANG) == 0) {
    if (Clock::now() > deadline) {
      ADD_FAILURE() << "did not end in time; standard error: " << Errors();
      return -1;
    }
    std::this_thread::sleep_for(kPoll);
  }
  pid_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

std::string Program::Output() const { return ReadText(base_ + ".out"); }

std::string Program::Errors() const { return ReadText(base_ + ".err"); }

bool Program::WaitForError(const std::string& text, std::chrono::seconds timeout) const {
  const auto deadline = Clock::now() + timeout;
  while (Errors().find(text) == std::string::npos) {
    if (Clock::now() > deadline) return false;
    std::this_thread::sleep_for(kPoll);
  }
  return true;
}

std::vector<std::string> Program::Living() const {
  std::vector<std::string> living;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", error)) {
    const std::string folder = entry.path().string();
    if (!isdigit(static_cast<unsigned char>(entry.path().filename().string()[0]))) continue;
    if (ReadText(folder + "/environ").find(mark_) == std::string::npos) continue;
    std::string line = ReadText(folder + "/cmdline");
    std::replace(line.begin(), line.end(), '\0', ' ');
    living.push_back(line);
  }
  return living;
}

std::vector<std::string> Program::LivingAfter(std::chrono::seconds timeout) const {
  const auto deadline = Clock::now() + timeout;
  std::vector<std::string> living = Living();
  while (!living.empty() && Clock::now() < deadline) {
    std::this_thread::sleep_for(kPoll);
    living = Living();
  }
  return living;
}

}  // namespace bearing::testing
