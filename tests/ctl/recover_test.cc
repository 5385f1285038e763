// Tests of recover and of the member verbs.

#include <string>

#include "gtest/gtest.h"
#include "tests/ctl/fake_server.h"
#include "tests/ctl/run_verb.h"

namespace towline::ctl {
namespace {

using ::towline::testing::FakeServer;

class RecoverTest : public ::testing::Test {
 protected:
  RecoverTest() {
    v1::GetStatusResponse& status = server_.state().status;
    status.set_node_id("p1");
    status.set_state("recovery_required");
    status.clear_members();
    AddMember("p1", server_);
    AddMember("r1", r1_);
    AddMember("r2", r2_);
    server_.Put("k", "v");  // LSN 1
    r1_.state().own_start.set_slot("r1");
    r1_.state().own_start.set_lsn(5);
    r2_.state().own_start.set_slot("r2");
    r2_.state().own_start.set_lsn(9);
  }

  void AddMember(const std::string& name, FakeServer& server) {
    v1::Member* const member = server_.state().status.add_members();
    member->set_node_id(name);
    member->set_address(server.endpoint());
  }

  FakeServer server_;
  Towctl towctl_{server_.endpoint()};
  FakeServer r1_;
  FakeServer r2_;
};

TEST_F(RecoverTest, WithoutOptionsItNamesWhoHoldsMost) {
  const VerbResult shown = towctl_({"recover", "-o", "json"});
  EXPECT_EQ(shown.code, 3);
  EXPECT_EQ(shown.json()["suggested_from"], "r2");
  EXPECT_EQ(shown.json()["members"].size(), 2u) << "the primary itself is nobody to ask";
  EXPECT_EQ(shown.json()["members"][0]["ahead_records"], 4);
  EXPECT_TRUE(server_.state().recoveries.empty());
  EXPECT_NE(towctl_({"recover"}).out.find("towctl recover --from r2"), std::string::npos);
}

TEST_F(RecoverTest, NothingToDoIsNoError) {
  server_.state().status.set_state("writable");
  EXPECT_EQ(towctl_({"recover"}).code, 0);
}

TEST_F(RecoverTest, SaysWhatCameBack) {
  const VerbResult done = towctl_({"recover", "--from", "r2"});
  EXPECT_EQ(done.code, 0) << done.err;
  EXPECT_NE(done.out.find("15 records, lsn 11 to 25"), std::string::npos) << done.out;
  EXPECT_EQ(server_.state().recoveries.at(0).from(), "r2");
}

TEST_F(RecoverTest, LossIsAcceptedOnlyInSoManyWords) {
  EXPECT_EQ(towctl_({"recover", "--from", "r2", "--accept-loss"}).code, 2);
  EXPECT_TRUE(server_.state().recoveries.empty());
  EXPECT_EQ(towctl_({"recover", "--accept-loss"}).code, 0);
  EXPECT_TRUE(server_.state().recoveries.at(0).accept_loss());
}

TEST_F(RecoverTest, MemberVerbs) {
  EXPECT_EQ(towctl_({"member", "list", "-o", "json"}).json().size(), 3u);
  server_.state().slots["r1"].set_name("r1");
  const VerbResult removed = towctl_({"member", "remove", "r1"});
  EXPECT_EQ(removed.code, 0) << removed.err;
  EXPECT_NE(removed.out.find("towctl slot drop r1"), std::string::npos) << "its slot still holds the log";
  EXPECT_EQ(towctl_({"member", "remove", "R1"}).code, 2);
}

}  // namespace
}  // namespace towline::ctl
