// What the model has computed on this thread: counted where it happens, so that a stage can tell how near it came to what the
// machine can do. Counters that only grow; nothing is decided by them. Each thread has its own: a rank runs its model on one.
#ifndef BEARING_WORKER_MODEL_WORK_DONE_H_
#define BEARING_WORKER_MODEL_WORK_DONE_H_

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include "worker/model/linear.h"

namespace bearing::model {

struct WorkDone {
  double flops = 0;   // Of products with weights, this rank's share; attention is not counted.
  double tokens = 0;  // Through all blocks; through some of them, that part of a token.
};
WorkDone& WorkOfThread();

// FLOPs a second of a product that is as large as those of a layer, on this thread, in the way that `path` computes it. Takes
// some hundredths of a second.
double MeasureProductRate(c10::ScalarType dtype, GemmPath path, c10::Device device);

}  // namespace bearing::model

#endif  // BEARING_WORKER_MODEL_WORK_DONE_H_
