#include "cli/doctor/network_checks.h"

#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <random>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "cli/doctor/http_date.h"
#include "cli/jobs_client.h"
#include "storage/location.h"

namespace bearing::cli {
namespace {

using Result = Finding::Result;

constexpr absl::Duration kPatience = absl::Seconds(10);
constexpr absl::Duration kNoticeable = absl::Seconds(5);
constexpr absl::Duration kRefused = absl::Minutes(5);

std::string Variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::string MendStorage(const absl::Status& status, const storage::Uri& uri) {
  if (uri.is_local()) return "make the folder, or give this user the right to use it";
  const std::string variables =
      uri.scheme == "s3"   ? "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a role (web identity, instance)"
      : uri.scheme == "gs" ? "GOOGLE_APPLICATION_CREDENTIALS, or a service account (Workload Identity)"
                           : "AZURE_STORAGE_ACCOUNT_NAME with a key or an identity";
  switch (status.code()) {
    case absl::StatusCode::kUnauthenticated:
      return absl::StrCat("the store does not know these credentials, or they have expired: set ", variables);
    case absl::StatusCode::kPermissionDenied:
      return absl::StrCat("the identity may not do this there: give it the right to list, read and write below ",
                          uri.ToString());
    case absl::StatusCode::kInvalidArgument:
      return absl::StrCat("set ", variables, "; names of all settings are in docs/formats.md");
    default:
      return "look at the network: name resolution, proxy, firewall, and the endpoint in the environment (AWS_ENDPOINT_URL, "
             "...)";
  }
}

absl::Status WriteAndRead(storage::ObjectStore& store, const std::string& key) {
  const std::string text = "bearing doctor";
  absl::Status status = store.Put(key, text);
  if (!status.ok()) return status;
  std::string back(text.size(), '\0');
  status = store.ReadRange(key, 0, absl::MakeSpan(back));
  const absl::Status deleted = store.Delete(key);
  if (!status.ok()) return status;
  if (back != text) return absl::DataLossError("what was written is not what is read");
  return deleted;
}

}  // namespace

Finding CheckStorage(const std::string& address, bool write) {
  const std::string check = absl::StrCat("storage ", OneLine(address));
  bridge::BucketOptions options;
  options.max_retries = 2;
  options.retry_milliseconds = 10000;
  const absl::StatusOr<storage::Location> at = storage::OpenLocation(address, options);
  if (!at.ok()) {
    return {check, Result::kBroken, OneLine(std::string(at.status().message())),
            "an address is a path or s3://, gs:// or az:// with bucket and folder; its settings come from the environment"};
  }
  std::random_device random;
  const std::string key = at->KeyOf(absl::StrFormat(".bearing-doctor-%08x", random()));
  // Nothing of this name is there: a store that says so has let this identity in.
  absl::Status status = at->store->Stat(key).status();
  if (absl::IsNotFound(status)) status = absl::OkStatus();
  if (status.ok() && at->uri.is_local() && access(at->uri.ToString().c_str(), write ? R_OK | W_OK | X_OK : R_OK | X_OK) != 0) {
    status = absl::ErrnoToStatus(errno, at->uri.ToString());
  }
  if (status.ok() && write) status = WriteAndRead(*at->store, key);
  if (!status.ok()) return {check, Result::kBroken, OneLine(std::string(status.message())), MendStorage(status, at->uri)};
  return {check, Result::kOk, write ? "written, read and deleted" : "reached", ""};
}

Finding CheckServer(const std::string& server) {
  JobsClient client(server);
  const absl::StatusOr<std::string> version = client.Version();
  const std::string check = absl::StrCat("server ", OneLine(server));
  if (version.ok()) return {check, Result::kOk, absl::StrCat("answers, version ", OneLine(*version)), ""};
  return {check, Result::kBroken, OneLine(std::string(version.status().message())),
          "start bearing-coordinator there, or name another one with --server"};
}

Finding CheckClock(const std::string& url) {
  const absl::StatusOr<WebAddress> address = ParseWebAddress(url);
  if (!address.ok())
    return {"clock", Result::kBroken, OneLine(std::string(address.status().message())), "name it as --clock https://HOST"};
  const std::string name = absl::StrCat(address->host, ":", address->port);
  const absl::StatusOr<ServerDate> date = AskServerDate(*address, kPatience);
  if (!date.ok()) {
    return {"clock", Result::kSkipped, absl::StrCat("not compared: ", OneLine(std::string(date.status().message()))), ""};
  }
  const absl::Duration ahead = ClockAhead(*date);
  if (absl::AbsDuration(ahead) < kNoticeable) return {"clock", Result::kOk, absl::StrCat("as that of ", name), ""};
  return {
      "clock", absl::AbsDuration(ahead) < kRefused ? Result::kWarning : Result::kBroken,
      absl::StrFormat("%.0f s %s %s", std::abs(absl::ToDoubleSeconds(ahead)),
                      ahead > absl::ZeroDuration() ? "ahead of" : "behind", name),
      "let a time service set the clock (chrony, systemd-timesyncd): stores and certificates refuse requests from other times"};
}

std::string ClockOfStorage(const std::string& address) {
  const std::string endpoint = Variable("AWS_ENDPOINT_URL");
  if (absl::StartsWith(address, "s3://")) {
    if (!endpoint.empty()) return endpoint;
    std::string region = Variable("AWS_REGION");
    if (region.empty()) region = Variable("AWS_DEFAULT_REGION");
    return region.empty() ? "https://s3.amazonaws.com" : absl::StrCat("https://s3.", region, ".amazonaws.com");
  }
  if (absl::StartsWith(address, "gs://")) return "https://storage.googleapis.com";
  const std::string account = Variable("AZURE_STORAGE_ACCOUNT_NAME");
  if (absl::StartsWith(address, "az://") && !account.empty())
    return absl::StrCat("https://", account, ".blob.core.windows.net");
  return "";
}

}  // namespace bearing::cli
