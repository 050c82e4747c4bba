// Decoder::RunPasses: the order in which batches and layers meet.
#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "sharding/status_macros.h"
#include "worker/model/decoder.h"

namespace bearing::model {

struct Decoder::Active {
  Pass* pass = nullptr;
  BatchView view;
  at::Tensor x;  // [T, D], then [N, D].
};

namespace {

// For each pass, its branches by the block at which they leave it, lowest first.
std::vector<std::vector<size_t>> BranchesOf(absl::Span<const Pass> passes) {
  std::vector<std::vector<size_t>> branches(passes.size());
  for (size_t i = 0; i < passes.size(); ++i) {
    if (passes[i].parent >= 0) branches[passes[i].parent].push_back(i);
  }
  for (std::vector<size_t>& list : branches) {
    std::stable_sort(list.begin(), list.end(), [&](size_t a, size_t b) { return passes[a].first < passes[b].first; });
  }
  return branches;
}

}  // namespace

absl::StatusOr<Decoder::Active> Decoder::Start(Pass& pass, const at::Tensor* parent_x) {
  Active active{&pass, {}, {}};
  BEARING_ASSIGN_OR_RETURN(active.view, MakeView(pass.batch, pass.read, pass.options.cache));
  if (parent_x == nullptr) {
    BEARING_ASSIGN_OR_RETURN(active.x, Embed(pass.batch, active.view));
    return active;
  }
  const int64_t copies = pass.batch.num_tokens() / parent_x->size(0);
  if (copies * parent_x->size(0) != pass.batch.num_tokens()) {
    return absl::InternalError(absl::StrCat("a branch must repeat its parent's tokens: parent=", parent_x->size(0),
                                            " branch=", pass.batch.num_tokens()));
  }
  active.x = parent_x->repeat({copies, 1});
  return active;
}

absl::Status Decoder::Finish(Active& active) {
  EndPass(active.pass->batch, active.pass->options, active.x);
  return active.pass->done ? active.pass->done(active.x) : absl::OkStatus();
}

absl::Status Decoder::RunBranching(absl::Span<Pass> passes, size_t root, absl::Span<const size_t> branches) {
  const int64_t num_layers = config().num_layers();
  BEARING_ASSIGN_OR_RETURN(Active trunk, Start(passes[root], nullptr));
  const auto run = [&](Active& active, int64_t first, int64_t end) -> absl::Status {
    for (int64_t layer = first; layer < end; ++layer) {
      BEARING_ASSIGN_OR_RETURN(const LayerWeights* const weights, LayerAt(layer));
      BEARING_RETURN_IF_ERROR(RunBlock(*weights, active.view, layer, active.pass->options, active.x));
    }
    return absl::OkStatus();
  };
  int64_t layer = 0;
  for (const size_t index : branches) {
    BEARING_RETURN_IF_ERROR(run(trunk, layer, passes[index].first));
    layer = passes[index].first;
    BEARING_ASSIGN_OR_RETURN(Active branch, Start(passes[index], &trunk.x));
    BEARING_RETURN_IF_ERROR(run(branch, layer, num_layers));
    BEARING_RETURN_IF_ERROR(Finish(branch));
  }
  if (!branches.empty()) return absl::OkStatus();
  BEARING_RETURN_IF_ERROR(run(trunk, layer, num_layers));
  return Finish(trunk);
}

absl::Status Decoder::RunLayerByLayer(absl::Span<Pass> passes, absl::Span<const size_t> chosen) {
  const int64_t num_layers = config().num_layers();
  // Indexed as `chosen`. A branch's place stays empty until it leaves its parent; a parent's becomes so behind its last branch.
  std::vector<Active> active(chosen.size());
  std::vector<size_t> place(passes.size(), 0);
  std::vector<int64_t> waiting(chosen.size(), 0);  // Branches that have not left yet.
  for (size_t i = 0; i < chosen.size(); ++i) place[chosen[i]] = i;
  for (size_t i = 0; i < chosen.size(); ++i) {
    Pass& pass = passes[chosen[i]];
    if (pass.parent >= 0) {
      ++waiting[place[pass.parent]];
      continue;
    }
    BEARING_ASSIGN_OR_RETURN(active[i], Start(pass, nullptr));
  }
  for (int64_t layer = 0; layer < num_layers; ++layer) {
    for (size_t i = 0; i < chosen.size(); ++i) {
      Pass& pass = passes[chosen[i]];
      if (pass.parent < 0 || pass.first != layer) continue;
      Active& parent = active[place[pass.parent]];
      BEARING_ASSIGN_OR_RETURN(active[i], Start(pass, &parent.x));
      if (--waiting[place[pass.parent]] == 0) parent.x.reset();
    }
    BEARING_ASSIGN_OR_RETURN(const LayerWeights* const weights, LayerAt(layer));
    for (Active& a : active) {
      if (!a.x.defined()) continue;
      BEARING_RETURN_IF_ERROR(RunBlock(*weights, a.view, layer, a.pass->options, a.x));
    }
  }
  for (Active& a : active) {
    if (a.x.defined()) BEARING_RETURN_IF_ERROR(Finish(a));
  }
  return absl::OkStatus();
}

absl::Status Decoder::RunPasses(absl::Span<Pass> passes) {
  const std::vector<std::vector<size_t>> branches = BranchesOf(passes);
  if (layers_->residency() == Residency::kResident) {
    for (size_t i = 0; i < passes.size(); ++i) {
      if (passes[i].parent < 0) BEARING_RETURN_IF_ERROR(RunBranching(passes, i, branches[i]));
    }
    return absl::OkStatus();
  }
  // As many as fit go together; a branch takes its parent along.
  std::vector<size_t> chosen;
  std::vector<bool> is_chosen(passes.size(), false);
  int64_t tokens = 0;
  const auto flush = [&]() -> absl::Status {
    if (chosen.empty()) return absl::OkStatus();
    BEARING_RETURN_IF_ERROR(RunLayerByLayer(passes, chosen));
    for (const size_t index : chosen) is_chosen[index] = false;
    chosen.clear();
    tokens = 0;
    return absl::OkStatus();
  };
  const auto choose = [&](size_t index) {
    is_chosen[index] = true;
    chosen.push_back(index);
    tokens += passes[index].batch.num_tokens();
  };
  for (size_t i = 0; i < passes.size(); ++i) {
    if (!branches[i].empty()) continue;  // Comes along with its branches.
    const int parent = passes[i].parent;
    const int64_t more =
        passes[i].batch.num_tokens() + (parent >= 0 && !is_chosen[parent] ? passes[parent].batch.num_tokens() : 0);
    if (tokens + more > stream_tokens_) BEARING_RETURN_IF_ERROR(flush());
    if (parent >= 0 && !is_chosen[parent]) choose(parent);
    choose(i);
  }
  return flush();
}

}  // namespace bearing::model
