// Geometry of two sets of residuals in one layer, from the Gram matrix of their rows alone: d_model does not matter any more.
//
// With G = X X^T [N, N], the rows of the positive set first, w = (1/n+, ..., -1/n-, ...) and C = 1 - 11^T / N:
//   mean difference        d = X^T w,  |d|^2 = w^T G w,  x_i . d = (G w)_i
//   principal components   C G C = U diag(lambda) U^T;  score of row i: sqrt(lambda_k) U_ik;  share: lambda_k / trace
//   cosine of PC1 and d    U_1 . (C G w) / (sqrt(lambda_1) |d|)
//   distance of rows       sqrt(G_ii + G_jj - 2 G_ij)
// Functions are pure; thread-safe.
#ifndef BEARING_WORKER_STEER_GEOMETRY_H_
#define BEARING_WORKER_STEER_GEOMETRY_H_

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <map>
#include <vector>

#include "worker/steer/capture.h"

namespace bearing::steer {

struct LayerGeometry {
  double positive_norm = 0, negative_norm = 0;                // Mean |x|.
  double positive_norm_spread = 0, negative_norm_spread = 0;  // Standard deviation of |x|.
  double difference_norm = 0;                                 // |d|
  double pc1_share = 0, pc2_share = 0;                        // Of the variance of both sets together, 0 to 1.
  double pc1_cosine = 0;                                      // |cos(PC1, d)|
  double auroc = 0;       // Probability that a positive row lies further along d than a negative one; ties count half.
  double silhouette = 0;  // Mean over the rows, -1 to 1 (Rousseeuw 1987), Euclidean; 0 where a set has one row.

  static constexpr int64_t kNumbers = 10;
  std::array<double, kNumbers> ToArray() const;
  static LayerGeometry FromArray(const double* values);

  std::vector<double> projections;  // [N] x_i . d / |d|
  std::vector<double> pc1, pc2;     // [N] scores; PC1 points to the positive set.
};

// gram [N, N] fp64 in host memory, of `positives` rows and then the others; both sets have rows. Where d or all variance is
// zero, what depends on it is 0.
LayerGeometry GeometryOfGram(const at::Tensor& gram, int64_t positives);

// Cosines between the mean differences of layers and of positions.
struct DirectionCosines {
  at::Tensor layers_PLL;     // Of two layers at one position.
  at::Tensor positions_LPP;  // Of two positions at one layer.
};

// difference [P, L, D] fp64 in host memory. A difference whose norm is at most `zero_share` of the largest is rounding, not a
// direction: NaN.
DirectionCosines CosinesOfDirections(const at::Tensor& difference_PLD, double zero_share);

// Rows of the last position of one set, as a rank keeps them on their way to Gram matrices: those of its turn only.
class LastRows {
 public:
  LastRows() = default;
  // At most `max_rows` rows are kept. With `among_first`, of the first `max_rows` prompts of the set only.
  LastRows(int64_t max_rows, bool among_first) : max_rows_(max_rows), among_first_(among_first) {}

  // Rows of the batch whose flag (of each row of its range) is set. Batches come by ascending ranges.
  void Add(const CapturedBatch& batch, const std::vector<bool>& keep);

  // Copies the rows of `layer` that this rank has into `out` [prompts, D] fp32, where row i is for prompt prompts[i]; others
  // are left as they are.
  void CopyLayer(int64_t layer, const std::vector<int>& prompts, at::Tensor out) const;

 private:
  int64_t max_rows_ = 0;
  bool among_first_ = false;
  std::map<int64_t, at::Tensor> rows_;  // Prompt -> [L, D] fp32, host memory.
};

}  // namespace bearing::steer

#endif  // BEARING_WORKER_STEER_GEOMETRY_H_
