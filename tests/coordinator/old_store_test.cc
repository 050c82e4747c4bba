// A store and an API of the first version still work.
#include <gmock/gmock.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <string>

#include "absl/strings/str_cat.h"
#include "bearing/v1/jobs_service.pb.h"
#include "bearing/v1/worker_service.pb.h"
#include "coordinator/job_store.h"
#include "coordinator/scheduler.h"
#include "tests/coordinator/fakes.h"

namespace bearing::coordinator {
namespace {

using ::testing::ElementsAre;

constexpr char kData[] = BEARING_SOURCE_DIR "/tests/coordinator/data/";

class OldStoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::copy_file(std::string(kData) + "jobs-schema-1.db", dir_ / "jobs.db");
    auto store = JobStore::Open(dir_ / "jobs.db");
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }

  std::vector<std::string> Names(const JobFilter& filter) {
    std::vector<std::string> names;
    const std::vector<StoredJob> rows = store_->List(filter, 0, 100).value();
    for (const StoredJob& row : rows) names.push_back(row.job.name());
    return names;
  }

  TempDir dir_;
  std::unique_ptr<JobStore> store_;
};

TEST_F(OldStoreTest, KeepsEveryJobWithWhatQueriesLookAt) {
  EXPECT_THAT(Names({}), ElementsAre("old-baaa87", "old-0a8f4a", "old-f2efc6", "old-394644", "old-a4f765"));
  EXPECT_THAT(Names({bearing::v1::JOB_STATE_SUCCEEDED, {}}), ElementsAre("old-a4f765"));
  EXPECT_THAT(Names({bearing::v1::JOB_STATE_UNSPECIFIED, {{"team", "blue"}}}), ElementsAre("old-0a8f4a"));
  EXPECT_EQ(Names({bearing::v1::JOB_STATE_UNSPECIFIED, {{"team", "red"}}}).size(), 4u);
  EXPECT_EQ(store_->FindRequest("0b6e4f7c-93c5-4a53-9f5c-2f1d0a3c7e11").value()->job.job.name(), "old-a4f765");
  EXPECT_EQ(store_->Get("old-a4f765")->job.result().layer(), 15);
  // Ended jobs have the times that retention goes by: all of them ended long before the far future.
  EXPECT_EQ(store_->Outdated(int64_t{1} << 50, 0, 100)->size(), 3u);
  EXPECT_THAT(store_->Outdated(1'000'000'000'000, 0, 100).value(), ::testing::IsEmpty());
  EXPECT_GT(store_->OldestQueuedSince().value(), 1'000'000'000'000);
}

TEST_F(OldStoreTest, GoesOnWithItsJobs) {
  FakeClock clock;
  FakeChecker checker;
  JobFeed feed(10);
  spdlog::logger logger = NullLogger();
  auto scheduler = Scheduler::Create({}, {store_.get(), &feed, &checker, &clock, Counting(), &logger}).value();
  // The group that held a lease still does.
  bearing::v1::CompleteRequest done;
  done.set_group_id("fake-20761");
  done.set_job_name("old-baaa87");
  done.set_attempt(1);
  done.mutable_result()->set_layer(2);
  EXPECT_TRUE(scheduler->Complete(done).ok());
  bearing::v1::WorkerGroup group;
  group.set_id("new");
  group.set_ranks(4);
  EXPECT_EQ(scheduler->Acquire(group).value()->job_name(), "old-0a8f4a");
  EXPECT_TRUE(scheduler->Delete("old-a4f765").ok());
  EXPECT_EQ(scheduler->Submit(SpecNamed("new"), {})->id, 6);
  // Old jobs end once, as new ones.
  EXPECT_FALSE(scheduler->Cancel("old-394644").ok());
}

// What was in the first version's API is there with the same number, type and name.
class ApiBaseline {
 public:
  explicit ApiBaseline(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    EXPECT_TRUE(files_.ParseFromIstream(&in)) << path;
  }

  void Check() const {
    for (const auto& file : files_.file()) {
      for (const auto& message : file.message_type()) CheckMessage(message, file.package() + "." + message.name());
      for (const auto& values : file.enum_type()) CheckEnum(values, file.package() + "." + values.name());
      for (const auto& service : file.service()) CheckService(service, file.package() + "." + service.name());
    }
  }

 private:
  static const google::protobuf::DescriptorPool* Pool() {
    // Named, so that the linker keeps them.
    bearing::v1::GetJobRequest::descriptor();
    bearing::v1::WorkerGroup::descriptor();
    return google::protobuf::DescriptorPool::generated_pool();
  }

  static void CheckMessage(const google::protobuf::DescriptorProto& old, const std::string& name) {
    const auto* now = Pool()->FindMessageTypeByName(name);
    ASSERT_NE(now, nullptr) << name;
    for (const auto& field : old.field()) {
      const auto* found = now->FindFieldByNumber(field.number());
      ASSERT_NE(found, nullptr) << name << "." << field.name();
      google::protobuf::FieldDescriptorProto today;
      found->CopyTo(&today);
      EXPECT_EQ(today.name(), field.name());
      EXPECT_EQ(today.type(), field.type()) << name << "." << field.name();
      EXPECT_EQ(today.label(), field.label()) << name << "." << field.name();
      EXPECT_EQ(today.type_name(), field.type_name()) << name << "." << field.name();
    }
    for (const auto& inner : old.nested_type()) CheckMessage(inner, name + "." + inner.name());
  }

  static void CheckEnum(const google::protobuf::EnumDescriptorProto& old, const std::string& name) {
    const auto* now = Pool()->FindEnumTypeByName(name);
    ASSERT_NE(now, nullptr) << name;
    for (const auto& value : old.value()) {
      const auto* found = now->FindValueByNumber(value.number());
      ASSERT_NE(found, nullptr) << value.name();
      EXPECT_EQ(found->name(), value.name());
    }
  }

  static void CheckService(const google::protobuf::ServiceDescriptorProto& old, const std::string& name) {
    const auto* now = Pool()->FindServiceByName(name);
    ASSERT_NE(now, nullptr) << name;
    for (const auto& method : old.method()) {
      const auto* found = now->FindMethodByName(method.name());
      ASSERT_NE(found, nullptr) << name << "/" << method.name();
      EXPECT_EQ("." + found->input_type()->full_name(), method.input_type());
      EXPECT_EQ("." + found->output_type()->full_name(), method.output_type());
      EXPECT_EQ(found->server_streaming(), method.server_streaming());
      EXPECT_EQ(found->client_streaming(), method.client_streaming());
    }
  }

  google::protobuf::FileDescriptorSet files_;
};

TEST(ApiBaselineTest, NothingOfTheFirstVersionIsGone) { ApiBaseline(std::string(kData) + "api-0.1.binpb").Check(); }

}  // namespace
}  // namespace bearing::coordinator
