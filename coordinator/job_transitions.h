// The state machine of a job as functions on the message: who may go where, and what each step leaves in the job.
//
//   QUEUED ──► RUNNING ──► SUCCEEDED | FAILED          RUNNING ──► QUEUED (its worker group was lost)
//     │           └──► CANCELLING ──► CANCELLED | SUCCEEDED | FAILED
//     └──► CANCELLED
//
// Pure: nothing is stored or told to anyone. The caller checks the state it starts from.
#ifndef BEARING_COORDINATOR_JOB_TRANSITIONS_H_
#define BEARING_COORDINATOR_JOB_TRANSITIONS_H_

#include <chrono>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "bearing/v1/job.pb.h"
#include "bearing/v1/worker_service.pb.h"

namespace bearing::coordinator {

using WallTime = std::chrono::system_clock::time_point;

// Reasons of JobError that the coordinator itself gives.
inline constexpr std::string_view kReasonWorkerGroupLost = "WORKER_GROUP_LOST";
inline constexpr std::string_view kReasonDoesNotFit = "DOES_NOT_FIT";
inline constexpr std::string_view kReasonModelUnusable = "MODEL_UNUSABLE";
inline constexpr std::string_view kReasonPathNotAllowed = "PATH_NOT_ALLOWED";

// A new job in QUEUED.
bearing::v1::Job MakeQueued(std::string name, bearing::v1::JobSpec spec, WallTime now);

// QUEUED -> RUNNING as the next attempt.
void StartAttempt(bearing::v1::Job* job, const bearing::v1::ShardPlan& plan, WallTime now);

// RUNNING or CANCELLING whose lease has ended: CANCELLED if the user wanted that, QUEUED while attempts are left, else FAILED
// with what ended the last one. `how` is noted with the job, its attempt, stage and time filled in. The job may ask for fewer
// attempts than `max_attempts`.
void LoseAttempt(bearing::v1::Job* job, int max_attempts, bearing::v1::LostAttempt how, WallTime now);

void Fail(bearing::v1::Job* job, std::string_view reason, std::string message, WallTime now);

// QUEUED -> CANCELLED, RUNNING -> CANCELLING, CANCELLING stays. FailedPrecondition for a final job.
absl::Status RequestCancel(bearing::v1::Job* job, WallTime now);

// What the worker group says became of the job. InvalidArgument without an outcome, FailedPrecondition for `cancelled` of a job
// that nobody cancelled. A result that comes after a cancel request stands: the work was done first.
absl::Status ApplyOutcome(bearing::v1::Job* job, const bearing::v1::CompleteRequest& request, WallTime now);

// Does a final job say what this request says?
bool HasOutcome(const bearing::v1::Job& job, const bearing::v1::CompleteRequest& request);

}  // namespace bearing::coordinator

#endif  // BEARING_COORDINATOR_JOB_TRANSITIONS_H_
