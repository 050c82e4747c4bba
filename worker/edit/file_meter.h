// Measures one file of the copy while its bytes pass by, wherever they come from: what each edited tensor still has along the
// directions, and whether the header is the one that was planned.
//
// Not thread-safe. Sums are taken over blocks of kMeterBlockBytes of the file, however its bytes are cut, so that the same
// bytes give the same figures to the last bit.
#ifndef BEARING_WORKER_EDIT_FILE_METER_H_
#define BEARING_WORKER_EDIT_FILE_METER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/edit/edit_plan.h"

namespace bearing::edit {

inline constexpr int64_t kMeterBlockBytes = 16 << 20;

struct TensorCheck {
  std::string tensor;
  double residue = 0;  // |B^T W'| / |W'| (Frobenius), as stored; behind a norm with gain g, B is that of g * r.
  bool finite = true;
  bool limited = false;  // Nothing should be left but rounding.
  double limit = 0;
};

// All bytes of a tensor of the copy, by its number there.
using ReadTensor = std::function<absl::StatusOr<std::string>(size_t tensor)>;

class FileMeter {
 public:
  // `path` is for messages; `plan` must outlive the meter. `read` is asked for the scales of quantized tensors, which may be in
  // another file.
  FileMeter(const std::string& path, const EditPlan& plan, size_t file, ReadTensor read);
  ~FileMeter();

  // The next bytes of the file. DataLoss naming file and tensor when the header differs, a value is not finite, or more is left
  // than rounding leaves.
  absl::Status Add(absl::Span<const char> bytes);

  // Of the edited tensors, in their order. Once, last.
  absl::StatusOr<std::vector<TensorCheck>> Finish();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace bearing::edit

#endif  // BEARING_WORKER_EDIT_FILE_METER_H_
