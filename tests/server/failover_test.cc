// Failover between real nodes on simulated disks: promotion, switchover, old primaries, and power loss at every call.
//
// Goal     One line of history whatever happens, nothing lost that replicas had confirmed, everybody ends with the same
//          log and state.
// Method   SimCluster: nodes with threads, disks that lose what was not synced. At every call on any disk during a
//          change of primary the disks are copied as a power loss would leave them, and a new cluster is started from
//          them.

#include "server/failover.h"

#include <future>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/history.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/server/sim_cluster.h"
#include "tests/support/status_matchers.h"

namespace towline::test {
namespace {

constexpr int kKeys = 20;

class FailoverTest : public ::testing::Test {
 protected:
  // p1 with replicas r1 and r2 that hold key-0 to key-19.
  void StartThree() {
    ASSERT_THAT(cluster_.Start("p1", NodeRole::kPrimary), IsOk());
    ASSERT_THAT(cluster_.Start("r1", NodeRole::kReplica, "p1:1"), IsOk());
    ASSERT_THAT(cluster_.Start("r2", NodeRole::kReplica, "p1:1"), IsOk());
    ASSERT_TRUE(SimCluster::Await([&] { return cluster_.node("p1").View().members.members.size() == 3; }));
    for (int i = 0; i < kKeys; ++i) ASSERT_THAT(cluster_.Put("p1", absl::StrCat("key-", i), "1"), IsOk());
    ASSERT_EQ(cluster_.AwaitConvergence("p1"), "");
    // The primary learns from acks that they have come to the end.
    ASSERT_TRUE(SimCluster::Await([&] { return Streams("r1") && Streams("r2"); }));
  }

  bool Streams(const std::string& replica) {
    const std::optional<PeerStatus> peer = cluster_.node("p1").FindPeer(replica);
    return peer.has_value() && peer->state == "streaming";
  }

  absl::Status Promote(const std::string& node_id, bool force = false) {
    v1::PromoteRequest request;
    request.set_force(force);
    const auto report = cluster_.node(node_id).failover().Promote(request);
    if (report.ok()) report_ = *report;
    return report.status();
  }

  bool IsWritable(const std::string& node_id) { return cluster_.node(node_id).CheckWritable().ok(); }

