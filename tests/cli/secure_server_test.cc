// The command line and workers against a coordinator with TLS and tokens; canaries that must not appear anywhere.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "tests/cli/job_folder.h"
#include "tests/cli/program.h"
#include "tests/coordinator/certificates.h"

namespace bearing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::Program;

constexpr char kCanary[] = "CANARY-4f1d7a";

class SecureServerTest : public ::testing::Test {
 protected:
  std::string At(const std::string& name) const { return job_.path() + "/" + name; }

  int Call(std::vector<std::string> arguments, const testing::Environment& environment, std::string* out, std::string* errors) {
    arguments.insert(arguments.begin(), BEARING_PROGRAM);
    testing::Environment all = environment;
    // Secrets that a careless program would print with its environment.
    all["AWS_SECRET_ACCESS_KEY"] = kCanary;
    all["HF_TOKEN"] = kCanary;
    Program program(arguments, all, job_.path());
    const int code = program.Wait();
    *out = program.Output();
    *errors = program.Errors();
    return code;
  }

  // A new token in NAME.token, its line in the server's file.
  void MakeToken(const std::string& name, const std::string& scope) {
    std::string out, errors;
    ASSERT_EQ(Call({"token", "create", "--name", name, "--scope", scope, "--expires", "1h", "--out", At(name + ".token"),
                    "--append", At("tokens")},
                   {}, &out, &errors),
              0)
        << errors;
    EXPECT_EQ(out, "");
    EXPECT_EQ(std::filesystem::status(At(name + ".token")).permissions() & std::filesystem::perms::mask,
              std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
  }

  void SetUp() override {
    const coordinator::CertificateAuthority ca("tests");
    ca.Write(At("ca"));
    ca.Issue("server", At("server"));
    MakeToken("alice", "submit");
    MakeToken("viewer", "read");
    MakeToken("pool", "worker");
    coordinator_ = std::make_unique<Program>(std::vector<std::string>{BEARING_COORDINATOR_PROGRAM,
                                                                      "--listen",
                                                                      "127.0.0.1:0",
                                                                      "--worker-listen",
                                                                      "127.0.0.1:0",
                                                                      "--metrics-listen",
                                                                      "127.0.0.1:0",
                                                                      "--store",
                                                                      At("jobs.db"),
                                                                      "--port-file",
                                                                      At("port"),
                                                                      "--tls-cert",
                                                                      At("server"),
                                                                      "--tls-key",
                                                                      At("server.key"),
                                                                      "--token-file",
                                                                      At("tokens"),
                                                                      "--audit-log",
                                                                      At("audit.jsonl"),
                                                                      "--allow-write",
                                                                      job_.path(),
                                                                      "--log-format",
                                                                      "json"},
                                             testing::Environment{{"AWS_SECRET_ACCESS_KEY", kCanary}}, job_.path());
    for (int i = 0; i < 1500 && !std::filesystem::exists(At("port")); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    std::istringstream ports(testing::ReadText(At("port")));
    std::string word;
    ASSERT_TRUE(ports >> port_ >> word >> worker_port_ >> word >> metrics_port_) << coordinator_->Errors();
  }

  testing::Environment As(const std::string& name) const {
    return {
        {"BEARING_SERVER", "127.0.0.1:" + port_}, {"BEARING_CA_FILE", At("ca")}, {"BEARING_TOKEN_FILE", At(name + ".token")}};
  }

  testing::JobFolder job_;
  std::unique_ptr<Program> coordinator_;
  std::string port_;
  std::string worker_port_;
  std::string metrics_port_;
};

TEST_F(SecureServerTest, RunsAJobAndKeepsItsSecrets) {
  std::string out, errors;
  const Program worker({BEARING_FAKE_WORKER, "serve", "--coordinator", "127.0.0.1:" + worker_port_, "--device", "cpu"},
                       {{"FAKE_WORKER", "succeed"}, {"BEARING_CA_FILE", At("ca")}, {"BEARING_TOKEN_FILE", At("pool.token")}},
                       job_.path());
  EXPECT_EQ(Call({"submit", "-f", job_.job_file(), "--watch"}, As("alice"), &out, &errors), 0) << errors;
  const std::string name = out.substr(0, out.find('\n'));
  EXPECT_EQ(Call({"describe", name, "-o", "json"}, As("viewer"), &out, &errors), 0) << errors;
  EXPECT_THAT(out, HasSubstr(R"("owner": "alice")"));

  // Without a token, with one that may not, with a CA that does not know the server, in plaintext.
  testing::Environment nobody = As("alice");
  nobody.erase("BEARING_TOKEN_FILE");
  EXPECT_EQ(Call({"list"}, nobody, &out, &errors), 4);
  EXPECT_THAT(errors, HasSubstr("--token-file"));
  EXPECT_EQ(Call({"submit", "-f", job_.job_file()}, As("viewer"), &out, &errors), 4);
  EXPECT_EQ(Call({"cancel", name}, As("viewer"), &out, &errors), 4);
  testing::Environment stranger = As("alice");
  coordinator::CertificateAuthority("other").Write(At("other-ca"));
  stranger["BEARING_CA_FILE"] = At("other-ca");
  EXPECT_EQ(Call({"list"}, stranger, &out, &errors), 5);

  // A path outside, and an address with a password.
  EXPECT_EQ(Call({"submit", "-f", job_.job_file(), "--set", "output=/elsewhere"}, As("alice"), &out, &errors), 4);
  EXPECT_THAT(errors, HasSubstr("output: is outside"));
  EXPECT_EQ(Call({"submit", "-f", job_.job_file(), "--set", std::string("output=s3://user:") + kCanary + "@bucket/x"},
                 As("alice"), &out, &errors),
            2);
  EXPECT_THAT(errors, Not(HasSubstr(kCanary)));

  const std::string metrics_file = At("metrics.txt");
  Program curl({"/usr/bin/python3", "-c",
                "import urllib.request, sys; sys.stdout.write(urllib.request.urlopen('http://127.0.0.1:" + metrics_port_ +
                    "/metrics').read().decode())"},
               {}, job_.path());
  EXPECT_EQ(curl.Wait(), 0) << curl.Errors();
  EXPECT_THAT(curl.Output(), AllOf(HasSubstr("bearing_coordinator_jobs{state=\"succeeded\"} 1"),
                                   HasSubstr("bearing_coordinator_calls_total{"), HasSubstr("code=\"UNAUTHENTICATED\"")));

  // Nothing secret in what anybody wrote: logs, answers, artifacts, metrics, the store.
  std::vector<std::string> secrets = {kCanary};
  for (const char* who : {"alice", "viewer", "pool"}) {
    const std::string token = testing::ReadText(At(std::string(who) + ".token"));
    secrets.push_back(token.substr(0, token.size() - 1));
  }
  int files = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(job_.path())) {
    const std::string path = entry.path().string();
    if (!entry.is_regular_file() || path.ends_with(".token") || path.ends_with(".key")) continue;
    ++files;
    const std::string text = testing::ReadText(path);
    for (const std::string& secret : secrets) EXPECT_THAT(text.find(secret), std::string::npos) << path;
  }
  EXPECT_GT(files, 20);
}

TEST_F(SecureServerTest, AContextHoldsAllThatAClientNeeds) {
  std::string out, errors;
  const testing::Environment config = {{"BEARING_CONFIG", At("config.yaml")}};
  // BEARING_CONFIG names a file that `set` makes.
  ASSERT_EQ(Call({"context", "set", "alice", "--server", "127.0.0.1:" + port_, "--ca-file", At("ca"), "--token-file",
                  At("alice.token")},
                 config, &out, &errors),
            0)
      << errors;
  EXPECT_EQ(Call({"submit", "-f", job_.job_file(), "--job-id", "mine"}, config, &out, &errors), 0) << errors;
  // A token in the config itself, and the name of the environment before the one in use.
  Program set(
      {BEARING_PROGRAM, "context", "set", "viewer", "--server", "127.0.0.1:" + port_, "--ca-file", At("ca"), "--token-stdin"},
      config, job_.path(), At("viewer.token"));
  ASSERT_EQ(set.Wait(), 0) << set.Errors();
  testing::Environment viewer = config;
  viewer["BEARING_CONTEXT"] = "viewer";
  EXPECT_EQ(Call({"list", "-o", "name"}, viewer, &out, &errors), 0) << errors;
  EXPECT_EQ(out, "mine\n");
  EXPECT_EQ(Call({"cancel", "mine"}, viewer, &out, &errors), 4) << errors;
  EXPECT_EQ(Call({"cancel", "mine", "--context", "alice"}, viewer, &out, &errors), 0) << errors;
}

TEST_F(SecureServerTest, AWorkerWithoutTheScopeGetsNothing) {
  std::string out, errors;
  EXPECT_EQ(Call({"submit", "-f", job_.job_file(), "--job-id", "mine"}, As("alice"), &out, &errors), 0) << errors;
  const Program worker({BEARING_FAKE_WORKER, "serve", "--coordinator", "127.0.0.1:" + worker_port_, "--device", "cpu"},
                       {{"FAKE_WORKER", "succeed"}, {"BEARING_CA_FILE", At("ca")}, {"BEARING_TOKEN_FILE", At("alice.token")}},
                       job_.path());
  std::this_thread::sleep_for(std::chrono::milliseconds(1000));
  EXPECT_EQ(Call({"list", "--state", "queued", "-o", "name"}, As("alice"), &out, &errors), 0);
  EXPECT_EQ(out, "mine\n");
  EXPECT_THAT(testing::ReadText(At("audit.jsonl")), HasSubstr(R"("code":"PERMISSION_DENIED","method":"AcquireLease")"));
}

}  // namespace
}  // namespace bearing
