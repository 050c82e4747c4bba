// The decoder and what stands on it, on a CUDA device: what kernels_test, decoder_test and steer_test show for the operations
// of ATen on the CPU, and what only a device has: the flash kernel, page-locked staging, the loading queue. Skipped without
// one.
#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "tests/worker/need_device.h"
#include "tests/worker/ops_conformance.h"
#include "tests/worker/tiny_model.h"
#include "worker/comm/cuda_backend.h"
#include "worker/steer/direction_file.h"
#include "worker/steer/generate.h"

namespace bearing::model::testing {

INSTANTIATE_TEST_SUITE_P(Cuda, OpsTest,
                         ::testing::Values(OpsCase{"ATen", &AtenOps(), at::kFloat, at::Device(at::kCUDA, 0)},
                                           OpsCase{"ATen", &AtenOps(), at::kBFloat16, at::Device(at::kCUDA, 0)}));

}  // namespace bearing::model::testing

namespace bearing {
namespace {

using testing::ReadTensors;
using testing::RowsOf;
using testing::RunTinyTrace;
using testing::TinyPath;
using testing::TraceResult;
using testing::WorstRelative;

// As in decoder_test.
constexpr double kFloatTolerance = 1e-4;
constexpr double kBFloat16Times = 1.35;

class DeviceTest : public ::testing::Test {
 protected:
  void SetUp() override { SKIP_WITHOUT_DEVICE(); }

  // Runs `body` with a decoder of the model on the device.
  static absl::Status WithDeviceDecoder(const std::string& model, const model::DecoderOptions& options,
                                        const std::function<absl::Status(model::Decoder&)>& body) {
    comm::SelfCommunicator self;
    auto made = comm::MakeCudaCommunicator(self, {.nccl_alone = true});
    if (!made.ok()) return made.status();
    auto reader = sharding::CheckpointReader::Open(TinyPath(model));
    if (!reader.ok()) return reader.status();
    auto plan = sharding::MakeShardPlan((*reader)->config(), (*reader)->layout(), 1);
    if (!plan.ok()) return plan.status();
    auto decoder = model::Decoder::Load(**reader, *plan, **made, options);
    return decoder.ok() ? body(**decoder) : decoder.status();
  }

  static model::Intervention InterventionOf(const std::string& model, const std::string& kind, int64_t d_model) {
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
};

TEST_F(DeviceTest, TinyModelsEqualTransformersInFloat32) {
  constexpr std::string_view kEnd = ".plain.safetensors";
  int models = 0;
  for (const auto& file : std::filesystem::directory_iterator(TinyPath("traces"))) {
    const std::string name = file.path().filename();
    if (!name.ends_with(kEnd) || name.find("-bfloat16.") != std::string::npos) continue;
    const std::string model = name.substr(0, name.size() - kEnd.size());
    ++models;
    for (const model::Residency residency : {model::Residency::kResident, model::Residency::kStreamed}) {
      model::DecoderOptions options;
      options.residency = residency;
      const absl::Status status = WithDeviceDecoder(model, options, [&](model::Decoder& decoder) -> absl::Status {
        EXPECT_TRUE(decoder.device().is_cuda());
        for (const char* kind : {"plain", "ablated", "added"}) {
          const auto golden = ReadTensors(TinyPath("traces/" + model + "." + kind + ".safetensors"));
          TraceResult result;
          const absl::Status ran =
              RunTinyTrace(decoder, RowsOf(golden), InterventionOf(model, kind, decoder.config().d_model), true, result);
          if (!ran.ok()) return ran;
          EXPECT_LT(WorstRelative(result.residual, golden.at("residual")), kFloatTolerance) << model << " " << kind;
          EXPECT_LT(WorstRelative(result.logits, golden.at("logits")), kFloatTolerance) << model << " " << kind;
        }
        return absl::OkStatus();
      });
      ASSERT_TRUE(status.ok()) << model << ": " << status;
    }
  }
  EXPECT_GT(models, 0);
}

// How far a result is from the exact one, over all its elements.
double Distance(const at::Tensor& got, const at::Tensor& exact) {
  return (at::norm(got - exact) / at::norm(exact)).item<double>();
}

TEST_F(DeviceTest, BFloat16IsAsNearToFloat32AsTransformersBFloat16) {
  for (const char* model : {"qwen2-bf16", "qwen3-bf16", "gemma2-bf16", "mixtral-bf16"}) {
    const std::string trace = TinyPath("traces/" + std::string(model));
    const at::Tensor exact = ReadTensors(trace + ".plain.safetensors").at("logits");
    const auto rounded = ReadTensors(trace + "-bfloat16.plain.safetensors");
    model::DecoderOptions options;
    options.dtype = at::kBFloat16;
    TraceResult result;
    const absl::Status status = WithDeviceDecoder(
        model, options, [&](model::Decoder& decoder) { return RunTinyTrace(decoder, RowsOf(rounded), {}, true, result); });
    ASSERT_TRUE(status.ok()) << model << ": " << status;
    EXPECT_LT(Distance(result.logits, exact) / Distance(rounded.at("logits"), exact), kBFloat16Times) << model;
  }
}

TEST_F(DeviceTest, GeneratesWhatTheCpuGenerates) {
  const std::string model = "llama-tied";
  const steer::Rows rows = RowsOf(ReadTensors(TinyPath("traces/" + model + ".plain.safetensors")));
  std::vector<steer::Rows> results[2];
  const auto generate = [&](model::Decoder& decoder, std::vector<steer::Rows>& result) -> absl::Status {
    std::vector<steer::GenerationTask> tasks;
    for (const char* kind : {"plain", "ablated", "added"}) {
      tasks.push_back({&rows, InterventionOf(model, kind, decoder.config().d_model)});
    }
    steer::GenerationOptions options;
    options.max_new_tokens = 8;
    steer::Replicas alone(decoder);
    auto got = steer::GenerateRows(alone, tasks, options);
    if (got.ok()) result = *std::move(got);
    return got.status();
  };
  // The device first: ATen must not be asked for one before.
  absl::Status status = WithDeviceDecoder(model, {}, [&](model::Decoder& decoder) { return generate(decoder, results[0]); });
  ASSERT_TRUE(status.ok()) << status;
  status = testing::WithDecoder(TinyPath(model), 1, at::kFloat,
                                [&](model::Decoder& decoder) { return generate(decoder, results[1]); });
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(results[0], results[1]);
  EXPECT_FALSE(results[0][0][0].empty());
}

}  // namespace
}  // namespace bearing
