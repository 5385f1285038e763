// Tests of lag in records, bytes and seconds, and of stalls.

#include <cmath>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "primary/heartbeat_log.h"
#include "tests/primary/source_fixture.h"

namespace towline::test {
namespace {

constexpr int64_t kSecond = 1'000'000;

TEST(HeartbeatLogTest, LagIsTheAgeOfTheOldestUncoveredHeartbeat) {
  HeartbeatLog log;
  EXPECT_EQ(log.LagSeconds(0, 0), 0);
  log.Add({1, 10, 0, 1 * kSecond});
  log.Add({2, 10, 0, 2 * kSecond});
  log.Add({3, 20, 0, 3 * kSecond});
  EXPECT_EQ(log.newest().sequence, 3u);
  EXPECT_EQ(log.LagSeconds(20, 9 * kSecond), 0);
  EXPECT_EQ(log.LagSeconds(19, 9 * kSecond), 6);
  EXPECT_EQ(log.LagSeconds(10, 9 * kSecond), 6);
  EXPECT_EQ(log.LagSeconds(9, 9 * kSecond), 8);
}

TEST(HeartbeatLogTest, MarksOfALineThatIsGoneAreForgotten) {
  HeartbeatLog log;
  log.Add({1, 100, 0, 1 * kSecond});
  log.Add({1, 90, 0, 2 * kSecond});  // a new primary that never had the last ten
  EXPECT_EQ(log.LagSeconds(90, 9 * kSecond), 0);
  EXPECT_EQ(log.LagSeconds(80, 9 * kSecond), 7);
  log.Clear();
  EXPECT_EQ(log.LagSeconds(0, 9 * kSecond), 0);
}

TEST(HeartbeatLogTest, AgesGetCoarserButNeverTooSmall) {
  HeartbeatLog log;
  const uint64_t count = 10 * HeartbeatLog::kEntriesMax;
  for (uint64_t i = 1; i <= count; ++i) log.Add({i, i, 0, static_cast<int64_t>(i) * kSecond});
  const auto exact = [&](Lsn applied) { return static_cast<double>(count - applied - 1); };
  const int64_t now = static_cast<int64_t>(count) * kSecond;
  for (Lsn applied = 0; applied < count; applied += 97) {
    const double lag = log.LagSeconds(applied, now);
    EXPECT_GE(lag, exact(applied));
    EXPECT_LE(lag, exact(applied) * 17 / 16);
  }
  EXPECT_EQ(log.LagSeconds(count, now), 0);
  EXPECT_EQ(log.LagSeconds(count - 1, now), 0);
  EXPECT_EQ(log.LagSeconds(count - 10, now), 9);  // the newest are all there
}

class LagTest : public SourceTest {
 protected:
  StageLag Applied(const std::string& slot) { return PeerOf(slot).stages.back(); }
  // Every stage: records, and seconds rounded to the nearest whole one.
  std::string Lags(const std::string& slot) {
    std::vector<std::string> texts;
    for (const StageLag& lag : PeerOf(slot).stages) {
      texts.push_back(absl::StrCat(lag.stage, " ", lag.records));
      if (lag.seconds) absl::StrAppend(&texts.back(), " ", std::llround(*lag.seconds), "s");
      EXPECT_EQ(lag.bytes == 0, lag.records == 0);
    }
    return absl::StrJoin(texts, ", ");
  }
  double Lag(const std::string& slot) { return Applied(slot).seconds.value(); }
};

TEST_F(LagTest, SecondsGrowWhileAnythingIsUncoveredAndFallToZero) {
  auto owner = Attach(ReplicaStart("r1", 1));
  Pass(kSecond);
  EXPECT_EQ(Lag("r1"), 0);
  Write(5);
  EXPECT_EQ(Lag("r1"), 0);  // no heartbeat has seen it yet
  EXPECT_EQ(Applied("r1").records, 5u);
  Pass(2 * kSecond);
  EXPECT_NEAR(Lag("r1"), 2, 0.3);
  owner->Receive();
  ASSERT_THAT(owner->Ack(6, 6, 3), IsOk());  // applied decides
  EXPECT_NEAR(Lag("r1"), 2, 0.3);
  Write(5);
  Pass(kSecond);
  EXPECT_NEAR(Lag("r1"), 3, 0.3);
  ASSERT_THAT(owner->AckAll(6), IsOk());
  EXPECT_NEAR(Lag("r1"), 1, 0.3);  // the first five are covered
  owner->Receive();
  ASSERT_THAT(owner->AckAll(11), IsOk());
  EXPECT_EQ(Lag("r1"), 0);
  EXPECT_EQ(Applied("r1").records, 0u);
}

// An owner that stopped pulling must not look healthy: lag is against the log's end, not against what was sent.
TEST_F(LagTest, AnOwnerThatStoppedPullingLagsBehindTheEndOfTheLog) {
  v1::PullStart start = ReplicaStart("r1", 1);
  start.set_credit_bytes(1);
  auto owner = Attach(start);
  Write(10, 1000);
  owner->Receive();
  ASSERT_THAT(owner->AckAll(2), IsOk());
  EXPECT_EQ(PeerOf("r1").sent_lsn, 2u);
  EXPECT_EQ(Applied("r1").records, 9u);
  EXPECT_NEAR(static_cast<double>(Applied("r1").bytes), 9 * 1080, 1100);
}

TEST_F(LagTest, ANewRoleForgetsTheHeartbeatsOfTheOldOne) {
  host_.view.is_primary = false;
  Tick();
  source_->ForwardHeartbeat({7, 1000, 1000, clock_.MonotonicMicros()});
  auto owner = Attach(ReplicaStart("r1", 1));
  clock_.Advance(kSecond);
  EXPECT_NEAR(Lag("r1"), 1, 0.01);
  host_.view.is_primary = true;  // promoted, without the records up to 1000
  Tick();
  clock_.Advance(kSecond);
  EXPECT_EQ(Lag("r1"), 0);
}

TEST_F(LagTest, AStallIsToldOncePerEpisode) {
  auto owner = Attach(ReplicaStart("r1", 1));
  const auto pass = [&](int64_t micros) {  // the owner is alive, but goes nowhere
    for (int64_t passed = 0; passed < micros; passed += kSecond) {
      ASSERT_THAT(owner->AckAll(1), IsOk());
      Pass(kSecond);
    }
  };
  pass(30 * kSecond);  // nothing to do is no stall
  EXPECT_EQ(source_->Counters().stalls, 0u);
  Write(5);
  pass(options_.stall_timeout_micros - kSecond);
  EXPECT_EQ(source_->Counters().stalls, 0u);
  pass(2 * kSecond);
  EXPECT_EQ(PeerOf("r1").state, "stalled");
  pass(30 * kSecond);
  EXPECT_EQ(source_->Counters().stalls, 1u);
  EXPECT_EQ(logger_.Events("peer_stalled").size(), 1u);

  owner->Receive();
  ASSERT_THAT(owner->Ack(3, 1, 1), IsOk());  // any stage is progress
  EXPECT_NE(PeerOf("r1").state, "stalled");
  Pass(options_.stall_timeout_micros + 100'000);
  EXPECT_EQ(source_->Counters().stalls, 2u);
}

using LagByStageTest = LagTest;

TEST_F(LagByStageTest, AnIdlePrimaryHasNoLagInAnyStage) {
  Write(5);
  auto owner = Attach(ReplicaStart("r1", 1));
  owner->Receive();
  ASSERT_THAT(owner->AckAll(6), IsOk());
  for (int i = 0; i < 100; ++i) {
    Pass(kSecond);
    ASSERT_THAT(owner->AckAll(6), IsOk());
    EXPECT_EQ(Lags("r1"), "sent 0 0s, received 0 0s, flushed 0 0s, applied 0 0s");
  }
}

TEST_F(LagByStageTest, UnderLoadEachStageLagsByWhatItHasNotCovered) {
  auto owner = Attach(ReplicaStart("r1", 1));
  for (int second = 1; second <= 9; ++second) {  // LSN 2 to 10: one a second, seen by the heartbeat of its moment
    Write(1);
    Pass(kSecond);
  }
  owner->Receive();
  Write(1);
  ASSERT_THAT(owner->Ack(9, 7, 4), IsOk());
  // LSN 11 has no heartbeat yet; LSN 10, 8 and 5 were first seen just behind second 8, 6 and 3.
  EXPECT_EQ(Lags("r1"), "sent 1 0s, received 2 1s, flushed 4 3s, applied 7 6s");
  const std::vector<StageLag> stages = PeerOf("r1").stages;
  EXPECT_EQ(stages[3].bytes, host_.live->spool().BytesBehind(4));
  EXPECT_GT(stages[3].bytes, stages[2].bytes);
}

TEST_F(LagByStageTest, APausedApplyShowsInAppliedOnly) {
  auto owner = Attach(ReplicaStart("r1", 1));
  Write(3);
  for (int i = 0; i < 9; ++i) {
    Pass(kSecond);
    owner->Receive();
    ASSERT_THAT(owner->Ack(4, 4, 1), IsOk());
  }
  EXPECT_EQ(Lags("r1"), "sent 0 0s, received 0 0s, flushed 0 0s, applied 3 9s");
  EXPECT_NE(PeerOf("r1").state, "stalled");
  Pass(3 * kSecond);
  EXPECT_EQ(PeerOf("r1").state, "stalled");
}

// Records flow, but the primary hears nothing: what was sent is known, the rest is not, and is not taken for granted.
TEST_F(LagByStageTest, ABlockedAckDirectionShowsAsLagAndThenAsAStall) {
  auto owner = Attach(ReplicaStart("r1", 1));
  for (int i = 0; i < 9; ++i) {
    Write(1);
    Pass(kSecond);
    owner->Receive();
    EXPECT_EQ(owner->last_lsn, Durable());
  }
  EXPECT_EQ(Lags("r1"), "sent 0 0s, received 9 9s, flushed 9 9s, applied 9 9s");
  EXPECT_NE(PeerOf("r1").state, "stalled");
  EXPECT_EQ(source_->Counters().stalls, 0u);
  Pass(2 * kSecond);
  EXPECT_EQ(PeerOf("r1").state, "stalled");
  EXPECT_EQ(source_->Counters().stalls, 1u);
  Pass(5 * kSecond);  // longer than session_timeout in all
  EXPECT_EQ(PeerOf("r1").state, "disconnected");
  EXPECT_EQ(Lags("r1"), "sent 9, received 9, flushed 9, applied 9");
}

TEST_F(LagByStageTest, AnOwnerHoldsWhatItStartedFrom) {
  Write(9);
  auto owner = Attach(ReplicaStart("r1", 7));
  EXPECT_EQ(Lags("r1"), "sent 3 0s, received 3 0s, flushed 3 0s, applied 3 0s");
}

// What a disconnected owner is known to hold was sent to it.
TEST_F(LagByStageTest, WithoutASessionSecondsAreNotKnown) {
  Write(9);
  auto owner = Attach(ReplicaStart("r1", 1));
  owner->Receive();
  ASSERT_THAT(owner->Ack(9, 8, 6), IsOk());
  owner->Close();
  EXPECT_EQ(Lags("r1"), "sent 2, received 2, flushed 2, applied 2");
}

// The heartbeat of the primary is ahead of what this node has: its own replica is behind the primary all the same.
TEST_F(LagByStageTest, AReplicaOfAReplicaIsMeasuredByThePrimarysHeartbeats) {
  host_.view.is_primary = false;
  auto owner = Attach(ReplicaStart("r1", 1));
  source_->ForwardHeartbeat({7, Durable() + 5, Durable(), clock_.MonotonicMicros()});
  Pass(3 * kSecond);
  EXPECT_EQ(Lags("r1"), "sent 0 3s, received 0 3s, flushed 0 3s, applied 0 3s");
  owner->Receive();
  ASSERT_EQ(owner->heartbeats.size(), 1u);  // it makes none of its own
  EXPECT_EQ(owner->heartbeats[0].sequence(), 7u);
}

TEST_F(LagByStageTest, ConsumersLagToo) {
  Write(4);
  auto owner = Attach(ConsumerStart("c1", 1));
  Pass(kSecond);
  owner->Receive();
  ASSERT_THAT(owner->AckAll(3), IsOk());
  EXPECT_EQ(Lags("c1"), "sent 0 0s, received 2 1s, flushed 2 1s, applied 2 1s");
}

TEST_F(LagTest, ADisconnectedReplicaLagsFromWhatItIsKnownToHold) {
  Write(9);
  auto owner = Attach(ReplicaStart("r1", 1));
  owner->Receive();
  ASSERT_THAT(owner->Ack(8, 8, 6), IsOk());
  owner->Close();
  EXPECT_EQ(PeerOf("r1").flushed_lsn, 8u);
  EXPECT_EQ(Applied("r1").records, 2u);
  ASSERT_THAT(slots_->Create("never", slots::SlotKind::kReplica, 1, 0), IsOk());
  EXPECT_EQ(PeerOf("never").state, "disconnected");
  EXPECT_EQ(Applied("never").records, 10u);
}

}  // namespace
}  // namespace towline::test
