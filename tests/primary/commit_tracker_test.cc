#include "primary/commit_tracker.h"

#include <string>
#include <vector>

#include "common/error.h"
#include "common/failpoint.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/primary/commit_fixture.h"
#include "tests/support/fake_clock.h"
#include "tests/support/recording_logger.h"
#include "tests/support/status_matchers.h"

namespace towline::test {
namespace {

constexpr Term kTerm = 3;
constexpr Lsn kOpened = 10;
using End = CommitResult::End;

class CommitTrackerTest : public ::testing::Test {
 protected:
  std::unique_ptr<CommitTracker> Open(const MemberList& members, const CommitLevel& level = {}) {
    return std::make_unique<CommitTracker>(clock_, logger_, "p", kTerm, level, members, kOpened);
  }

  FakeClock clock_;
  RecordingLogger logger_;
};

TEST_F(CommitTrackerTest, LocalIsAnsweredAtOnce) {
  const auto tracker = Open(Members({"r1"}));
  const auto outcome = Await(*tracker, 11, Replicas(0));
  EXPECT_EQ(outcome->calls, 1);
  EXPECT_EQ(outcome->result.end, End::kReached);
  EXPECT_TRUE(outcome->result.achieved.reached);
  EXPECT_EQ(tracker->CommittedLsn(11), 11);
}

TEST_F(CommitTrackerTest, WaitsForSoManyAtTheStage) {
  const auto tracker = Open(Members({"r1", "r2"}));
  const auto one = Await(*tracker, 12, Replicas(1));
  const auto two = Await(*tracker, 12, Replicas(2));
  const auto applied = Await(*tracker, 12, Replicas(1, CommitStage::kApplied));
  tracker->OnAck(Ack("r1", 11));
  EXPECT_EQ(one->calls, 0);
  tracker->OnAck(Ack("r1", 12, 11));
  EXPECT_EQ(one->calls, 1);
  EXPECT_EQ(one->result.achieved.flushed, 1);
  EXPECT_EQ(one->result.achieved.applied, 0);
  EXPECT_EQ(two->calls, 0);
  EXPECT_EQ(applied->calls, 0);
  tracker->OnAck(Ack("r1", 12, 12));
  EXPECT_EQ(applied->calls, 1);
  EXPECT_EQ(two->calls, 0);  // the same replica twice is one
  tracker->OnAck(Ack("r2", 13));
  EXPECT_EQ(two->calls, 1);
  EXPECT_EQ(two->result.achieved.flushed, 2);
  EXPECT_EQ(tracker->stats().waiters, 0);
  EXPECT_EQ(tracker->stats().waits_total, 3);
  EXPECT_EQ(tracker->stats().waiting_bytes, 0);
}

TEST_F(CommitTrackerTest, WhatWasConfirmedBeforeIsReachedAtOnce) {
  const auto tracker = Open(Members({"r1"}));
  tracker->OnAck(Ack("r1", 20));
  tracker->OnSessionEnd("r1", 7);
  EXPECT_EQ(Await(*tracker, 20, Replicas(1))->calls, 1);
  EXPECT_EQ(Await(*tracker, 21, Replicas(1))->calls, 0);
  EXPECT_EQ(tracker->stats().acking_members, 0);
}

TEST_F(CommitTrackerTest, CountsSessionsThatAcknowledge) {
  const auto tracker = Open(Members({"r1", "r2"}));
  EXPECT_EQ(tracker->stats().counting_members, 2);
  tracker->OnAck(Ack("r1", 10));
  tracker->OnAck(Ack("x", 10));
  EXPECT_EQ(tracker->stats().acking_members, 1);
  tracker->OnSessionEnd("r1", 6);  // an older one
  EXPECT_EQ(tracker->stats().acking_members, 1);
  tracker->OnSessionEnd("r1", 7);
  tracker->OnAck(Ack("r1", 11));  // was on its way
  EXPECT_EQ(tracker->stats().acking_members, 0);
  tracker->OnAck(Ack("r1", 11, 11, kTerm, 1, 8));
  EXPECT_EQ(tracker->stats().acking_members, 1);
}

// Acks of another term, of another incarnation, of nobody's member, and of a member that is not beyond the record that
// admitted it.
void StaleAcks(CommitTracker& tracker) {
  tracker.OnAck(Ack("r1", 12, 12, kTerm - 1));
  tracker.OnAck(Ack("r2", 12, 12, kTerm, 2));
  tracker.OnAck(Ack("x", 12));
  tracker.OnAck(Ack("r3", 9));
}

TEST_F(CommitTrackerTest, StaleAcksDoNotCount) {
  const auto tracker = Open(Members({"r1", "r2", "r3"}));
  const auto outcome = Await(*tracker, 12, Replicas(1));
  StaleAcks(*tracker);
  EXPECT_EQ(outcome->calls, 0);
  EXPECT_EQ(Await(*tracker, 9, Replicas(1))->calls, 0);
}

TEST_F(CommitTrackerTest, AFaultThatCountsStaleAcksIsSeen) {
  FailpointScope fault("commit_count_stale_ack");
  const auto tracker = Open(Members({"r1", "r2", "r3"}));
  const auto outcome = Await(*tracker, 12, Replicas(1));
  StaleAcks(*tracker);
  EXPECT_NE(outcome->calls, 0);
}

TEST_F(CommitTrackerTest, TimesOut) {
  const auto tracker = Open(Members({"r1"}));
  CommitLevel level = Replicas(1);
  level.timeout_micros = 1'000'000;
  const auto late = Await(*tracker, 11, level);
  level.timeout_micros = 3'000'000;
  const auto later = Await(*tracker, 12, level);
  clock_.Advance(999'999);
  tracker->Tick();
  EXPECT_EQ(late->calls, 0);
  clock_.Advance(1);
  tracker->Tick();
  EXPECT_EQ(late->calls, 1);
  EXPECT_EQ(late->result.end, End::kTimedOut);
  EXPECT_FALSE(late->result.achieved.reached);
  tracker->OnAck(Ack("r1", 12));
  EXPECT_EQ(late->calls, 1);  // a late ack does not answer twice
  EXPECT_EQ(later->result.end, End::kReached);
  EXPECT_EQ(tracker->stats().timeouts_total, 1);
  EXPECT_FALSE(tracker->stats().degraded);
}

TEST_F(CommitTrackerTest, AcceptedTimeoutsAreAnEpisode) {
  const auto tracker = Open(Members({"r1"}), Replicas(1));
  CommitLevel level = Replicas(1);
  level.timeout_micros = 1000;
  level.on_timeout = OnCommitTimeout::kAccept;
  const auto first = Await(*tracker, 11, level);
  const auto second = Await(*tracker, 14, level);
  clock_.Advance(1000);
  tracker->Tick();
  EXPECT_EQ(first->result.end, End::kTimedOut);
  EXPECT_EQ(second->result.end, End::kTimedOut);
  CommitStats stats = tracker->stats();
  EXPECT_TRUE(stats.degraded);
  EXPECT_EQ(stats.degraded_first_lsn, 11);
  EXPECT_EQ(stats.degraded_last_lsn, 14);
  EXPECT_EQ(stats.degraded_records_total, 2);
  ASSERT_EQ(logger_.Events("commit_degraded").size(), 1);
  EXPECT_EQ(stats.exposed_from_lsn, 0);
  EXPECT_EQ(stats.exposed_to_lsn, 14);
  clock_.Advance(4'000'000);
  tracker->Tick();
  EXPECT_GT(tracker->stats().exposed_seconds, 3);

  clock_.Advance(10'000'000);
  tracker->Tick();
  EXPECT_TRUE(tracker->stats().degraded);  // nobody holds it yet
  tracker->OnAck(Ack("r1", 14));
  tracker->Tick();
  stats = tracker->stats();
  EXPECT_FALSE(stats.degraded);
  EXPECT_EQ(stats.exposed_from_lsn, stats.exposed_to_lsn);
  EXPECT_EQ(stats.exposed_seconds, 0);
  EXPECT_EQ(logger_.Events("commit_restored").size(), 1);
}

TEST_F(CommitTrackerTest, AnEpisodeLastsAWhile) {
  const auto tracker = Open(Members({"r1"}));
  CommitLevel level = Replicas(1);
  level.timeout_micros = 1000;
  level.on_timeout = OnCommitTimeout::kAccept;
  for (Lsn lsn = 11; lsn < 15; ++lsn) {
    const auto outcome = Await(*tracker, lsn, level);
    clock_.Advance(500'000);
    tracker->Tick();
    tracker->OnAck(Ack("r1", lsn));
    tracker->Tick();
    EXPECT_TRUE(tracker->stats().degraded);
  }
  EXPECT_EQ(tracker->stats().degraded_episodes_total, 1);
  EXPECT_EQ(logger_.Events("commit_degraded").size(), 1);
}

TEST_F(CommitTrackerTest, RefusesLevelsThatCannotBe) {
  const auto tracker = Open(Members({"r1", "r2"}, 1), Replicas(0));
  ASSERT_TRUE(tracker->Resolve(nullptr).ok());
  EXPECT_EQ(tracker->Resolve(nullptr)->replicas, 1);  // the least
  const CommitLevel local = Replicas(0);
  EXPECT_EQ(GetErrorInfo(tracker->Resolve(&local).status()).reason, "below_min_replicas");
  const CommitLevel three = Replicas(3);
  EXPECT_EQ(GetErrorInfo(tracker->Resolve(&three).status()).reason, "too_few_replicas");
  CommitLevel two = Replicas(2);
  two.timeout_micros = 0;
  EXPECT_EQ(tracker->Resolve(&two)->timeout_micros, CommitLevel().timeout_micros);
}

TEST_F(CommitTrackerTest, HoldsAnswers) {
  const auto tracker = Open(Members({"r1"}));
  tracker->Hold();
  CommitLevel level = Replicas(1);
  level.timeout_micros = 1000;
  const auto waits = Await(*tracker, 11, level);
  const auto local = Await(*tracker, 11, Replicas(0));
  tracker->OnAck(Ack("r1", 11));
  clock_.Advance(5000);
  tracker->Tick();
  EXPECT_EQ(waits->calls + local->calls, 0);
  tracker->Release();
  EXPECT_EQ(waits->result.end, End::kReached);
  EXPECT_EQ(local->calls, 1);
}

TEST_F(CommitTrackerTest, CloseAnswersEverybody) {
  const auto tracker = Open(Members({"r1"}));
  const auto waits = Await(*tracker, 11, Replicas(1));
  tracker->Hold();
  const auto held = Await(*tracker, 11, Replicas(0));
  tracker->Close(MakeError(absl::StatusCode::kFailedPrecondition, "fenced", "term 4"));
  tracker->Close(MakeError(absl::StatusCode::kUnavailable, "stopping", ""));
  const auto later = Await(*tracker, 11, Replicas(0));
  for (const auto& outcome : {waits, held, later}) {
    EXPECT_EQ(outcome->calls, 1);
    EXPECT_EQ(outcome->result.end, End::kClosed);
    EXPECT_EQ(GetErrorInfo(outcome->result.closed).reason, "fenced");
  }
  EXPECT_EQ(tracker->stats().waiters, 0);
}

TEST_F(CommitTrackerTest, CommittedIsTheClustersLevel) {
  const auto tracker = Open(Members({"r1", "r2"}, 1), Replicas(2));
  EXPECT_EQ(tracker->CommittedLsn(30), 0);
  tracker->OnAck(Ack("r1", 30));
  EXPECT_EQ(tracker->CommittedLsn(30), 0);
  tracker->OnAck(Ack("r2", 25));
  EXPECT_EQ(tracker->CommittedLsn(30), 25);
  tracker->SetMembers(Members({"r1"}, 1), 31);
  EXPECT_EQ(tracker->CommittedLsn(31), 25);  // it never falls
}

TEST_F(CommitTrackerTest, ARaisedLeastLevelHoldsForWhatIsLoggedBehindIt) {
  const auto tracker = Open(Members({"r1", "r2"}));
  const auto before = Await(*tracker, 11, Replicas(1));
  tracker->SetMembers(Members({"r1", "r2"}, 2), 12);
  const auto behind = Await(*tracker, 13, Replicas(1));  // was taken before
  tracker->OnAck(Ack("r1", 13));
  EXPECT_EQ(before->calls, 1);
  EXPECT_EQ(behind->calls, 0);
  tracker->OnAck(Ack("r2", 13));
  EXPECT_EQ(behind->calls, 1);
}

TEST_F(CommitTrackerTest, HeldByIsCountedFromTheOpening) {
  const auto tracker = Open(Members({"r1", "r2"}));
  EXPECT_EQ(tracker->HeldBy(1), kOpened);
  EXPECT_EQ(tracker->HeldBy(3), 0);
  tracker->OnAck(Ack("r2", 15));
  EXPECT_EQ(tracker->HeldBy(1), 15);
  EXPECT_EQ(tracker->HeldBy(2), kOpened);
}

// --- Members ---

TEST(CommitMembersTest, ANewMemberCountsOnceTheOldOnesKnowOfIt) {
  CommitMembers members("p", Members({"r1", "r2"}), 10);
  members.Add(Members({"r1", "r2", "r3"}), 20);
  EXPECT_EQ(members.counting(), 3);
  EXPECT_EQ(members.pending(), 1);
  members.Confirm("r3", 1, 25, 25);
  EXPECT_EQ(members.HoldersOf(25).flushed, 0);  // r1 and r2 could promote one of them without it
  members.Confirm("r1", 1, 20, 20);
  EXPECT_EQ(members.pending(), 0);
  EXPECT_EQ(members.HoldersOf(25).flushed, 1);
  EXPECT_EQ(members.Watermark(2, CommitStage::kFlushed), 20);
}

TEST(CommitMembersTest, TwoMembersCannotPromoteWithoutThePrimary) {
  CommitMembers members("p", Members({"r1"}), 10);
  members.Add(Members({"r1", "r2"}), 20);
  EXPECT_EQ(members.pending(), 0);
  members.Confirm("r2", 1, 19, 19);
  EXPECT_EQ(members.HoldersOf(15).flushed, 0);  // not beyond the record that admitted it
  members.Confirm("r2", 1, 20, 20);
  EXPECT_EQ(members.HoldersOf(15).flushed, 1);
}

TEST(CommitMembersTest, RemovalStopsAcksAtOnce) {
  CommitMembers members("p", Members({"r1", "r2", "r3"}), 10);
  members.Confirm("r1", 1, 30, 30);
  EXPECT_EQ(members.HoldersOf(30).flushed, 1);
  members.Add(Members({"r2", "r3"}), 31);
  EXPECT_EQ(members.HoldersOf(30).flushed, 0);
  EXPECT_EQ(members.pending(), 1);
  members.Confirm("r1", 1, 31, 31);  // it still pulls: it knows that it is out
  EXPECT_EQ(members.pending(), 0);
  EXPECT_EQ(members.HoldersOf(30).flushed, 0);
}

TEST(CommitMembersTest, ALowerLeastLevelNeedsWhoEnsuredTheOldOne) {
  const std::vector<std::string> replicas = {"r1", "r2", "r3", "r4"};
  CommitMembers members("p", Members(replicas, 2), 10);
  members.Add(Members(replicas, 1), 20);
  EXPECT_EQ(members.min_replicas(), 2);
  members.Confirm("r1", 1, 20, 20);
  EXPECT_EQ(members.min_replicas(), 2);
  members.Confirm("r2", 1, 20, 20);
  EXPECT_EQ(members.min_replicas(), 1);
}

TEST(CommitMembersTest, AWipedMemberCountsInItsNewIncarnation) {
  CommitMembers members("p", Members({"r1", "r2"}), 10);
  members.Confirm("r1", 1, 15, 15);
  MemberList again = Members({"r1", "r2"});
  again.members[1].incarnation = 2;
  members.Add(again, 20);
  members.Confirm("r1", 2, 19, 19);
  EXPECT_EQ(members.HoldersOf(12).flushed, 0);
  members.Confirm("r1", 2, 21, 21);
  EXPECT_EQ(members.HoldersOf(12).flushed, 1);
}

}  // namespace
}  // namespace towline::test
