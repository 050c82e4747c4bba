#include "storage/model_source.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "sharding/concat.h"
#include "sharding/posix_file.h"
#include "sharding/status_macros.h"
#include "storage/hub_cache.h"
#include "storage/location.h"
#include "storage/manifest.h"
#include "storage/object_file.h"
#include "storage/parallel.h"
#include "storage/temp_folder.h"

namespace bearing::storage {
namespace {

constexpr int64_t kMaxSmallFileBytes = 256 << 20;
constexpr int kFetches = 8;

constexpr std::string_view kTemplateFolder = "additional_chat_templates/";

// By what they end in, or start with: everything that configs, tokenizers and licences are made of.
constexpr std::array<std::string_view, 5> kSmallEndings = {".json", ".jinja", ".model", ".tiktoken", ".txt"};
constexpr std::array<std::string_view, 3> kLegalPrefixes = {"LICENSE", "NOTICE", "USE_POLICY"};

bool IsSmallFile(std::string_view name) {
  if (name == kManifestName) return false;
  if (name.starts_with(kTemplateFolder)) name.remove_prefix(kTemplateFolder.size());
  if (name.find('/') != std::string_view::npos) return false;
  const auto ends = [name](std::string_view ending) { return name.ends_with(ending); };
  const auto starts = [name](std::string_view prefix) { return name.starts_with(prefix); };
  return std::any_of(kSmallEndings.begin(), kSmallEndings.end(), ends) ||
         std::any_of(kLegalPrefixes.begin(), kLegalPrefixes.end(), starts);
}

absl::Status Fetch(const ObjectStore& store, const ObjectInfo& object, const std::string& to) {
  if (object.size > kMaxSmallFileBytes) {
    return absl::InvalidArgumentError(
        Concat("file is too large: file=", store.Name(object.key), " size=", object.size, " limit=", kMaxSmallFileBytes));
  }
  std::string bytes(static_cast<size_t>(object.size), '\0');
  BEARING_RETURN_IF_ERROR(store.ReadRange(object.key, 0, absl::MakeSpan(bytes), object.etag));
  return sharding::WriteNewFile(to, bytes);
}

// The shards of a model in a bucket.
class ShardFolder final : public sharding::FileFolder {
 public:
  ShardFolder(Location location, std::set<std::string> names) : location_(std::move(location)), names_(std::move(names)) {}

  bool Has(const std::string& file_name) const override { return names_.contains(file_name); }

  absl::StatusOr<std::unique_ptr<sharding::RandomAccessFile>> Open(const std::string& file_name) const override {
    return OpenObject(location_.store, location_.KeyOf(file_name));
  }

 private:
  Location location_;
  std::set<std::string> names_;
};

}  // namespace

struct ModelSource::Impl {
  std::string name;  // As the caller knows it, for messages.
  std::string folder;
  std::string chat_template;
  std::optional<TempFolder> fetched;
  std::unique_ptr<sharding::FileFolder> shards;  // Of a model in a bucket; null elsewhere.

  absl::StatusOr<std::string> FetchedFolder();
  absl::Status FetchModel(const Location& location);
  absl::Status FetchTemplate(const Location& location);
};

absl::StatusOr<std::string> ModelSource::Impl::FetchedFolder() {
  if (!fetched.has_value()) {
    BEARING_ASSIGN_OR_RETURN(TempFolder folder, TempFolder::Make());
    fetched.emplace(std::move(folder));
  }
  return fetched->path();
}

absl::Status ModelSource::Impl::FetchModel(const Location& location) {
  BEARING_ASSIGN_OR_RETURN(const std::vector<ObjectInfo> objects, location.store->List(location.uri.key));
  if (objects.empty()) return absl::NotFoundError(Concat("no model there: uri=", name));
  BEARING_RETURN_IF_ERROR(CheckFinished(location, objects));
  BEARING_ASSIGN_OR_RETURN(const std::string root, FetchedFolder());
  folder = Concat(root, "/model");
  std::error_code error;
  std::filesystem::create_directories(Concat(folder, "/", kTemplateFolder), error);
  if (error) return absl::UnavailableError(Concat("cannot create folder: ", error.message(), " folder=", folder));

  std::vector<std::pair<ObjectInfo, std::string>> small;
  std::set<std::string> names;
  for (const ObjectInfo& object : objects) {
    const std::string relative = location.uri.key.empty() ? object.key : object.key.substr(location.uri.key.size() + 1);
    names.insert(relative);
    if (IsSmallFile(relative)) small.emplace_back(object, Concat(folder, "/", relative));
  }
  shards = std::make_unique<ShardFolder>(location, std::move(names));
  return ParallelFor(small.size(), kFetches, [&](size_t i) { return Fetch(*location.store, small[i].first, small[i].second); });
}

absl::Status ModelSource::Impl::FetchTemplate(const Location& location) {
  BEARING_ASSIGN_OR_RETURN(const ObjectInfo object, location.store->Stat(location.uri.key));
  BEARING_ASSIGN_OR_RETURN(const std::string root, FetchedFolder());
  chat_template = Concat(root, "/chat_template.jinja");
  return Fetch(*location.store, object, chat_template);
}

ModelSource::ModelSource(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ModelSource::~ModelSource() = default;

absl::StatusOr<std::unique_ptr<ModelSource>> ModelSource::Open(std::string_view model, std::string_view chat_template) {
  auto impl = std::make_unique<Impl>();
  BEARING_ASSIGN_OR_RETURN(const Location location, OpenLocation(model));
  impl->name = location.uri.ToString();
  if (location.uri.is_local()) {
    BEARING_ASSIGN_OR_RETURN(impl->folder, ResolveHubCache(impl->name));
  } else {
    BEARING_RETURN_IF_ERROR(impl->FetchModel(location));
  }
  if (!chat_template.empty()) {
    BEARING_ASSIGN_OR_RETURN(const Location template_location, OpenLocation(chat_template));
    impl->chat_template = template_location.uri.ToString();
    if (!template_location.uri.is_local()) BEARING_RETURN_IF_ERROR(impl->FetchTemplate(template_location));
  }
  return std::unique_ptr<ModelSource>(new ModelSource(std::move(impl)));
}

const std::string& ModelSource::folder() const { return impl_->folder; }
const std::string& ModelSource::chat_template() const { return impl_->chat_template; }

absl::StatusOr<std::unique_ptr<sharding::WeightFiles>> ModelSource::OpenWeights() const {
  if (impl_->shards == nullptr) return sharding::WeightFiles::Open(impl_->folder);
  absl::StatusOr<std::unique_ptr<sharding::WeightFiles>> weights = sharding::WeightFiles::Open(impl_->folder, *impl_->shards);
  if (weights.ok()) return weights;
  return absl::Status(weights.status().code(), Concat(std::string(weights.status().message()), " model=", impl_->name));
}

absl::StatusOr<std::unique_ptr<sharding::CheckpointReader>> ModelSource::OpenCheckpoint() const {
  if (impl_->shards == nullptr) return sharding::CheckpointReader::Open(impl_->folder);
  absl::StatusOr<std::unique_ptr<sharding::CheckpointReader>> reader =
      sharding::CheckpointReader::Open(impl_->folder, *impl_->shards);
  if (reader.ok()) return reader;
  // The message may name a fetched copy.
  return absl::Status(reader.status().code(), Concat(std::string(reader.status().message()), " model=", impl_->name));
}

}  // namespace bearing::storage
