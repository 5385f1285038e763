// Tests of the choice of an upstream.

#include "server/following_upstream.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace towline {
namespace {

constexpr char kCluster[] = "0123456789abcdef01234567";

v1::Standing Standing(const std::string& node_id, bool is_primary, uint64_t term) {
  v1::Standing standing;
  standing.set_node_id(node_id);
  standing.set_cluster_id(kCluster);
  standing.set_is_primary(is_primary);
  v1::HistoryEntry* const entry = standing.add_history();
  entry->set_term(term);
  entry->set_start_lsn(1);
  entry->set_term_id(term);
  return standing;
}

UpstreamCandidate Answers(const std::string& endpoint, const v1::Standing& standing) { return {endpoint, standing}; }
UpstreamCandidate Dead(const std::string& endpoint) { return {endpoint, absl::UnavailableError("refused")}; }

// r1, which was configured to pull from p1, and does so.
UpstreamQuestion Follower() {
  UpstreamQuestion question;
  question.node_id = "r1";
  question.cluster_id = kCluster;
  question.promised_term = 1;
  question.configured = "p1:1";
  question.current = "p1:1";
  question.current_node = "p1";
  question.current_was_primary = true;
  return question;
}

TEST(ChooseUpstreamTest, AServingPrimaryStays) {
  UpstreamQuestion question = Follower();
  question.candidates = {Answers("p1:1", Standing("p1", true, 1)), Answers("r2:1", Standing("r2", false, 1))};
  EXPECT_EQ(ChooseUpstream(question), "p1:1");
}

TEST(ChooseUpstreamTest, ADeadPrimaryIsWaitedForWhileThereIsNoOther) {
  UpstreamQuestion question = Follower();
  question.candidates = {Dead("p1:1"), Answers("r2:1", Standing("r2", false, 1))};
  EXPECT_EQ(ChooseUpstream(question), "p1:1");
}

TEST(ChooseUpstreamTest, ThePrimaryOfAHigherTermIsFollowed) {
  UpstreamQuestion question = Follower();
  question.candidates = {Dead("p1:1"), Answers("r2:1", Standing("r2", true, 2))};
  EXPECT_EQ(ChooseUpstream(question), "r2:1");
  question.candidates = {Answers("p1:1", Standing("p1", true, 1)), Answers("r2:1", Standing("r2", true, 2))};
  EXPECT_EQ(ChooseUpstream(question), "r2:1");
}

TEST(ChooseUpstreamTest, AnOldPrimaryThatIsAReplicaNowIsLeft) {
  UpstreamQuestion question = Follower();
  question.promised_term = 2;
  question.candidates = {Answers("p1:1", Standing("p1", false, 2)), Answers("r2:1", Standing("r2", true, 2))};
  EXPECT_EQ(ChooseUpstream(question), "r2:1");
}

TEST(ChooseUpstreamTest, AReplicaThatWasChosenAsUpstreamStays) {
  UpstreamQuestion question = Follower();
  question.current_was_primary = false;
  v1::Standing served = Standing("p1", false, 2);
  served.set_state("streaming");
  question.candidates = {Answers("p1:1", served), Answers("r2:1", Standing("r2", true, 2))};
  EXPECT_EQ(ChooseUpstream(question), "p1:1");
  served.set_state("halted");
  question.candidates[0] = Answers("p1:1", served);
  EXPECT_EQ(ChooseUpstream(question), "r2:1") << "nobody serves it: it may wait for this very node";
  question.candidates[0] = Dead("p1:1");
  EXPECT_EQ(ChooseUpstream(question), "r2:1") << "but not when it is gone";
}

TEST(ChooseUpstreamTest, AnotherAddressOfTheSameDeadWayIsNotTaken) {
  UpstreamQuestion question = Follower();
  question.configured = "relay:1";
  question.current = "relay:1";
  question.candidates = {Dead("relay:1"), Answers("p1:1", Standing("p1", true, 1))};
  EXPECT_EQ(ChooseUpstream(question), "relay:1");
}

TEST(ChooseUpstreamTest, APromotionOnItsWayIsWaitedFor) {
  UpstreamQuestion question = Follower();
  question.promised_term = 2;
  question.awaited = "r2";
  question.candidates = {Answers("p1:1", Standing("p1", true, 1)), Answers("r2:1", Standing("r2", false, 1))};
  EXPECT_EQ(ChooseUpstream(question), "");
}

TEST(ChooseUpstreamTest, WithoutAConfiguredOneTheMembersDo) {
  UpstreamQuestion question = Follower();
  question.configured = question.current = question.current_node = "";
  question.candidates = {Answers("r3:1", Standing("r3", false, 2)), Answers("r2:1", Standing("r2", true, 2))};
  EXPECT_EQ(ChooseUpstream(question), "r2:1");
  question.candidates = {Answers("r3:1", Standing("r3", false, 2))};
  EXPECT_EQ(ChooseUpstream(question), "") << "a replica that was not chosen is none";
}

TEST(ChooseUpstreamTest, OtherClustersAndTheNodeItselfAreNothing) {
  UpstreamQuestion question = Follower();
  v1::Standing other = Standing("x", true, 9);
  other.set_cluster_id("ffffffffffffffffffffffff");
  question.candidates = {Dead("p1:1"), Answers("x:1", other), Answers("r1:1", Standing("r1", true, 9))};
  EXPECT_EQ(ChooseUpstream(question), "p1:1");
  question.candidates[0] = Answers("p1:1", other);
  question.candidates.push_back(Answers("r2:1", Standing("r2", true, 2)));
  EXPECT_EQ(ChooseUpstream(question), "p1:1") << "a configured one of another cluster is refused where all can see it";
}

}  // namespace
}  // namespace towline
