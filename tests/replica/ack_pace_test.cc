// Tests of when acks may leave: paced, but for those that writers wait for.

#include "replica/ack_pace.h"

#include "gtest/gtest.h"

namespace towline::test {
namespace {

TEST(AckPaceTest, ApplyMayFollowSyncAtOnceAndThenBothWait) {
  AckPace pace;
  EXPECT_LE(pace.flushed_at(), 10'000);
  pace.Sent(10'000);
  EXPECT_EQ(pace.applied_at(), 10'000);
  pace.Sent(10'100);
  EXPECT_EQ(pace.flushed_at(), 12'000);
  EXPECT_EQ(pace.applied_at(), 12'000);
}

TEST(AckPaceTest, WhatWritersWaitForLeavesAtOnce) {
  AckPace pace;
  pace.Sent(10'000);
  pace.Sent(10'100);
  EXPECT_TRUE(pace.Prompt(AckPrompt::kFlushed));
  EXPECT_FALSE(pace.Prompt(AckPrompt::kFlushed));
  EXPECT_EQ(pace.flushed_at(), 0);
  EXPECT_EQ(pace.applied_at(), 12'000);
  pace.Sent(10'200);
  EXPECT_EQ(pace.flushed_at(), 0);
  EXPECT_EQ(pace.applied_at(), 12'200);  // the next ack of a sync tells of it
  EXPECT_TRUE(pace.Prompt(AckPrompt::kApplied));
  EXPECT_EQ(pace.applied_at(), 0);
  pace.Sent(10'300);
  EXPECT_EQ(pace.applied_at(), 0);
}

TEST(AckPaceTest, WithoutAPromptTheOldPaceComesBack) {
  AckPace pace;
  pace.Prompt(AckPrompt::kApplied);
  for (int64_t now = 10'000; now < 10'010; ++now) pace.Sent(now);
  pace.Prompt(AckPrompt::kNone);
  pace.Sent(50'000);
  EXPECT_EQ(pace.flushed_at(), 50'000);
  pace.Sent(50'000);
  EXPECT_EQ(pace.flushed_at(), 52'000);
}

}  // namespace
}  // namespace towline::test
