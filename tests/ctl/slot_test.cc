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
  EXPECT_EQ(towctl_({"slot", "drop", "s1", "--yes"}).code, 0);
  EXPECT_EQ(towctl_({"slot", "get", "s1"}).code, 1);
  EXPECT_EQ(towctl_({"slot", "drop", "s1", "--yes"}).code, 1);
}

TEST_F(SlotTest, ASlotInUseNeedsForce) {
  towctl_({"slot", "create", "r1", "--kind", "replica"});
  server_.state().slots["r1"].set_state(v1::SLOT_STATE_ACTIVE);
  EXPECT_EQ(towctl_({"slot", "drop", "r1", "--yes"}).code, 4);
  EXPECT_EQ(towctl_({"slot", "drop", "r1", "--force", "--yes"}).code, 0);
}

TEST_F(SlotTest, ADropIsConfirmed) {
  towctl_({"slot", "create", "s1", "--kind", "consumer", "--confirmed-lsn", "0"});
  server_.state().slots["s1"].set_retained_bytes(3 << 20);
  const VerbResult refused = towctl_({"slot", "drop", "s1", "-o", "json"});
  EXPECT_EQ(refused.code, 4);
  EXPECT_EQ(refused.error()["reason"], "not_confirmed");
  EXPECT_THAT(refused.error()["next_action"].get<std::string>(), HasSubstr("--yes"));
  EXPECT_EQ(towctl_({"slot", "drop", "s1", "--force"}).code, 4);

  const auto at_terminal = [this](const std::string& typed) {
    return RunAtTerminal({"--endpoint", server_.endpoint(), "slot", "drop", "s1"}, typed);
  };
  for (const char* no : {"n\n", "\n", "", "yep\n"}) {
    const VerbResult asked = at_terminal(no);
    EXPECT_EQ(asked.code, 4);
    for (const char* told : {"consumer", "inactive", "3 MiB", "misses", "[y/N]"}) {
      EXPECT_THAT(asked.err, HasSubstr(told));
    }
  }
  EXPECT_EQ(towctl_({"slot", "get", "s1"}).code, 0);
  EXPECT_EQ(at_terminal("y\n").code, 0);
  EXPECT_EQ(towctl_({"slot", "get", "s1"}).code, 1);
}

TEST_F(SlotTest, CopyAndAdvance) {
  towctl_({"slot", "create", "s1", "--kind", "consumer", "--confirmed-lsn", "4"});
  EXPECT_EQ(towctl_({"slot", "copy", "s1", "s2", "-o", "json"}).json()["confirmed_lsn"], 4);
  EXPECT_EQ(towctl_({"slot", "copy", "none", "s3"}).code, 1);
  EXPECT_EQ(towctl_({"slot", "copy", "s1", "No Name"}).code, 2);
  EXPECT_EQ(towctl_({"slot", "advance", "s2", "9", "-o", "json"}).json()["confirmed_lsn"], 9);
  EXPECT_THAT(towctl_({"slot", "advance", "s2", "8"}).err, HasSubstr("advance_backwards"));
  EXPECT_EQ(towctl_({"slot", "advance", "s2", "x"}).code, 2);
  EXPECT_EQ(towctl_({"slot", "advance", "s2"}).code, 2);
  EXPECT_EQ(server_.state().slots["s1"].confirmed_lsn(), 4u);
}

TEST_F(SlotTest, ALossIsAcceptedOnceAndWithAWord) {
  EXPECT_FALSE(towctl_({"slot", "accept-loss", "-o", "json"}).json()["was_unknown"].get<bool>());
  towctl_({"slot", "create", "s1", "--kind", "consumer"});
  server_.state().slots_unknown = true;
  EXPECT_THAT(towctl_({"slot", "list"}).out, HasSubstr("UNKNOWN"));
  EXPECT_TRUE(towctl_({"slot", "list", "-o", "json"}).json()["unknown"].get<bool>());
  EXPECT_EQ(towctl_({"slot", "accept-loss"}).code, 4);
  EXPECT_TRUE(server_.state().slots_unknown);
  EXPECT_TRUE(towctl_({"slot", "accept-loss", "--yes", "-o", "json"}).json()["was_unknown"].get<bool>());
  EXPECT_FALSE(server_.state().slots_unknown);
}

TEST_F(SlotTest, TemporarySlotsAreMarked) {
  towctl_({"slot", "create", "s1", "--kind", "consumer"});
  server_.state().slots["s1"].set_temporary(true);
  server_.state().slots["s1"].set_origin("p1");
  EXPECT_THAT(towctl_({"slot", "list"}).out, HasSubstr("consumer/temporary"));
  const Json slot = towctl_({"slot", "get", "s1", "-o", "json"}).json();
  EXPECT_EQ(slot["temporary"], true);
  EXPECT_EQ(slot["origin"], "p1");
  server_.state().slots["s1"].set_temporary(false);
  EXPECT_THAT(towctl_({"slot", "list"}).out, HasSubstr("consumer/copy of p1"));
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
