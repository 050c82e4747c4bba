// Decoder::RunPasses: the order in which batches and layers meet.
#include <ATen/ATen.h>

#include <algorithm>
#include <optional>
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

std::vector<size_t> PassOrder(absl::Span<const Pass> passes) {
  std::vector<std::vector<size_t>> branches(passes.size());
  for (size_t i = 0; i < passes.size(); ++i) {
    if (passes[i].parent >= 0) branches[passes[i].parent].push_back(i);
  }
  std::vector<size_t> order;
  for (size_t i = 0; i < passes.size(); ++i) {
    if (passes[i].parent >= 0) continue;
    // By the block at which they leave, so that the trunk advances once.
    std::stable_sort(branches[i].begin(), branches[i].end(),
                     [&](size_t a, size_t b) { return passes[a].first < passes[b].first; });
    if (branches[i].empty()) order.push_back(i);
    order.insert(order.end(), branches[i].begin(), branches[i].end());
  }
  return order;
}

double PassCost(const Pass& pass, int64_t num_layers) {
  return static_cast<double>(pass.batch.num_tokens()) * static_cast<double>(num_layers - pass.first);
}

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

absl::Status Decoder::RunLayerByLayer(absl::Span<Pass> passes, absl::Span<const size_t> chosen,
                                      const std::function<absl::Status(int64_t layers)>& progress) {
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
    BEARING_RETURN_IF_ERROR(progress(layer + 1));
  }
  for (Active& a : active) {
    if (a.x.defined()) BEARING_RETURN_IF_ERROR(Finish(a));
  }
  return absl::OkStatus();
}

absl::Status Decoder::RunResident(absl::Span<Pass> passes, const PassControl& control) {
  const int64_t num_layers = config().num_layers();
  double all = 0;
  for (const size_t index : PassOrder(passes)) all += PassCost(passes[index], num_layers);
  double done = 0;
  const auto run = [&](Active& active, int64_t first, int64_t end) -> absl::Status {
    for (int64_t layer = first; layer < end; ++layer) {
      BEARING_ASSIGN_OR_RETURN(const LayerWeights* const weights, LayerAt(layer));
      BEARING_RETURN_IF_ERROR(RunBlock(*weights, active.view, layer, active.pass->options, active.x));
    }
    return absl::OkStatus();
  };
  std::optional<Active> trunk;
  int64_t trunk_layer = 0;
  for (const size_t index : PassOrder(passes)) {
    Pass& pass = passes[index];
    done += PassCost(pass, num_layers);
    if (control.claim) {
      BEARING_ASSIGN_OR_RETURN(const bool mine, control.claim(index));
      if (!mine) continue;
    }
    const at::Tensor* from = nullptr;
    if (pass.parent >= 0) {
      if (!trunk.has_value() || trunk->pass != &passes[pass.parent]) {
        trunk.reset();  // Its activations make room first.
        BEARING_ASSIGN_OR_RETURN(trunk, Start(passes[pass.parent], nullptr));
        trunk_layer = 0;
      }
      BEARING_RETURN_IF_ERROR(run(*trunk, trunk_layer, pass.first));
      trunk_layer = pass.first;
      from = &trunk->x;
    }
    BEARING_ASSIGN_OR_RETURN(Active active, Start(pass, from));
    BEARING_RETURN_IF_ERROR(run(active, pass.first, num_layers));
    BEARING_RETURN_IF_ERROR(Finish(active));
    if (control.progress) BEARING_RETURN_IF_ERROR(control.progress(done / all));
  }
  return absl::OkStatus();
}

absl::Status Decoder::RunStreamed(absl::Span<Pass> passes, const PassControl& control) {
  // As many as fit go together; a branch takes its parent along.
  std::vector<std::vector<size_t>> chunks;
  std::vector<size_t> last_chunk(passes.size(), 0);  // The last that holds the pass, counted from 1.
  int64_t tokens = 0;
  for (const size_t index : PassOrder(passes)) {
    if (control.claim) {
      BEARING_ASSIGN_OR_RETURN(const bool mine, control.claim(index));
      if (!mine) continue;
    }
    const int parent = passes[index].parent;
    const int64_t own = passes[index].batch.num_tokens();
    const auto with_parent = [&] { return parent >= 0 && last_chunk[parent] != chunks.size(); };
    const auto more = [&] { return own + (with_parent() ? passes[parent].batch.num_tokens() : 0); };
    if (chunks.empty() || tokens + more() > stream_tokens_) {
      chunks.emplace_back();
      tokens = 0;
    }
    tokens += more();
    if (with_parent()) {
      chunks.back().push_back(parent);
      last_chunk[parent] = chunks.size();
    }
    chunks.back().push_back(index);
  }
  if (chunks.size() > 1) split_(static_cast<int64_t>(chunks.size()));
  const double layers = static_cast<double>(chunks.size()) * static_cast<double>(config().num_layers());
  for (size_t c = 0; c < chunks.size(); ++c) {
    const auto progress = [&](int64_t done) {
      const double before = static_cast<double>(c) * static_cast<double>(config().num_layers());
      return control.progress ? control.progress((before + static_cast<double>(done)) / layers) : absl::OkStatus();
    };
    BEARING_RETURN_IF_ERROR(RunLayerByLayer(passes, chunks[c], progress));
  }
  return absl::OkStatus();
}

absl::Status Decoder::RunPasses(absl::Span<Pass> passes, const PassControl& control) {
  return layers_->residency() == Residency::kResident ? RunResident(passes, control) : RunStreamed(passes, control);
}

}  // namespace bearing::model
