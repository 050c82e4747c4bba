// What an edited copy of a checkpoint looks like on disk before any byte is written: its files, and for every tensor where its
// bytes go and where the unedited ones come from.
//
// A pure function of the source folder; thread-safe.
#ifndef BEARING_SHARDING_COPY_PLAN_H_
#define BEARING_SHARDING_COPY_PLAN_H_

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "sharding/checkpoint_reader.h"

namespace bearing::sharding {

struct CopyRegion {
  std::string tensor;  // Empty once regions are joined.
  size_t file = 0;     // In CopyPlan::files.
  int64_t offset = 0;
  size_t source_shard = 0;  // In CheckpointReader::shards().
  int64_t source_offset = 0;
  int64_t num_bytes = 0;
  int64_t rows = 1;  // Rows of a tensor of two axes, else 1.
};

struct CopyPlan {
  struct File {
    std::string name;
    std::string framed_header;  // The first bytes of the file.
    int64_t size = 0;
  };
  std::vector<File> files;                        // Weight files.
  std::vector<CopyRegion> regions;                // One a tensor, in the order of the bytes.
  std::map<std::string, std::string> side_texts;  // Rewritten side files: name in the folder, text.
};

// `untie`: give a tied model an unembedding of its own. FailedPrecondition when the source already stores one that cannot hold
// the embedding.
absl::StatusOr<CopyPlan> MakeCopyPlan(const CheckpointReader& reader, bool untie);

// The regions of the tensors not in `left_out`, neighbours joined, and of those the part of `rank` when their bytes are cut
// evenly over `ranks`.
std::vector<CopyRegion> RegionsOfRank(const CopyPlan& plan, const std::set<std::string>& left_out, int64_t rank, int64_t ranks);

}  // namespace bearing::sharding

#endif  // BEARING_SHARDING_COPY_PLAN_H_
