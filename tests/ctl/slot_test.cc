#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/ctl/fake_server.h"
#include "tests/ctl/run_verb.h"

namespace towline::ctl {
namespace {

using ::testing::HasSubstr;
using ::towline::testing::FakeServer;

class SlotTest : public ::testing::Test {
 protected:
  FakeServer server_;
  Towctl towctl_{server_.endpoint()};
};

TEST_F(SlotTest, CreateListGetAndDrop) {
  const Json created =
      towctl_({"slot", "create", "s1", "--kind", "consumer", "--confirmed-lsn", "0", "-o", "json"}).json();
  EXPECT_EQ(created["name"], "s1");
  EXPECT_EQ(created["kind"], "consumer");
  EXPECT_EQ(created["generation"], "0000000000000007");
  EXPECT_TRUE(created["invalidation"].is_null());
  EXPECT_EQ(towctl_({"slot", "list", "-o", "json"}).json()["slots"].size(), 1u);
  EXPECT_THAT(towctl_({"slot", "list"}).out, HasSubstr("s1    consumer  inactive  reserved"));
  EXPECT_EQ(towctl_({"slot", "get", "s1", "-o", "json"}).json(), created);
  EXPECT_EQ(towctl_({"slot", "create", "s1", "--kind", "consumer"}).code, 1);
  EXPECT_EQ(towctl_({"slot", "drop", "s1"}).code, 0);
  EXPECT_EQ(towctl_({"slot", "get", "s1"}).code, 1);
  EXPECT_EQ(towctl_({"slot", "drop", "s1"}).code, 1);
}

TEST_F(SlotTest, ASlotInUseNeedsForce) {
  towctl_({"slot", "create", "r1", "--kind", "replica"});
  server_.state().slots["r1"].set_state(v1::SLOT_STATE_ACTIVE);
  EXPECT_EQ(towctl_({"slot", "drop", "r1"}).code, 4);
  EXPECT_EQ(towctl_({"slot", "drop", "r1", "--force"}).code, 0);
}

TEST_F(SlotTest, ExplainAsksForANewReplicaByDefault) {
  const VerbResult explained = towctl_({"slot", "explain", "r9", "-o", "json"});
  ASSERT_EQ(explained.code, 0) << explained.err;
  EXPECT_EQ(explained.json()["plan"]["decision"], "partial");
  EXPECT_EQ(explained.json()["bytes_to_ship"], 4096);
  const v1::PullStart& start = server_.state().starts.at(0);
  EXPECT_EQ(start.kind(), v1::SLOT_KIND_REPLICA);
  EXPECT_EQ(start.format(), v1::RECORD_FORMAT_FRAMES);
  EXPECT_NE(start.incarnation(), 0u);
  EXPECT_EQ(start.cluster_id(), "");
  EXPECT_EQ(start.lsn(), 0u);
}

TEST_F(SlotTest, ExplainOfAPositionSendsTheServersLineUpToIt) {
  v1::HistoryEntry* term = server_.state().status.add_history();
  term->set_term(2);
  term->set_start_lsn(100);
  ASSERT_EQ(towctl_({"slot", "explain", "r1", "--lsn", "50", "--chain", "ff"}).code, 0);
  const v1::PullStart& start = server_.state().starts.at(0);
  EXPECT_EQ(start.history_size(), 1);
  EXPECT_EQ(start.chain(), 0xffu);
  EXPECT_EQ(start.cluster_id(), server_.state().status.cluster_id());
  EXPECT_EQ(towctl_({"slot", "explain", "r1", "--lsn", "50", "--chain", "xyz"}).code, 2);
  EXPECT_EQ(towctl_({"slot", "explain", "r1", "--lsn", "50"}).code, 2);
}

TEST_F(SlotTest, ExplainOfAConsumerSlotGoesOnFromTheSlot) {
  towctl_({"slot", "create", "c1", "--kind", "consumer"});
  ASSERT_EQ(towctl_({"slot", "explain", "c1"}).code, 0);
  EXPECT_EQ(server_.state().starts.at(0).slot(), "c1");
  EXPECT_TRUE(server_.state().plans.at(0).as_slot_owner());
}

TEST_F(SlotTest, ExplainOfAMemberAsksTheMemberItself) {
  FakeServer replica;
  replica.state().own_start.set_slot("r1");
  replica.state().own_start.set_lsn(77);
  v1::Member* const member = server_.state().status.add_members();
  member->set_node_id("r1");
  member->set_address(replica.endpoint());
  const VerbResult explained = towctl_({"slot", "explain", "r1", "-o", "json"});
  ASSERT_EQ(explained.code, 0) << explained.err;
  EXPECT_EQ(explained.json()["position_from"], "r1 itself, at " + replica.endpoint());
  EXPECT_EQ(server_.state().starts.at(0).lsn(), 77u);
  EXPECT_FALSE(server_.state().plans.at(0).as_slot_owner());
}

TEST_F(SlotTest, ExplainOfAMemberThatIsAnotherNodeNowAsksItsSlot) {
  FakeServer stranger;
  stranger.state().own_start.set_slot("r2");
  v1::Member* const member = server_.state().status.add_members();
  member->set_node_id("r1");
  member->set_address(stranger.endpoint());
  towctl_({"slot", "create", "r1", "--kind", "replica"});
  ASSERT_EQ(towctl_({"slot", "explain", "r1"}).code, 0);
  EXPECT_TRUE(server_.state().plans.at(0).as_slot_owner());
}

}  // namespace
}  // namespace towline::ctl
