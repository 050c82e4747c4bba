#include "worker/comm/bootstrap.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

namespace bearing::comm {
namespace {

using ::testing::HasSubstr;
using Variables = std::map<std::string, std::string>;
using Way = Bootstrap::Way;

absl::StatusOr<Bootstrap> From(const Variables& variables) {
  return ReadBootstrap([&](const char* name) {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  });
}

// What the launchers set, as recorded from Open MPI 4.1, torchrun 2.11 and Slurm 22.05, or as their documentation says.
const Variables kMpirun = {
    {"OMPI_COMM_WORLD_RANK", "3"}, {"OMPI_COMM_WORLD_SIZE", "4"}, {"OMPI_COMM_WORLD_LOCAL_RANK", "1"}, {"PMIX_RANK", "3"}};
const Variables kTorchrun = {{"RANK", "3"},
                             {"WORLD_SIZE", "4"},
                             {"LOCAL_RANK", "1"},
                             {"MASTER_ADDR", "node1"},
                             {"MASTER_PORT", "29400"},
                             {"TORCHELASTIC_USE_AGENT_STORE", "True"},
                             {"TORCHELASTIC_RESTART_COUNT", "2"}};
const Variables kSrun = {{"SLURM_JOB_ID", "1234"},
                         {"SLURM_STEP_ID", "5"},
                         {"SLURM_PROCID", "9"},
                         {"SLURM_LOCALID", "1"},
                         {"SLURM_NTASKS", "16"},
                         {"SLURM_STEP_NUM_TASKS", "16"},
                         {"SLURM_STEP_NODELIST", "gpu[007-008]"}};

TEST(ReadBootstrapTest, NothingSetIsAGroupOfOne) {
  const auto found = From({{"PATH", "/bin"}});
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->way, Way::kAlone);
  EXPECT_EQ(found->local_rank, -1);
}

TEST(ReadBootstrapTest, MpirunCountsAlsoInsideOtherLaunchers) {
  Variables variables = kMpirun;
  variables.insert(kSrun.begin(), kSrun.end());
  variables.insert(kTorchrun.begin(), kTorchrun.end());
  const auto found = From(variables);
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->way, Way::kMpi);
  EXPECT_EQ(found->launcher, "mpirun");
  EXPECT_EQ(found->local_rank, 1);
}

TEST(ReadBootstrapTest, SrunWithPmixIsMpi) {
  Variables variables = kSrun;
  variables["PMIX_RANK"] = "9";
  const auto found = From(variables);
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->way, Way::kMpi);
  EXPECT_EQ(found->local_rank, 1);
}

TEST(ReadBootstrapTest, TorchrunServesTheStoreItself) {
  auto found = From(kTorchrun);
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->way, Way::kStore);
  EXPECT_EQ(found->store.rank, 3);
  EXPECT_EQ(found->store.size, 4);
  EXPECT_EQ(found->store.host, "node1");
  EXPECT_EQ(found->store.port, 29400);
  EXPECT_EQ(found->local_rank, 1);
  EXPECT_TRUE(found->store.served_elsewhere);
  EXPECT_EQ(found->store.prefix, "bearing/2/");  // Ranks that were started again do not read what the first ones left.

  Variables by_hand = kTorchrun;
  for (const char* name : {"TORCHELASTIC_USE_AGENT_STORE", "TORCHELASTIC_RESTART_COUNT", "LOCAL_RANK"}) by_hand.erase(name);
  found = From(by_hand);
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_FALSE(found->store.served_elsewhere);
  EXPECT_EQ(found->store.prefix, "");
  EXPECT_EQ(found->local_rank, -1);
}

TEST(ReadBootstrapTest, SrunWithoutPmixMeetsOnTheFirstHost) {
  auto found = From(kSrun);
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->way, Way::kStore);
  EXPECT_EQ(found->launcher, "srun");
  EXPECT_EQ(found->store.rank, 9);
  EXPECT_EQ(found->store.size, 16);
  EXPECT_EQ(found->local_rank, 1);
  EXPECT_EQ(found->store.host, "gpu007");
  EXPECT_EQ(found->store.port, 15000 + (1234 * 7 + 5) % 10000);

  Variables variables = kSrun;
  variables["MASTER_PORT"] = "4000";
  found = From(variables);
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->store.port, 4000);

  // The batch script itself is no step.
  variables = kSrun;
  variables.erase("SLURM_STEP_NUM_TASKS");
  found = From(variables);
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->way, Way::kAlone);
}

