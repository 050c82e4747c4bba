#include "coordinator/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/strip.h"

namespace bearing::coordinator {
namespace {

using prometheus::Histogram;

std::string StateText(bearing::v1::JobState state) {
  return absl::AsciiStrToLower(absl::StripPrefix(bearing::v1::JobState_Name(state), "JOB_STATE_"));
}

std::string StageText(bearing::v1::Stage stage) {
  return bearing::v1::Stage_IsValid(stage) ? absl::AsciiStrToLower(absl::StripPrefix(bearing::v1::Stage_Name(stage), "STAGE_"))
                                           : "other";
}

// What progress counts, from a fixed list: labels must not be what a client chose.
std::string UnitText(const std::string& unit) {
  static const std::set<std::string> known = {"prompts", "candidates", "tokens", "tensors", "bytes"};
  if (known.contains(unit)) return unit;
  return unit.rfind("MiB", 0) == 0 ? "mebibytes" : "other";
}

class PrometheusMetrics final : public Metrics {
 public:
  explicit PrometheusMetrics(const std::string& version)
      : calls_(Counters("bearing_coordinator_calls_total", "Calls by method and code")),
        call_seconds_(prometheus::BuildHistogram()
                          .Name("bearing_coordinator_call_seconds")
                          .Help("Duration of calls by method")
                          .Register(registry_)),
        transitions_(Counters("bearing_coordinator_job_transitions_total", "Jobs that came into a state")),
        lost_(Counters("bearing_coordinator_worker_groups_lost_total", "Leases that ended because the worker group was lost")
                  .Add({})),
        stage_seconds_(Counters("bearing_coordinator_stage_seconds_total", "Time that ended jobs spent in a stage")),
        stage_tokens_(Counters("bearing_coordinator_stage_tokens_total", "Tokens through the model in stages of ended jobs")),
        stage_flops_(Counters("bearing_coordinator_stage_flops_total", "Floating-point operations of their products")),
        utilization_(Gauge("bearing_coordinator_stage_flops_utilization",
                           "Share of what its ranks reach in large products, of the last stage that ended (MFU)")),
        stages_(Counters("bearing_coordinator_stages_total", "Stages of ended jobs, by whether they were resumed")),
        units_(Counters("bearing_coordinator_progress_units_total", "Units of work that workers reported, by stage and unit")),
        rate_(Gauge("bearing_coordinator_progress_units_per_second", "The same as a rate, of the latest report")),
        jobs_(Gauge("bearing_coordinator_jobs", "Jobs in the store by state")),
        leases_(Gauge("bearing_coordinator_leases", "Jobs that worker groups hold").Add({})),
        watches_(Gauge("bearing_coordinator_watches", "Open streams of clients").Add({})),
        oldest_(Gauge("bearing_coordinator_oldest_queued_seconds", "How long the next job has waited").Add({})),
        store_bytes_(Gauge("bearing_coordinator_store_bytes", "Size of the store's files").Add({})) {
    Gauge("bearing_coordinator_build_info", "Always 1; the version as a label").Add({{"version", version}}).Set(1);
  }

  void CountCall(const std::string& method, const absl::Status& status, double seconds) override {
    calls_.Add({{"method", method}, {"code", absl::StatusCodeToString(status.code())}}).Increment();
    call_seconds_.Add({{"method", method}}, Histogram::BucketBoundaries{0.001, 0.005, 0.02, 0.05, 0.1, 0.5, 1, 5, 30})
        .Observe(seconds);
  }

  void CountTransition(const bearing::v1::Job& job) override {
    transitions_.Add({{"state", StateText(job.state())}}).Increment();
    if (!job.has_end_time()) return;
    for (const bearing::v1::StageTime& time : job.stage_times()) {
      const std::string stage = StageText(time.stage());
      stages_.Add({{"stage", stage}, {"resumed", time.resumed() ? "true" : "false"}}).Increment();
      if (time.resumed()) continue;
      const prometheus::Labels labels = {{"stage", stage}};
      stage_seconds_.Add(labels).Increment(std::max(0.0, time.seconds()));
      if (!(time.tokens() > 0)) continue;
      stage_tokens_.Add(labels).Increment(time.tokens());
      stage_flops_.Add(labels).Increment(std::max(0.0, time.flops()));
      utilization_.Add(labels).Set(time.utilization());
    }
  }

  void CountLostGroup() override { lost_.Increment(); }

  void CountProgress(const bearing::v1::Progress& before, const bearing::v1::Progress& now, double seconds) override {
    if (now.stage() != before.stage() || now.unit() != before.unit() || now.done() <= before.done()) return;
    const prometheus::Labels labels = {{"stage", StageText(now.stage())}, {"unit", UnitText(now.unit())}};
    const auto units = static_cast<double>(now.done() - before.done());
    units_.Add(labels).Increment(units);
    if (seconds > 0) rate_.Add(labels).Set(units / seconds);
  }

  void Set(const Gauges& gauges) override {
    for (int state = bearing::v1::JOB_STATE_QUEUED; state <= bearing::v1::JobState_MAX; ++state) {
      const auto found = gauges.jobs.find(static_cast<bearing::v1::JobState>(state));
      jobs_.Add({{"state", StateText(static_cast<bearing::v1::JobState>(state))}})
          .Set(found == gauges.jobs.end() ? 0 : static_cast<double>(found->second));
    }
    leases_.Set(static_cast<double>(gauges.leases));
    watches_.Set(static_cast<double>(gauges.watches));
    oldest_.Set(gauges.oldest_queued_seconds);
    store_bytes_.Set(static_cast<double>(gauges.store_bytes));
  }

  std::string Page() override { return prometheus::TextSerializer().Serialize(registry_.Collect()); }

 private:
  prometheus::Family<prometheus::Counter>& Counters(const char* name, const char* help) {
    return prometheus::BuildCounter().Name(name).Help(help).Register(registry_);
  }
  prometheus::Family<prometheus::Gauge>& Gauge(const char* name, const char* help) {
    return prometheus::BuildGauge().Name(name).Help(help).Register(registry_);
  }

  prometheus::Registry registry_;
  prometheus::Family<prometheus::Counter>& calls_;
  prometheus::Family<Histogram>& call_seconds_;
  prometheus::Family<prometheus::Counter>& transitions_;
  prometheus::Counter& lost_;
  prometheus::Family<prometheus::Counter>& stage_seconds_;
  prometheus::Family<prometheus::Counter>& stage_tokens_;
  prometheus::Family<prometheus::Counter>& stage_flops_;
  prometheus::Family<prometheus::Gauge>& utilization_;
  prometheus::Family<prometheus::Counter>& stages_;
  prometheus::Family<prometheus::Counter>& units_;
  prometheus::Family<prometheus::Gauge>& rate_;
  prometheus::Family<prometheus::Gauge>& jobs_;
  prometheus::Gauge& leases_;
  prometheus::Gauge& watches_;
  prometheus::Gauge& oldest_;
  prometheus::Gauge& store_bytes_;
};

}  // namespace

std::unique_ptr<Metrics> Metrics::Create(const std::string& version) { return std::make_unique<PrometheusMetrics>(version); }

}  // namespace bearing::coordinator
