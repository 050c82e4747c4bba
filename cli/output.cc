#include "cli/output.h"

#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cli/job_names.h"
#include "cli/progress.h"
#include "cli/summary.h"
#include "sharding/status_macros.h"

namespace bearing::cli {
namespace {

using bearing::v1::Job;

size_t CountCharacters(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

// JSON strings are YAML strings, so quoting is always right; plain words stay plain to be read by people.
std::string YamlScalar(const nlohmann::json& value) {
  if (!value.is_string()) return value.dump();
  const std::string& text = value.get_ref<const std::string&>();
  const bool plain = !text.empty() &&
                     ((text[0] >= 'a' && text[0] <= 'z') || (text[0] >= 'A' && text[0] <= 'Z') || text[0] == '/') &&
                     std::all_of(text.begin(), text.end(), [](unsigned char c) {
                       return std::isalnum(c) || std::string_view("/_.-").find(c) != std::string_view::npos;
                     });
  static constexpr const char* kWords[] = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"};
  const bool word = std::any_of(std::begin(kWords), std::end(kWords),
                                [&](const char* reserved) { return absl::EqualsIgnoreCase(text, reserved); });
  return plain && !word ? text : value.dump();
}

void AppendYaml(const nlohmann::json& value, int indent, std::string& out) {
  const std::string space(indent, ' ');
  const auto append_child = [&](const nlohmann::json& child) {
    if (child.is_structured() && !child.empty()) {
      out += '\n';
      AppendYaml(child, indent + 2, out);
    } else {
      absl::StrAppend(&out, " ", YamlScalar(child), "\n");
    }
  };
  if (value.is_object()) {
    for (const auto& [key, child] : value.items()) {
      absl::StrAppend(&out, space, YamlScalar(key), ":");
      append_child(child);
    }
  } else if (value.is_array()) {
    for (const nlohmann::json& child : value) {
      absl::StrAppend(&out, space, "-");
      append_child(child);
    }
  } else {
    absl::StrAppend(&out, space, YamlScalar(value), "\n");
  }
}

absl::Time ToTime(const google::protobuf::Timestamp& time) {
  return absl::FromUnixSeconds(time.seconds()) + absl::Nanoseconds(time.nanos());
}

// "5s", "12m", "3h", "4d".
std::string FormatAge(absl::Duration age) {
  const int64_t seconds = std::max<int64_t>(0, absl::ToInt64Seconds(age));
  if (seconds < 120) return absl::StrCat(seconds, "s");
  if (seconds < 2 * 3600) return absl::StrCat(seconds / 60, "m");
  if (seconds < 48 * 3600) return absl::StrCat(seconds / 3600, "h");
  return absl::StrCat(seconds / 86400, "d");
}

std::string ProgressText(const Job& job) {
  const bearing::v1::Progress& progress = job.progress();
  if (job.state() != bearing::v1::JOB_STATE_RUNNING && job.state() != bearing::v1::JOB_STATE_CANCELLING) return "-";
  if (progress.total() <= 0) return "-";
  return absl::StrFormat("%d/%d %s", progress.done(), progress.total(), progress.unit());
}

std::string Seconds(const Job& job, absl::Time now) {
  if (!job.has_start_time()) return "-";
  const absl::Time end = job.has_end_time() ? ToTime(job.end_time()) : now;
  return FormatClock(absl::ToDoubleSeconds(end - ToTime(job.start_time())));
}

std::string NextCommand(const Job& job) {
  switch (job.state()) {
    case bearing::v1::JOB_STATE_SUCCEEDED:
      return absl::StrCat("bearing fetch ", job.name(), " FOLDER");
    case bearing::v1::JOB_STATE_FAILED:
    case bearing::v1::JOB_STATE_CANCELLED:
      return "bearing submit -f JOB.yaml   (finished stages in the output folder are not done again)";
    default:
      return absl::StrCat("bearing watch ", job.name());
  }
}

}  // namespace

OutputFormat ParseOutputFormat(std::string_view name) {
  if (name == "json") return OutputFormat::kJson;
  if (name == "yaml") return OutputFormat::kYaml;
  if (name == "name") return OutputFormat::kName;
  return OutputFormat::kTable;
}

absl::StatusOr<std::string> ToJsonText(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  options.always_print_primitive_fields = true;
  std::string text;
  const auto status = google::protobuf::util::MessageToJsonString(message, &text, options);
  if (!status.ok()) return absl::InternalError(absl::StrCat("a message cannot be written as JSON: ", status.ToString()));
  if (text.empty() || text.back() != '\n') text += '\n';
  return text;
}

std::string JsonToYaml(const nlohmann::json& value) {
  std::string out;
  AppendYaml(value, 0, out);
  return out;
}

absl::StatusOr<std::string> Encode(const google::protobuf::Message& message, OutputFormat format) {
  BEARING_ASSIGN_OR_RETURN(std::string text, ToJsonText(message));
  if (format != OutputFormat::kYaml) return text;
  return JsonToYaml(nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false));
}

std::string FormatTable(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], CountCharacters(row[i]));
  }
  std::string out;
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) {
      out += row[i];
      if (i + 1 < row.size()) out.append(widths[i] - CountCharacters(row[i]) + 2, ' ');
    }
    out += '\n';
  }
  return out;
}