TEST(ReadBootstrapTest, OneTaskIsAGroupOfOne) {
  Variables variables = kSrun;
  variables["SLURM_STEP_NUM_TASKS"] = "1";
  variables["SLURM_PROCID"] = "0";
  const auto found = From(variables);
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->way, Way::kAlone);
}

TEST(ReadBootstrapTest, KubernetesGroups) {
  auto found = From({{"LWS_WORKER_INDEX", "1"}, {"LWS_GROUP_SIZE", "2"}, {"LWS_LEADER_ADDRESS", "g-0.g.ns"}});
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->store.rank, 1);
  EXPECT_EQ(found->store.size, 2);
  EXPECT_EQ(found->store.host, "g-0.g.ns");
  EXPECT_EQ(found->store.port, 29500);

  found = From({{"JOB_COMPLETION_INDEX", "3"}, {"WORLD_SIZE", "4"}, {"MASTER_ADDR", "group-ranks-0-0.group"}});
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->store.rank, 3);
  EXPECT_EQ(found->store.size, 4);
  EXPECT_EQ(found->store.host, "group-ranks-0-0.group");
  // An indexed Job whose pods have nothing to do with each other.
  found = From({{"JOB_COMPLETION_INDEX", "3"}});
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->way, Way::kAlone);
}

TEST(ReadBootstrapTest, NamesTheVariableThatIsWrong) {
  const auto without = [](Variables variables, const char* name) {
    variables.erase(name);
    return variables;
  };
  const auto with = [](Variables variables, const char* name, const char* value) {
    variables[name] = value;
    return variables;
  };
  const std::vector<std::pair<Variables, const char*>> wrong = {
      {without(kTorchrun, "MASTER_ADDR"), "MASTER_ADDR: is not set"},
      {without(kTorchrun, "MASTER_PORT"), "MASTER_PORT: is not set"},
      {with(kTorchrun, "RANK", "4"), "RANK: must be a number from 0 to 3: \"4\""},
      {with(kTorchrun, "RANK", "-1"), "RANK"},
      {with(kTorchrun, "WORLD_SIZE", "0"), "WORLD_SIZE"},
      {with(kTorchrun, "WORLD_SIZE", "4x"), "WORLD_SIZE"},
      {with(kTorchrun, "MASTER_PORT", "70000"), "MASTER_PORT"},
      {with(kTorchrun, "LOCAL_RANK", "one"), "LOCAL_RANK"},
      {without(kSrun, "SLURM_STEP_NODELIST"), "SLURM_STEP_NODELIST: is not set"},
      {with(kSrun, "SLURM_STEP_NODELIST", "gpu[a-b]"), "SLURM_STEP_NODELIST: must be a list of hosts: \"gpu[a-b]\""},
      {without(kSrun, "SLURM_JOB_ID"), "SLURM_JOB_ID"},
      {{{"LWS_WORKER_INDEX", "1"}, {"LWS_GROUP_SIZE", "2"}}, "LWS_LEADER_ADDRESS: is not set"},
      {{{"PMI_RANK", "1"}, {"PMI_SIZE", "2"}}, "PMI_RANK"},
  };
  for (const auto& [variables, message] : wrong) {
    const absl::Status status = From(variables).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << message;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
  }
}

TEST(FirstSlurmHostTest, ReadsListsAsSlurmWritesThem) {
  const std::vector<std::pair<const char*, const char*>> lists = {
      {"node1", "node1"},
      {"a,b", "a"},
      {"node[07-09,12],other", "node07"},
      {"rack[1-2]n[3,5].example.org", "rack1n3.example.org"},
      {"n[0]", "n0"},
  };
  for (const auto& [list, host] : lists) EXPECT_EQ(FirstSlurmHost(list).value_or("wrong"), host) << list;
  for (const char* list : {"", ",a", "n[", "n[1", "n[]", "n[-1]", "n]", "a b"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(FirstSlurmHost(list).status())) << list;
  }
}

}  // namespace
}  // namespace bearing::comm
