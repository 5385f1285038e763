#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/ctl/fake_server.h"
#include "tests/ctl/run_verb.h"

namespace towline::ctl {
namespace {

using ::testing::HasSubstr;
using ::towline::testing::FakeServer;

class StatusTest : public ::testing::Test {
 protected:
  FakeServer server_;
  Towctl towctl_{server_.endpoint()};
};

TEST_F(StatusTest, JsonHasTheFieldsOfTheContract) {
  v1::ReplicaStatus* replica = server_.state().status.add_replicas();
  replica->set_node_id("r1");
  server_.state().slots["r1"];
  server_.state().status.add_slots()->set_name("r1");
  const Json status = towctl_({"status", "-o", "json"}).json();
  for (const char* field : {"cluster_id", "node_id", "role", "state", "exact", "term", "history", "members", "wal",
                            "store", "upstream", "replicas", "slots", "resync"}) {
    EXPECT_TRUE(status.contains(field)) << field;
  }
  EXPECT_TRUE(status["upstream"].is_null());
  EXPECT_TRUE(status["members"].is_array());
  EXPECT_EQ(status["history"][0]["term_id"], "0000000000001111");
  EXPECT_TRUE(status["wal"]["durable_lsn"].is_number_unsigned());
  EXPECT_TRUE(status["replicas"][0]["lag_seconds"].is_null());
  for (const char* field : {"node_id", "slot", "state", "sent_lsn", "received_lsn", "flushed_lsn", "applied_lsn",
                            "lag_records", "lag_bytes", "lag_seconds"}) {
    EXPECT_TRUE(status["replicas"][0].contains(field)) << field;
  }
  for (const char* field : {"name", "kind", "state", "health", "generation", "confirmed_lsn", "retained_bytes",
                            "headroom_bytes", "headroom_seconds", "invalidation"}) {
    EXPECT_TRUE(status["slots"][0].contains(field)) << field;
  }
  EXPECT_EQ(JsonText(status["resync"]["by_reason"]), "{}");
}

TEST_F(StatusTest, TableShowsTheLagOfEachStage) {
  v1::GetStatusResponse& status = server_.state().status;
  const auto add = [](v1::ReplicaStatus* peer, const char* slot, const char* state, bool connected, uint64_t behind) {
    peer->set_slot(slot);
    peer->set_state(state);
    for (const char* stage : {"sent", "received", "flushed", "applied"}) {
      v1::StageLag* lag = peer->add_stages();
      lag->set_stage(stage);
      if (connected) lag->set_seconds(0);
      if (connected && std::string(stage) != "applied") continue;
      lag->set_records(behind);
      lag->set_bytes(behind * 1024);
      if (connected) lag->set_seconds(2.5);
    }
  };
  add(status.add_replicas(), "r1", "streaming", true, 12);
  add(status.add_replicas(), "r2", "disconnected", false, 7);
  add(status.add_consumers(), "indexer", "streaming", true, 3);
  status.mutable_upstream()->add_path("r9");
  status.mutable_upstream()->add_path("p0");
  status.mutable_resync()->set_stalls(5);
  (*status.mutable_resync()->mutable_invalidations())["idle_timeout"] = 2;
  const std::string out = towctl_({"status"}).out;
  for (const char* text :
       {"SLOT     STATE         SENT      RECEIVED  FLUSHED   APPLIED\n", "12, 12 KiB, 2.50 s\n", "7, 7 KiB\n",
        "indexer  streaming", "path      r9, p0\n", "stalls 5\n", "invalidated idle_timeout 2\n"}) {
    EXPECT_THAT(out, HasSubstr(text));
  }
}

TEST_F(StatusTest, TableShowsNodeLogReplicasSlotsAndResync) {
  v1::GetStatusResponse& status = server_.state().status;
  v1::ReplicaStatus* replica = status.add_replicas();
  replica->set_node_id("r1");
  replica->set_state("streaming");
  replica->set_lag_records(42);
  status.add_slots()->set_name("indexer");
  (*status.mutable_resync()->mutable_by_reason())["partial/resumed"] = 3;
  status.mutable_upstream()->set_endpoint("127.0.0.1:7700");
  const std::string out = towctl_({"status"}).out;
  for (const char* text : {"p1  primary  writable  exact", "streaming", "42", "indexer", "partial/resumed 3",
                           "upstream  127.0.0.1:7700"}) {
    EXPECT_THAT(out, HasSubstr(text));
  }
}

TEST_F(StatusTest, ChecksAndThresholdsAreExitCodeThree) {
  v1::GetStatusResponse& status = server_.state().status;
  EXPECT_EQ(towctl_({"status", "--check"}).code, 0);
  v1::ReplicaStatus* replica = status.add_replicas();
  replica->set_node_id("r1");
  replica->set_lag_records(10);
  EXPECT_EQ(towctl_({"status", "--max-lag-records", "10"}).code, 0);
  EXPECT_EQ(towctl_({"status", "--max-lag-records", "9"}).code, 3);
  status.set_state("recovery_required");
  EXPECT_EQ(towctl_({"status"}).code, 0);
  const VerbResult unhealthy = towctl_({"status", "--check", "-o", "json"});
  EXPECT_EQ(unhealthy.code, 3);
  EXPECT_EQ(unhealthy.json()["state"], "recovery_required");
  EXPECT_EQ(unhealthy.error()["reason"], "unhealthy");
}

TEST_F(StatusTest, HistoryTopologyDigestAndPing) {
  EXPECT_THAT(towctl_({"history"}).out, HasSubstr("0000000000001111"));
  EXPECT_EQ(towctl_({"history", "-o", "json"}).json()["history"][0]["start_lsn"], 1);
  EXPECT_EQ(towctl_({"topology", "-o", "json"}).json()["primary_node_id"], "p1");
  EXPECT_THAT(towctl_({"topology"}).out, HasSubstr("primary p1 at -"));
  server_.Put("k", "v");
  EXPECT_EQ(towctl_({"digest", "-o", "json"}).json()["digest"], "000102030405060708090a0b0c0d0e0f");
  EXPECT_EQ(towctl_({"digest"}).out, "000102030405060708090a0b0c0d0e0f  1 keys  lsn 1 term 1\n");
  EXPECT_EQ(towctl_({"ping", "--count", "3", "--payload-size", "1KiB", "-o", "json"}).json()["count"], 3);
}

TEST_F(StatusTest, APassedDigestPositionIsAnError) {
  server_.Put("k", "v");
  server_.Put("k", "w");
  const VerbResult digest = towctl_({"digest", "--at-lsn", "1", "-o", "json"});
  EXPECT_EQ(digest.code, 1);
  EXPECT_EQ(digest.error()["reason"], "position_passed");
}

}  // namespace
}  // namespace towline::ctl
