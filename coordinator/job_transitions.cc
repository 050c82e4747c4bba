#include "coordinator/job_transitions.h"

#include <google/protobuf/util/message_differencer.h>

#include <algorithm>
#include <utility>

#include "coordinator/job_store.h"
#include "rpc/status_details.h"
#include "sharding/concat.h"

namespace bearing::coordinator {
namespace {

using bearing::v1::CompleteRequest;
using bearing::v1::Job;
using bearing::v1::JobState;
using google::protobuf::util::MessageDifferencer;

void SetTime(WallTime time, google::protobuf::Timestamp* out) {
  const auto since_epoch = std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count();
  out->set_seconds(since_epoch / 1'000'000'000);
  out->set_nanos(static_cast<int32_t>(since_epoch % 1'000'000'000));
}

void End(Job* job, JobState state, WallTime now) {
  job->set_state(state);
  SetTime(now, job->mutable_end_time());
}

// The last report may be of an earlier stage: those are lost that were made while the coordinator was away.
void SetLastStage(Job* job, const CompleteRequest& request) {
  if (request.stage_times().empty()) return;
  const bearing::v1::Stage last = request.stage_times().rbegin()->stage();
  if (job->progress().stage() == last) return;
  job->clear_progress();
  job->mutable_progress()->set_stage(last);
}

}  // namespace

Job MakeQueued(std::string name, bearing::v1::JobSpec spec, WallTime now) {
  Job job;
  job.set_name(std::move(name));
  *job.mutable_spec() = std::move(spec);
  job.set_state(bearing::v1::JOB_STATE_QUEUED);
  SetTime(now, job.mutable_create_time());
  return job;
}

void StartAttempt(Job* job, const bearing::v1::ShardPlan& plan, WallTime now) {
  job->set_state(bearing::v1::JOB_STATE_RUNNING);
  job->set_attempt(job->attempt() + 1);
  *job->mutable_plan() = plan;
  if (!job->has_start_time()) SetTime(now, job->mutable_start_time());
}

void LoseAttempt(Job* job, int max_attempts, bearing::v1::LostAttempt how, WallTime now) {
  how.set_attempt(job->attempt());
  how.set_stage(job->progress().stage());
  SetTime(now, how.mutable_time());
  const std::string why = how.message();
  *job->add_lost_attempts() = std::move(how);
  if (job->state() == bearing::v1::JOB_STATE_CANCELLING) return End(job, bearing::v1::JOB_STATE_CANCELLED, now);
  if (job->spec().max_attempts() > 0) max_attempts = std::min(max_attempts, job->spec().max_attempts());
  if (job->attempt() >= max_attempts) {
    const bearing::v1::Stage stage = job->progress().stage();
    return Fail(job, kReasonWorkerGroupLost,
                Concat("worker group lost: ", why, stage == bearing::v1::STAGE_UNSPECIFIED ? "" : " in ",
                       stage == bearing::v1::STAGE_UNSPECIFIED ? "" : bearing::v1::Stage_Name(stage),
                       ", and no attempt is left: attempt=", job->attempt(), " max_attempts=", max_attempts),
                now);
  }
  job->set_state(bearing::v1::JOB_STATE_QUEUED);
  job->clear_progress();
  job->clear_stage_times();
  job->clear_plan();
}

void Fail(Job* job, std::string_view reason, std::string message, WallTime now) {
  job->mutable_error()->set_reason(std::string(reason));
  job->mutable_error()->set_message(std::move(message));
  job->mutable_error()->set_stage(job->progress().stage());
  End(job, bearing::v1::JOB_STATE_FAILED, now);
}

absl::Status RequestCancel(Job* job, WallTime now) {
  if (IsFinal(job->state())) {
    return rpc::WithReason(absl::FailedPreconditionError(Concat("the job has ended and cannot be cancelled: name=", job->name(),
                                                                " state=", bearing::v1::JobState_Name(job->state()))),
                           "JOB_ENDED");
  }
  if (job->state() == bearing::v1::JOB_STATE_QUEUED) End(job, bearing::v1::JOB_STATE_CANCELLED, now);
  if (job->state() == bearing::v1::JOB_STATE_RUNNING) job->set_state(bearing::v1::JOB_STATE_CANCELLING);
  return absl::OkStatus();
}

absl::Status ApplyOutcome(Job* job, const CompleteRequest& request, WallTime now) {
  switch (request.outcome_case()) {
    case CompleteRequest::kResult:
      *job->mutable_result() = request.result();
      SetLastStage(job, request);
      End(job, bearing::v1::JOB_STATE_SUCCEEDED, now);
      break;
    case CompleteRequest::kError:
      *job->mutable_error() = request.error();
      End(job, bearing::v1::JOB_STATE_FAILED, now);
      break;
    case CompleteRequest::kCancelled:
      if (!request.cancelled()) return absl::InvalidArgumentError("cancelled: must be true when set");
      if (job->state() != bearing::v1::JOB_STATE_CANCELLING) {
        return absl::FailedPreconditionError(Concat("cancelled: nobody cancelled the job: name=", job->name()));
      }
      End(job, bearing::v1::JOB_STATE_CANCELLED, now);
      break;
    case CompleteRequest::OUTCOME_NOT_SET:
      return absl::InvalidArgumentError("outcome: one of result, error, cancelled must be set");
  }
  *job->mutable_stage_times() = request.stage_times();
  return absl::OkStatus();
}

bool HasOutcome(const Job& job, const CompleteRequest& request) {
  switch (request.outcome_case()) {
    case CompleteRequest::kResult:
      return job.state() == bearing::v1::JOB_STATE_SUCCEEDED && MessageDifferencer::Equals(job.result(), request.result());
    case CompleteRequest::kError:
      return job.state() == bearing::v1::JOB_STATE_FAILED && MessageDifferencer::Equals(job.error(), request.error());
    case CompleteRequest::kCancelled:
      return job.state() == bearing::v1::JOB_STATE_CANCELLED && request.cancelled();
    case CompleteRequest::OUTCOME_NOT_SET:
      return false;
  }
  return false;
}

}  // namespace bearing::coordinator
