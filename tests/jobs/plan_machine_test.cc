#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "jobs/plan/machine.h"
#include "tests/sharding/status_testing.h"

namespace bearing::jobs {
namespace {

using testing::Fails;

TEST(MachineTest, RatesBetweenTwoCountsAreInterpolated) {
  Machine machine;
  machine.products = {{1, 1e9}, {100, 1e11}};
  EXPECT_DOUBLE_EQ(machine.ProductFlopsPerSecond(0.5), 1e9);
  EXPECT_DOUBLE_EQ(machine.ProductFlopsPerSecond(1), 1e9);
  EXPECT_NEAR(machine.ProductFlopsPerSecond(10), 1e10, 1);
  EXPECT_NEAR(machine.ProductFlopsPerSecond(100), 1e11, 1);
  EXPECT_DOUBLE_EQ(machine.ProductFlopsPerSecond(1e6), 1e11);
}

TEST(MachineTest, AllReduceIsARingInsideNodesAndOneBetweenThem) {
  Machine machine;
  machine.link_latency_s = 1e-6;
  machine.link_bytes_per_s = 1e9;
  machine.network_latency_s = 1e-5;
  machine.network_bytes_per_s = 1e8;
  machine.ranks_per_node = 4;
  EXPECT_EQ(machine.AllReduceSeconds(1, 1e9), 0);
  EXPECT_DOUBLE_EQ(machine.AllReduceSeconds(2, 1e6), 2 * 1e-6 + 2 * 0.5 * 1e-3);
  EXPECT_DOUBLE_EQ(machine.AllReduceSeconds(3, 0), 4 * 1e-6);
  EXPECT_DOUBLE_EQ(machine.AllReduceSeconds(4, 1e6), 4 * 1e-6 + 2 * 0.75 * 1e-3);
  // 8 ranks on two nodes: a fourth of the bytes leaves each rank.
  EXPECT_DOUBLE_EQ(machine.AllReduceSeconds(8, 1e6), 4 * 1e-6 + 1.5e-3 + 2 * 1e-5 + 2 * 0.5 * 0.25e6 / 1e8);
}

TEST(MachineTest, IsTheSameAfterJson) {
  const Machine machine = *MachineProfile("a100", "float32", 0.25);
  const auto again = ParseMachine(MachineJson(machine).dump(), "m.json");
  ASSERT_TRUE(again.ok()) << again.status().ToString();
  EXPECT_EQ(MachineJson(*again), MachineJson(machine));
  EXPECT_DOUBLE_EQ(again->ProductFlopsPerSecond(64), 19.5e12 * 0.25);
  EXPECT_FALSE(again->measured);
}

TEST(MachineTest, AFileThatIsNotAMachineNamesTheKey) {
  const nlohmann::json good = MachineJson(*MachineProfile("h200", "bfloat16", 0.5));
  const auto with = [&good](const char* key, const nlohmann::json& value) {
    nlohmann::json bad = good;
    bad[key] = value;
    return ParseMachine(bad.dump(), "m.json");
  };
  const auto code = absl::StatusCode::kInvalidArgument;
  EXPECT_TRUE(Fails(ParseMachine("no", "m.json"), code, "m.json"));
  EXPECT_TRUE(Fails(with("format", "other"), code, "m.json", "format"));
  EXPECT_TRUE(Fails(with("memory_bytes_per_s", 0), code, "memory_bytes_per_s", "positive"));
  EXPECT_TRUE(Fails(with("link_latency_s", "fast"), code, "link_latency_s"));
  EXPECT_TRUE(Fails(with("ranks", 0), code, "ranks"));
  EXPECT_TRUE(Fails(with("dtype", 4), code, "dtype"));
  EXPECT_TRUE(Fails(with("measured", 1), code, "measured"));
  EXPECT_TRUE(Fails(with("products", nlohmann::json::array()), code, "products"));
  EXPECT_TRUE(Fails(with("products", {{{"tokens", 2}, {"flops_per_s", 1e9}}, {{"tokens", 2}, {"flops_per_s", 1e9}}}), code,
                    "products"));
}

TEST(MachineTest, AnUnknownProfileNamesTheOthers) {
  EXPECT_TRUE(Fails(MachineProfile("abacus", "float32", 0.5), absl::StatusCode::kNotFound, "abacus", "a100", "h100", "h200"));
}

}  // namespace
}  // namespace bearing::jobs
