// Capture, candidate scores, generation and the edit on tiny models: each against the plain way of computing the same.
#include <filesystem>

#include "sharding/checkpoint_reader.h"
#include "sharding/status_macros.h"
#include "tests/worker/tiny_model.h"
#include "worker/edit/edit_checkpoint.h"
#include "worker/steer/candidate_scores.h"
#include "worker/steer/capture.h"
#include "worker/steer/concept_metric.h"
#include "worker/steer/direction_file.h"
#include "worker/steer/generate.h"

namespace bearing::steer {
namespace {

using bearing::testing::Layout;
using bearing::testing::OnAten;
using bearing::testing::ReadTensors;
using bearing::testing::RowsOf;
using bearing::testing::RunTinyTrace;
using bearing::testing::TinyPath;
using bearing::testing::TraceResult;
using bearing::testing::WithDecoder;
using bearing::testing::WithReplicas;
using bearing::testing::WorstRelative;

Rows TinyRows(const std::string& model) { return RowsOf(ReadTensors(TinyPath("traces/" + model + ".plain.safetensors"))); }

// Rows of a second side: the same with the first own token changed.
Rows OtherRows(const Rows& rows) {
  Rows other = rows;
  for (auto& row : other) row[row.size() / 2] = (row[row.size() / 2] + 31) % 200;
  return other;
}

at::Tensor RandomUnit(int64_t d, int seed) {
  at::manual_seed(seed);
  const at::Tensor r = at::randn({d});
  return r / at::norm(r);
}

TEST(RowBatcherTest, CutsByTokensAndSharesThePrefix) {
  const Rows rows = {{1, 2, 3, 4}, {1, 2, 3, 5, 6}, {1, 2, 9}};
  const RowBatcher batcher({}, rows, 1);
  EXPECT_EQ(batcher.prefix(), 2);
  EXPECT_EQ(RowBatcher({}, rows, 2).prefix(), 1);
  EXPECT_EQ(batcher.TokensOf({0, 3}), 2 + 2 + 3 + 1);
  const auto ranges = batcher.Cut(7);
  ASSERT_EQ(ranges.size(), 2u);
  EXPECT_EQ(ranges[0].size(), 2u);
  EXPECT_EQ(batcher.Cut(1).size(), 3u);  // At least one row each.
  EXPECT_EQ(batcher.Cut(1000).size(), 1u);
  EXPECT_EQ(batcher.Cut(1000, 2).size(), 2u);
  const Rows one = {{4, 4, 4}};
  EXPECT_EQ(RowBatcher({}, one, 1).prefix(), 0);
}

TEST(CaptureTest, MeansAreTheSameForEveryLayoutAndBatching) {
  const Rows rows = TinyRows("llama-tied");
  at::Tensor reference;
  for (const Layout layout :
       {Layout{1, 1}, Layout{2, 2}, Layout{4, 4}, Layout{2, 1}, Layout{3, 1}, Layout{4, 2}, OnAten({2, 2}),
        Layout{2, 1, model::Residency::kStreamed}, Layout{2, 2, model::Residency::kStreamed, /*stream_tokens=*/6}}) {
    for (const int64_t budget : {int64_t{8}, int64_t{4096}}) {
      at::Tensor mean;
      const absl::Status status = WithReplicas(TinyPath("llama-tied"), layout, [&](Replicas& replicas) -> absl::Status {
        const sharding::ModelConfig& config = replicas.decoder().config();
        ResidualMean sums(config.num_layers(), 2, config.d_model);
        const CaptureTask task = CaptureAll(rows, 2, [&](const CapturedBatch& batch) {
          sums.Add(batch, std::vector<bool>(batch.range.size(), true));
          return absl::OkStatus();
        });
        BEARING_RETURN_IF_ERROR(CaptureResiduals(replicas, {&task, 1}, budget, rows.size() - 1));
        if (replicas.count() == 1) {
          EXPECT_EQ(sums.count(), static_cast<int64_t>(rows.size()));
        }
        BEARING_ASSIGN_OR_RETURN(const at::Tensor result, sums.Mean(replicas));
        if (replicas.index() == replicas.count() - 1 && replicas.decoder().comm().rank() == 0) mean = result;
        return absl::OkStatus();
      });
      ASSERT_TRUE(status.ok()) << status;
      if (!reference.defined()) reference = mean;
      EXPECT_LT(WorstRelative(mean, reference), 1e-4)
          << "ranks=" << layout.ranks << " tp=" << layout.tensor_parallel << " budget=" << budget;
    }
  }
  // The last position's mean against the golden residuals.
  const auto golden = ReadTensors(TinyPath("traces/llama-tied.plain.safetensors"));
  const int64_t layers = reference.size(1);
  EXPECT_LT(WorstRelative(reference[1], at::mean(golden.at("residual").narrow(1, 0, layers).to(at::kDouble), {0})), 1e-4);
}

// Parts of a set are batches of their own, counted as the set is, and together the set.
TEST(CaptureTest, PartsMakeTheWhole) {
  const Rows rows = TinyRows("llama-tied");
  const absl::Status status = WithReplicas(TinyPath("llama-tied"), {2, 2}, [&](Replicas& replicas) -> absl::Status {
    const sharding::ModelConfig& config = replicas.decoder().config();
    ResidualMean whole(config.num_layers(), 2, config.d_model), parts = whole;
    std::vector<int> times(rows.size(), 0);
    const auto take = [&](ResidualMean& mean) {
      return [&mean](const CapturedBatch& batch) {
        mean.Add(batch, std::vector<bool>(batch.range.size(), true));
        return absl::OkStatus();
      };
    };
    const CaptureTask all = CaptureAll(rows, 2, take(whole));
    BEARING_RETURN_IF_ERROR(CaptureResiduals(replicas, {&all, 1}, 4096, 100));
    const size_t middle = rows.size() / 2;
    std::vector<CaptureTask> tasks;
    for (const RowRange part : {RowRange{0, middle}, RowRange{middle, rows.size()}}) {
      tasks.push_back({&rows, 2, part, [&, part](const CapturedBatch& batch) {
                         for (size_t r = batch.range.begin; r < batch.range.end; ++r) ++times[r];
                         EXPECT_GE(batch.range.begin, part.begin);
                         EXPECT_LE(batch.range.end, part.end);
                         return take(parts)(batch);
                       }});
    }
    double last = 0;
    BEARING_RETURN_IF_ERROR(CaptureResiduals(replicas, tasks, 4096, 100, [&](double share) {
      EXPECT_GT(share, last);
      last = share;
      return absl::OkStatus();
    }));
    EXPECT_NEAR(last, 1, 1e-9);
    EXPECT_EQ(times, std::vector<int>(rows.size(), 1));
    BEARING_ASSIGN_OR_RETURN(const at::Tensor want, whole.Mean(replicas));
    BEARING_ASSIGN_OR_RETURN(const at::Tensor got, parts.Mean(replicas));
    EXPECT_LT(WorstRelative(got, want), 1e-5);
    return absl::OkStatus();
  });
  ASSERT_TRUE(status.ok()) << status;
}

TEST(ResidualMeanTest, NothingKeptIsAnError) {
  ResidualMean mean(3, 1, 4);
  CapturedBatch batch;
  batch.range = {0, 2};
  batch.own = {0, 1};
  batch.residual_NLPD = at::ones({2, 3, 1, 4});
  mean.Add(batch, {false, false});
  const absl::Status status = WithReplicas(TinyPath("llama-tied"), {2, 1},
                                           [&](Replicas& replicas) -> absl::Status { return mean.Mean(replicas).status(); });
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
}

TEST(ConceptMetricTest, DerivesTokensSaidOnOneSideOnly) {
  at::Tensor positive = at::full({10}, 0.01, at::kDouble), negative = at::full({10}, 0.01, at::kDouble);
  positive[3] = 0.5;
  positive[7] = 0.2;
  negative[7] = 0.15;  // Said on both sides.
  positive[8] = 0.1;
  const auto tokens = DeriveConceptTokens(positive, negative);
  ASSERT_EQ(tokens.size(), 2u);
  EXPECT_EQ(tokens[0].id, 3);
  EXPECT_EQ(tokens[1].id, 8);
}

// Scores of every candidate against one plain forward a candidate, in several layouts and budgets.
TEST(CandidateScorerTest, EqualsOneForwardACandidate) {
  const std::string folder = TinyPath("qwen2-untied");
  const Rows negative = TinyRows("qwen2-untied");
  const Rows positive = OtherRows(negative);
  const std::vector<int32_t> tokens = {5, 77};
  std::vector<CandidateVector> candidates;
  std::vector<double> induce, kl, bypass;

  const absl::Status plain = WithDecoder(folder, 1, at::kFloat, [&](model::Decoder& decoder) -> absl::Status {
    const int64_t d = decoder.config().d_model;
    for (int c = 0; c < 7; ++c) {
      CandidateVector candidate;
      candidate.layer = c % decoder.config().num_layers();
      candidate.direction = RandomUnit(d, c);
      candidate.mean_difference = (candidate.direction * (1.0 + c)).contiguous();
      candidates.push_back(candidate);
    }
    const auto probabilities = [&](const Rows& rows, const model::Intervention& intervention) {
      TraceResult trace;
      EXPECT_TRUE(RunTinyTrace(decoder, rows, intervention, /*share_prefix=*/false, trace).ok());
      return at::softmax(trace.logits.to(at::kDouble), 1);
    };
    const auto metric = [&](const at::Tensor& p) {
      const at::Tensor sum = p.select(1, tokens[0]) + p.select(1, tokens[1]);
      return at::mean(at::log(sum + 1e-8) - at::log(1 - sum + 1e-8)).item<double>();
    };
    const at::Tensor base = probabilities(negative, {});
    for (const CandidateVector& candidate : candidates) {
      model::Intervention add, ablate;
      add.add = candidate.mean_difference;
      add.add_layer = candidate.layer;
      ablate.ablate_basis = candidate.direction.unsqueeze(0);
      induce.push_back(metric(probabilities(negative, add)));
      bypass.push_back(metric(probabilities(positive, ablate)));
      const at::Tensor p = probabilities(negative, ablate);
      kl.push_back(at::mean(at::sum(base * (at::log(base + 1e-6) - at::log(p + 1e-6)), {1})).item<double>());
    }
    return absl::OkStatus();
  });
  ASSERT_TRUE(plain.ok()) << plain;

  constexpr auto kStreamed = model::Residency::kStreamed;
  for (const Layout layout : {Layout{1, 1}, Layout{2, 2}, Layout{3, 3}, Layout{2, 1}, Layout{3, 1}, Layout{4, 2},
                              Layout{1, 1, kStreamed}, Layout{2, 2, kStreamed}, Layout{2, 1, kStreamed},
                              Layout{2, 2, kStreamed, 60}, OnAten({1, 1}), OnAten({2, 2, kStreamed, 60})}) {
    for (const int64_t budget : {int64_t{20}, int64_t{100}, int64_t{4096}}) {
      const auto body = [&](Replicas& replicas) -> absl::Status {
        CandidateScorer scorer(replicas, positive, negative, tokens, budget);
        BEARING_RETURN_IF_ERROR(scorer.RunBaseline());
        if (layout.residency != kStreamed) {
          // In slabs of two rows: the last one is shorter.
          CandidateScorer slabs(replicas, positive, negative, tokens, budget, /*slab_rows=*/2);
          BEARING_RETURN_IF_ERROR(slabs.RunBaseline());
          EXPECT_NEAR(slabs.positive_metric(), scorer.positive_metric(), 1e-4);
          EXPECT_NEAR(slabs.negative_metric(), scorer.negative_metric(), 1e-4);
          EXPECT_THAT(*slabs.ScoreInduce(candidates), ::testing::Pointwise(::testing::DoubleNear(1e-3), induce));
          EXPECT_THAT(*slabs.ScoreKl(candidates), ::testing::Pointwise(::testing::DoubleNear(1e-3), kl));
          EXPECT_THAT(*slabs.ScoreBypass(candidates), ::testing::Pointwise(::testing::DoubleNear(1e-3), bypass));
        }
        double last_share = 0;
        const auto progress = [&](double share) {
          EXPECT_GT(share, last_share);
          EXPECT_LE(share, 1 + 1e-9);
          last_share = share;
          return absl::OkStatus();
        };
        const auto expect = [&](const CandidateScorer::Scores& got, const std::vector<double>& want) {
          EXPECT_TRUE(got.ok()) << got.status();
          if (got.ok()) {
            EXPECT_THAT(*got, ::testing::Pointwise(::testing::DoubleNear(1e-3), want));
          }
          last_share = 0;
        };
        expect(scorer.ScoreInduce(candidates, progress), induce);
        const CandidateScorer::Scores first = scorer.ScoreKl(candidates, progress);
        expect(first, kl);
        expect(scorer.ScoreBypass(candidates, progress), bypass);
        if (layout.residency == kStreamed && layout.stream_tokens == 1 << 16) {
          // Four stages; behind the last layer the first is read ahead once.
          EXPECT_EQ(replicas.decoder().layers_read(), 4 * replicas.decoder().config().num_layers() + 1);
        }
        if (layout.stream_tokens == 60) {
          EXPECT_GT(replicas.decoder().layers_read(), 4 * replicas.decoder().config().num_layers() + 1) << "not split";
        }
        // Whoever draws what, the same layout gives the same bits.
        EXPECT_EQ(*scorer.ScoreKl(candidates), *first);
        return scorer.ScoreInduce({}).status();
      };
      const absl::Status status = WithReplicas(folder, layout, body);
      ASSERT_TRUE(status.ok()) << status;
    }
  }
}

// A replica that is told to stop stops the others, and all say why.
TEST(CandidateScorerTest, OneReplicaStopsAll) {
  const Rows rows = TinyRows("qwen2-untied");
  const absl::Status status = WithReplicas(TinyPath("qwen2-untied"), {4, 2}, [&](Replicas& replicas) -> absl::Status {
    std::vector<CandidateVector> candidates(9);
    for (CandidateVector& c : candidates) c.direction = RandomUnit(replicas.decoder().config().d_model, 1);
    CandidateScorer scorer(replicas, rows, rows, {5}, /*budget=*/20);
    BEARING_RETURN_IF_ERROR(scorer.RunBaseline());
    const absl::Status stopped =
        scorer
            .ScoreBypass(candidates,
                         [&](double) { return replicas.index() == 1 ? absl::CancelledError("told to") : absl::OkStatus(); })
            .status();
    // Replica 1 may have got nothing to do.
    EXPECT_TRUE(stopped.ok() || absl::IsCancelled(stopped)) << stopped;
    return scorer.ScoreBypass(candidates).status();  // And the replicas are in step.
  });
  EXPECT_TRUE(status.ok()) << status;
}

// Greedy tokens against a whole forward for each token, with interventions, several layouts and wave sizes.
TEST(GenerateTest, EqualsRepeatedForwards) {
  const std::string folder = TinyPath("llama-tied");
  const Rows rows = TinyRows("llama-tied");
  constexpr int64_t kNew = 6;
  std::vector<Rows> want(3);
  std::vector<model::Intervention> interventions(3);
  const absl::Status plain = WithDecoder(folder, 1, at::kFloat, [&](model::Decoder& decoder) -> absl::Status {
    const int64_t d = decoder.config().d_model;
    interventions[1].ablate_basis = RandomUnit(d, 1).unsqueeze(0);
    interventions[2].add = RandomUnit(d, 2) * 3;
    interventions[2].add_layer = 1;
    const auto& eos = decoder.config().eos_token_ids;
    for (size_t i = 0; i < interventions.size(); ++i) {
      want[i].resize(rows.size());
      for (size_t r = 0; r < rows.size(); ++r) {
        std::vector<int32_t> row = rows[r];
        for (int64_t step = 0; step < kNew; ++step) {
          TraceResult trace;
          BEARING_RETURN_IF_ERROR(RunTinyTrace(decoder, {row}, interventions[i], false, trace));
          const auto token = static_cast<int32_t>(at::argmax(trace.logits[0]).item<int64_t>());
          if (std::find(eos.begin(), eos.end(), token) != eos.end()) break;
          want[i][r].push_back(token);
          row.push_back(token);
        }
      }
    }
    return absl::OkStatus();
  });
  ASSERT_TRUE(plain.ok()) << plain;
  for (const Layout layout : {Layout{1, 1}, Layout{2, 2}, Layout{2, 2, model::Residency::kStreamed}, Layout{2, 1}, Layout{4, 2},
                              OnAten({1, 1}), OnAten({2, 2, model::Residency::kStreamed})}) {
    for (const int64_t budget : {int64_t{16}, int64_t{4096}}) {
      const absl::Status status = WithReplicas(folder, layout, [&](Replicas& replicas) -> absl::Status {
        std::vector<GenerationTask> tasks;
        for (const auto& intervention : interventions) tasks.push_back({&rows, intervention});
        GenerationOptions options;
        options.max_new_tokens = kNew;
        options.budget = budget;
        BEARING_ASSIGN_OR_RETURN(const std::vector<Rows> got, GenerateRows(replicas, tasks, options));
        EXPECT_EQ(got, want) << "ranks=" << layout.ranks << " tp=" << layout.tensor_parallel << " budget=" << budget
                             << " aten=" << layout.aten_ops;
        return absl::OkStatus();
      });
      ASSERT_TRUE(status.ok()) << status;
    }
  }
}

class EditTest : public ::testing::TestWithParam<std::tuple<std::string, int>> {};

// Edited weights without intervention = original weights with ablation, untied and tied, on several ranks.
TEST_P(EditTest, EditedWeightsEqualAblation) {
  const auto& [name, ranks] = GetParam();
  const std::string out = ::testing::TempDir() + "bearing-edit-" + name + "-" + std::to_string(ranks);
  std::filesystem::remove_all(out);
  const Rows rows = TinyRows(name);
  const auto source = sharding::WeightFiles::Open(TinyPath(name));
  ASSERT_TRUE(source.ok()) << source.status();
  const auto config = sharding::LoadModelConfig(TinyPath(name));
  ASSERT_TRUE(config.ok()) << config.status();
  const at::Tensor r = RandomUnit(config->d_model, 4);
  edit::EditSpec spec;
  const at::Tensor wide = r.to(at::kDouble).contiguous();
  spec.directions.emplace_back(wide.const_data_ptr<double>(), wide.const_data_ptr<double>() + wide.numel());
  std::vector<edit::FileCheck> checked;
  const absl::Status edited = comm::RunThreadRanks(ranks, [&](comm::Communicator& comm) -> absl::Status {
    BEARING_ASSIGN_OR_RETURN(const edit::EditPlan plan, edit::MakeEditPlan(**source, spec));
    const edit::RankGroup group{comm.rank(), comm.size(),
                                [&](const absl::Status& status) { return comm::AgreeOnStatus(comm, status); }};
    BEARING_ASSIGN_OR_RETURN(const edit::EditOutcome outcome, edit::EditCheckpoint(**source, plan, out, group, {}, {}));
    if (comm.rank() == 0) checked = outcome.checked;
    return absl::OkStatus();
  });
  ASSERT_TRUE(edited.ok()) << edited;

  TraceResult ablated, written, before;
  model::Intervention ablation;
  ablation.ablate_basis = r.unsqueeze(0);
  ASSERT_TRUE(WithDecoder(TinyPath(name), 1, at::kFloat, [&](model::Decoder& d) {
                return RunTinyTrace(d, rows, ablation, true, ablated);
              }).ok());
  ASSERT_TRUE(WithDecoder(TinyPath(name), 1, at::kFloat, [&](model::Decoder& d) {
                return RunTinyTrace(d, rows, {}, true, before);
              }).ok());
  const absl::Status loaded =
      WithDecoder(out, 1, at::kFloat, [&](model::Decoder& d) { return RunTinyTrace(d, rows, {}, true, written); });
  ASSERT_TRUE(loaded.ok()) << loaded;
  EXPECT_LT(at::amax(at::abs(written.logits - ablated.logits)).item<float>(), 1e-3);
  EXPECT_GT(at::amax(at::abs(written.logits - before.logits)).item<float>(), 1e-2) << "the edit changed nothing";

  auto copy = sharding::CheckpointReader::Open(out);
  ASSERT_TRUE(copy.ok()) << copy.status();
  EXPECT_FALSE((*copy)->config().tied_embeddings);
  size_t tensors = 0;
  for (const edit::FileCheck& file : checked) {
    for (const edit::TensorCheck& tensor : file.tensors) {
      EXPECT_LT(tensor.residue, 1e-6) << tensor.tensor;
      ++tensors;
    }
  }
  const auto plan = edit::MakeEditPlan(**source, spec);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(tensors, plan->edited_tensors.size());
  std::filesystem::remove_all(out);
}

INSTANTIATE_TEST_SUITE_P(Models, EditTest,
                         ::testing::Combine(::testing::Values("llama-tied", "qwen2-untied", "llama-sharded"),
                                            ::testing::Values(1, 2, 4)));

TEST(DirectionFileTest, RoundTripsAndRefusesWhatIsNoDirection) {
  const std::string path = ::testing::TempDir() + "direction.safetensors";
  Direction direction;
  direction.unit = RandomUnit(16, 1);
  direction.mean_difference = direction.unit * 7;
  direction.metadata = {{"layer", "3"}};
  ASSERT_TRUE(WriteDirection(path, direction).ok());
  const auto back = ReadDirection(path, 16);
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_TRUE(at::equal(back->mean_difference, direction.mean_difference));
  EXPECT_LT(at::amax(at::abs(back->unit - direction.unit)).item<float>(), 1e-7);
  EXPECT_EQ(back->metadata.at("layer"), "3");
  EXPECT_THAT(std::string(ReadDirection(path, 17).status().message()), ::testing::HasSubstr("want=[17] got=[16]"));

  direction.mean_difference = at::Tensor();
  direction.unit = direction.unit * 5;  // Alone and not of unit norm: accepted, normalized.
  ASSERT_TRUE(WriteDirection(path, direction).ok());
  const auto alone = ReadDirection(path, 16);
  ASSERT_TRUE(alone.ok());
  EXPECT_NEAR(at::norm(alone->unit).item<float>(), 1.0, 1e-6);
  EXPECT_TRUE(at::equal(alone->added(), alone->unit));

  direction.unit = at::zeros({16});
  ASSERT_TRUE(WriteDirection(path, direction).ok());
  EXPECT_THAT(std::string(ReadDirection(path, 16).status().message()), ::testing::HasSubstr("zero"));
  direction.unit = at::full({16}, NAN);
  ASSERT_TRUE(WriteDirection(path, direction).ok());
  EXPECT_THAT(std::string(ReadDirection(path, 16).status().message()), ::testing::HasSubstr("NaN"));
}

}  // namespace
}  // namespace bearing::steer
