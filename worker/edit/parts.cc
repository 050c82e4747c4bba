#include "worker/edit/parts.h"

#include <algorithm>

#include "worker/edit/tensor_editor.h"

namespace bearing::edit {
namespace {

std::vector<ByteRange> CopyPieces(int64_t num_bytes) {
  std::vector<ByteRange> pieces;
  for (int64_t begin = 0; begin < num_bytes; begin += kPieceBytes)
    pieces.push_back({begin, std::min(num_bytes, begin + kPieceBytes)});
  return pieces;
}

}  // namespace

std::set<size_t> UneditedFiles(const EditPlan& plan) {
  std::set<size_t> files;
  for (size_t file = 0; file < plan.copy.files.size(); ++file) {
    if (plan.copy.files[file].same_as) files.insert(file);
  }
  for (const auto& [tensor, edit] : plan.edits) files.erase(plan.copy.tensors[tensor].file);
  return files;
}

std::vector<Part> CutParts(const EditPlan& plan, const std::set<size_t>& left_out) {
  std::vector<Part> parts;
  bool open = false;  // May the last part grow?
  const auto add = [&](size_t file, int64_t offset, Piece piece) {
    const int64_t bytes = piece.end - piece.begin;
    // A large matrix does not wait behind small tensors, and a full part is closed.
    const bool fits = open && parts.back().file == file && parts.back().num_bytes < kPieceBytes &&
                      (bytes <= kPieceBytes || parts.back().num_bytes < kPieceBytes / 4);
    if (!fits) parts.push_back({.file = file, .offset = offset, .num_bytes = 0, .pieces = {}});
    parts.back().num_bytes += bytes;
    parts.back().pieces.push_back(piece);
    open = true;
  };
  size_t next = 0;
  for (size_t file = 0; file < plan.copy.files.size(); ++file) {
    open = false;
    const bool skip = left_out.contains(file);
    if (!skip) add(file, 0, {-1, 0, static_cast<int64_t>(plan.copy.files[file].framed_header.size())});
    for (; next < plan.copy.tensors.size() && plan.copy.tensors[next].file == file; ++next) {
      if (skip) continue;
      const sharding::OutputTensor& tensor = plan.copy.tensors[next];
      const auto edit = plan.edits.find(next);
      for (const ByteRange& range :
           edit != plan.edits.end() ? PiecesOf(edit->second, tensor.num_bytes) : CopyPieces(tensor.num_bytes)) {
        add(file, tensor.offset + range.begin, {static_cast<int64_t>(next), range.begin, range.end});
      }
    }
  }
  return parts;
}

PartRange PartsOfRank(const std::vector<Part>& parts, int rank, int ranks) {
  int64_t total = 0;
  for (const Part& part : parts) total += part.num_bytes;
  // A part belongs to the rank in whose share its middle lies.
  PartRange range{parts.size(), parts.size()};
  int64_t position = 0;
  bool begun = false;
  for (size_t i = 0; i < parts.size(); ++i) {
    const int64_t middle = position + parts[i].num_bytes / 2;
    position += parts[i].num_bytes;
    const auto owner = static_cast<int>(std::min<int64_t>(
        ranks - 1,
        total == 0 ? 0 : static_cast<int64_t>(static_cast<long double>(middle) * ranks / static_cast<long double>(total))));
    if (owner < rank) continue;
    if (owner > rank) {
      if (!begun) range.begin = i;
      range.end = i;
      return range;
    }
    if (!begun) range.begin = i;
    begun = true;
  }
  range.end = parts.size();
  return range;
}

std::vector<size_t> FilesOfRank(const EditPlan& plan, int rank, int ranks) {
  std::vector<size_t> order(plan.copy.files.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return plan.copy.files[a].size > plan.copy.files[b].size; });
  std::vector<int64_t> load(static_cast<size_t>(ranks));
  std::vector<size_t> mine;
  for (const size_t file : order) {
    const auto least = std::min_element(load.begin(), load.end());
    *least += plan.copy.files[file].size;
    if (least - load.begin() == rank) mine.push_back(file);
  }
  return mine;
}

}  // namespace bearing::edit
