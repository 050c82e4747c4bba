// Counters and gauges in the text format of Prometheus.
//
// Names start with bearing_coordinator_; labels hold only words from fixed lists, so neither their number nor anything a client
// sends grows them. Thread-safe.
#ifndef BEARING_COORDINATOR_METRICS_H_
#define BEARING_COORDINATOR_METRICS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "bearing/v1/job.pb.h"

namespace bearing::coordinator {

class Metrics {
 public:
  virtual ~Metrics() = default;

  static std::unique_ptr<Metrics> Create(const std::string& version);

  virtual void CountCall(const std::string& method, const absl::Status& status, double seconds) = 0;

  // A job has come into this state; a final one also tells of its stages.
  virtual void CountTransition(const bearing::v1::Job& job) = 0;
  virtual void CountLostGroup() = 0;

  // Work that progress reports tell of: units done (prompts, tokens, ...) since the report before, and in how many seconds.
  virtual void CountProgress(const bearing::v1::Progress& before, const bearing::v1::Progress& now, double seconds) = 0;

  // As things are now; asked for before each page.
  struct Gauges {
    std::map<bearing::v1::JobState, int64_t> jobs;
    int64_t leases = 0;
    int64_t watches = 0;
    double oldest_queued_seconds = 0;
    int64_t store_bytes = 0;
  };
  virtual void Set(const Gauges& gauges) = 0;

  virtual std::string Page() = 0;
};

}  // namespace bearing::coordinator

#endif  // BEARING_COORDINATOR_METRICS_H_
