#include "coordinator/job_columns.h"

#include "absl/strings/str_cat.h"
#include "sharding/status_macros.h"

namespace bearing::coordinator {

int64_t ToMilliseconds(const google::protobuf::Timestamp& time) { return time.seconds() * 1000 + time.nanos() / 1'000'000; }

void SetMilliseconds(int64_t milliseconds, google::protobuf::Timestamp* time) {
  time->set_seconds(milliseconds / 1000);
  time->set_nanos(static_cast<int32_t>(milliseconds % 1000 * 1'000'000));
}

std::string ModelKey(const bearing::v1::JobSpec& spec) {
  const bearing::v1::Model& model = spec.model();
  return absl::StrCat(model.path(), " dtype=", model.dtype().empty() ? "float32" : model.dtype(),
                      " residency=", model.residency().empty() ? "auto" : model.residency(),
                      " tensor_parallel=", spec.tensor_parallel());
}

absl::Status InsertLabels(Database* database, int64_t job_id, const bearing::v1::JobSpec& spec) {
  if (spec.labels().empty()) return absl::OkStatus();
  BEARING_ASSIGN_OR_RETURN(Statement insert, database->Prepare("INSERT INTO labels (key, value, job_id) VALUES (?, ?, ?)"));
  for (const auto& [key, value] : spec.labels()) {
    insert.Reset();
    insert.BindText(1, key).BindText(2, value).Bind(3, job_id);
    BEARING_RETURN_IF_ERROR(insert.Step().status());
  }
  return absl::OkStatus();
}

}  // namespace bearing::coordinator
