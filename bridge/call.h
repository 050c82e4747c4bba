// How C++ calls the entries of the Rust library: texts in and out, codes as Status. For the wrappers in this folder.
//
// Thread-safe.
#ifndef BEARING_BRIDGE_CALL_H_
#define BEARING_BRIDGE_CALL_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bridge/include/bearing_bridge.h"

namespace bearing::bridge {

inline bearing_text View(std::string_view text) { return {text.data(), text.size()}; }

// Copies and frees.
std::string Take(bearing_owned_text text);

// Ok for BEARING_OK; otherwise takes `error` as the message.
absl::Status ToStatus(int32_t code, bearing_owned_text error);

// Calls an entry that ends in (..., error).
template <typename Entry, typename... Args>
absl::Status Call(Entry entry, Args... args) {
  bearing_owned_text error{};
  const int32_t code = entry(args..., &error);
  return ToStatus(code, error);
}

// Calls an entry that ends in (..., out, error).
template <typename Out, typename Entry, typename... Args>
absl::StatusOr<Out> CallFor(Entry entry, Args... args) {
  Out out{};
  absl::Status status = Call(entry, args..., &out);
  if (!status.ok()) return status;
  return out;
}

}  // namespace bearing::bridge

#endif  // BEARING_BRIDGE_CALL_H_
