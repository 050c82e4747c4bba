// Tests that need a CUDA device are skipped without one, and fail where one is expected (scripts/test --gpu).
#ifndef BEARING_TESTS_WORKER_NEED_DEVICE_H_
#define BEARING_TESTS_WORKER_NEED_DEVICE_H_

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "worker/comm/cuda_backend.h"

// In the body of a test or of SetUp.
#define SKIP_WITHOUT_DEVICE()                                                              \
  if (std::string why; !::bearing::comm::CudaAvailable(&why)) {                            \
    if (std::getenv("BEARING_EXPECT_GPU") != nullptr) FAIL() << "no CUDA device: " << why; \
    GTEST_SKIP() << "no CUDA device: " << why;                                             \
  }

#endif  // BEARING_TESTS_WORKER_NEED_DEVICE_H_
