#include "worker/edit/lora_adapter.h"

#include <sys/stat.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <map>
#include <system_error>
#include <utility>
#include <vector>

#include "sharding/concat.h"
#include "sharding/posix_file.h"
#include "sharding/safetensors.h"
#include "sharding/sha256.h"
#include "sharding/status_macros.h"
#include "worker/edit/projection.h"

namespace bearing::edit {
namespace {

using sharding::DType;
using sharding::DTypeSize;

constexpr int64_t kReadBytes = 8 << 20;
constexpr std::string_view kTensorsFile = "adapter_model.safetensors";
// Of what W + B A may miss W' by, in shares of |W|: A and B are float32.
constexpr double kLargestError = 1e-5;

bool Exists(const std::string& path) {
  struct stat info;
  return ::lstat(path.c_str(), &info) == 0;
}

// b_k . w for every vector w that the weight writes: [k, columns] of a matrix, [k, rows] of an embedding.
struct WrittenDots {
  std::vector<double> dots;
  int64_t vectors = 0;
  double squares = 0;  // |W|^2
};

absl::StatusOr<WrittenDots> ReadDots(const sharding::WeightFiles& source, const TensorEdit& edit) {
  const auto at = *source.Find(edit.weight);
  const int64_t offset = source.entry(at).file_offset;
  const int64_t row_bytes = edit.columns * DTypeSize(edit.dtype);
  const int64_t step = std::max<int64_t>(1, kReadBytes / row_bytes);
  const int64_t count = edit.basis->count;
  ColumnSums sums(count, edit.by_columns ? edit.columns : 0);
  WrittenDots found;
  found.vectors = edit.by_columns ? edit.columns : edit.rows;
  if (!edit.by_columns) found.dots.resize(static_cast<size_t>(count * edit.rows));
  std::string bytes(static_cast<size_t>(std::min(step, edit.rows) * row_bytes), '\0');
  std::vector<float> values(static_cast<size_t>(edit.columns));
  for (int64_t row = 0; row < edit.rows; row += step) {
    const int64_t rows = std::min(step, edit.rows - row);
    const absl::Span<char> block(bytes.data(), static_cast<size_t>(rows * row_bytes));
    BEARING_RETURN_IF_ERROR(source.Read(at.shard, offset + row * row_bytes, block));
    if (edit.by_columns) {
      SumColumns(*edit.basis, edit.dtype, block.data(), row, rows, edit.columns, &sums);
      continue;
    }
    found.squares += SumRows(*edit.basis, edit.dtype, block.data(), rows).all;
    for (int64_t i = 0; i < rows; ++i) {
      Decode(edit.dtype, block.data() + i * row_bytes, edit.columns, values.data());
      for (int64_t k = 0; k < count; ++k) {
        double dot = 0;
        for (int64_t c = 0; c < edit.columns; ++c)
          dot += static_cast<double>(values[static_cast<size_t>(c)]) * edit.basis->vector(k)[c];
        found.dots[static_cast<size_t>(k * edit.rows + row + i)] = dot;
      }
    }
  }
  if (edit.by_columns) {
    found.dots = std::move(sums.dots);
    for (const double square : sums.squares) found.squares += square;
  }
  return found;
}

// The module's name in transformers: the text model of a wrapper is stored under a prefix of its own.
std::string ModuleOf(const EditPlan& plan, const std::string& tensor) {
  std::string module = tensor.substr(0, tensor.size() - std::string_view(".weight").size());
  constexpr std::string_view kStored = "language_model.model.";
  if (plan.model.family == "gemma3_text" && module.starts_with(kStored)) {
    module = Concat("model.language_model.", module.substr(kStored.size()));
  }
  return module;
}

// The negated basis as [d, k].
std::vector<float> NegatedBasis(const Basis& basis) {
  std::vector<float> values;
  for (int64_t i = 0; i < basis.d; ++i) {
    for (int64_t k = 0; k < basis.count; ++k) values.push_back(static_cast<float>(-basis.vector(k)[i]));
  }
  return values;
}

// Names of A and B in the adapter.
std::pair<std::string, std::string> NamesOf(const EditPlan& plan, size_t index, const TensorEdit& edit) {
  const bool embedding = edit.component == sharding::Component::kEmbedding;
  const std::string prefix = Concat("base_model.model.", ModuleOf(plan, plan.copy.tensors[index].name), ".");
  return {Concat(prefix, embedding ? "lora_embedding_A" : "lora_A.weight"),
          Concat(prefix, embedding ? "lora_embedding_B" : "lora_B.weight")};
}

// The tensors of an adapter's file, by name.
class AdapterFile {
 public:
  explicit AdapterFile(const std::string& path) : path_(path) {}

