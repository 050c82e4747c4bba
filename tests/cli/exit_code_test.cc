#include "cli/exit_code.h"

#include <gtest/gtest.h>

namespace bearing::cli {
namespace {

int Of(absl::StatusCode code) { return ExitCodeOf(absl::Status(code, "x")); }
int OfNewJob(absl::StatusCode code) { return ExitCodeOfNewJob(absl::Status(code, "x")); }

TEST(ExitCodeTest, OfStatus) {
  EXPECT_EQ(ExitCodeOf(absl::OkStatus()), 0);
  EXPECT_EQ(Of(absl::StatusCode::kInternal), 1);
  EXPECT_EQ(Of(absl::StatusCode::kDataLoss), 1);
  EXPECT_EQ(Of(absl::StatusCode::kResourceExhausted), 1);
  EXPECT_EQ(Of(absl::StatusCode::kInvalidArgument), 2);
  EXPECT_EQ(Of(absl::StatusCode::kNotFound), 3);
  EXPECT_EQ(Of(absl::StatusCode::kUnauthenticated), 4);
  EXPECT_EQ(Of(absl::StatusCode::kPermissionDenied), 4);
  EXPECT_EQ(Of(absl::StatusCode::kUnavailable), 5);
  EXPECT_EQ(Of(absl::StatusCode::kDeadlineExceeded), 5);
  EXPECT_EQ(Of(absl::StatusCode::kAlreadyExists), 6);
  EXPECT_EQ(Of(absl::StatusCode::kAborted), 6);
  EXPECT_EQ(Of(absl::StatusCode::kFailedPrecondition), 6);
}

TEST(ExitCodeTest, ANewJobThatCannotRunIsAnInvalidOne) {
  EXPECT_EQ(ExitCodeOfNewJob(absl::OkStatus()), 0);
  for (const auto code : {absl::StatusCode::kInvalidArgument, absl::StatusCode::kFailedPrecondition,
                          absl::StatusCode::kNotFound, absl::StatusCode::kUnimplemented, absl::StatusCode::kDataLoss}) {
    EXPECT_EQ(OfNewJob(code), 2);
  }
  EXPECT_EQ(OfNewJob(absl::StatusCode::kAlreadyExists), 6);
  EXPECT_EQ(OfNewJob(absl::StatusCode::kUnavailable), 5);
}

TEST(ExitCodeTest, OfState) {
  EXPECT_EQ(ExitCodeOf(bearing::v1::JOB_STATE_SUCCEEDED), 0);
  EXPECT_EQ(ExitCodeOf(bearing::v1::JOB_STATE_FAILED), 1);
  EXPECT_EQ(ExitCodeOf(bearing::v1::JOB_STATE_CANCELLED), 7);
  EXPECT_EQ(ExitCodeOf(bearing::v1::JOB_STATE_RUNNING), 1);
}

}  // namespace
}  // namespace bearing::cli
