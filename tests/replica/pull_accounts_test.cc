// Tests of the book-keeping of one pull stream: credit, and heartbeats that the state covers.

#include "replica/pull_accounts.h"

#include "gtest/gtest.h"

namespace towline::test {
namespace {

TEST(CreditAccountTest, GrantsKeepTheWindowOpenInSteps) {
  CreditAccount credit(8000);
  EXPECT_EQ(credit.Grant(), std::nullopt);
  credit.Consumed(999);
  EXPECT_FALSE(credit.due());
  EXPECT_EQ(credit.Grant(), std::nullopt);
  credit.Consumed(1);
  EXPECT_TRUE(credit.due());
  EXPECT_EQ(credit.Grant(), 9000u);
  EXPECT_EQ(credit.Grant(), std::nullopt);
  // The sender may have overdrawn by a large record.
  credit.Consumed(20000);
  EXPECT_EQ(credit.Grant(), 29000u);
}

TEST(CreditAccountTest, ATinyWindowIsGrantedByteByByte) {
  CreditAccount credit(1);
  EXPECT_FALSE(credit.due());
  credit.Consumed(1);
  EXPECT_EQ(credit.Grant(), 2u);
}

TEST(HeartbeatAccountTest, AHeartbeatIsCoveredOnceItsDurableLsnIsApplied) {
  HeartbeatAccount heartbeats;
  EXPECT_FALSE(heartbeats.any());
  heartbeats.Received(1, 10);
  heartbeats.Received(2, 10);
  heartbeats.Received(3, 20);
  heartbeats.Applied(9);
  EXPECT_EQ(heartbeats.newest_applied(), 0u);
  heartbeats.Applied(15);
  EXPECT_EQ(heartbeats.newest_applied(), 2u);
  EXPECT_EQ(heartbeats.newest(), 3u);
  EXPECT_EQ(heartbeats.newest_durable(), 20u);
  heartbeats.Applied(20);
  EXPECT_EQ(heartbeats.newest_applied(), 3u);
}

TEST(HeartbeatAccountTest, OldHeartbeatsAreIgnored) {
  HeartbeatAccount heartbeats;
  heartbeats.Received(5, 50);
  heartbeats.Received(4, 1);
  heartbeats.Received(5, 1);
  heartbeats.Applied(49);
  EXPECT_EQ(heartbeats.newest(), 5u);
  EXPECT_EQ(heartbeats.newest_applied(), 0u);
}

// However far behind, memory is bounded, and none is called covered too early.
TEST(HeartbeatAccountTest, AVeryLateReplicaNeverCoversAHeartbeatTooEarly) {
  HeartbeatAccount heartbeats;
  constexpr uint64_t kCount = 100000;
  for (uint64_t i = 1; i <= kCount; ++i) heartbeats.Received(i, i);
  for (Lsn lsn = 1; lsn < kCount; lsn += 997) {
    heartbeats.Applied(lsn);
    EXPECT_LE(heartbeats.newest_applied(), lsn);
  }
  heartbeats.Applied(kCount);
  EXPECT_EQ(heartbeats.newest_applied(), kCount);
}

}  // namespace
}  // namespace towline::test