  SimCluster cluster_;
  v1::PromotionReport report_;
};

TEST_F(FailoverTest, AReplicaTakesOverFromADeadPrimary) {
  StartThree();
  cluster_.Kill("p1");
  ASSERT_THAT(Promote("r1"), IsOk());
  EXPECT_EQ(report_.term(), 2u);
  EXPECT_TRUE(IsWritable("r1"));
  ASSERT_THAT(cluster_.Put("r1", "after", "2"), IsOk());
  EXPECT_EQ(cluster_.AwaitConvergence("r1"), "");
  EXPECT_EQ(cluster_.Get("r2", "after"), "2");
  EXPECT_EQ(cluster_.Get("r2", "key-0"), "1");

  // Under its old command line it does not become a second primary.
  ASSERT_THAT(cluster_.Start("p1", NodeRole::kPrimary), IsOk());
  EXPECT_EQ(cluster_.AwaitConvergence("r1"), "");
  EXPECT_FALSE(cluster_.node("p1").is_primary());
  EXPECT_THAT(cluster_.Put("p1", "x", "y"), ReasonIs("not_primary"));
}

TEST_F(FailoverTest, ACutOffPrimaryGivesUpWhatNobodyElseHas) {
  StartThree();
  cluster_.Disconnect("p1");
  for (int i = 0; i < 5; ++i) ASSERT_THAT(cluster_.Put("p1", absl::StrCat("alone-", i), "1"), IsOk());
  ASSERT_THAT(Promote("r2"), IsOk());
  ASSERT_THAT(cluster_.Put("r2", "after", "2"), IsOk());
  cluster_.Connect("p1");
  EXPECT_EQ(cluster_.AwaitConvergence("r2"), "");
  EXPECT_FALSE(cluster_.node("p1").is_primary());
  EXPECT_EQ(cluster_.Get("p1", "alone-0"), "");
  EXPECT_EQ(cluster_.Get("p1", "after"), "2");
  EXPECT_FALSE(cluster_.disk("p1").Names("data/quarantine").empty());
}

TEST_F(FailoverTest, ASwitchoverLosesNothingAndTheOldPrimaryFollows) {
  StartThree();
  const auto response = cluster_.node("r1").failover().Switchover({});
  ASSERT_THAT(response.status(), IsOk());
  EXPECT_EQ(response->old_primary(), "p1");
  EXPECT_GT(response->write_pause_us(), 0u);
  EXPECT_TRUE(IsWritable("r1"));
  EXPECT_FALSE(cluster_.node("p1").is_primary());
  ASSERT_THAT(cluster_.Put("r1", "after", "2"), IsOk());
  EXPECT_EQ(cluster_.AwaitConvergence("r1"), "");
  EXPECT_EQ(cluster_.Get("p1", "key-19"), "1");
}

TEST_F(FailoverTest, ASwitchoverToANodeThatDoesNotStreamChangesNothing) {
  StartThree();
  cluster_.node("r1").StopPulling();
  const auto response = cluster_.node("r1").failover().Switchover({});
  EXPECT_THAT(response.status(), ReasonIs("candidate_not_connected"));
  EXPECT_THAT(cluster_.Put("p1", "after", "2"), IsOk());
  EXPECT_EQ(cluster_.node("p1").View().history.size(), 1u);
  EXPECT_EQ(cluster_.node("p1").control().Get().promised_term, 0u);
  cluster_.node("r1").ResumePulling();
  EXPECT_EQ(cluster_.AwaitConvergence("p1"), "");
}

TEST_F(FailoverTest, AHandOverWhoseAnswerIsLostIsCalledUnknown) {
  StartThree();
  cluster_.LoseHandOverAnswers();
  EXPECT_THAT(cluster_.node("r1").failover().Switchover({}).status(), ReasonIs("handover_unknown"));
  EXPECT_FALSE(cluster_.node("p1").is_primary());  // it had granted
  ASSERT_THAT(Promote("r2"), IsOk());
  ASSERT_THAT(cluster_.Put("r2", "after", "2"), IsOk());
  EXPECT_EQ(cluster_.AwaitConvergence("r2"), "");
}

TEST_F(FailoverTest, WithoutAQuorumNothingIsPromised) {
  StartThree();
  cluster_.Kill("p1");
  cluster_.Kill("r2");
  const Term before = cluster_.node("r1").control().Get().promised_term;
  EXPECT_THAT(Promote("r1"), ReasonIs("no_quorum"));
  EXPECT_EQ(cluster_.node("r1").control().Get().promised_term, before);
  EXPECT_FALSE(cluster_.node("r1").is_primary());
  EXPECT_THAT(Promote("r1", /*force=*/true), IsOk());
  EXPECT_TRUE(report_.forced());
  EXPECT_NE(report_.may_be_lost_size(), 0);
}

TEST_F(FailoverTest, TwoCandidatesAtOnceNeverShareATerm) {
  StartThree();
  cluster_.Kill("p1");
  auto other = std::async(std::launch::async, [&] { return cluster_.node("r2").failover().Promote({}); });
  const auto first = cluster_.node("r1").failover().Promote({});
  const auto second = other.get();
  std::string primary = first.ok() ? "r1" : "r2";
  if (first.ok() && second.ok()) {  // one after the other: whoever had the higher term fenced the other
    ASSERT_NE(first->term(), second->term());
    primary = first->term() > second->term() ? "r1" : "r2";
    EXPECT_FALSE(cluster_.node(primary == "r1" ? "r2" : "r1").is_primary());
  } else if (!first.ok() && !second.ok()) {
    ASSERT_THAT(Promote("r2"), IsOk()) << first.status() << " / " << second.status();
  }
  ASSERT_THAT(cluster_.Put(primary, "after", "2"), IsOk());
  EXPECT_EQ(cluster_.AwaitConvergence(primary), "");
}

TEST_F(FailoverTest, WhoHoldsMoreIsCaughtUpWithBeforeTheTermBegins) {
  StartThree();
  cluster_.node("r1").StopPulling();
  for (int i = 0; i < 5; ++i) ASSERT_THAT(cluster_.Put("p1", absl::StrCat("more-", i), "1"), IsOk());
  ASSERT_TRUE(SimCluster::Await([&] { return cluster_.Get("r2", "more-4") == "1"; }));
  cluster_.Kill("p1");
  ASSERT_THAT(Promote("r1"), IsOk());
  EXPECT_EQ(report_.caught_up_from(), "r2");
  EXPECT_EQ(report_.caught_up_records(), 5u);
  EXPECT_EQ(cluster_.Get("r1", "more-4"), "1");
  EXPECT_EQ(cluster_.AwaitConvergence("r1"), "");
}

TEST_F(FailoverTest, AFencedPrimaryTakesNoWritesAndAReplicaNoRecordsOfTheOldTerm) {
  StartThree();
  v1::FenceRequest request;
  request.set_cluster_id(cluster_.node("p1").View().cluster_id);
  request.set_term(2);
  request.set_candidate("r2");
  request.set_node_id("r1");
  const auto granted = cluster_.node("r1").failover().Fence(request);
  ASSERT_THAT(granted.status(), IsOk());
  EXPECT_TRUE(granted->granted());
  const Lsn fenced_at = granted->standing().lsn();
  (void)cluster_.Put("p1", "later", "2");
  EXPECT_EQ(cluster_.node("r1").Live()->spool().end().lsn, fenced_at);

  request.set_candidate("r3");
  const auto refused = cluster_.node("r1").failover().Fence(request);
  ASSERT_THAT(refused.status(), IsOk());
  EXPECT_FALSE(refused->granted());
  EXPECT_EQ(refused->reason(), "term_promised");

  request.set_candidate("r2");
  request.set_node_id("p1");
  ASSERT_TRUE(cluster_.node("p1").failover().Fence(request)->granted());
  EXPECT_FALSE(cluster_.node("p1").is_primary());
  EXPECT_FALSE(cluster_.Put("p1", "too-late", "2").ok());
  // Whoever is promoted next ends it.
  ASSERT_THAT(Promote("r2"), IsOk());
  EXPECT_GT(report_.term(), 2u);
  EXPECT_EQ(cluster_.AwaitConvergence("r2"), "");
}

TEST_F(FailoverTest, AStepDownThatWasDecidedBeforeAPromotionDoesNotEndItsTerm) {
  StartThree();
  cluster_.Kill("p1");
  ASSERT_THAT(Promote("r1"), IsOk());
  ASSERT_THAT(cluster_.node("r1").failover().StepDown("stale_primary", "said of the term before"), IsOk());
  EXPECT_TRUE(IsWritable("r1"));
  EXPECT_THAT(cluster_.Put("r1", "after", "2"), IsOk());
}

TEST_F(FailoverTest, WhatWasFoundOfAnEarlierTermDoesNotEndALaterOne) {
  StartThree();
  const Term before = cluster_.node("p1").View().term;
  std::string primary = "p1";
  for (const std::string next : {"r1", "p1"}) {
    cluster_.Disconnect(primary);
    ASSERT_THAT(Promote(next), IsOk()) << next;
    cluster_.Connect(primary);
    ASSERT_EQ(cluster_.AwaitConvergence(next), "");
    primary = next;
  }
  cluster_.node("p1").OnStaleSelf(before, "stale_primary", "found two terms ago");
  EXPECT_TRUE(IsWritable("p1"));
  cluster_.node("p1").OnStaleSelf(before + 2, "stale_primary", "found of this term");
  EXPECT_FALSE(IsWritable("p1"));
}

TEST_F(FailoverTest, ThreePromotionsInARow) {
  StartThree();
  std::string primary = "p1";
  for (const std::string next : {"r1", "r2", "r1"}) {
    cluster_.Disconnect(primary);
    ASSERT_THAT(cluster_.Put(primary, absl::StrCat("only-on-", primary, "-", next), "1"), IsOk());
    ASSERT_THAT(Promote(next), IsOk()) << next;
    cluster_.Connect(primary);
    ASSERT_THAT(cluster_.Put(next, absl::StrCat("by-", next), "1"), IsOk());
    ASSERT_EQ(cluster_.AwaitConvergence(next), "");
    primary = next;
  }
  EXPECT_EQ(cluster_.node("p1").View().history.size(), 4u);
}

TEST_F(FailoverTest, TwoForcedPrimariesOfOneTermStopEachOther) {
  StartThree();
  cluster_.Kill("p1");
  cluster_.Disconnect("r1");
  ASSERT_THAT(Promote("r1", /*force=*/true), IsOk());
  ASSERT_THAT(Promote("r2", /*force=*/true), IsOk());
  cluster_.Connect("r1");
  EXPECT_TRUE(SimCluster::Await([&] { return !IsWritable("r1") && !IsWritable("r2"); }));
  ASSERT_THAT(Promote("r2", /*force=*/true), IsOk());
  ASSERT_THAT(cluster_.Put("r2", "after", "2"), IsOk());
  EXPECT_EQ(cluster_.AwaitConvergence("r2"), "");
}

// --- Power loss at every call ---

class FailoverCrashTest : public FailoverTest {
 protected:
  // Runs `change`, and copies all disks at every call that changes one.
  void RunAndCopy(const std::function<void()>& change) {
    std::vector<std::string> names = {"p1", "r1", "r2"};
    for (const std::string& name : names) {
      cluster_.disk(name).SetAfterCall([this] {
        MutexLock lock(&mutex_);
        if (states_.size() < 200) states_.push_back(cluster_.DisksAfterPowerLoss());
      });
    }
    change();
    for (const std::string& name : names) cluster_.disk(name).SetAfterCall(nullptr);
  }

