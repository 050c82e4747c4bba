// `bearing logs`: what a job's workers and the coordinator said about it.
#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <chrono>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "cli/command.h"
#include "cli/completion.h"
#include "cli/exit_code.h"
#include "cli/jobs_client.h"

namespace bearing::cli {
namespace {

constexpr std::chrono::seconds kLogRetryPause(1);
// Streams that end at once, one after the other, before it is given up.
constexpr int kMostLogRetries = 30;

struct LogsOptions {
  std::string name;
  bool follow = false;
  int tail = 0;
  std::optional<int> rank;
};

std::string LineText(const bearing::v1::LogLine& line) {
  const absl::Time time = absl::FromUnixSeconds(line.time().seconds()) + absl::Nanoseconds(line.time().nanos());
  const std::string who = line.rank() < 0 ? "coordinator" : absl::StrCat("rank ", line.rank());
  return absl::StrCat(absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", time, absl::UTCTimeZone()), " attempt ", line.attempt(), " ",
                      who, " ", line.level(), " ", line.text(), "\n");
}

// One line of JSON a line.
std::string LineJson(const bearing::v1::LogLine& line) {
  std::string text;
  google::protobuf::util::JsonPrintOptions options;
  options.always_print_primitive_fields = true;
  return google::protobuf::util::MessageToJsonString(line, &text, options).ok() ? text + "\n" : "";
}

int Logs(const LogsOptions& options, const Globals& globals) {
  JobsClient client(globals.server, globals.security);
  bearing::v1::StreamJobLogsRequest request;
  request.set_name(options.name);
  request.set_follow(options.follow);
  request.set_tail(options.tail);
  const OutputFormat format = ParseOutputFormat(globals.output);
  for (int retries = 0;; ++retries) {
    grpc::ClientContext context;
    const auto reader = client.Logs(&context, request);
    if (!reader.ok()) return Fail(reader.status());
    bearing::v1::StreamJobLogsResponse response;
    while ((*reader)->Read(&response)) {
      retries = 0;
      for (const bearing::v1::LogLine& line : response.lines()) {
        request.set_after_number(std::max(request.after_number(), line.number()));
        if (options.rank.has_value() && line.rank() != *options.rank) continue;
        // As YAML, an item of one list a line: JSON is YAML too.
        if (format == OutputFormat::kYaml) std::cout << "- ";
        std::cout << (format == OutputFormat::kJson || format == OutputFormat::kYaml ? LineJson(line) : LineText(line));
      }
      std::cout.flush();
    }
    const absl::Status status = FromGrpc((*reader)->Finish(), client.server());
    // A server that restarts is asked again, for what comes after the last line.
    const bool again = options.follow && absl::IsUnavailable(status) && request.after_number() > 0 && retries < kMostLogRetries;
    if (!again) return status.ok() ? kExitOk : Fail(status);
    request.set_tail(0);
    std::this_thread::sleep_for(kLogRetryPause);
  }
}

}  // namespace

void AddLogsCommand(CommandLine& line) {
  auto options = std::make_shared<LogsOptions>();
  CLI::App* command = line.app.add_subcommand("logs", "Show the log of a job");
  command->add_option("NAME", options->name, "Name of the job")->type_name(kJobType)->required();
  command->add_flag("-f,--follow", options->follow, "Stay until the job has ended");
  command->add_option("--tail", options->tail, "Only the last so many lines")->check(CLI::Range(1, 1000));
  command->add_option("--rank", options->rank, "Only lines of this rank; -1 = the coordinator")
      ->check(CLI::Range(-1, 1'000'000));
  command->footer(
      "Lines of the workers and of the coordinator, oldest first; a job keeps its last 1000. With -o json one JSON object a "
      "line, with -o yaml one item.\n\n"
      "Example:\n  bearing logs refusal-3f9a1c --tail 20\n  bearing logs -f refusal-3f9a1c --rank 0");
  command->callback([&line, options] { line.action = [&line, options] { return Logs(*options, line.globals); }; });
}

}  // namespace bearing::cli
