// Generation with seeds, stops and measures on a tiny model, against whole forward passes, over layouts of ranks.
#include <ATen/ATen.h>

#include <mutex>
#include <set>

#include "tests/worker/tiny_model.h"
#include "worker/steer/concept_metric.h"
#include "worker/steer/generate.h"

namespace bearing::steer {
namespace {

using bearing::testing::Layout;
using bearing::testing::OnAten;
using bearing::testing::ReadTensors;
using bearing::testing::RowsOf;
using bearing::testing::TinyPath;
using bearing::testing::WithReplicas;

const std::vector<Layout> kLayouts = {{1, 1},        {2, 2}, {2, 1}, {3, 3}, {4, 2}, {2, 2, model::Residency::kStreamed},
                                      OnAten({2, 2})};

Rows TinyRows() { return RowsOf(ReadTensors(TinyPath("traces/llama-tied.plain.safetensors"))); }

// The rows of all replicas, by task and row; each is told of once.
struct Collected {
  std::mutex mutex;
  std::map<std::pair<size_t, size_t>, GeneratedRow> rows;
  int64_t waves = 0;

  Generation::Sink SinkOf(const Replicas& replicas) {
    if (replicas.decoder().comm().rank() != 0) return [](const GeneratedRow&) {};
    return [this](const GeneratedRow& row) {
      const std::lock_guard<std::mutex> lock(mutex);
      EXPECT_TRUE(rows.emplace(std::pair(row.task, row.row), row).second);
    };
  }
};

void Generate(const Layout& layout, const Rows& rows, const GenerationOptions& options, Collected& out,
              const std::set<size_t>& skipped = {}) {
  const absl::Status status = WithReplicas(TinyPath("llama-tied"), layout, [&](Replicas& replicas) {
    std::vector<GenerationTask> tasks(2);
    tasks[0].rows = tasks[1].rows = &rows;
    // No random numbers: ranks are threads here, and torch has one generator for all of them.
    tasks[1].intervention.add =
        at::mul(at::sin(at::mul(at::arange(replicas.decoder().config().d_model, at::kFloat), 1.7)), 1.4);
    tasks[1].intervention.add_layer = 1;
    Generation generation(replicas, tasks, options);
    std::vector<bool> finished;
    for (size_t w = 0; w < generation.waves().size(); ++w) finished.push_back(skipped.count(w) > 0);
    if (replicas.index() == 0 && replicas.decoder().comm().rank() == 0) {
      out.waves = static_cast<int64_t>(generation.waves().size());
    }
    return generation.Run(finished, out.SinkOf(replicas));
  });
  ASSERT_TRUE(status.ok()) << status;
}

std::vector<std::vector<int32_t>> TokensOf(const Collected& collected) {
  std::vector<std::vector<int32_t>> tokens;
  for (const auto& [key, row] : collected.rows) tokens.push_back(row.tokens);
  return tokens;
}

TEST(GenerationTest, SampledRowsAreTheSameInEveryLayout) {
  const Rows rows = TinyRows();
  GenerationOptions options;
  options.max_new_tokens = 6;
  options.sampling = {1, 0.9, 11};
  options.metric_tokens = {7, 40, 100};
  Collected one;
  Generate({1, 1}, rows, options, one);
  ASSERT_EQ(one.rows.size(), 2 * rows.size());
  for (const Layout& layout : kLayouts) {
    for (const int64_t budget : {int64_t{16}, int64_t{4096}}) {
      options.budget = budget;
      Collected other;
      Generate(layout, rows, options, other);
      EXPECT_EQ(TokensOf(other), TokensOf(one)) << "ranks=" << layout.ranks << " tp=" << layout.tensor_parallel;
      for (const auto& [key, row] : one.rows) {
        EXPECT_NEAR(other.rows[key].metric, row.metric, 1e-3);
        EXPECT_EQ(other.rows[key].finish, row.finish);
      }
    }
  }
  options.sampling.seed = 12;
  Collected other;
  Generate({1, 1}, rows, options, other);
  EXPECT_NE(TokensOf(other), TokensOf(one));
}

TEST(GenerationTest, TheMetricIsThatOfAForwardPass) {
  const Rows rows = TinyRows();
  const auto golden = ReadTensors(TinyPath("traces/llama-tied.plain.safetensors"));
  const at::Tensor p = at::softmax(golden.at("logits").to(at::kDouble), 1);
  GenerationOptions options;
  options.max_new_tokens = 2;
  options.metric_tokens = {7, 40, 100};
  for (const double temperature : {0.0, 0.7}) {
    options.sampling.temperature = temperature;
    Collected got;
    Generate({2, 2}, rows, options, got);
    for (size_t r = 0; r < rows.size(); ++r) {
      double sum = 0;
      for (const int32_t id : options.metric_tokens) sum += p[static_cast<int64_t>(r)][id].item<double>();
      EXPECT_NEAR((got.rows[{0, r}].metric), std::log(sum + 1e-8) - std::log(1 - sum + 1e-8), 1e-3);
    }
  }
}

TEST(GenerationTest, StopsEndARow) {
  const Rows rows = TinyRows();
  GenerationOptions options;
  options.max_new_tokens = 8;
  Collected whole;
  Generate({1, 1}, rows, options, whole);
  // A token in the middle of an answer; as a stop text the same.
  const std::vector<int32_t>& longest = whole.rows[{0, 0}].tokens;
  ASSERT_GE(longest.size(), 3u);
  const int32_t stop = longest[2];
  const auto cut = [&](std::vector<int32_t> tokens, bool keep) {
    const auto at = std::find(tokens.begin(), tokens.end(), stop);
    if (at != tokens.end()) tokens.erase(at + (keep ? 1 : 0), tokens.end());
    return tokens;
  };
  for (const bool by_text : {false, true}) {
    GenerationOptions stopping = options;
    if (by_text) {
      stopping.has_stop_texts = true;
      stopping.holds_stop_text = [&](absl::Span<const int32_t> tokens) { return tokens.back() == stop; };
    } else {
      stopping.stop_tokens = {stop};
    }
    for (const Layout& layout : {Layout{1, 1}, Layout{2, 2}, Layout{4, 2}}) {
      Collected got;
      Generate(layout, rows, stopping, got);
      for (const auto& [key, row] : whole.rows) {
        EXPECT_EQ(got.rows[key].tokens, cut(row.tokens, by_text));
        const bool stopped = std::find(row.tokens.begin(), row.tokens.end(), stop) != row.tokens.end();
        EXPECT_EQ(got.rows[key].finish, stopped ? Finish::kStop : row.finish);
      }
    }
  }
}

TEST(GenerationTest, FinishedWavesAreLeftOutAndTheOthersAreTheSameBits) {
  const Rows rows = TinyRows();
  GenerationOptions options;
  options.max_new_tokens = 4;
  options.max_rows = 2;
  options.sampling = {0.8, 1, 3};
  options.metric_tokens = {7};
  Collected all;
  Generate({2, 1}, rows, options, all);
  EXPECT_GE(all.waves, static_cast<int64_t>(rows.size())) << "two tasks, two rows a wave";
  Collected some;
  Generate({2, 1}, rows, options, some, {0, 2});
  EXPECT_LT(some.rows.size(), all.rows.size());
  for (const auto& [key, row] : some.rows) {
    EXPECT_EQ(row.tokens, all.rows[key].tokens);
    EXPECT_EQ(row.metric, all.rows[key].metric);
  }
}

// A row ends where the model's context does.
TEST(GenerationTest, TheContextEndsARow) {
  const absl::Status status = WithReplicas(TinyPath("llama-tied"), {1, 1}, [&](Replicas& replicas) {
    const int64_t context = replicas.decoder().config().max_positions;
    EXPECT_GT(context, 8);
    Rows rows = {std::vector<int32_t>(context - 3, 50), std::vector<int32_t>(5, 50)};
    GenerationOptions options;
    options.max_new_tokens = 7;
    Collected got;
    Generation generation(replicas, {{&rows, {}}}, options);
    const absl::Status ran = generation.Run({}, got.SinkOf(replicas));
    EXPECT_LE((got.rows[{0, 0}].tokens.size()), 3u);
    if (got.rows[{0, 0}].finish != Finish::kEnd) {
      EXPECT_EQ((got.rows[{0, 0}].tokens.size()), 3u);
    }
    EXPECT_EQ(got.rows.size(), 2u);
    return ran;
  });
  EXPECT_TRUE(status.ok()) << status;
}

}  // namespace
}  // namespace bearing::steer
