// When a Pull stream sends records: at once, with what gathered while a replica synced, or because somebody waits.

#include <string>

#include "tests/primary/source_fixture.h"

namespace towline::test {
namespace {

using ::testing::SizeIs;

class PullPaceTest : public SourceTest {};

TEST_F(PullPaceTest, AWakeOfASessionThatHasRecordsToSendIsNotNeeded) {
  Write(5);
  auto owner = Attach(ReplicaStart("r1", 0));
  Write(5);  // it has not come to the tail yet
  EXPECT_EQ(owner->wakes, 0);
  owner->Receive();
  EXPECT_EQ(owner->last_lsn, 11u);
}

TEST_F(PullPaceTest, LittleWaitsForTheAckOfWhatIsOut) {
  options_.follow_bytes = 10'000;
  OpenNode();
  Write(1, 1000);
  auto owner = Attach(ReplicaStart("r1", 1));
  owner->Receive();
  EXPECT_EQ(owner->last_lsn, 2u);
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
  options_.follow_bytes = 10'000;
  OpenNode();
  Write(1, 1000);
  auto owner = Attach(ReplicaStart("r1", 1));
  owner->Receive();
  EXPECT_EQ(owner->last_lsn, 2u);
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
  options_.follow_bytes = 10'000;
  OpenNode();
  Write(1, 1000);
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
  options_.follow_bytes = 10'000;
  OpenNode();
  Write(1, 1000);
  auto owner = Attach(ConsumerStart("c1", 1));
  owner->Receive();
  Write(1, 1000);
  owner->Receive();
  EXPECT_EQ(owner->last_lsn, 3u);
}

}  // namespace
}  // namespace towline::test
