#include "cli/signals.h"

#include <pthread.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace bearing::cli {

absl::StatusOr<SignalFile> SignalFile::Open() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&signals, signal);
  if (const int error = pthread_sigmask(SIG_BLOCK, &signals, nullptr); error != 0) {
    return absl::ErrnoToStatus(error, "cannot block signals");
  }
  const int descriptor = signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
  if (descriptor < 0) return absl::ErrnoToStatus(errno, "cannot open a signal descriptor");
  return SignalFile(descriptor);
}

SignalFile::SignalFile(SignalFile&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}

SignalFile::~SignalFile() {
  if (descriptor_ >= 0) close(descriptor_);
}

bool SignalFile::Take() {
  signalfd_siginfo info;
  return read(descriptor_, &info, sizeof(info)) == static_cast<ssize_t>(sizeof(info));
}

}  // namespace bearing::cli
