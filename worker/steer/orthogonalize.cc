#include "worker/steer/orthogonalize.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "sharding/concat.h"
#include "sharding/status_macros.h"
#include "worker/model/weight_loader.h"

namespace bearing::steer {
namespace {

using sharding::ParamEntry;

// Rows of a block when the edit acts on each row for itself (embeddings): keeps memory small for large vocabularies.
constexpr int64_t kBlockElements = int64_t{1} << 24;

std::vector<const ParamEntry*> Writers(const sharding::CheckpointReader& reader) {
  std::vector<const ParamEntry*> writers;
  for (const ParamEntry& entry : reader.layout().entries()) {
    if (entry.writes_residual) writers.push_back(&entry);
  }
  return writers;
}

// A piece of work: rows [begin, end) of a tensor.
struct Piece {
  const ParamEntry* entry;
  int64_t begin, end;
};

// The pieces of a rank: largest first, each to the rank with least so far. Tensors whose rows are independent are cut in
// blocks.
std::vector<Piece> PiecesOf(const std::vector<const ParamEntry*>& writers, int rank, int ranks) {
  std::vector<Piece> pieces;
  for (const ParamEntry* entry : writers) {
    const bool rows_independent = entry->shape.size() == 2 && entry->residual_axis == 1;
    const int64_t rows = entry->shape.size() == 2 ? entry->shape[0] : 1;
    const int64_t block = rows_independent ? std::max<int64_t>(1, kBlockElements / entry->shape[1]) : rows;
    for (int64_t begin = 0; begin < rows; begin += block) pieces.push_back({entry, begin, std::min(rows, begin + block)});
  }
  const auto size = [](const Piece& p) {
    return p.entry->shape.size() == 2 ? (p.end - p.begin) * p.entry->shape[1] : p.entry->shape[0];
  };
  std::stable_sort(pieces.begin(), pieces.end(), [&](const Piece& a, const Piece& b) { return size(a) > size(b); });
  std::vector<int64_t> load(ranks, 0);
  std::vector<Piece> mine;
  for (const Piece& piece : pieces) {
    const auto least = std::min_element(load.begin(), load.end());
    *least += size(piece);
    if (least - load.begin() == rank) mine.push_back(piece);
  }
  return mine;
}

absl::StatusOr<at::Tensor> ReadPiece(const sharding::CheckpointReader& reader, const Piece& piece) {
  BEARING_ASSIGN_OR_RETURN(const auto location, reader.Find(piece.entry->name));
  BEARING_ASSIGN_OR_RETURN(const at::ScalarType type, model::ToScalarType(reader.entry(location).dtype));
  std::vector<int64_t> shape = piece.entry->shape;
  const bool matrix = shape.size() == 2;
  if (matrix) shape[0] = piece.end - piece.begin;
  at::Tensor tensor = at::empty(shape, type);
  const absl::Span<char> bytes(static_cast<char*>(tensor.data_ptr()), tensor.nbytes());
  if (matrix) {
    BEARING_RETURN_IF_ERROR(reader.ReadSlice(piece.entry->name, 0, {piece.begin, piece.end}, bytes));
  } else {
    BEARING_RETURN_IF_ERROR(reader.Read(piece.entry->name, bytes));
  }
  return tensor;
}

// What the tensor's output must be orthogonal to for the residual stream to lose r: behind a norm with gain g the write is
// g * (W t) / rms, so that it is g * r.
absl::StatusOr<at::Tensor> DirectionBefore(const sharding::CheckpointReader& reader, const ParamEntry& entry,
                                           const at::Tensor& direction) {
  if (!entry.norm_behind.has_value()) return direction;
  const ParamEntry* norm = reader.layout().Find(*entry.norm_behind, entry.layer);
  BEARING_ASSIGN_OR_RETURN(const at::Tensor weight, ReadPiece(reader, {norm, 0, 1}));
  at::Tensor gain = weight.to(at::kDouble);
  if (reader.config().norm.unit_offset) gain = gain + 1.0;
  const at::Tensor before = gain * direction.to(at::kDouble);
  const double length = at::norm(before).item<double>();
  if (!(length > 0)) {
    return absl::FailedPreconditionError(
        Concat("the norm behind a tensor removes the direction already: tensor=", entry.name, " norm=", norm->name));
  }
  return before / length;
}

}  // namespace

at::Tensor Orthogonalized(const at::Tensor& weight, const at::Tensor& direction, int axis) {
  const at::Tensor w = weight.to(at::kDouble);
  at::Tensor r = direction.to(at::kDouble);
  r = r / at::norm(r);
  if (w.dim() == 1) return (w - r * at::dot(r, w)).to(weight.scalar_type());
  if (axis == 0) return (w - at::outer(r, at::mv(w.t(), r))).to(weight.scalar_type());
  return (w - at::outer(at::mv(w, r), r)).to(weight.scalar_type());
}

std::vector<std::string> EditedTensors(const sharding::CheckpointReader& reader) {
  std::vector<std::string> names;
  for (const ParamEntry* entry : Writers(reader)) names.push_back(entry->name);
  return names;
}

absl::Status EditTensors(const sharding::CheckpointReader& reader, sharding::CheckpointWriter& writer,
                         const at::Tensor& direction, int rank, int ranks,
                         const std::function<absl::Status(int64_t, int64_t)>& progress) {
  const std::vector<Piece> pieces = PiecesOf(Writers(reader), rank, ranks);
  for (size_t i = 0; i < pieces.size(); ++i) {
    BEARING_ASSIGN_OR_RETURN(const at::Tensor weight, ReadPiece(reader, pieces[i]));
    BEARING_ASSIGN_OR_RETURN(const at::Tensor before, DirectionBefore(reader, *pieces[i].entry, direction));
    const at::Tensor edited = Orthogonalized(weight, before, pieces[i].entry->residual_axis).contiguous();
    BEARING_RETURN_IF_ERROR(
        writer.WriteRows(pieces[i].entry->name, pieces[i].begin,
                         absl::MakeConstSpan(static_cast<const char*>(edited.const_data_ptr()), edited.nbytes())));
    BEARING_RETURN_IF_ERROR(progress(static_cast<int64_t>(i) + 1, static_cast<int64_t>(pieces.size())));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Residue>> MeasureResidue(const sharding::CheckpointReader& edited, const at::Tensor& direction,
                                                    int rank, int ranks) {
  std::vector<Residue> residues;
  const std::vector<const ParamEntry*> writers = Writers(edited);
  for (size_t i = rank; i < writers.size(); i += ranks) {
    const ParamEntry& entry = *writers[i];
    BEARING_ASSIGN_OR_RETURN(at::Tensor r, DirectionBefore(edited, entry, direction.to(at::kDouble)));
    r = r / at::norm(r);
    double along = 0;
    double all = 0;
    bool finite = true;
    const bool rows_independent = entry.shape.size() == 2 && entry.residual_axis == 1;
    const int64_t rows = entry.shape.size() == 2 ? entry.shape[0] : 1;
    const int64_t block = rows_independent ? std::max<int64_t>(1, kBlockElements / entry.shape[1]) : rows;
    for (int64_t begin = 0; begin < rows; begin += block) {
      BEARING_ASSIGN_OR_RETURN(const at::Tensor stored, ReadPiece(edited, {&entry, begin, std::min(rows, begin + block)}));
      const at::Tensor w = stored.to(at::kDouble);
      finite = finite && at::isfinite(w).all().item<bool>();
      const at::Tensor dots = w.dim() == 1 ? at::dot(r, w) : entry.residual_axis == 0 ? at::mv(w.t(), r) : at::mv(w, r);
      along += at::sum(dots * dots).item<double>();
      all += at::sum(w * w).item<double>();
    }
    residues.push_back({entry.name, all > 0 ? std::sqrt(along / all) : 0.0, finite});
  }
  return residues;
}

}  // namespace bearing::steer
