#include <ATen/ATen.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "sharding/status_macros.h"
#include "worker/comm/communicator.h"

namespace bearing::comm {

absl::Status AgreeOnStatus(Communicator& comm, const absl::Status& mine) {
  if (comm.size() == 1) return mine;
  // The first failing rank by number speaks: max over (size - rank) of the ranks that failed.
  at::Tensor worst = at::empty({1}, at::kLong);
  worst.data_ptr<int64_t>()[0] = mine.ok() ? 0 : comm.size() - comm.rank();
  BEARING_RETURN_IF_ERROR(comm.AllReduce(worst, ReduceOp::kMax));
  const int64_t speaker_key = worst.data_ptr<int64_t>()[0];
  if (speaker_key == 0) return absl::OkStatus();
  const int speaker = comm.size() - static_cast<int>(speaker_key);
  std::string text;
  if (comm.rank() == speaker) text = absl::StrCat(std::string(1, static_cast<char>(mine.code())), mine.message());
  BEARING_RETURN_IF_ERROR(comm.BroadcastBytes(text, speaker));
  if (comm.rank() == speaker) return mine;
  return absl::Status(static_cast<absl::StatusCode>(text[0]), text.substr(1));
}

}  // namespace bearing::comm
