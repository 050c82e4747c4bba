// Who gets in, over real TLS and gRPC.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/sinks/basic_file_sink.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <thread>

#include "absl/time/clock.h"
#include "rpc/client_connection.h"
#include "rpc/status_details.h"
#include "rpc/tokens.h"
#include "tests/coordinator/certificates.h"
#include "tests/coordinator/server_fixture.h"

namespace bearing::coordinator {
namespace {

using bearing::v1::JobsService;
using ::testing::HasSubstr;
using ::testing::Not;

std::string ReadAll(const std::string& path) {
  std::ifstream in(path);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

class SecurityTest : public ServerTest {
 protected:
  SecurityTest() {
    options_.token_file = dir_ / "tokens";
    options_.audit_file = dir_ / "audit.jsonl";
  }

  // A token in a file of its own and in the server's; returns the file.
  std::string AddToken(const std::string& name, unsigned scopes, absl::Time expires = absl::InfiniteFuture()) {
    const std::string token = rpc::NewToken().value();
    std::ofstream(options_.token_file, std::ios::app)
        << rpc::FormatTokenLine({name, scopes, expires, rpc::HashOfToken(token)}) << "\n";
    const std::string path = dir_ / (name + ".token");
    std::ofstream(path) << token << "\n";
    return path;
  }

  void Connect(rpc::ClientSecurity security) {
    connection_ = rpc::ClientConnection::Open(absl::StrCat("127.0.0.1:", server_->port()), security).value();
    jobs_ = JobsService::NewStub(connection_->channel());
    workers_ = bearing::v1::WorkerService::NewStub(connection_->channel());
  }

  // The reason of the answer, "" for Ok.
  template <typename Request, typename Response, typename Stub>
  std::string Reason(Stub* stub, grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                     const Request& request, absl::StatusCode* code = nullptr) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(5));
    EXPECT_TRUE(connection_->Authorize(&context).ok());
    Response response;
    const absl::Status status = rpc::FromGrpc((stub->*method)(&context, request, &response));
    if (code != nullptr) *code = status.code();
    return rpc::ReasonOf(status);
  }

  std::string ListReason(absl::StatusCode* code = nullptr) {
    return Reason(jobs_.get(), &JobsService::Stub::ListJobs, bearing::v1::ListJobsRequest(), code);
  }
  std::string CreateReason(const std::string& id, absl::StatusCode* code = nullptr) {
    bearing::v1::CreateJobRequest request;
    *request.mutable_spec() = SpecNamed("a");
    request.set_job_id(id);
    return Reason(jobs_.get(), &JobsService::Stub::CreateJob, request, code);
  }
  std::string CancelReason(const std::string& name) {
    bearing::v1::CancelJobRequest request;
    request.set_name(name);
    return Reason(jobs_.get(), &JobsService::Stub::CancelJob, request);
  }
  std::string LeaseReason() {
    bearing::v1::AcquireLeaseRequest request;
    request.mutable_group()->set_id("g");
    request.mutable_group()->set_ranks(1);
    return Reason(workers_.get(), &bearing::v1::WorkerService::Stub::AcquireLease, request);
  }
  std::string WatchReason(const std::string& name) {
    grpc::ClientContext context;
    EXPECT_TRUE(connection_->Authorize(&context).ok());
    bearing::v1::WatchJobRequest request;
    request.set_name(name);
    auto reader = jobs_->WatchJob(&context, request);
    bearing::v1::WatchJobResponse message;
    if (reader->Read(&message)) {
      context.TryCancel();
      reader->Finish();
      return "";
    }
    return rpc::ReasonOf(rpc::FromGrpc(reader->Finish()));
  }

