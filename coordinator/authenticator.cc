#include "coordinator/authenticator.h"

#include <spdlog/spdlog.h>

#include <chrono>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "coordinator/file_look.h"
#include "jobs/artifacts.h"
#include "rpc/status_details.h"
#include "sharding/concat.h"
#include "sharding/status_macros.h"

namespace bearing::coordinator {
namespace {

constexpr std::chrono::seconds kLookEvery{1};
constexpr std::string_view kScheme = "Bearer ";
constexpr unsigned kEverything = rpc::kScopeRead | rpc::kScopeSubmit | rpc::kScopeAdmin | rpc::kScopeWorker;

absl::Status Refusal(const char* message, const char* reason) {
  return rpc::WithReason(absl::UnauthenticatedError(message), reason);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Authenticator>> Authenticator::Open(const std::string& path, const Clock* clock,
                                                                   spdlog::logger* logger) {
  std::unique_ptr<Authenticator> authenticator(new Authenticator(path, clock, logger));
  if (path.empty()) return authenticator;
  absl::MutexLock lock(&authenticator->mutex_);
  BEARING_RETURN_IF_ERROR(authenticator->Load());
  return authenticator;
}

absl::Status Authenticator::Load() {
  looked_at_ = clock_->SteadyNow();
  // The look first: a change while the file is read is then seen at the next one.
  std::string look = LookOf({path_});
  BEARING_ASSIGN_OR_RETURN(const std::string text, jobs::ReadFile(path_));
  BEARING_ASSIGN_OR_RETURN(tokens_, rpc::ParseTokenFile(text, path_));
  seen_ = std::move(look);
  return absl::OkStatus();
}

void Authenticator::LoadIfChanged() {
  if (clock_->SteadyNow() - looked_at_ < kLookEvery) return;
  looked_at_ = clock_->SteadyNow();
  if (LookOf({path_}) == seen_) {
    complaint_.clear();
    return;
  }
  const absl::Status status = Load();
  std::string complaint(status.message());
  if (status.ok()) {
    logger_->info("token file read again: tokens={}", tokens_.size());
  } else if (complaint != complaint_) {  // It is tried again at every look.
    logger_->error("token file not taken, the old one stays in force: {}", complaint);
  }
  complaint_ = std::move(complaint);
}

absl::StatusOr<Caller> Authenticator::Authenticate(std::string_view header) {
  if (!asks_for_tokens()) return Caller{"", kEverything};
  if (header.empty()) return Refusal("a token is needed: give --token-file or BEARING_TOKEN_FILE", "TOKEN_MISSING");
  if (!absl::StartsWithIgnoreCase(AsAbsl(header), AsAbsl(kScheme))) {
    return Refusal("authorization must be \"Bearer TOKEN\"", "TOKEN_MISSING");
  }
  const std::string hash = rpc::HashOfToken(header.substr(kScheme.size()));
  absl::MutexLock lock(&mutex_);
  LoadIfChanged();
  const rpc::TokenEntry* found = nullptr;
  // All are looked at, so that the time says nothing about which one it was.
  for (const rpc::TokenEntry& entry : tokens_) {
    if (rpc::EqualInConstantTime(entry.sha256, hash)) found = &entry;
  }
  if (found == nullptr) return Refusal("the token is not known", "TOKEN_UNKNOWN");
  if (absl::FromChrono(clock_->WallNow()) >= found->expires) return Refusal("the token has expired", "TOKEN_EXPIRED");
  return Caller{found->name, rpc::Expand(found->scopes)};
}

}  // namespace bearing::coordinator