  absl::Status Open() {
    BEARING_ASSIGN_OR_RETURN(file_, sharding::OpenLocalFile(path_));
    BEARING_ASSIGN_OR_RETURN(const sharding::SafetensorsHeader header, sharding::ReadSafetensorsHeader(*file_));
    for (const sharding::SafetensorsEntry& entry : header.entries) entries_.emplace(entry.name, entry);
    return absl::OkStatus();
  }

  size_t size() const { return entries_.size(); }

  absl::StatusOr<std::vector<float>> Read(const std::string& name, const std::vector<int64_t>& shape) const {
    const auto found = entries_.find(name);
    if (found == entries_.end() || found->second.dtype != DType::kF32 || found->second.shape != shape) {
      return absl::DataLossError(
          Concat("adapter lacks an F32 tensor of the edit: file=", path_, " tensor=", name, " shape=", ShapeText(shape)));
    }
    std::vector<float> values(static_cast<size_t>(found->second.num_bytes) / sizeof(float));
    const absl::Span<char> bytes(reinterpret_cast<char*>(values.data()), values.size() * sizeof(float));
    BEARING_RETURN_IF_ERROR(file_->ReadAt(found->second.file_offset, bytes));
    if (!std::all_of(values.begin(), values.end(), [](float value) { return std::isfinite(value); })) {
      return absl::DataLossError(Concat("adapter holds a value that is not finite: file=", path_, " tensor=", name));
    }
    return values;
  }

