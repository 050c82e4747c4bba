// A model that stays loaded between two jobs of a worker group, so that the next job of the same model starts at once.
//
// Only a resident model is kept, with all it refers to: the reader of its files and the communicators of its layout. Used by
// the main thread of each rank; keeping and taking are collective in the sense that all ranks do the same.
#ifndef BEARING_WORKER_KEPT_MODEL_H_
#define BEARING_WORKER_KEPT_MODEL_H_

#include <cstdint>
#include <memory>
#include <string>

#include "sharding/checkpoint_reader.h"
#include "storage/model_source.h"
#include "worker/comm/grid.h"
#include "worker/model/decoder.h"

namespace bearing::worker {

struct KeptModel {
  std::string key;     // Lease.model_key of the job that loaded it; empty = nothing is kept.
  std::string digest;  // Of the model's files (rank 0).
  // What the first job measured before it loaded the model: the next one must cut its batches alike.
  int64_t token_budget = 0;
  int64_t stream_tokens = 0;
  double product_rate = 0;
  // In the order of who refers to whom.
  std::unique_ptr<storage::ModelSource> source;
  std::unique_ptr<sharding::CheckpointReader> reader;
  comm::Grid grid;
  std::unique_ptr<model::Decoder> decoder;

  void Drop() {
    key.clear();
    decoder.reset();
    grid = comm::Grid();
    reader.reset();
    source.reset();
  }
};

}  // namespace bearing::worker

#endif  // BEARING_WORKER_KEPT_MODEL_H_
