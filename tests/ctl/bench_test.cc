// The benchmark's mechanics; its numbers mean nothing against a fake server.

#include <string>

#include "common/error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/ctl/fake_server.h"
#include "tests/ctl/run_verb.h"

namespace towline::ctl {
namespace {

using ::testing::HasSubstr;
using ::towline::testing::FakeServer;

class BenchTest : public ::testing::Test {
 protected:
  VerbResult Bench(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"bench", "--seconds", "200ms", "--warmup", "20ms", "--key-space", "100"});
    return towctl_(arguments);
  }

  FakeServer server_;
  Towctl towctl_{server_.endpoint()};
};

TEST_F(BenchTest, UnaryWritesKeysOfTheKeySpaceAndComparesWithPing) {
  const VerbResult result = Bench({"--in-flight", "8", "--threads", "2", "-o", "json"});
  ASSERT_EQ(result.code, 0) << result.err;
  const Json json = result.json();
  EXPECT_GT(json["records"], 0);
  EXPECT_EQ(json["errors"], 0);
  EXPECT_GT(json["ping"]["calls_per_second"], 0);
  EXPECT_GT(json["ratio_to_ping"], 0);
  EXPECT_LE(json["latency_us"]["p50"], json["latency_us"]["p99"]);
  EXPECT_TRUE(json["server_fsync"]["mean_seconds"].is_null());
  MutexLock lock(&server_.state().mutex);
  EXPECT_LE(server_.state().entries.size(), 100u);
  EXPECT_EQ(server_.state().entries.begin()->second.value().size(), 256u);
}

TEST_F(BenchTest, StreamsKeepAWindowOfBatches) {
  const VerbResult result =
      Bench({"--mode", "stream", "--streams", "2", "--batch", "10", "--in-flight", "3", "--no-ceiling", "-o", "json"});
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_GT(result.json()["calls"], 0);
  EXPECT_EQ(result.json()["records"], 10 * result.json()["calls"].get<int64_t>());
  EXPECT_TRUE(result.json()["ping"].is_null());
  MutexLock lock(&server_.state().mutex);
  EXPECT_EQ(server_.state().streams, 2u);
}

TEST_F(BenchTest, GetFillsTheKeySpaceFirst) {
  EXPECT_EQ(Bench({"--mode", "get", "--no-ceiling"}).code, 0);
  MutexLock lock(&server_.state().mutex);
  EXPECT_EQ(server_.state().entries.size(), 100u);
}

TEST_F(BenchTest, TheLibraryWritesOneByOneInBatchesAndReads) {
  for (const std::string mode : {"unary", "stream", "get"}) {
    const VerbResult result = Bench({"--library", "--mode", mode, "--in-flight", "3", "--threads", "2", "--batch", "10",
                                     "--streams", "2", "--no-ceiling", "-o", "json"});
    ASSERT_EQ(result.code, 0) << mode << ": " << result.err;
    const Json json = result.json();
    EXPECT_GT(json["records"], 0) << mode;
    EXPECT_EQ(json["records"], json["calls"]) << mode;
    EXPECT_EQ(json["errors"], 0) << mode;
    EXPECT_EQ(json["library"], true);
    EXPECT_EQ(json["primary_moved"], false);
  }
  MutexLock lock(&server_.state().mutex);
  EXPECT_EQ(server_.state().entries.size(), 100u);
  EXPECT_EQ(server_.state().entries.begin()->second.value().size(), 256u);
}

TEST_F(BenchTest, TheLibraryHasNoPingAndNoThreadForEachOfManyCalls) {
  EXPECT_THAT(Bench({"--library", "--mode", "ping"}).err, HasSubstr("--library goes with"));
  EXPECT_THAT(Bench({"--library", "--watch-replicas"}).err, HasSubstr("--library goes with"));
  EXPECT_THAT(Bench({"--library", "--in-flight", "5000"}).err, HasSubstr("at most 4096"));
}

TEST_F(BenchTest, PingNeedsNoCeiling) { EXPECT_THAT(Bench({"--mode", "ping"}).out, HasSubstr("throughput")); }

TEST_F(BenchTest, ReplicasAreWatchedUntilTheyCatchUp) {
  server_.state().status.add_replicas()->set_node_id("r1");
  const VerbResult result = Bench({"--watch-replicas", "--no-ceiling", "-o", "json"});
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_GE(result.json()["replicas_caught_up_seconds"], 0);
}

TEST_F(BenchTest, RefusedWritesAreErrors) {
  server_.state().refuse_writes = MakeError(absl::StatusCode::kFailedPrecondition, "not_primary", "a replica");
  for (const char* mode : {"unary", "stream"}) {
    const VerbResult result = Bench({"--mode", mode, "--no-ceiling", "-o", "json"});
    EXPECT_EQ(result.code, 5);
    EXPECT_GT(result.json()["errors"], 0);
    EXPECT_EQ(result.json()["records"], 0);
  }
}

TEST_F(BenchTest, AnInterruptEndsItEarly) {
  Interrupt interrupt;
  interrupt.Trigger();
  const VerbResult result = RunWith({"--endpoint", server_.endpoint(), "bench", "--seconds", "1000s"}, interrupt, 0);
  EXPECT_EQ(result.code, 1);
}

}  // namespace
}  // namespace towline::ctl