 private:
  const std::string path_;
  std::unique_ptr<sharding::RandomAccessFile> file_;
  std::map<std::string, sharding::SafetensorsEntry> entries_;
};

// What W + B A has along the basis, and how far that is from what the edit leaves there; both as shares of |W|.
struct Left {
  double residue = 0;
  double error = 0;
};

Left LeftBy(const TensorEdit& edit, const WrittenDots& weight, const std::vector<float>& a, const std::vector<float>& b) {
  const int64_t count = edit.basis->count;
  std::vector<double> product(static_cast<size_t>(count * count));  // Basis x B.
  for (int64_t k = 0; k < count; ++k) {
    for (int64_t j = 0; j < count; ++j) {
      double sum = 0;
      for (int64_t i = 0; i < edit.basis->d; ++i) {
        sum += edit.basis->vector(k)[i] * static_cast<double>(b[static_cast<size_t>(i * count + j)]);
      }
      product[static_cast<size_t>(k * count + j)] = sum;
    }
  }
  double left = 0;
  double off = 0;
  for (int64_t k = 0; k < count; ++k) {
    for (int64_t v = 0; v < weight.vectors; ++v) {
      const double before = weight.dots[static_cast<size_t>(k * weight.vectors + v)];
      double after = before;
      for (int64_t j = 0; j < count; ++j) {
        after +=
            product[static_cast<size_t>(k * count + j)] * static_cast<double>(a[static_cast<size_t>(j * weight.vectors + v)]);
      }
      const double missed = after - (1 - edit.strength) * before;
      left += after * after;
      off += missed * missed;
    }
  }
  if (weight.squares == 0) return {};
  return {std::sqrt(left / weight.squares), std::sqrt(off / weight.squares)};
}

// Reads the adapter back and measures what it leaves in each weight. DataLoss naming file and tensor for what is missing, not
// finite, or not what the edit asks for.
absl::StatusOr<nlohmann::json> Verify(const sharding::WeightFiles& source, const EditPlan& plan, const std::string& folder) {
  const std::string path = Concat(folder, "/", kTensorsFile);
  AdapterFile adapter(path);
  BEARING_RETURN_IF_ERROR(adapter.Open());
  if (adapter.size() != 2 * plan.edits.size()) {
    return absl::DataLossError(Concat("adapter has another number of tensors than the edit: file=", path,
                                      " want=", 2 * plan.edits.size(), " got=", adapter.size()));
  }
  nlohmann::json found = {{"modules", plan.edits.size()}, {"largest_residue", 0.0}, {"largest_residue_tensor", nullptr}};
  for (const auto& [index, edit] : plan.edits) {
    BEARING_ASSIGN_OR_RETURN(const WrittenDots weight, ReadDots(source, edit));
    const auto [a_name, b_name] = NamesOf(plan, index, edit);
    BEARING_ASSIGN_OR_RETURN(const std::vector<float> a, adapter.Read(a_name, {edit.basis->count, weight.vectors}));
    BEARING_ASSIGN_OR_RETURN(const std::vector<float> b, adapter.Read(b_name, {edit.basis->d, edit.basis->count}));
    const Left left = LeftBy(edit, weight, a, b);
    if (left.error > kLargestError) {
      return absl::DataLossError(Concat("adapter does not merge to the edited weight: file=", path, " tensor=", edit.weight,
                                        " error=", left.error, " limit=", kLargestError));
    }
    if (found["largest_residue_tensor"].is_null() || left.residue > found["largest_residue"].get<double>()) {
      found["largest_residue"] = left.residue;
      found["largest_residue_tensor"] = edit.weight;
    }
  }
  BEARING_ASSIGN_OR_RETURN(found["sha256"], sharding::Sha256OfFile(path));
  return found;
}

}  // namespace

absl::Status CheckLoraFits(const EditPlan& plan, const EditSpec& spec) {
  if (spec.preserve_norms)
    return absl::UnimplementedError("an edit that preserves norms is not of low rank: use --form checkpoint");
  if (spec.addition) return absl::UnimplementedError("an addition is no product of matrices: use --form checkpoint");
  for (const auto& [index, edit] : plan.edits) {
    const std::string& name = plan.copy.tensors[index].name;
    const auto refuse = [&](std::string_view what) {
      return absl::UnimplementedError(Concat("a LoRA adapter cannot hold ", what, ": use --form checkpoint. tensor=", name));
    };
    if (edit.kind != TensorEdit::Kind::kValues) return refuse("the edit of a quantized weight");
    if (edit.matrices > 1 || name.find(".experts") != std::string::npos) return refuse("the edit of routed experts");
    if (edit.rows == 1) return refuse("the edit of a bias");
    if (!std::string_view(name).ends_with(".weight")) return refuse("this tensor");
    if (!edit.by_columns && edit.component != sharding::Component::kEmbedding) return refuse("this projector");
  }
  return absl::OkStatus();
}

absl::Status WriteLora(const sharding::WeightFiles& source, const EditPlan& plan, const EditSpec& spec,
                       const RecordInputs& inputs, const std::string& out) {
  BEARING_RETURN_IF_ERROR(CheckLoraFits(plan, spec));
  if (Exists(out)) return absl::AlreadyExistsError(Concat("output folder exists: folder=", out));
  const std::string staged = out + ".partial";
  std::error_code error;
  std::filesystem::remove_all(staged, error);
  if (!error) std::filesystem::create_directories(staged, error);
  if (error)
    return absl::Status(absl::ErrnoToStatus(error.value(), "cannot create folder").code(),
                        Concat("cannot create folder: ", error.message(), " folder=", staged));

  std::vector<std::vector<float>> values;
  std::vector<sharding::SafetensorsTensor> tensors;
  nlohmann::json modules = nlohmann::json::array();
  const int64_t rank = plan.basis->count;
  for (const auto& [index, edit] : plan.edits) {
    modules.push_back(ModuleOf(plan, plan.copy.tensors[index].name));
    BEARING_ASSIGN_OR_RETURN(const WrittenDots found, ReadDots(source, edit));
    std::vector<float>& a = values.emplace_back();
    for (const double dot : found.dots) a.push_back(static_cast<float>(edit.strength * dot));
    const auto [a_name, b_name] = NamesOf(plan, index, edit);
    tensors.push_back({a_name, DType::kF32, {rank, found.vectors}, values.back().data()});
    values.push_back(NegatedBasis(*edit.basis));
    tensors.push_back({b_name, DType::kF32, {edit.basis->d, rank}, values.back().data()});
  }
  const nlohmann::json config = {{"peft_type", "LORA"},
                                 {"task_type", "CAUSAL_LM"},
                                 {"base_model_name_or_path", inputs.base_model},
                                 {"r", rank},
                                 {"lora_alpha", rank},
                                 {"lora_dropout", 0.0},
                                 {"bias", "none"},
                                 {"fan_in_fan_out", false},
                                 {"inference_mode", true},
                                 {"init_lora_weights", true},
                                 {"use_rslora", false},
                                 {"target_modules", modules}};
  BEARING_RETURN_IF_ERROR(sharding::WriteSafetensors(Concat(staged, "/", kTensorsFile), tensors, {{"format", "pt"}}));
  BEARING_RETURN_IF_ERROR(sharding::WriteNewFile(Concat(staged, "/adapter_config.json"), config.dump(2) + "\n"));
  RecordInputs record = inputs;
  BEARING_ASSIGN_OR_RETURN(record.more["verification"], Verify(source, plan, staged));
  BEARING_RETURN_IF_ERROR(WriteRecord(plan, spec, {}, record, staged, /*with_manifest=*/false));
  if (std::rename(staged.c_str(), out.c_str()) != 0) return sharding::ErrnoStatus("cannot rename into place", out);
  return absl::OkStatus();
}

}  // namespace bearing::edit
