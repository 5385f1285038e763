// Tests of lag in records, bytes and seconds, and of stalls.

#include <string>

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
  double Lag(const std::string& slot) { return PeerOf(slot).lag_seconds.value(); }
};

TEST_F(LagTest, SecondsGrowWhileAnythingIsUncoveredAndFallToZero) {
  auto owner = Attach(ReplicaStart("r1", 1));
  Pass(kSecond);
  EXPECT_EQ(Lag("r1"), 0);
  Write(5);
  EXPECT_EQ(Lag("r1"), 0);  // no heartbeat has seen it yet
  EXPECT_EQ(PeerOf("r1").lag_records, 5u);
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
  EXPECT_EQ(PeerOf("r1").lag_records, 0u);
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
  EXPECT_EQ(PeerOf("r1").lag_records, 9u);
  EXPECT_NEAR(static_cast<double>(PeerOf("r1").lag_bytes), 9 * 1080, 1100);
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

TEST_F(LagTest, ADisconnectedReplicaLagsFromWhatItIsKnownToHold) {
  Write(9);
  auto owner = Attach(ReplicaStart("r1", 1));
  owner->Receive();
  ASSERT_THAT(owner->Ack(8, 8, 6), IsOk());
  owner->Close();
  EXPECT_EQ(PeerOf("r1").flushed_lsn, 8u);
  EXPECT_EQ(PeerOf("r1").lag_records, 2u);
  ASSERT_THAT(slots_->Create("never", slots::SlotKind::kReplica, 1, 0), IsOk());
  EXPECT_EQ(PeerOf("never").state, "disconnected");
  EXPECT_EQ(PeerOf("never").lag_records, 10u);
}

}  // namespace
}  // namespace towline::test
