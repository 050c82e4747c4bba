// What messages about mistyped names are made of.
#ifndef BEARING_JOBS_DID_YOU_MEAN_H_
#define BEARING_JOBS_DID_YOU_MEAN_H_

#include <string>
#include <string_view>
#include <vector>

namespace bearing::jobs {

// The name of `known` that is nearest to `name` in edits (insert, delete, replace, swap of neighbours; case, '_' and '-' do not
// count); empty when none is near enough to be meant.
std::string NearestName(std::string_view name, const std::vector<std::string>& known);

// The text in double quotes, as messages show what was found.
std::string Quoted(std::string_view text);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_DID_YOU_MEAN_H_
