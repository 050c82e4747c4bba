// A model folder of a few kilobytes with known bytes in every tensor.
#ifndef BEARING_TESTS_SHARDING_TINY_CHECKPOINT_H_
#define BEARING_TESTS_SHARDING_TINY_CHECKPOINT_H_

#include <map>
#include <string>

#include "sharding/dtype.h"

namespace bearing::testing {

struct TinyModel {
  std::string family = "llama";
  bool tied = false;
  int shards = 1;  // More than one: with an index.
  sharding::DType dtype = sharding::DType::kBF16;
};

// Tensor name to bytes.
using TensorBytes = std::map<std::string, std::string>;

// config.json of the model: 2 layers, d_model 16, 6 heads and 3 KV heads of 4, MLP 10, vocabulary 11.
std::string TinyConfig(const TinyModel& model);

// Writes config.json, tokenizer files, a licence, and the weights.
TensorBytes WriteTinyCheckpoint(const std::string& folder, const TinyModel& model);

}  // namespace bearing::testing

#endif  // BEARING_TESTS_SHARDING_TINY_CHECKPOINT_H_
