#include "worker/comm/mpi_process.h"

#include <c10/core/ScalarType.h>
#include <c10/util/BFloat16.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "sharding/status_macros.h"

namespace bearing::comm {
namespace {

void SumBFloat16(void* in, void* inout, int* count, MPI_Datatype*) {
  const auto* a = static_cast<const c10::BFloat16*>(in);
  auto* b = static_cast<c10::BFloat16*>(inout);
  for (int i = 0; i < *count; ++i) b[i] = static_cast<float>(a[i]) + static_cast<float>(b[i]);
}

// Unlike MPI_MAX, whose result for a NaN depends on which operand it is: ranks would get different numbers, and a NaN be lost.
template <typename T>
void Max(void* in, void* inout, int* count, MPI_Datatype*) {
  const auto* a = static_cast<const T*>(in);
  auto* b = static_cast<T*>(inout);
  for (int i = 0; i < *count; ++i) {
    if (a[i] > b[i] || std::isnan(a[i])) b[i] = a[i];
  }
}

std::string Words(int code) {
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(code, text, &length);
  return std::string(text, length);
}

}  // namespace

absl::StatusOr<std::shared_ptr<MpiProcess>> MpiProcess::Start(absl::Duration timeout) {
  int provided = 0;
  const int code = MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &provided);
  if (code != MPI_SUCCESS) return absl::UnavailableError(absl::StrCat("MPI_Init_thread: ", Words(code)));
  if (provided < MPI_THREAD_MULTIPLE) return absl::FailedPreconditionError("this MPI does not support MPI_THREAD_MULTIPLE");
  int rank = 0;
  int size = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  return std::shared_ptr<MpiProcess>(new MpiProcess(rank, size, timeout));
}

MpiProcess::MpiProcess(int rank, int size, absl::Duration timeout)
    : rank_(rank), size_(size), watchdog_(rank, timeout, [this](const std::string& what) { End(what, kExitTimedOut); }) {
  MPI_Type_contiguous(sizeof(c10::BFloat16), MPI_BYTE, &bfloat16_);
  MPI_Type_commit(&bfloat16_);
  MPI_Op_create(&SumBFloat16, /*commute=*/1, &sum_bfloat16_);
  MPI_Op_create(&Max<c10::BFloat16>, /*commute=*/1, &max_bfloat16_);
  MPI_Op_create(&Max<float>, /*commute=*/1, &max_float_);
  MPI_Op_create(&Max<double>, /*commute=*/1, &max_double_);
}

MpiProcess::~MpiProcess() {
  for (MPI_Op* op : {&sum_bfloat16_, &max_bfloat16_, &max_float_, &max_double_}) MPI_Op_free(op);
  MPI_Type_free(&bfloat16_);
  Watched watched(watchdog_, {.name = "MPI_Finalize"});  // Waits for ranks that have not come to their end.
  MPI_Finalize();
}

absl::StatusOr<MpiProcess::Reduction> MpiProcess::ReductionOf(at::ScalarType type, ReduceOp op) const {
  const bool sum = op == ReduceOp::kSum;
  switch (type) {
    case at::kFloat:
      return Reduction{MPI_FLOAT, sum ? MPI_SUM : max_float_};
    case at::kDouble:
      return Reduction{MPI_DOUBLE, sum ? MPI_SUM : max_double_};
    case at::kLong:
      return Reduction{MPI_INT64_T, sum ? MPI_SUM : MPI_MAX};
    case at::kBFloat16:
      return Reduction{bfloat16_, sum ? sum_bfloat16_ : max_bfloat16_};
    default:
      return absl::InternalError(absl::StrCat("no MPI type for ", c10::toString(type)));
  }
}

absl::Status MpiProcess::Check(int code, const Operation& operation) const {
  if (code == MPI_SUCCESS) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat(watchdog_.Describe(operation), ": ", Words(code)));
}

void MpiProcess::End(const std::string& message, int exit_code) const {
  std::fprintf(stderr, "bearing-worker: %s; ending the group\n", message.c_str());
  std::fflush(stderr);
  MPI_Abort(MPI_COMM_WORLD, exit_code);
  std::_Exit(exit_code);
}

}  // namespace bearing::comm
