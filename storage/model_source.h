// A model at a path or address, opened for reading: its small files (config, index, tokenizer, templates) as files of this
// machine, its weights where they are.
//
// A path stays what it is: folder() is the path and weights are read by pread. That holds for the caches of the Hugging Face
// hub too; given the folder models--ORG--NAME itself, the snapshot of its `main` is taken. Of a model in a bucket the small
// files are fetched into a private temporary folder, and weights are read by parallel range requests when they are asked for. A
// place where a write was begun and not finished (files staged and no manifest) is refused; where there is a manifest, the
// sizes of the files must be those it names.
//
// Thread-safe after Open. Must outlive what uses folder(); checkpoints that were opened may outlive it.
#ifndef BEARING_STORAGE_MODEL_SOURCE_H_
#define BEARING_STORAGE_MODEL_SOURCE_H_

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "sharding/checkpoint_reader.h"
#include "sharding/weight_files.h"

namespace bearing::storage {

class ModelSource {
 public:
  // `chat_template`: path or address of a file that replaces the model's template; may be empty. NotFound and the errors of the
  // store; DataLoss for a place that a manifest contradicts; FailedPrecondition for an unfinished one.
  static absl::StatusOr<std::unique_ptr<ModelSource>> Open(std::string_view model, std::string_view chat_template = "");
  ~ModelSource();

  // On this machine; for tokenizers and configs.
  const std::string& folder() const;

  // Path on this machine, empty if none was given.
  const std::string& chat_template() const;

  // As it is on disk, also of models that cannot be run. Errors of WeightFiles::Open.
  absl::StatusOr<std::unique_ptr<sharding::WeightFiles>> OpenWeights() const;

  // Errors of CheckpointReader::Open.
  absl::StatusOr<std::unique_ptr<sharding::CheckpointReader>> OpenCheckpoint() const;

 private:
  struct Impl;
  explicit ModelSource(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace bearing::storage

#endif  // BEARING_STORAGE_MODEL_SOURCE_H_
