// Text for messages and paths from std::string_view and everything else that absl::StrCat takes: the abseil of the
// distribution has a string_view of its own, which the standard one does not convert to.
//
// Thread-safe.
#ifndef BEARING_SHARDING_CONCAT_H_
#define BEARING_SHARDING_CONCAT_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"

namespace bearing {

inline absl::string_view AsAbsl(std::string_view text) { return absl::string_view(text.data(), text.size()); }

// Concat("file=", path, " size=", 12).
template <typename... Parts>
std::string Concat(const Parts&... parts) {
  const auto as_part = []<typename Part>(const Part& part) -> decltype(auto) {
    if constexpr (std::is_same_v<Part, std::string_view>) {
      return AsAbsl(part);
    } else {
      return (part);
    }
  };
  return absl::StrCat(as_part(parts)...);
}

// `text` with control characters and quotes escaped: for names from files, which may hold anything.
inline std::string Escaped(std::string_view text) { return absl::Utf8SafeCEscape(AsAbsl(text)); }

// "[2, 3]".
inline std::string ShapeText(const std::vector<int64_t>& shape) { return absl::StrCat("[", absl::StrJoin(shape, ", "), "]"); }

}  // namespace bearing

#endif  // BEARING_SHARDING_CONCAT_H_
