#include "worker/model/decoder.h"

#include <algorithm>
#include <filesystem>
#include <mutex>

#include "tests/worker/tiny_model.h"
#include "worker/model/work_done.h"
#include "worker/steer/direction_file.h"

namespace bearing {
namespace {

using testing::ReadTensors;
using testing::RowsOf;
using testing::RunTinyTrace;
using testing::TinyPath;
using testing::TraceResult;
using testing::WithDecoder;
using testing::WorstRelative;

// fp32 against transformers fp32: only the order of sums differs.
constexpr double kFloatTolerance = 1e-4;
// bf16: how much farther from fp32 than transformers' own bf16. Both round as often, at other places (fused kernels round once
// where transformers rounds between operations; ranks round their parts of a sum), so that neither is exact and the distances
// are about equal: at most 1.15 times for residuals and 1.25 times for logits over all cases here.
constexpr double kBFloat16Times = 1.35;

struct Case {
  std::string model;
  std::string kind;  // plain, ablated, added
  int ranks;
  bool aten_ops = false;  // What runs on a device, here on the CPU.
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << c.model << " " << c.kind << " tp=" << c.ranks << (c.aten_ops ? " aten" : "");
}

model::Intervention InterventionOf(const std::string& model, const std::string& kind, int64_t d_model) {
  model::Intervention intervention;
  if (kind == "plain") return intervention;
  const auto direction = steer::ReadDirection(TinyPath("directions/" + model + ".safetensors"), d_model);
  EXPECT_TRUE(direction.ok()) << direction.status();
  if (kind == "ablated") intervention.ablate_basis = direction->unit.unsqueeze(0);
  if (kind == "added") {
    intervention.add = direction->added();
    intervention.add_layer = 1;
  }
  return intervention;
}

class DecoderTest : public ::testing::TestWithParam<Case> {};

TEST_P(DecoderTest, EqualsTransformersInFloat32) {
  const Case& c = GetParam();
  const auto golden = ReadTensors(TinyPath("traces/" + c.model + "." + c.kind + ".safetensors"));
  ASSERT_FALSE(golden.empty());
  const steer::Rows rows = RowsOf(golden);
  for (const bool share_prefix : {true, false}) {
    TraceResult result;
    const absl::Status status = WithDecoder(
        TinyPath(c.model), c.ranks, at::kFloat,
        [&](model::Decoder& decoder) {
          return RunTinyTrace(decoder, rows, InterventionOf(c.model, c.kind, decoder.config().d_model), share_prefix, result);
        },
        model::GemmPath::kPlain, model::Residency::kResident, 1 << 16, c.aten_ops);
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_LT(WorstRelative(result.residual, golden.at("residual")), kFloatTolerance) << "share_prefix=" << share_prefix;
    EXPECT_LT(WorstRelative(result.logits, golden.at("logits")), kFloatTolerance) << "share_prefix=" << share_prefix;
  }
}

// Every model that has a float32 trace.
std::vector<std::string> TinyModels() {
  constexpr std::string_view kEnd = ".plain.safetensors";
  std::vector<std::string> models;
  for (const auto& file : std::filesystem::directory_iterator(TinyPath("traces"))) {
    const std::string name = file.path().filename();
    if (!name.ends_with(kEnd) || name.find("-bfloat16.") != std::string::npos) continue;
    models.push_back(name.substr(0, name.size() - kEnd.size()));
  }
  std::sort(models.begin(), models.end());
  return models;
}

std::vector<Case> AllCases() {
  std::vector<Case> cases;
  for (const std::string& model : TinyModels()) {
    for (const char* kind : {"plain", "ablated", "added"}) {
      for (const int ranks : {1, 2, 3, 4}) cases.push_back({model, kind, ranks});
      for (const int ranks : {1, 2}) cases.push_back({model, kind, ranks, /*aten_ops=*/true});
    }
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(TinyModels, DecoderTest, ::testing::ValuesIn(AllCases()));

// How far a result is from the exact one, over all its elements.
double Distance(const at::Tensor& got, const at::Tensor& exact) {
  return (at::norm(got - exact) / at::norm(exact)).item<double>();
}

class DecoderBFloat16Test
    : public ::testing::TestWithParam<std::tuple<std::string, std::string, model::GemmPath, int, /*aten_ops*/ bool>> {};

TEST_P(DecoderBFloat16Test, IsAsNearToFloat32AsTransformersBFloat16) {
  const auto& [name, kind, path, ranks, aten_ops] = GetParam();
  const auto exact = ReadTensors(TinyPath("traces/" + name + "." + kind + ".safetensors"));
  const auto rounded = ReadTensors(TinyPath("traces/" + name + "-bfloat16." + kind + ".safetensors"));
  ASSERT_FALSE(exact.empty() || rounded.empty());
  TraceResult result;
  const absl::Status status = WithDecoder(
      TinyPath(name), ranks, at::kBFloat16,
      [&, &name = name, &kind = kind](model::Decoder& decoder) {
        return RunTinyTrace(decoder, RowsOf(exact), InterventionOf(name, kind, decoder.config().d_model), true, result);
      },
      path, model::Residency::kResident, 1 << 16, aten_ops);
  ASSERT_TRUE(status.ok()) << status;
  const double residual =
      Distance(result.residual, exact.at("residual")) / Distance(rounded.at("residual"), exact.at("residual"));
  const double logits = Distance(result.logits, exact.at("logits")) / Distance(rounded.at("logits"), exact.at("logits"));
  EXPECT_LT(residual, kBFloat16Times);
  EXPECT_LT(logits, kBFloat16Times);
  EXPECT_GT(Distance(result.logits, exact.at("logits")), 1e-4) << "nothing was rounded";
}

INSTANTIATE_TEST_SUITE_P(TinyModels, DecoderBFloat16Test,
                         ::testing::Combine(::testing::Values("qwen2-bf16", "qwen3-bf16", "gemma2-bf16", "mixtral-bf16"),
                                            ::testing::Values("plain", "ablated", "added"),
                                            ::testing::Values(model::GemmPath::kPlain, model::GemmPath::kWidened,
                                                              model::GemmPath::kWidenedPacked),
                                            ::testing::Values(1, 2, 3), ::testing::Values(false)));

INSTANTIATE_TEST_SUITE_P(OnAten, DecoderBFloat16Test,
                         ::testing::Combine(::testing::Values("qwen2-bf16", "qwen3-bf16", "gemma2-bf16", "mixtral-bf16"),
                                            ::testing::Values("plain", "ablated", "added"),
                                            ::testing::Values(model::GemmPath::kPlain), ::testing::Values(1, 2),
                                            ::testing::Values(true)));

TEST(DecoderGroupsTest, GroupsOfOneBatchGiveWhatSeparateBatchesGive) {
  const auto golden = ReadTensors(TinyPath("traces/llama-tied.plain.safetensors"));
  const steer::Rows rows = RowsOf(golden);
  const absl::Status status = WithDecoder(TinyPath("llama-tied"), 2, at::kFloat, [&](model::Decoder& decoder) -> absl::Status {
    const int64_t d = decoder.config().d_model;
    model::PackedBatch batch;
    std::vector<int> segments;
    std::vector<int64_t> read;
    const steer::RowBatcher batcher(decoder.config(), rows, 1);
    for (const char* kind : {"plain", "ablated", "added"}) {
      batcher.AppendGroup({0, rows.size()}, InterventionOf("llama-tied", kind, d), batch, segments, read);
    }
    auto together = decoder.Run(batch, read, {});
    if (!together.ok()) return together.status();
    int64_t at = 0;
    for (const char* kind : {"plain", "ablated", "added"}) {
      model::PackedBatch one;
      std::vector<int> one_segments;
      std::vector<int64_t> one_read;
      batcher.AppendGroup({0, rows.size()}, InterventionOf("llama-tied", kind, d), one, one_segments, one_read);
      auto alone = decoder.Run(one, one_read, {});
      if (!alone.ok()) return alone.status();
      EXPECT_LT(WorstRelative(together->narrow(0, at, alone->size(0)), *alone), 1e-5) << kind;
      at += alone->size(0);
    }
    return absl::OkStatus();
  });
  ASSERT_TRUE(status.ok()) << status;
}

TEST(DecoderGroupsTest, AblatedStreamHasNoComponentAlongTheDirectionAnywhere) {
  const auto golden = ReadTensors(TinyPath("traces/llama-sharded.ablated.safetensors"));
  const absl::Status status = WithDecoder(TinyPath("llama-sharded"), 2, at::kFloat, [&](model::Decoder& decoder) {
    const model::Intervention ablation = InterventionOf("llama-sharded", "ablated", decoder.config().d_model);
    const at::Tensor r = ablation.ablate_basis[0];
    model::PackedBatch batch;
    std::vector<int> segments;
    std::vector<int64_t> read;
    const steer::Rows rows = RowsOf(golden);
    steer::RowBatcher(decoder.config(), rows, 1).AppendGroup({0, rows.size()}, ablation, batch, segments, read);
    model::RunOptions options;
    options.observe = [&](int64_t layer, const at::Tensor& x) {
      const double along = at::amax(at::abs(at::mv(x, r))).item<double>();
      EXPECT_LT(along, 1e-5 * at::amax(at::abs(x)).item<double>()) << "layer " << layer;
    };
    return decoder.Run(batch, read, options).status();
  });
  ASSERT_TRUE(status.ok()) << status;
}

TEST(DecoderWorkTest, CountsWhatTheProductsOfAllRanksAdd) {
  const steer::Rows rows = RowsOf(ReadTensors(TinyPath("traces/llama-tied.plain.safetensors")));
  int64_t all = 0;
  for (const auto& row : rows) all += static_cast<int64_t>(row.size());
  const auto read = static_cast<int64_t>(rows.size());
  for (const int ranks : {1, 2}) {
    std::mutex mutex;
    double flops = 0, expected = 0;
    const absl::Status status =
        WithDecoder(TinyPath("llama-tied"), ranks, at::kFloat, [&](model::Decoder& decoder) -> absl::Status {
          const model::WorkDone before = model::WorkOfThread();
          TraceResult result;
          BEARING_RETURN_IF_ERROR(RunTinyTrace(decoder, rows, {}, /*share_prefix=*/false, result));
          const model::WorkDone& after = model::WorkOfThread();
          EXPECT_NEAR(after.tokens - before.tokens, static_cast<double>(all), 1e-6) << "every rank runs every token";
          const sharding::ModelConfig& config = decoder.config();
          const sharding::LayerSpec& spec = config.layers[0];
          const int64_t q = spec.attention.num_heads * spec.attention.head_dim;
          const int64_t kv = spec.attention.num_kv_heads * spec.attention.head_dim;
          const int64_t layers = config.num_layers(), d = config.d_model;
          // Behind its attention, the last block works at the tokens that are read alone.
          const int64_t products = layers * all * d * (q + 2 * kv) +
                                   ((layers - 1) * all + read) * (q * d + 3 * d * spec.mlp.intermediate_size) +
                                   read * config.vocab_size * d;
          const std::lock_guard<std::mutex> lock(mutex);
          flops += after.flops - before.flops;
          expected = 2.0 * static_cast<double>(products);
          return absl::OkStatus();
        });
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_DOUBLE_EQ(flops, expected) << ranks;
  }
}

TEST(DecoderWorkTest, MeasuresARateAndCountsNothingForIt) {
  const double before = model::WorkOfThread().flops;
  EXPECT_GT(model::MeasureProductRate(at::kFloat, model::GemmPath::kPlain, at::kCPU), 1e8);
  EXPECT_EQ(model::WorkOfThread().flops, before);
}

TEST(DecoderErrorsTest, TokenOutsideTheVocabularyIsRefusedOnAllRanks) {
  const absl::Status status = WithDecoder(TinyPath("llama-tied"), 2, at::kFloat, [](model::Decoder& decoder) {
    model::PackedBatch batch;
    const int32_t id = 100000;
    batch.Add({&id, 1});
    return decoder.Run(batch, std::vector<int64_t>{0}, {}).status();
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("100000"));
}

}  // namespace
}  // namespace bearing