std::string FormatJobTable(const std::vector<Job>& jobs, absl::Time now) {
  std::vector<std::vector<std::string>> rows = {{"NAME", "STATE", "STAGE", "PROGRESS", "RAN", "AGE"}};
  for (const Job& job : jobs) {
    const std::string stage = StageName(job.progress().stage());
    const std::string age = job.has_create_time() ? FormatAge(now - ToTime(job.create_time())) : "-";
    rows.push_back(
        {job.name(), StateName(job.state()), stage.empty() ? "-" : stage, ProgressText(job), Seconds(job, now), age});
  }
  return FormatTable(rows);
}

std::string FormatJobDetails(const Job& job, absl::Time now) {
  std::vector<std::vector<std::string>> rows = {{"name", job.name()}, {"state", StateName(job.state())}};
  if (job.has_error()) rows.push_back({"error", ErrorText(job)});
  if (const std::string stage = StageName(job.progress().stage()); !stage.empty()) rows.push_back({"stage", stage});
  if (const std::string progress = ProgressText(job); progress != "-") rows.push_back({"progress", progress});
  if (!job.progress().note().empty()) rows.push_back({"note", job.progress().note()});
  rows.push_back({"model", job.spec().model().path()});
  rows.push_back({"output", job.spec().output()});
  rows.push_back({"ranks", job.spec().ranks() == 0 ? "any" : absl::StrCat(job.spec().ranks())});
  if (job.spec().priority() != 0) rows.push_back({"priority", absl::StrCat(job.spec().priority())});
  if (!job.owner().empty()) rows.push_back({"owner", job.owner()});
  if (job.attempt() > 0) rows.push_back({"attempt", absl::StrCat(job.attempt())});
  for (const bearing::v1::LostAttempt& lost : job.lost_attempts()) {
    const std::string stage = StageName(lost.stage());
    rows.push_back({absl::StrCat("lost ", lost.attempt()), absl::StrCat(lost.message(), stage.empty() ? "" : " in ", stage)});
  }
  for (const auto& [key, value] : job.spec().labels()) rows.push_back({"label", absl::StrCat(key, "=", value)});
  if (job.has_create_time()) {
    rows.push_back({"created", absl::FormatTime("%Y-%m-%d %H:%M:%S UTC", ToTime(job.create_time()), absl::UTCTimeZone())});
  }
  rows.push_back({"ran", Seconds(job, now)});
  std::string out = FormatTable(rows);
  if (job.stage_times_size() > 0) out += "\nstages\n";
  for (const bearing::v1::StageTime& time : job.stage_times()) absl::StrAppend(&out, "  ", StageEndLine(time), "\n");
  if (job.state() == bearing::v1::JOB_STATE_SUCCEEDED) absl::StrAppend(&out, "\n", ResultTable(job));
  absl::StrAppend(&out, "\nnext: ", NextCommand(job), "\n");
  return out;
}

absl::Status PrintJob(const Job& job, OutputFormat format, std::string_view table) {
  switch (format) {
    case OutputFormat::kTable:
      std::cout << table;
      break;
    case OutputFormat::kName:
      std::cout << job.name() << '\n';
      break;
    default: {
      BEARING_ASSIGN_OR_RETURN(const std::string text, Encode(job, format));
      std::cout << text;
    }
  }
  std::cout.flush();
  return absl::OkStatus();
}

}  // namespace bearing::cli
