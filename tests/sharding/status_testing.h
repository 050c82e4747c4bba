// Assertions on absl::Status (the pinned abseil has no matchers of its own).
#ifndef BEARING_TESTS_SHARDING_STATUS_TESTING_H_
#define BEARING_TESTS_SHARDING_STATUS_TESTING_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bearing::testing {

inline const absl::Status& StatusOf(const absl::Status& status) { return status; }

template <typename T>
const absl::Status& StatusOf(const absl::StatusOr<T>& result) {
  return result.status();
}

// The status has this code and its message contains all of `parts`.
template <typename Result, typename... Parts>
::testing::AssertionResult Fails(const Result& result, absl::StatusCode code, const Parts&... parts) {
  const absl::Status& status = StatusOf(result);
  const std::string text(status.ToString());
  if (status.code() != code)
    return ::testing::AssertionFailure() << "want " << absl::StatusCodeToString(code) << ", got " << text;
  for (const std::string& part : std::vector<std::string>{std::string(parts)...}) {
    if (text.find(part) == std::string::npos) return ::testing::AssertionFailure() << "no \"" << part << "\" in: " << text;
  }
  return ::testing::AssertionSuccess();
}

template <typename Result>
::testing::AssertionResult Succeeds(const Result& result) {
  if (StatusOf(result).ok()) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << StatusOf(result).ToString();
}

}  // namespace bearing::testing

#endif  // BEARING_TESTS_SHARDING_STATUS_TESTING_H_