  std::unique_ptr<rpc::ClientConnection> connection_;
};

TEST_F(SecurityTest, EachTokenMayDoWhatItsScopesSay) {
  const std::string reader = AddToken("reader", rpc::kScopeRead);
  const std::string alice = AddToken("alice", rpc::kScopeSubmit);
  const std::string bob = AddToken("bob", rpc::kScopeSubmit);
  const std::string admin = AddToken("admin", rpc::kScopeAdmin);
  const std::string worker = AddToken("pool", rpc::kScopeWorker);
  const std::string expired = AddToken("old", rpc::kScopeAdmin, absl::Now() - absl::Seconds(1));
  std::ofstream(dir_ / "wrong.token") << rpc::NewToken().value() << "\n";
  Start();

  absl::StatusCode code;
  const auto refused_everywhere = [&](const std::string& reason) {
    EXPECT_EQ(ListReason(&code), reason);
    EXPECT_EQ(code, absl::StatusCode::kUnauthenticated);
    EXPECT_EQ(CreateReason("x"), reason);
    EXPECT_EQ(CancelReason("mine"), reason);
    EXPECT_EQ(LeaseReason(), reason);
    EXPECT_EQ(WatchReason("mine"), reason);
  };
  Connect({.token_file = alice});
  EXPECT_EQ(CreateReason("mine"), "");

  Connect({});
  refused_everywhere("TOKEN_MISSING");
  Connect({.token_file = dir_ / "wrong.token"});
  refused_everywhere("TOKEN_UNKNOWN");
  Connect({.token_file = expired});
  refused_everywhere("TOKEN_EXPIRED");

  Connect({.token_file = reader});
  EXPECT_EQ(ListReason(), "");
  EXPECT_EQ(WatchReason("mine"), "");
  EXPECT_EQ(CreateReason("x", &code), "SCOPE_MISSING");
  EXPECT_EQ(code, absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(CancelReason("mine"), "SCOPE_MISSING");
  EXPECT_EQ(LeaseReason(), "SCOPE_MISSING");

  Connect({.token_file = worker});
  EXPECT_EQ(ListReason(), "SCOPE_MISSING");
  EXPECT_EQ(CreateReason("x"), "SCOPE_MISSING");

  Connect({.token_file = bob});
  EXPECT_EQ(ListReason(), "");
  EXPECT_EQ(LeaseReason(), "SCOPE_MISSING");
  EXPECT_EQ(CancelReason("mine"), "NOT_OWNER");

  // Nothing of it has changed anything.
  bearing::v1::ListJobsResponse list;
  grpc::ClientContext context;
  ASSERT_TRUE(connection_->Authorize(&context).ok());
  ASSERT_TRUE(jobs_->ListJobs(&context, {}, &list).ok());
  ASSERT_EQ(list.jobs_size(), 1);
  EXPECT_EQ(list.jobs(0).state(), bearing::v1::JOB_STATE_QUEUED);
  EXPECT_EQ(list.jobs(0).owner(), "alice");

  Connect({.token_file = admin});
  EXPECT_EQ(LeaseReason(), "SCOPE_MISSING");
  EXPECT_EQ(CancelReason("mine"), "");

  // Who, what, outcome; no token.
  const std::string audit = ReadAll(options_.audit_file);
  std::istringstream lines(audit);
  int refusals = 0;
  for (std::string line; std::getline(lines, line);) {
    const nlohmann::json entry = nlohmann::json::parse(line, nullptr, false);
    ASSERT_TRUE(entry.is_object()) << line;
    refusals += entry["code"] == "UNAUTHENTICATED" || entry["code"] == "PERMISSION_DENIED";
  }
  EXPECT_EQ(refusals, 15 + 3 + 2 + 2 + 1);
  EXPECT_THAT(audit, HasSubstr(R"("caller":"alice","code":"OK","job":"mine","method":"CreateJob")"));
  EXPECT_THAT(audit, HasSubstr(R"("caller":"admin","code":"OK","job":"mine","method":"CancelJob")"));
  for (const std::string& file : {reader, alice, bob, admin, worker, expired, dir_ / "wrong.token"}) {
    const std::string token = ReadAll(file);
    EXPECT_THAT(audit, Not(HasSubstr(token.substr(0, token.size() - 1))));
  }
}

TEST_F(SecurityTest, ANewTokenIsTakenWithoutARestartAndABrokenFileChangesNothing) {
  const std::string first = AddToken("first", rpc::kScopeRead);
  Start();
  const std::string second = AddToken("second", rpc::kScopeRead);
  Connect({.token_file = second});
  std::string reason;
  for (int i = 0; i < 100 && (reason = ListReason()) != ""; ++i) absl::SleepFor(absl::Milliseconds(50));
  EXPECT_EQ(reason, "");
  std::ofstream(options_.token_file, std::ios::app) << "broken\n";
  absl::SleepFor(absl::Milliseconds(1200));
  EXPECT_EQ(ListReason(), "");
  // Revoked: a file without it.
  std::filesystem::remove(options_.token_file);
  AddToken("third", rpc::kScopeRead);
  for (int i = 0; i < 100 && (reason = ListReason()) == ""; ++i) absl::SleepFor(absl::Milliseconds(50));
  EXPECT_EQ(reason, "TOKEN_UNKNOWN");
}

TEST_F(SecurityTest, TlsLetsInWhoTrustsAndIsTrusted) {
  const CertificateAuthority ours("ours");
  const CertificateAuthority other("other");
  ours.Write(dir_ / "ca");
  other.Write(dir_ / "other-ca");
  ours.Issue("server", dir_ / "server");
  ours.Issue("client", dir_ / "client");
  other.Issue("stranger", dir_ / "stranger");
  const std::string token = AddToken("reader", rpc::kScopeRead);
  options_.tls = {dir_ / "server", dir_ / "server.key", dir_ / "ca"};
  Start();
  absl::StatusCode code;
  Connect({.ca_file = dir_ / "ca", .cert_file = dir_ / "client", .key_file = dir_ / "client.key", .token_file = token});
  EXPECT_EQ(ListReason(), "");
  // A certificate is no token.
  Connect({.ca_file = dir_ / "ca", .cert_file = dir_ / "client", .key_file = dir_ / "client.key"});
  EXPECT_EQ(ListReason(&code), "TOKEN_MISSING");
  for (const rpc::ClientSecurity& security : std::vector<rpc::ClientSecurity>{
           {.ca_file = dir_ / "other-ca", .cert_file = dir_ / "client", .key_file = dir_ / "client.key", .token_file = token},
           {.ca_file = dir_ / "ca", .token_file = token},
           {.ca_file = dir_ / "ca", .cert_file = dir_ / "stranger", .key_file = dir_ / "stranger.key", .token_file = token},
           {.token_file = token}}) {
    Connect(security);
    ListReason(&code);
    EXPECT_EQ(code, absl::StatusCode::kUnavailable) << security.ca_file << " " << security.cert_file;
  }
}

TEST_F(SecurityTest, NewCertificatesAreTakenWithoutARestartAndBrokenOnesAreNot) {
  const CertificateAuthority first("first");
  const CertificateAuthority second("second");
  first.Write(dir_ / "first-ca");
  second.Write(dir_ / "second-ca");
  first.Write(dir_ / "clients-ca");
  first.Issue("server", dir_ / "server");
  first.Issue("client", dir_ / "first-client");
  second.Issue("client", dir_ / "second-client");
  const std::string token = AddToken("reader", rpc::kScopeRead);
  options_.tls = {dir_ / "server", dir_ / "server.key", dir_ / "clients-ca"};
  logger_.sinks() = {std::make_shared<spdlog::sinks::basic_file_sink_mt>(dir_ / "log")};
  logger_.flush_on(spdlog::level::info);
  Start();
  const auto answer = [&](const std::string& server_ca, const std::string& client) {
    absl::StatusCode code;
    Connect(
        {.ca_file = dir_ / server_ca, .cert_file = dir_ / client, .key_file = dir_ / (client + ".key"), .token_file = token});
    ListReason(&code);
    return code;
  };
  const auto wait_for_log = [&](const std::string& text) {
    std::string log;
    for (int i = 0; i < 100 && (log = ReadAll(dir_ / "log")).find(text) == std::string::npos; ++i) {
      absl::SleepFor(absl::Milliseconds(50));
    }
    return log;
  };
  constexpr auto kOk = absl::StatusCode::kOk;
  constexpr auto kRefused = absl::StatusCode::kUnavailable;
  EXPECT_EQ(answer("first-ca", "first-client"), kOk);
  EXPECT_EQ(answer("second-ca", "first-client"), kRefused);
  EXPECT_EQ(answer("first-ca", "second-client"), kRefused);
  // A stream that is open now.
  const std::shared_ptr<rpc::ClientConnection> open =
      rpc::ClientConnection::Open(absl::StrCat("127.0.0.1:", server_->port()), {.ca_file = dir_ / "first-ca",
                                                                                .cert_file = dir_ / "first-client",
                                                                                .key_file = dir_ / "first-client.key",
                                                                                .token_file = token})
          .value();
  const auto old_stub = JobsService::NewStub(open->channel());
  const auto ask_on_it = [&] {
    grpc::ClientContext context;
    EXPECT_TRUE(open->Authorize(&context).ok());
    bearing::v1::ListJobsResponse response;
    return old_stub->ListJobs(&context, {}, &response).ok();
  };
  EXPECT_TRUE(ask_on_it());

  // Another key than the certificate's.
  const std::string key = ReadAll(dir_ / "server.key");
  std::filesystem::copy_file(dir_ / "first-client.key", dir_ / "server.key", std::filesystem::copy_options::overwrite_existing);
  EXPECT_THAT(wait_for_log("is not the key of the certificate"), HasSubstr("certificates not taken"));
  EXPECT_EQ(answer("first-ca", "first-client"), kOk);
  std::ofstream(dir_ / "server.key") << key;
  // Half of a certificate, and a CA of which the second half is missing.
  const std::string certificate = ReadAll(dir_ / "server");
  std::ofstream(dir_ / "server") << certificate.substr(0, certificate.size() / 2);
  EXPECT_THAT(wait_for_log("holds no PEM certificate"), HasSubstr("--tls-cert"));
  EXPECT_EQ(answer("first-ca", "first-client"), kOk);
  std::ofstream(dir_ / "server") << certificate;
  const std::string other_ca = ReadAll(dir_ / "second-ca");
  std::ofstream(dir_ / "clients-ca") << ReadAll(dir_ / "first-ca") << other_ca.substr(0, other_ca.size() / 2);
  EXPECT_THAT(wait_for_log("ends in the middle"), HasSubstr("--tls-client-ca"));
  EXPECT_EQ(answer("first-ca", "first-client"), kOk);
  EXPECT_EQ(answer("first-ca", "second-client"), kRefused);
  // A file that is gone for a moment.
  std::filesystem::remove(dir_ / "clients-ca");
  absl::SleepFor(absl::Milliseconds(1500));
  EXPECT_EQ(answer("first-ca", "first-client"), kOk);
  EXPECT_THAT(ReadAll(dir_ / "log"), Not(HasSubstr("certificates read again")));

  // All of it new: the server's certificate by another CA, and clients of that CA alone.
  second.Issue("server", dir_ / "server");
  second.Write(dir_ / "clients-ca");
  wait_for_log("certificates read again");
  EXPECT_EQ(answer("second-ca", "second-client"), kOk);
  EXPECT_EQ(answer("second-ca", "first-client"), kRefused);
  EXPECT_EQ(answer("first-ca", "second-client"), kRefused);
  // The connection that was there goes on.
  EXPECT_TRUE(ask_on_it());
}

TEST_F(SecurityTest, WrongFilesOfTheServerAreNamed) {
  const CertificateAuthority ours("ours");
  ours.Issue("server", dir_ / "server");
  ours.Issue("another", dir_ / "another");
  std::ofstream(dir_ / "text") << "no certificate\n";
  AddToken("reader", rpc::kScopeRead);
  const auto refusal = [&](const TlsOptions& tls) {
    options_.tls = tls;
    auto server = Server::Start(options_, &checker_, &clock_, Counting(), &logger_);
    EXPECT_EQ(server.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(server.status().message());
  };
  EXPECT_THAT(refusal({dir_ / "none", dir_ / "server.key", ""}), HasSubstr("--tls-cert"));
  EXPECT_THAT(refusal({dir_ / "text", dir_ / "server.key", ""}), HasSubstr("no PEM certificate"));
  // Nobody is asked for its passphrase.
  ours.Issue("server", dir_ / "locked", "passphrase");
  EXPECT_THAT(refusal({dir_ / "locked", dir_ / "locked.key", ""}),
              HasSubstr("--tls-key: holds no PEM key, or an encrypted one"));
  EXPECT_THAT(refusal({dir_ / "server", dir_ / "text", ""}), HasSubstr("--tls-key"));
  EXPECT_THAT(refusal({dir_ / "server", dir_ / "another.key", ""}), HasSubstr("is not the key of the certificate"));
  EXPECT_THAT(refusal({dir_ / "server", dir_ / "server.key", dir_ / "text"}), HasSubstr("--tls-client-ca"));
}

}  // namespace
}  // namespace bearing::coordinator
