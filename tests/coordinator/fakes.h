// What the coordinator's tests pass in: a clock that stands until it is moved, a checker without files, a folder that goes
// away.
#ifndef BEARING_TESTS_COORDINATOR_FAKES_H_
#define BEARING_TESTS_COORDINATOR_FAKES_H_

#include <spdlog/logger.h>
#include <spdlog/sinks/null_sink.h>
#include <stdlib.h>

#include <atomic>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>

#include "bearing/v1/job.pb.h"
#include "coordinator/clock.h"
#include "coordinator/job_checker.h"

namespace bearing::coordinator {

class FakeClock final : public Clock {
 public:
  SteadyTime SteadyNow() const override { return SteadyTime(std::chrono::hours(1)) + Moved(); }
  std::chrono::system_clock::time_point WallNow() const override {
    return std::chrono::system_clock::time_point(std::chrono::seconds(1'700'000'000)) + Moved();
  }
  void Advance(std::chrono::milliseconds by) { moved_ms_ += by.count(); }

 private:
  std::chrono::milliseconds Moved() const { return std::chrono::milliseconds(moved_ms_.load()); }
  std::atomic<int64_t> moved_ms_{0};
};

// Accepts every spec whose model path does not say otherwise:
//   "" -> InvalidArgument "model.path: ..."; "/broken" -> FailedPrecondition; "/huge" -> 100 GB a rank; "/odd" -> cannot be
//   cut.
class FakeChecker final : public JobChecker {
 public:
  absl::Status Check(bearing::v1::JobSpec* spec, absl::FunctionRef<absl::Status()> proceed) const override {
    if (spec->model().path().empty()) return absl::InvalidArgumentError("model.path: must be set");
    if (spec->model().path() == "/broken") return absl::FailedPreconditionError("model.path: missing tensor: name=a");
    if (spec->model().dtype().empty()) spec->mutable_model()->set_dtype("float32");
    return proceed();
  }
  absl::StatusOr<ModelPlan> Plan(const bearing::v1::JobSpec& spec, int ranks) const override {
    ++plans;
    if (spec.model().path() == "/odd") return absl::FailedPreconditionError("ranks: a rank would hold no query head");
    ModelPlan plan;
    const int64_t bytes = spec.model().path() == "/huge" ? 100'000'000'000 : 1000;
    for (int rank = 0; rank < ranks; ++rank) {
      plan.plan.add_ranks()->set_weight_bytes(bytes / 2);
      plan.compute_bytes.push_back(bytes);
    }
    return plan;
  }
  mutable std::atomic<int> plans{0};
};

class TempDir {
 public:
  TempDir() {
    std::string pattern = (std::filesystem::temp_directory_path() / "bearing-coordinator-XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

inline spdlog::logger NullLogger() { return spdlog::logger("test", std::make_shared<spdlog::sinks::null_sink_mt>()); }

// 1, 2, 3, ...
inline RandomSource Counting() {
  return [next = std::make_shared<std::atomic<uint32_t>>(0)] { return ++*next; };
}

inline bearing::v1::JobSpec SpecNamed(const std::string& name, int ranks = 0, const std::string& model = "/model") {
  bearing::v1::JobSpec spec;
  spec.set_name(name);
  spec.set_ranks(ranks);
  spec.mutable_model()->set_path(model);
  return spec;
}

}  // namespace bearing::coordinator

#endif  // BEARING_TESTS_COORDINATOR_FAKES_H_
