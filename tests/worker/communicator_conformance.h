// What every Communicator must do; run by each rank.
#ifndef BEARING_TESTS_WORKER_COMMUNICATOR_CONFORMANCE_H_
#define BEARING_TESTS_WORKER_COMMUNICATOR_CONFORMANCE_H_

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"
#include "sharding/status_macros.h"
#include "worker/comm/communicator.h"

namespace bearing::testing {

inline absl::Status Check(bool ok, const char* what) { return ok ? absl::OkStatus() : absl::InternalError(what); }

inline absl::Status ExerciseCommunicator(comm::Communicator& comm) {
  const int rank = comm.rank();
  const int size = comm.size();
  const double total = size * (size + 1) / 2.0;
  for (const at::ScalarType type : {at::kFloat, at::kDouble, at::kBFloat16, at::kLong}) {
    at::Tensor sum = at::full({3, 5}, rank + 1, type);
    BEARING_RETURN_IF_ERROR(comm.AllReduce(sum, comm::ReduceOp::kSum));
    BEARING_RETURN_IF_ERROR(Check(sum.to(at::kDouble).eq(total).all().item<bool>(), "AllReduce sum"));
    at::Tensor top = at::full({7}, -rank, type);
    BEARING_RETURN_IF_ERROR(comm.AllReduce(top, comm::ReduceOp::kMax));
    BEARING_RETURN_IF_ERROR(Check(top.to(at::kDouble).eq(0).all().item<bool>(), "AllReduce max"));
  }
  // Uneven parts, one of them empty when there are several ranks.
  const at::Tensor part = at::full({rank == 0 && size > 1 ? 0 : rank + 1, 2}, static_cast<double>(rank), at::kFloat);
  BEARING_ASSIGN_OR_RETURN(const at::Tensor all, comm.AllGather(part));
  int64_t row = 0;
  for (int r = 0; r < size; ++r) {
    for (int64_t i = 0; i < (r == 0 && size > 1 ? 0 : r + 1); ++i, ++row) {
      BEARING_RETURN_IF_ERROR(Check(all[row][1].item<float>() == static_cast<float>(r), "AllGather order"));
    }
  }
  BEARING_RETURN_IF_ERROR(Check(all.size(0) == row, "AllGather size"));

  for (int root = 0; root < size; ++root) {
    at::Tensor tensor = at::full({4}, rank, at::kDouble);
    BEARING_RETURN_IF_ERROR(comm.Broadcast(tensor, root));
    BEARING_RETURN_IF_ERROR(Check(tensor.eq(root).all().item<bool>(), "Broadcast"));
    std::string bytes(rank * 3, static_cast<char>('a' + rank));
    BEARING_RETURN_IF_ERROR(comm.BroadcastBytes(bytes, root));
    BEARING_RETURN_IF_ERROR(Check(bytes == std::string(root * 3, static_cast<char>('a' + root)), "BroadcastBytes"));
    std::string waited = absl::StrCat("from ", rank);
    BEARING_RETURN_IF_ERROR(comm.IdleWait(waited, root));
    BEARING_RETURN_IF_ERROR(Check(waited == absl::StrCat("from ", root), "IdleWait"));
  }
  BEARING_RETURN_IF_ERROR(comm.Barrier());

  BEARING_RETURN_IF_ERROR(Check(comm::AgreeOnStatus(comm, absl::OkStatus()).ok(), "AgreeOnStatus ok"));
  const absl::Status mine = rank == size - 1 ? absl::NotFoundError("shard 7") : absl::OkStatus();
  const absl::Status agreed = comm::AgreeOnStatus(comm, mine);
  return Check(absl::IsNotFound(agreed) && agreed.message() == "shard 7", "AgreeOnStatus error");
}

// Sums whose value depends on the order of additions: every rank gets the same bits, and gets them again.
inline absl::Status ExerciseBits(comm::Communicator& comm) {
  at::Generator random = at::detail::createCPUGenerator(1000 + comm.rank());
  for (const at::ScalarType type : {at::kFloat, at::kDouble, at::kBFloat16}) {
    // Sizes on both sides of where MPI changes its algorithm, some that do not divide by the ranks.
    for (const int64_t size : {1, 7, 1000, 4097, 70001, 600011}) {
      const at::Tensor mine = at::randn({size}, random, at::kDouble).mul_(100).to(type);
      at::Tensor first = mine.clone();
      BEARING_RETURN_IF_ERROR(comm.AllReduce(first, comm::ReduceOp::kSum));
      at::Tensor second = mine.clone();
      BEARING_RETURN_IF_ERROR(comm.AllReduce(second, comm::ReduceOp::kSum));
      at::Tensor of_rank0 = first.clone();
      BEARING_RETURN_IF_ERROR(comm.Broadcast(of_rank0, 0));
      const std::string what = absl::StrCat(c10::toString(type), " size=", size);
      BEARING_RETURN_IF_ERROR(Check(at::equal(first, second), absl::StrCat("AllReduce again: ", what).c_str()));
      BEARING_RETURN_IF_ERROR(Check(at::equal(first, of_rank0), absl::StrCat("AllReduce on all ranks: ", what).c_str()));
    }
    at::Tensor top = at::full({5}, comm.rank() == comm.size() / 2 ? NAN : 1.0, type);
    BEARING_RETURN_IF_ERROR(comm.AllReduce(top, comm::ReduceOp::kMax));
    BEARING_RETURN_IF_ERROR(Check(top.isnan().all().item<bool>(), "AllReduce max keeps NaN"));
  }
  return absl::OkStatus();
}

}  // namespace bearing::testing

#endif  // BEARING_TESTS_WORKER_COMMUNICATOR_CONFORMANCE_H_
