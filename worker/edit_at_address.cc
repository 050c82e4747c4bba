#include "worker/edit_at_address.h"

#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "sharding/posix_file.h"
#include "sharding/status_macros.h"
#include "storage/location.h"
#include "storage/model_source.h"
#include "storage/publisher.h"
#include "storage/staging_folder.h"
#include "storage/temp_folder.h"
#include "worker/edit_to_bucket.h"

namespace bearing::worker {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxDirectionBytes = int64_t{1} << 30;

// The files of directions and means that are at addresses, as files of this machine.
class FetchedInputs {
 public:
  absl::Status Fetch(edit::EditCommandOptions* options) {
    for (std::string& path : options->directions) BEARING_RETURN_IF_ERROR(FetchOne(&path));
    return options->negative_mean.empty() ? absl::OkStatus() : FetchOne(&options->negative_mean);
  }

 private:
  absl::Status FetchOne(std::string* path) {
    if (!storage::HasScheme(*path)) return absl::OkStatus();
    BEARING_ASSIGN_OR_RETURN(const storage::Uri uri, storage::ParseUri(*path));
    if (uri.is_local()) {
      *path = uri.ToString();
      return absl::OkStatus();
    }
    BEARING_ASSIGN_OR_RETURN(const std::string bytes, storage::ReadSmallFile(*path, kMaxDirectionBytes));
    if (!folder_) {
      BEARING_ASSIGN_OR_RETURN(storage::TempFolder folder, storage::TempFolder::Make());
      folder_.emplace(std::move(folder));
    }
    // Its name tells the kind of the file.
    const std::string name = fs::path(uri.key).filename().string();
    const fs::path parent = fs::path(folder_->path()) / absl::StrCat(count_++);
    std::error_code error;
    fs::create_directories(parent, error);
    *path = (parent / name).string();
    return sharding::WriteNewFile(*path, bytes);
  }

  std::optional<storage::TempFolder> folder_;
  int count_ = 0;
};

// Forms that are small are written to a folder of this machine first.
absl::Status EditSmallForm(const edit::RankGroup& group, edit::EditCommandOptions options, const sharding::WeightFiles& source,
                           const storage::Location& destination, const storage::PublishOptions& publish) {
  BEARING_RETURN_IF_ERROR(group.agree(group.rank == 0 ? storage::CheckDestination(destination, publish) : absl::OkStatus()));
  const absl::StatusOr<storage::TempFolder> folder = storage::TempFolder::Make();
  BEARING_RETURN_IF_ERROR(group.agree(folder.status()));
  options.out = absl::StrCat(folder->path(), "/", options.form);
  BEARING_RETURN_IF_ERROR(edit::RunEditCommand(group, options, source));
  return group.agree(group.rank == 0 ? storage::PublishFolder(options.out, destination, publish, nlohmann::json::object())
                                     : absl::OkStatus());
}

}  // namespace

absl::Status EditAtAddress(const edit::RankGroup& group, edit::EditCommandOptions options, const CheckLogitsOf& check_logits) {
  if (options.out.empty() && !options.dry_run) return absl::InvalidArgumentError("--out is required");
  const auto model = storage::ModelSource::Open(options.model);
  BEARING_RETURN_IF_ERROR(group.agree(model.status()));
  const auto source = (*model)->OpenWeights();
  BEARING_RETURN_IF_ERROR(group.agree(source.status()));
  // What cannot be run is said before it is edited.
  if (options.check_logits) BEARING_RETURN_IF_ERROR(group.agree((*model)->OpenCheckpoint().status()));
  FetchedInputs inputs;
  BEARING_RETURN_IF_ERROR(group.agree(inputs.Fetch(&options)));
  // Records name a model by the last part of its address.
  options.model = storage::ParseUri(options.model)->ToString();
  const edit::CheckLogits check = [&](const std::string& staged, const edit::Basis& basis) {
    return check_logits(options.model, staged, basis);
  };
  if (options.dry_run || !storage::HasScheme(options.out)) return edit::RunEditCommand(group, options, **source, {}, check);

  const auto destination = storage::OpenLocation(options.out);
  BEARING_RETURN_IF_ERROR(group.agree(destination.status()));
  if (destination->uri.is_local()) {
    options.out = destination->uri.ToString();
    return edit::RunEditCommand(group, options, **source, {}, check);
  }
  BucketTarget target{.destination = *destination, .model = std::nullopt, .options = {.overwrite = options.overwrite}};
  absl::Status published;
  if (options.form == "checkpoint") {
    if (storage::HasScheme(options.model)) {
      auto place = storage::OpenLocation(options.model);
      BEARING_RETURN_IF_ERROR(group.agree(place.status()));
      target.model = *std::move(place);
    }
    const auto write = [&](const edit::CheckpointTask& task) { return EditToBucket(group, **source, target, task); };
    published = edit::RunEditCommand(group, options, **source, write, check);
  } else {
    published = EditSmallForm(group, options, **source, *destination, target.options);
  }
  if (published.ok() && group.rank == 0) std::cerr << "published " << destination->uri.ToString() << '\n';
  return published;
}

}  // namespace bearing::worker
