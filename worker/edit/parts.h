// The copy of a checkpoint cut into parts: runs of bytes of one file that one thread makes whole and writes at once. The parts
// of a file tile it, header included, so that each could as well be a part of a multipart upload.
//
// A pure function of the plan: every rank cuts alike.
#ifndef BEARING_WORKER_EDIT_PARTS_H_
#define BEARING_WORKER_EDIT_PARTS_H_

#include <cstdint>
#include <set>
#include <vector>

#include "worker/edit/edit_plan.h"

namespace bearing::edit {

struct Piece {
  int64_t tensor = -1;  // In CopyPlan::tensors; -1: the file's header.
  int64_t begin = 0;    // Bytes of the tensor.
  int64_t end = 0;
};

struct Part {
  size_t file = 0;
  int64_t offset = 0;
  int64_t num_bytes = 0;
  std::vector<Piece> pieces;
};

// Parts of all files but those of `left_out`, in the order of files and bytes. About kPieceBytes each, and up to
// kWholeMatrixBytes + kPieceBytes where a matrix is larger.
std::vector<Part> CutParts(const EditPlan& plan, const std::set<size_t>& left_out);

// The files in which no tensor changes.
std::set<size_t> UneditedFiles(const EditPlan& plan);

// The parts [begin, end) of a rank: neighbours, with near-equal bytes.
struct PartRange {
  size_t begin = 0;
  size_t end = 0;
};
PartRange PartsOfRank(const std::vector<Part>& parts, int rank, int ranks);

// The files of a rank, where a file is not shared: largest first, each to the rank with least so far.
std::vector<size_t> FilesOfRank(const EditPlan& plan, int rank, int ranks);

}  // namespace bearing::edit

#endif  // BEARING_WORKER_EDIT_PARTS_H_
