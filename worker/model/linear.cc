#include "worker/model/linear.h"

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/cpu/Utils.h>

#include <algorithm>
#include <string_view>
#include <vector>

#include "sharding/memory_rules.h"
#include "worker/model/work_done.h"

namespace bearing::model {
namespace {

// The rows a packed weight is tuned for; other counts work as well.
constexpr int64_t kTypicalRows = 1024;

// libtorch has these operators but no C++ function for them: they are reached by name.
at::Tensor PackWeight(const at::Tensor& weight) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("mkldnn::_reorder_linear_weight", "")
                             .typed<at::Tensor(const at::Tensor&, std::optional<int64_t>)>();
  return op.call(weight, kTypicalRows);
}

at::Tensor MultiplyPacked(const at::Tensor& x, const at::Tensor& packed, const at::Tensor& bias) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("mkldnn::_linear_pointwise", "")
          .typed<at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&, std::string_view,
                            c10::List<std::optional<at::Scalar>>, std::optional<std::string_view>)>();
  return op.call(x, packed, bias.defined() ? std::optional<at::Tensor>(bias) : std::nullopt, "none",
                 c10::List<std::optional<at::Scalar>>(), "");
}

bool IsPacked(GemmPath path) { return path == GemmPath::kPacked || path == GemmPath::kWidenedPacked; }
bool IsWidened(GemmPath path) { return path == GemmPath::kWidened || path == GemmPath::kWidenedPacked; }

// Does the processor multiply bf16 itself? Emulated, that is several times slower than fp32.
bool HasBf16Arithmetic() {
  const auto capabilities = at::cpu::get_cpu_capabilities();
  for (const char* name : {"avx512_bf16", "amx_bf16", "bf16", "sve_bf16"}) {
    const auto found = capabilities.find(name);
    if (found != capabilities.end() && found->second.isBool() && found->second.toBool()) return true;
  }
  return false;
}

// Does this build of libtorch pack weights of this type on this processor?
bool CanPack(at::ScalarType dtype, GemmPath path) {
  try {
    const Linear tried(at::ones({16, 16}), at::Tensor(), dtype, path);
    return tried.Forward(at::ones({4, 16}, dtype)).defined();
  } catch (const c10::Error&) {
    return false;
  }
}

}  // namespace

const char* GemmPathName(GemmPath path) {
  switch (path) {
    case GemmPath::kPlain:
      return "plain";
    case GemmPath::kPacked:
      return "packed";
    case GemmPath::kWidened:
      return "widened";
    case GemmPath::kWidenedPacked:
      return "widened-packed";
    case GemmPath::kWidenedBlocks:
      return "widened-blocks";
  }
  return "?";
}

std::optional<GemmPath> GemmPathFromName(const std::string& name) {
  for (const GemmPath path :
       {GemmPath::kPlain, GemmPath::kPacked, GemmPath::kWidened, GemmPath::kWidenedPacked, GemmPath::kWidenedBlocks}) {
    if (name == GemmPathName(path)) return path;
  }
  return std::nullopt;
}

GemmPath ChooseGemmPath(at::ScalarType dtype) {
  const bool widen = dtype == at::kBFloat16 && !HasBf16Arithmetic();
  const GemmPath packed = widen ? GemmPath::kWidenedPacked : GemmPath::kPacked;
  if (CanPack(dtype, packed)) return packed;
  return widen ? GemmPath::kWidened : GemmPath::kPlain;
}

int64_t HeldElementBytes(at::ScalarType dtype, GemmPath path) {
  return static_cast<int64_t>(c10::elementSize(IsWidened(path) ? at::kFloat : dtype));
}

GemmPath ChooseStreamedGemmPath(at::ScalarType dtype) {
  const bool widen = dtype == at::kBFloat16 && !HasBf16Arithmetic();
  return widen ? GemmPath::kWidenedBlocks : ChooseGemmPath(dtype);
}

Linear::Linear(const at::Tensor& weight, const at::Tensor& bias, at::ScalarType dtype, GemmPath path)
    : path_(path), dtype_(dtype), in_(weight.size(1)), out_(weight.size(0)) {
  const at::ScalarType product = IsWidened(path) ? at::kFloat : dtype;
  // bf16 weights rounded first: widening must not give more than the compute type holds.
  const at::Tensor converted = weight.to(dtype).to(product).contiguous();
  weight_ = IsPacked(path) ? PackWeight(converted) : converted;
  if (bias.defined()) bias_ = bias.to(dtype).to(path == GemmPath::kWidenedBlocks ? at::kFloat : product).contiguous();
}

at::Tensor Linear::MultiplyBlocks(const at::Tensor& x) const {
  const at::Tensor input = x.to(at::kFloat);
  at::Tensor y = at::empty({x.size(0), out_}, at::kFloat);
  const int64_t rows = std::max<int64_t>(1, sharding::kWidenedBlockElements / in_);
  for (int64_t begin = 0; begin < out_; begin += rows) {
    const int64_t count = std::min(rows, out_ - begin);
    at::Tensor part = y.narrow(1, begin, count);
    at::mm_out(part, input, weight_.narrow(0, begin, count).to(at::kFloat).t());
  }
  if (bias_.defined()) y.add_(bias_);
  return y;
}

at::Tensor Linear::Multiply(const at::Tensor& x) const {
  WorkOfThread().flops += 2.0 * static_cast<double>(x.size(0)) * static_cast<double>(in_ * out_);
  if (path_ == GemmPath::kWidenedBlocks) return MultiplyBlocks(x);
  const at::Tensor input = IsWidened(path_) ? x.to(at::kFloat) : x;
  if (IsPacked(path_)) return MultiplyPacked(input, weight_, bias_);
  return at::linear(input, weight_, bias_.defined() ? std::optional<at::Tensor>(bias_) : std::nullopt);
}

at::Tensor Linear::Forward(const at::Tensor& x) const { return Multiply(x).to(dtype_); }

at::Tensor Linear::ForwardFloat(const at::Tensor& x) const { return Multiply(x).to(at::kFloat); }

}  // namespace bearing::model
