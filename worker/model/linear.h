// y = x W^T + b with a weight that is prepared once for many products.
//
// Weights are packed where libtorch can. On processors without bf16 arithmetic, bf16 weights are kept widened to fp32: inputs
// and outputs are still rounded to bf16, sums are fp32.
#ifndef BEARING_WORKER_MODEL_LINEAR_H_
#define BEARING_WORKER_MODEL_LINEAR_H_

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>

namespace bearing::model {

enum class GemmPath {
  kPlain,          // at::linear on the compute type.
  kPacked,         // oneDNN with the weight packed once, on the compute type.
  kWidened,        // bf16 only: at::linear in fp32.
  kWidenedPacked,  // bf16 only: packed oneDNN in fp32.
  kWidenedBlocks,  // bf16 only: kept as bf16, widened some rows at a time when it is used: half the memory, for streamed
                   // weights.
};
const char* GemmPathName(GemmPath path);
std::optional<GemmPath> GemmPathFromName(const std::string& name);

// By what processor and libtorch can do, not by measuring: the same machine then computes the same bits in each run. `dtype` is
// kFloat or kBFloat16.
GemmPath ChooseGemmPath(at::ScalarType dtype);

// Bytes that an element of a weight takes in memory on that path.
int64_t HeldElementBytes(at::ScalarType dtype, GemmPath path);

// The one to take when layers come and go, so that memory for two of them counts and packing would be paid at each reading.
GemmPath ChooseStreamedGemmPath(at::ScalarType dtype);

class Linear {
 public:
  Linear() = default;

  // weight [out, in] in any float type, bias [out] or undefined. The weight is converted and packed; the argument is not kept.
  Linear(const at::Tensor& weight, const at::Tensor& bias, at::ScalarType dtype, GemmPath path);

  // x [T, in] of the compute type -> [T, out] of the compute type.
  at::Tensor Forward(const at::Tensor& x) const;

  // The same with an fp32 result (for logits); no rounding to bf16 in between where the path computes in fp32.
  at::Tensor ForwardFloat(const at::Tensor& x) const;

  int64_t in_features() const { return in_; }
  int64_t out_features() const { return out_; }

 private:
  at::Tensor Multiply(const at::Tensor& x) const;
  at::Tensor MultiplyBlocks(const at::Tensor& x) const;

  GemmPath path_ = GemmPath::kPlain;
  at::ScalarType dtype_ = at::kFloat;
  int64_t in_ = 0;
  int64_t out_ = 0;
  at::Tensor weight_;  // [out, in], or packed.
  at::Tensor bias_;    // [out] in the type of the product, or undefined.
};

}  // namespace bearing::model

#endif  // BEARING_WORKER_MODEL_LINEAR_H_
