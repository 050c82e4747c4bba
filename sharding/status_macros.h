// Early return on a bad Status. The pinned abseil (20220623) has none of its own.
#ifndef BEARING_SHARDING_STATUS_MACROS_H_
#define BEARING_SHARDING_STATUS_MACROS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define BEARING_RETURN_IF_ERROR(expr)                                                      \
  do {                                                                                     \
    if (absl::Status bearing_status = (expr); !bearing_status.ok()) return bearing_status; \
  } while (false)

#define BEARING_CONCAT_INNER(a, b) a##b
#define BEARING_CONCAT(a, b) BEARING_CONCAT_INNER(a, b)

// BEARING_ASSIGN_OR_RETURN(auto x, F());
#define BEARING_ASSIGN_OR_RETURN(lhs, expr) \
  BEARING_ASSIGN_OR_RETURN_IMPL(BEARING_CONCAT(bearing_statusor_, __LINE__), lhs, expr)
#define BEARING_ASSIGN_OR_RETURN_IMPL(statusor, lhs, expr) \
  auto statusor = (expr);                                  \
  if (!statusor.ok()) return statusor.status();            \
  lhs = std::move(statusor).value()

#endif  // BEARING_SHARDING_STATUS_MACROS_H_
