// `bearing doctor`: can this machine run jobs, and if not, what is to be done?
#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/doctor/finding.h"
#include "cli/doctor/group_checks.h"
#include "cli/doctor/machine_checks.h"
#include "cli/doctor/network_checks.h"
#include "cli/exit_code.h"

namespace bearing::cli {
namespace {

constexpr int64_t kEnoughDisk = int64_t{20} << 30;

struct DoctorOptions {
  GroupOptions group;
  std::vector<std::string> storage;
  bool write = false;
  std::string out;
  std::vector<std::string> listen;
  std::string clock;
};

std::vector<Finding> Examine(const DoctorOptions& options, const Globals& globals) {
  std::vector<Finding> findings;
  findings.push_back(CheckProgram("bearing-coordinator", "BEARING_COORDINATOR"));
  findings.push_back(CheckProgram("bearing-worker", "BEARING_WORKER"));
  for (Finding& finding : CheckGroup(options.group)) findings.push_back(std::move(finding));
  findings.push_back(CheckDriver(options.group.device == "cuda"));
  findings.push_back(CheckSharedMemory("/dev/shm", options.group.ranks));
  const std::string scratch = ScratchFolder();
  findings.push_back(CheckDisk("scratch", scratch, kEnoughDisk));
  if (!options.out.empty()) findings.push_back(CheckDisk("output", options.out, kEnoughDisk));
  findings.push_back(CheckDirectIo(options.out.empty() ? scratch : options.out));
  for (const std::string& address : options.listen) findings.push_back(CheckPort(address));
  if (globals.server_given) findings.push_back(CheckServer(globals.server));
  for (const std::string& address : options.storage) findings.push_back(CheckStorage(address, options.write));
  findings.push_back(CheckClockService());
  std::string clock = options.clock;
  for (size_t i = 0; clock.empty() && i < options.storage.size(); ++i) clock = ClockOfStorage(options.storage[i]);
  if (!clock.empty()) findings.push_back(CheckClock(clock));
  return findings;
}

int Doctor(const DoctorOptions& options, const Globals& globals) {
  const std::vector<Finding> findings = Examine(options, globals);
  switch (ParseOutputFormat(globals.output)) {
    case OutputFormat::kJson:
      std::cout << FindingsJson(findings).dump(1) << '\n';
      break;
    case OutputFormat::kYaml:
      std::cout << JsonToYaml(FindingsJson(findings));
      break;
    case OutputFormat::kName:
      for (const Finding& finding : findings) {
        if (finding.result == Finding::Result::kBroken) std::cout << finding.check << '\n';
      }
      break;
    default:
      std::cout << FormatFindings(findings);
  }
  return AnyBroken(findings) ? kExitFailed : kExitOk;
}

}  // namespace

void AddDoctorCommand(CommandLine& line) {
  auto options = std::make_shared<DoctorOptions>();
  CLI::App* command = line.app.add_subcommand("doctor", "Check whether this machine can run jobs, and say what to mend");
  command->add_option("--ranks", options->group.ranks, "Ranks to start as a trial")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  command->add_option("--device", options->group.device, "Where they compute; cuda makes a missing GPU a failure")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  command->add_option("--storage", options->storage, "Path or bucket to reach, with the standard credentials (repeatable)")
      ->allow_extra_args(false);
  command->add_flag("--write", options->write, "Also write, read and delete a small object there");
  command->add_option("--out", options->out, "Folder for outputs: is there room?");
  command->add_option("--listen", options->listen, "HOST:PORT that a server is to listen on: is it free? (repeatable)")
      ->allow_extra_args(false);
  command->add_option("--clock", options->clock, "Web server to compare the clock with (default: that of --storage)");
  command->footer(
      "Looks at the programs, starts ranks with mpirun (they add up numbers in memory and on their GPUs), and looks at GPU "
      "driver,\n"
      "shared memory, disk, direct I/O and clock; ports, storage and a server where they are named. Prints no secrets. Exit "
      "code 1\n"
      "if something is broken that jobs need; warnings do not count.\n\n"
      "Example:\n  bearing doctor\n"
      "  bearing doctor --ranks 8 --device cuda --storage s3://bucket/bearing --write --listen 0.0.0.0:7070 -o json");
  command->callback([&line, options] { line.action = [&line, options] { return Doctor(*options, line.globals); }; });
}

}  // namespace bearing::cli
