// When a Pull stream sends records: at once, with what gathered while a replica synced, or because somebody waits.

#include <memory>

#include "tests/primary/snapshot_fixture.h"

namespace towline::test {
namespace {

using ::testing::SizeIs;

// Less than 10 kB waits for acks; the log holds LSN 1 and a record of 1 kB.
class PullPaceTest : public SourceTest {
 protected:
  void SetUp() override {
    SourceTest::SetUp();
    options_.follow_bytes = 10'000;
    OpenNode();
    Write(1, 1000);
  }

  // One that was sent that record and has not acknowledged it.
  std::unique_ptr<Owner> AttachFollower() {
    auto owner = Attach(ReplicaStart("r1", 1));
    owner->Receive();
    EXPECT_EQ(owner->last_lsn, 2u);
    return owner;
  }
};

TEST_F(PullPaceTest, LittleWaitsForTheAckOfWhatIsOut) {
  auto owner = AttachFollower();
  Write(3, 1000);
  owner->Receive();
  EXPECT_EQ(owner->last_lsn, 2u);
  const int wakes = owner->wakes;
  ASSERT_THAT(owner->Ack(2, 1, 1), IsOk());  // received, not yet synced
  owner->Receive();
  EXPECT_EQ(owner->last_lsn, 2u);
  ASSERT_THAT(owner->Ack(2, 2, 1), IsOk());
  EXPECT_GT(owner->wakes, wakes);
  owner->Receive();
  EXPECT_EQ(owner->frames, Shipped(2, 5));
  ASSERT_EQ(owner->batches.size(), 2u);

  Write(9, 1000);
  owner->Receive();
  EXPECT_EQ(owner->last_lsn, 5u);
  Write(1, 1000);  // now it is not little any more
  owner->Receive();
  EXPECT_EQ(owner->frames, Shipped(2, 15));
}

TEST_F(PullPaceTest, NothingWaitsForAnAckLongerThanAHeartbeat) {
  auto owner = AttachFollower();
  Write(1, 1000);
  owner->Receive();
  EXPECT_EQ(owner->last_lsn, 2u);
  Tick();
  owner->Receive();
  EXPECT_EQ(owner->last_lsn, 3u);
  Write(1, 1000);
  owner->Receive();
  EXPECT_EQ(owner->last_lsn, 3u);  // once a heartbeat
  clock_.Advance(options_.heartbeat_micros);
  Tick();
  owner->Receive();
  EXPECT_EQ(owner->frames, Shipped(2, 4));
}

TEST_F(PullPaceTest, NothingWaitsWhileWritersWait) {
  auto owner = Attach(ReplicaStart("r1", 1));
  Tick();
  owner->Receive();
  ASSERT_THAT(owner->heartbeats, SizeIs(1));
  host_.writers_wait = CommitStage::kFlushed;
  Write(3, 1000);
  owner->Receive();
  EXPECT_EQ(owner->last_lsn, 5u);
  ASSERT_THAT(owner->heartbeats, SizeIs(2));  // the same once more asks for acks without delay
  EXPECT_EQ(owner->heartbeats[1].sequence(), owner->heartbeats[0].sequence());
  Write(1, 1000);
  owner->Receive();
  EXPECT_THAT(owner->heartbeats, SizeIs(2));  // until the next one
  EXPECT_FALSE(owner->heartbeats[1].applied_awaited());
  host_.writers_wait = CommitStage::kApplied;  // that is more
  owner->Receive();
  ASSERT_THAT(owner->heartbeats, SizeIs(3));
  EXPECT_TRUE(owner->heartbeats[2].applied_awaited());
  host_.writers_wait = CommitStage::kFlushed;
  owner->Receive();
  clock_.Advance(options_.heartbeat_micros);
  Tick();
  owner->Receive();
  EXPECT_THAT(owner->heartbeats, SizeIs(5));
}

TEST_F(PullPaceTest, AConsumerIsSentEverythingAtOnce) {
  auto owner = Attach(ConsumerStart("c1", 1));
  owner->Receive();
  Write(1, 1000);
  owner->Receive();
  EXPECT_EQ(owner->last_lsn, 3u);
}

// A replica that has loaded a snapshot at LSN 31, with 4 MB of log behind it, while 2 MB a second are written.
class CatchUpTest : public SnapshotSessionTest {
 protected:
  static constexpr int64_t kStep = 50'000;

  void SetUp() override {
    options_.snapshots.busy_bytes_per_second = 4 << 20;
    options_.batch_bytes_max = 20'000;
    SnapshotSessionTest::SetUp();
    auto session = Open(ReplicaStart("r1", 0));
    Received received;
    TakeAll(*session, &received);
    ASSERT_THAT(received.status, IsOk());
    for (int i = 0; i < 40; ++i) WriteAWhile();
  }

  void WriteAWhile() {
    Write(100, 1000);
    Pass(kStep);
  }

  // Bytes of records in the time of one Tick.
  size_t SentInAWhile(Owner& owner) {
    const size_t before = owner.frames.size();
    WriteAWhile();
    owner.Receive();
    return owner.frames.size() - before;
  }
};

TEST_F(CatchUpTest, TheLogBehindASnapshotGivesWayToWriters) {
  EXPECT_EQ(source_->TickMicros(), kStep);
  auto owner = Attach(ReplicaStart("r1", 31));
  owner->Receive();
  EXPECT_EQ(source_->TickMicros(), 4'000);  // it waits
  const size_t written = Shipped(32, 131).size();
  size_t sent = 0;
  for (int i = 0; i < 5; ++i) sent += SentInAWhile(*owner);
  EXPECT_GT(sent, 5 * 2 * written * 8 / 10);  // twice as much as is written
  EXPECT_LT(sent, 5 * 2 * written * 12 / 10);
  while (owner->last_lsn + 20 < Durable()) SentInAWhile(*owner);  // comes to the end
  for (int i = 0; i < 3; ++i) {
    SentInAWhile(*owner);
    EXPECT_EQ(owner->last_lsn, Durable());  // and is sent everything at once from then on
  }
  Pass(4 * kStep);
  EXPECT_EQ(source_->TickMicros(), kStep);
}

TEST_F(CatchUpTest, NotWithoutWriters) {
  Pass(20 * kStep);
  auto owner = Attach(ReplicaStart("r1", 31));
  owner->Receive();
  EXPECT_EQ(owner->last_lsn, Durable());
}

TEST_F(CatchUpTest, NotWhileWritersWaitForIt) {
  host_.writers_wait = CommitStage::kFlushed;
  auto owner = Attach(ReplicaStart("r1", 31));
  owner->Receive();
  EXPECT_EQ(owner->last_lsn, Durable());
}

TEST_F(CatchUpTest, NotWithoutALimitOfSnapshots) {
  options_.snapshots.busy_bytes_per_second = 0;
  OpenNode();
  for (int i = 0; i < 8; ++i) WriteAWhile();
  auto owner = Attach(ReplicaStart("r1", 31));
  owner->Receive();
  EXPECT_EQ(owner->last_lsn, Durable());
}

}  // namespace
}  // namespace towline::test
