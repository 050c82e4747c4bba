// Job files as `bearing submit` reads them, YAML, JSON or protobuf text, and what follows: defaults, checks of the fields,
// `--set`, the digest.
//
// An input that begins with "--set " is the value of that flag, laid over a job that is valid; the path may be of any field.
// One that begins with "--text " is protobuf text.
#include <google/protobuf/util/json_util.h>
#include <google/protobuf/util/message_differencer.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/strings/match.h"
#include "jobs/job_spec.h"
#include "tests/fuzz/require.h"

namespace {

using bearing::v1::JobSpec;

constexpr std::string_view kSet = "--set ";
constexpr std::string_view kText = "--text ";
constexpr char kBase[] =
    "apiVersion: bearing/v1\nkind: Job\nname: base\nmodel: {path: /m}\nconcept: {name: refusal}\noutput: /out\n"
    "judges:\n- {name: a, kind: substring, markers: [no]}\n";

// What is checked before any file is opened must come to an end with every spec, and name a field in every violation.
void Check(JobSpec spec) {
  bearing::jobs::ApplyDefaults(spec);
  // Defaults are no defaults if they change when they are filled in again.
  JobSpec again = spec;
  bearing::jobs::ApplyDefaults(again);
  BEARING_REQUIRE(google::protobuf::util::MessageDifferencer::Equals(spec, again));
  const auto violations = bearing::jobs::ValidateFields(spec);
  for (const auto& violation : violations) BEARING_REQUIRE(!violation.field.empty() && !violation.message.empty());
  const absl::Status status = bearing::jobs::ToStatus(violations);
  BEARING_REQUIRE(status.ok() == violations.empty());
  BEARING_REQUIRE(bearing::jobs::TensorParallel(spec, 8) >= 0);
  if (!status.ok()) return;
  // A job that is accepted can be printed, and read again as it is.
  std::string json;
  BEARING_REQUIRE(google::protobuf::util::MessageToJsonString(spec, &json).ok());
  json.insert(
      1, json == "{}" ? "\"apiVersion\":\"bearing/v1\",\"kind\":\"Job\"" : "\"apiVersion\":\"bearing/v1\",\"kind\":\"Job\",");
  const auto read = bearing::jobs::ParseJobFile(json, "printed");
  if (!read.ok()) std::fprintf(stderr, "%s\n%s\n", json.c_str(), std::string(read.status().message()).c_str());
  BEARING_REQUIRE(read.ok());
  BEARING_REQUIRE(google::protobuf::util::MessageDifferencer::Equals(spec, *read));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (text.substr(0, kSet.size()) == kSet) {
    static const JobSpec* const base = new JobSpec(*bearing::jobs::ParseJobFile(kBase, "base"));
    JobSpec spec = *base;
    const absl::Status set = bearing::jobs::SetField(spec, text.substr(kSet.size()));
    BEARING_REQUIRE(set.ok() || absl::IsInvalidArgument(set));
    // What was refused changed nothing.
    if (!set.ok()) BEARING_REQUIRE(google::protobuf::util::MessageDifferencer::Equals(spec, *base));
    if (set.ok()) Check(std::move(spec));
    return 0;
  }
  const bool is_text = text.substr(0, kText.size()) == kText;
  const auto spec = is_text ? bearing::jobs::ParseJobFile(text.substr(kText.size()), "the-job.textproto")
                            : bearing::jobs::ParseJobFile(text, "the-job");
  if (!spec.ok()) {
    BEARING_REQUIRE(absl::IsInvalidArgument(spec.status()));
    BEARING_REQUIRE(absl::StrContains(spec.status().message(), "the-job"));
    return 0;
  }
  Check(*spec);
  return 0;
}
