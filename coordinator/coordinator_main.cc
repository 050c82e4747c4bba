// bearing-coordinator: serves until SIGTERM or SIGINT, then drains. Exit codes: 0 ended as asked, 1 could not serve, 2 usage.
#include <pthread.h>
#include <spdlog/logger.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <variant>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "coordinator/clock.h"
#include "coordinator/failpoint.h"
#include "coordinator/job_checker.h"
#include "coordinator/log_format.h"
#include "coordinator/program_options.h"
#include "coordinator/server.h"
#include "jobs/artifacts.h"

namespace {

using bearing::coordinator::ProgramExit;
using bearing::coordinator::ProgramOptions;

// Blocks the two signals in this thread and in all it starts, so that only sigwait sees them.
sigset_t BlockEndSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  return signals;
}

// The ports as program_options.h says.
std::string PortLines(const bearing::coordinator::Server& server) {
  std::string lines = absl::StrCat(server.port(), "\n");
  if (server.worker_port() > 0) absl::StrAppend(&lines, "worker ", server.worker_port(), "\n");
  if (server.health_port() > 0) absl::StrAppend(&lines, "health ", server.health_port(), "\n");
  if (server.metrics_port() > 0) absl::StrAppend(&lines, "metrics ", server.metrics_port(), "\n");
  return lines;
}

int Serve(const ProgramOptions& options, spdlog::logger* logger) {
  const sigset_t signals = BlockEndSignals();
  const bearing::coordinator::SystemClock clock;
  const std::unique_ptr<bearing::coordinator::JobChecker> checker = bearing::coordinator::MakeFileJobChecker();
  std::random_device device;
  auto random = [&device]() -> uint32_t { return device(); };
  auto server = bearing::coordinator::Server::Start(options.server, checker.get(), &clock, random, logger);
  if (!server.ok()) {
    logger->error("cannot start: {}", std::string(server.status().message()));
    return 1;
  }
  if (!options.port_file.empty()) {
    const absl::Status written = bearing::jobs::WriteFileAtomically(options.port_file, PortLines(**server));
    if (!written.ok()) {
      logger->error("cannot write the port file: {}", std::string(written.message()));
      return 1;
    }
  }
  logger->info("serving: port={} worker_port={} health_port={} metrics_port={} tls={} tokens={} store={} version={}",
               (*server)->port(), (*server)->worker_port(), (*server)->health_port(), (*server)->metrics_port(),
               options.server.tls.enabled(), !options.server.token_file.empty(), options.server.store_path,
               options.server.jobs.version);
  int received = 0;
  sigwait(&signals, &received);
  logger->info("draining: signal={}", received);
  (*server)->Stop();
  logger->info("stopped");
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  const std::string store = bearing::coordinator::DefaultStorePath(std::getenv("XDG_STATE_HOME"), std::getenv("HOME"));
  auto parsed = bearing::coordinator::ParseProgramOptions(argc, argv, BEARING_VERSION, store);
  if (const auto* exit = std::get_if<ProgramExit>(&parsed)) {
    std::cout << exit->out;
    std::cerr << exit->err;
    return exit->code;
  }
  auto& options = std::get<ProgramOptions>(parsed);
  const char* failpoint = std::getenv("BEARING_FAILPOINT");
  const auto parsed_failpoint = bearing::coordinator::ParseFailpoint(failpoint == nullptr ? "" : failpoint);
  if (!parsed_failpoint.ok()) {
    std::cerr << parsed_failpoint.status().message() << '\n';
    return 2;
  }
  options.server.failpoint = *parsed_failpoint;
  spdlog::logger logger("coordinator", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  logger.set_formatter(bearing::coordinator::MakeLogFormatter(options.log_format));
  logger.flush_on(spdlog::level::info);
  return Serve(options, &logger);
}