  // Starts a cluster from what is left; somebody is the primary in the end, and everybody agrees.
  void CheckState(const ClusterDisks& disks) {
    SimCluster after;
    after.SetDisks(disks);
    ASSERT_THAT(after.Start("r1", NodeRole::kReplica, "p1:1"), IsOk());
    ASSERT_THAT(after.Start("r2", NodeRole::kReplica, "p1:1"), IsOk());
    ASSERT_THAT(after.Start("p1", NodeRole::kPrimary), IsOk());
    std::string primary;
    const auto find = [&] {
      for (const std::string name : {"p1", "r1", "r2"}) {
        if (after.node(name).CheckWritable().ok()) primary = name;
      }
      return !primary.empty();
    };
    const auto settled = [&] { return find() || !(after.node("p1").is_primary() || after.node("r1").is_primary()); };
    ASSERT_TRUE(SimCluster::Await(settled));
    if (primary.empty()) {
      // The change was cut off behind its promises: an operator promotes somebody.
      for (const std::string name : {"r2", "r1", "p1"}) {
        if (after.node(name).failover().Promote({}).ok()) break;
      }
      ASSERT_TRUE(SimCluster::Await(find));
    }
    ASSERT_THAT(after.Put(primary, "after", "2"), IsOk());
    ASSERT_EQ(after.AwaitConvergence(primary), "");
    for (int i = 0; i < kKeys; ++i) {
      ASSERT_EQ(after.Get(primary, absl::StrCat("key-", i)), "1")
          << i << " on " << primary << " at LSN " << after.node(primary).Live()->applier().applied_lsn() << " "
          << FormatHistory(after.node(primary).View().history);
    }
    int primaries = 0;
    for (const std::string name : {"p1", "r1", "r2"}) primaries += after.node(name).is_primary() ? 1 : 0;
    ASSERT_EQ(primaries, 1);
  }

  void CheckStates() {
    EXPECT_GT(states_.size(), 5u);
    for (size_t i = 0; i < states_.size(); ++i) {
      SCOPED_TRACE(absl::StrCat("state ", i, " of ", states_.size()));
      CheckState(states_[i]);
      if (HasFatalFailure()) return;
    }
  }

  Mutex mutex_;
  std::vector<ClusterDisks> states_;
};

TEST_F(FailoverCrashTest, PromotionWithPowerLossAtEveryCall) {
  StartThree();
  cluster_.Disconnect("p1");
  RunAndCopy([&] { EXPECT_THAT(Promote("r1"), IsOk()); });
  CheckStates();
}

TEST_F(FailoverCrashTest, SwitchoverWithPowerLossAtEveryCall) {
  StartThree();
  RunAndCopy([&] { EXPECT_THAT(cluster_.node("r1").failover().Switchover({}).status(), IsOk()); });
  CheckStates();
}

}  // namespace
}  // namespace towline::test
