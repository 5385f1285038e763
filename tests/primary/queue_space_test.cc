#include "primary/queue_space.h"

#include "gtest/gtest.h"

namespace towline {
namespace {

TEST(QueueSpaceTest, TakesWhatFitsAndOnePieceThatNeverWould) {
  QueueSpace space(100);
  EXPECT_TRUE(space.Take(1000));
  EXPECT_FALSE(space.Take(1));
  space.Give(1000);
  EXPECT_TRUE(space.Take(60));
  EXPECT_TRUE(space.Take(40));
  EXPECT_FALSE(space.Take(1));
  EXPECT_EQ(space.taken(), 100u);
}

TEST(QueueSpaceTest, WhoWaitsIsCalledOnceWhenHalfIsFree) {
  QueueSpace space(100);
  int calls = 0;
  space.NotifyHalfFree([&] { ++calls; });
  EXPECT_EQ(calls, 1) << "nothing is taken";
  ASSERT_TRUE(space.Take(90));
  space.NotifyHalfFree([&] { ++calls; });
  space.Give(39);
  EXPECT_EQ(calls, 1);
  space.Give(1);
  EXPECT_EQ(calls, 2);
  space.Give(50);
  EXPECT_EQ(calls, 2);
}

TEST(QueueSpaceTest, AWaiterMayTakeWhatIsFree) {
  QueueSpace space(100);
  ASSERT_TRUE(space.Take(100));
  bool taken = false;
  space.NotifyHalfFree([&] { taken = space.Take(50); });
  space.Give(50);
  EXPECT_TRUE(taken);
}

TEST(QueueSpaceTest, NobodyWaitsForAQueueThatIsOver) {
  QueueSpace space(100);
  ASSERT_TRUE(space.Take(100));
  int calls = 0;
  space.NotifyHalfFree([&] { ++calls; });
  space.Open();
  EXPECT_EQ(calls, 1);
  space.NotifyHalfFree([&] { ++calls; });
  EXPECT_EQ(calls, 2);
  space.Give(100);
  EXPECT_EQ(calls, 2);
}

}  // namespace
}  // namespace towline
