// SIGINT, SIGTERM and SIGHUP as something to ask for, so that no handler runs and a waiting loop stays in control.
#ifndef BEARING_CLI_SIGNALS_H_
#define BEARING_CLI_SIGNALS_H_

#include "absl/status/statusor.h"

namespace bearing::cli {

// Open before any other thread starts: threads inherit the blocked mask. One reader at a time.
class SignalFile {
 public:
  static absl::StatusOr<SignalFile> Open();
  SignalFile(SignalFile&& other) noexcept;
  SignalFile(const SignalFile&) = delete;
  SignalFile& operator=(const SignalFile&) = delete;
  ~SignalFile();

  // Has one of the signals come since the last call? Takes one.
  bool Take();

 private:
  explicit SignalFile(int descriptor) : descriptor_(descriptor) {}
  int descriptor_;
};

}  // namespace bearing::cli

#endif  // BEARING_CLI_SIGNALS_H_
