#include "worker/edit_at_address.h"

#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "sharding/sha256.h"
#include "sharding/status_macros.h"
#include "storage/location.h"
#include "storage/manifest.h"
#include "storage/model_source.h"
#include "storage/publisher.h"

namespace bearing::worker {
namespace {

namespace fs = std::filesystem;

constexpr size_t kNameDigits = 24;

// The same for the same edit of the same files to the same place, and for nothing else.
absl::StatusOr<std::string> StagingFolder(const edit::EditCommandOptions& options, const sharding::WeightFiles& source) {
  BEARING_ASSIGN_OR_RETURN(const std::string model, source.Digest());
  nlohmann::json inputs = {model,
                           options.model,
                           options.out,
                           options.form,
                           options.quantized,
                           options.strengths,
                           options.layer_strengths,
                           options.layers,
                           options.induce,
                           options.layer,
                           options.preserve_norms,
                           options.keep_tied,
                           options.projector,
                           options.no_verify,
                           options.version};
  std::vector<std::string> files = options.directions;
  if (!options.negative_mean.empty()) files.push_back(options.negative_mean);
  for (const std::string& file : files) {
    BEARING_ASSIGN_OR_RETURN(const std::string digest, sharding::Sha256OfFile(file));
    inputs.push_back(digest);
  }
  BEARING_ASSIGN_OR_RETURN(const std::string name, sharding::Sha256Hex(inputs.dump()));
  std::error_code error;
  const char* given = std::getenv("BEARING_STAGING");
  const fs::path parent = given != nullptr ? fs::path(given) : fs::temp_directory_path(error);
  if (error) return absl::NotFoundError(absl::StrCat("no folder for temporary files: ", error.message()));
  return (parent / absl::StrCat("bearing-edit-", name.substr(0, kNameDigits))).string();
}

absl::Status Publish(const std::string& folder, const storage::Location& destination) {
  BEARING_RETURN_IF_ERROR(storage::PublishFolder(folder, destination, {}, nlohmann::json::object()));
  std::error_code ignored;
  fs::remove_all(folder, ignored);
  return absl::OkStatus();
}

}  // namespace

absl::Status EditAtAddress(const edit::RankGroup& group, edit::EditCommandOptions options) {
  if (options.out.empty() && !options.dry_run) return absl::InvalidArgumentError("--out is required");
  const auto model = storage::ModelSource::Open(options.model);
  BEARING_RETURN_IF_ERROR(group.agree(model.status()));
  const auto source = (*model)->OpenWeights();
  BEARING_RETURN_IF_ERROR(group.agree(source.status()));
  // Records name a model by the last part of its address.
  options.model = storage::ParseUri(options.model)->ToString();
  if (options.dry_run || !storage::HasScheme(options.out)) return edit::RunEditCommand(group, options, **source);

  const auto destination = storage::OpenLocation(options.out);
  BEARING_RETURN_IF_ERROR(group.agree(destination.status()));
  if (destination->uri.is_local()) {
    options.out = destination->uri.ToString();
    return edit::RunEditCommand(group, options, **source);
  }
  const bool is_rank0 = group.rank == 0;
  BEARING_RETURN_IF_ERROR(group.agree(is_rank0 ? storage::CheckDestination(*destination, {}) : absl::OkStatus()));
  const absl::StatusOr<std::string> staging = StagingFolder(options, **source);
  BEARING_RETURN_IF_ERROR(group.agree(staging.status()));
  options.out = *staging;
  // A finished edit that was not uploaded to its end. Every rank looks, and all go the same way.
  std::error_code ignored;
  const bool finished = fs::exists(fs::path(*staging) / storage::kManifestName, ignored);
  if (!group.agree(finished ? absl::OkStatus() : absl::NotFoundError("not edited yet")).ok()) {
    BEARING_RETURN_IF_ERROR(group.agree(
        finished ? absl::FailedPreconditionError(absl::StrCat("ranks see different staging folders: folder=", *staging))
                 : absl::OkStatus()));
    if (is_rank0) fs::remove_all(*staging, ignored);
    BEARING_RETURN_IF_ERROR(group.agree(absl::OkStatus()));
    BEARING_RETURN_IF_ERROR(edit::RunEditCommand(group, options, **source));
  }
  const absl::Status published = group.agree(is_rank0 ? Publish(*staging, *destination) : absl::OkStatus());
  if (published.ok() && is_rank0) std::cerr << "published " << destination->uri.ToString() << '\n';
  return published;
}

}  // namespace bearing::worker
