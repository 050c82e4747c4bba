#include "worker/edit/edit_identity.h"

#include <cstdint>
#include <map>
#include <vector>

#include "sharding/concat.h"
#include "sharding/sha256.h"
#include "sharding/status_macros.h"

namespace bearing::edit {
namespace {

// Every part is preceded by its length, so that no two edits run together to the same bytes.
class Hasher {
 public:
  void Add(std::string_view part) {
    sha_.Update(Concat(part.size(), "\n"));
    sha_.Update(part);
  }
  void Add(int64_t value) { Add(Concat(value)); }
  void Add(double value) { Add(std::string_view(reinterpret_cast<const char*>(&value), sizeof(value))); }
  // Tensors share theirs: the values go in once, and then their number.
  void AddVector(const std::vector<double>* values) {
    const auto [seen, is_new] = vectors_.try_emplace(values, static_cast<int64_t>(vectors_.size()));
    Add(seen->second);
    if (!is_new || values == nullptr) return;
    Add(std::string_view(reinterpret_cast<const char*>(values->data()), values->size() * sizeof(double)));
  }
  absl::StatusOr<std::string> Finish() { return sha_.Finish(); }

 private:
  sharding::Sha256 sha_;
  std::map<const std::vector<double>*, int64_t> vectors_;
};

}  // namespace

absl::StatusOr<std::string> EditIdentity(const sharding::WeightFiles& source, const EditPlan& plan, std::string_view salt) {
  Hasher hasher;
  hasher.Add(salt);
  BEARING_ASSIGN_OR_RETURN(const std::string digest, source.Digest());
  hasher.Add(digest);
  for (size_t i = 0; i < source.shards().size(); ++i) hasher.Add(source.file(i).version());
  for (const sharding::CopyPlan::File& file : plan.copy.files) {
    hasher.Add(file.name);
    hasher.Add(file.framed_header);
  }
  for (const auto& [index, edit] : plan.edits) {
    hasher.Add(static_cast<int64_t>(index));
    hasher.Add(static_cast<int64_t>(edit.kind));
    hasher.Add(edit.weight);
    hasher.Add(edit.strength);
    hasher.Add(static_cast<int64_t>(edit.by_columns));
    hasher.Add(static_cast<int64_t>(edit.preserve_norms));
    hasher.AddVector(edit.basis != nullptr ? &edit.basis->vectors : nullptr);
    hasher.AddVector(edit.add.get());
    hasher.AddVector(&edit.constant);
  }
  return hasher.Finish();
}

}  // namespace bearing::edit
