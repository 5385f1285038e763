#include "client/retry_policy.h"

#include <string>

#include "common/error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/seeded_rng.h"

namespace towline::client {
namespace {

using test::SeededRng;
using ::testing::HasSubstr;

absl::Status Error(absl::StatusCode code, const std::string& reason) { return MakeError(code, reason, "so it is"); }

TEST(RetryPolicy, NodesThatCannotServeNowAreAskedAgain) {
  for (const char* reason : {"not_primary", "stale_primary", "switchover", "recovery_required"}) {
    EXPECT_TRUE(IsWorthAnotherWrite(Error(absl::StatusCode::kFailedPrecondition, reason))) << reason;
  }
  for (const char* reason : {"waiting_for_members", "recovering", "stopping", "no_data", "of_a_newer_server"}) {
    EXPECT_TRUE(IsWorthAnotherWrite(Error(absl::StatusCode::kUnavailable, reason))) << reason;
  }
  EXPECT_TRUE(IsWorthAnotherWrite(Error(absl::StatusCode::kResourceExhausted, "queue_full")));
  EXPECT_TRUE(IsWorthAnotherWrite(absl::UnavailableError("connection refused")));
  EXPECT_TRUE(IsWorthAnotherWrite(absl::DeadlineExceededError("of an attempt")));
}

TEST(RetryPolicy, WhatTheRequestIsToBlameForIsReturned) {
  EXPECT_FALSE(IsWorthAnotherWrite(Error(absl::StatusCode::kFailedPrecondition, "condition_failed")));
  EXPECT_FALSE(IsWorthAnotherWrite(Error(absl::StatusCode::kFailedPrecondition, "request_too_old")));
  EXPECT_FALSE(IsWorthAnotherWrite(Error(absl::StatusCode::kFailedPrecondition, "too_few_replicas")));
  EXPECT_FALSE(IsWorthAnotherWrite(Error(absl::StatusCode::kDeadlineExceeded, "replication_timeout")));
  EXPECT_FALSE(IsWorthAnotherWrite(Error(absl::StatusCode::kInvalidArgument, "invalid_key")));
  EXPECT_FALSE(IsWorthAnotherWrite(absl::UnimplementedError("no such call")));
}

TEST(RetryPolicy, ReadsGoElsewhereFromANodeThatIsBehindOrOnAnotherLine) {
  for (const char* reason : {"rebootstrapping", "rewinding", "position_discarded"}) {
    const absl::Status error = Error(absl::StatusCode::kFailedPrecondition, reason);
    EXPECT_TRUE(IsWorthAnotherRead(error)) << reason;
    EXPECT_FALSE(IsWorthAnotherWrite(error)) << reason;
  }
  EXPECT_TRUE(IsWorthAnotherRead(Error(absl::StatusCode::kUnavailable, "behind")));
  EXPECT_FALSE(IsWorthAnotherRead(Error(absl::StatusCode::kFailedPrecondition, "cluster_mismatch")));
  EXPECT_FALSE(IsWorthAnotherRead(Error(absl::StatusCode::kInvalidArgument, "invalid_key")));
}

TEST(RetryPolicy, TheServerSaysWhatBecameOfARecord) {
  ErrorInfo info{"replication_timeout", "0 of 1 replicas", "", {{"outcome", "durable_here"}}};
  EXPECT_EQ(FateOf(MakeError(absl::StatusCode::kDeadlineExceeded, info)), WriteFate::kDurableHere);
  info.metadata["outcome"] = "of_a_newer_server";
  EXPECT_EQ(FateOf(MakeError(absl::StatusCode::kDeadlineExceeded, info)), WriteFate::kUnknown);
  EXPECT_EQ(FateOf(Error(absl::StatusCode::kFailedPrecondition, "not_primary")), WriteFate::kNotLogged);
  EXPECT_EQ(FateOf(Error(absl::StatusCode::kUnavailable, "stopping")), WriteFate::kUnknown);
  EXPECT_EQ(FateOf(absl::UnavailableError("Socket closed")), WriteFate::kUnknown);
  EXPECT_EQ(FateOf(absl::UnavailableError("failed to connect to all addresses")), WriteFate::kNotLogged);
  EXPECT_EQ(FateOf(Error(absl::StatusCode::kFailedPrecondition, "request_too_old")), WriteFate::kUnknown);
}

TEST(RetryPolicy, ALaterRefusalDoesNotUndoAnEarlierAttempt) {
  EXPECT_EQ(CombineFates(WriteFate::kNotLogged, WriteFate::kNotLogged), WriteFate::kNotLogged);
  EXPECT_EQ(CombineFates(WriteFate::kUnknown, WriteFate::kNotLogged), WriteFate::kUnknown);
  EXPECT_EQ(CombineFates(WriteFate::kDurableHere, WriteFate::kNotLogged), WriteFate::kUnknown);
  EXPECT_EQ(CombineFates(WriteFate::kUnknown, WriteFate::kDurableHere), WriteFate::kDurableHere);
}

TEST(RetryPolicy, GivingUpKeepsReasonAndCodeAndCounts) {
  const absl::Status error = GaveUp(Error(absl::StatusCode::kUnavailable, "recovering"), 3, 1'500'000);
  EXPECT_EQ(error.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(GetErrorInfo(error).reason, "recovering");
  EXPECT_EQ(GetErrorInfo(error).metadata.at("attempts"), "3");
  EXPECT_THAT(GetErrorInfo(error).message, HasSubstr("3 attempts in 1500 ms"));
}

TEST(RetryPolicy, PausesDoubleUpToTheLimitAndVaryByHalf) {
  SeededRng rng(7);
  RetryPause pause(1000, 5000, rng);
  for (const int64_t whole : {1000, 2000, 4000, 5000, 5000, 5000}) {
    const int64_t micros = pause.NextMicros();
    EXPECT_LE(micros, whole);
    EXPECT_GE(micros, whole / 2);
  }
  pause.Reset();
  EXPECT_LE(pause.NextMicros(), 1000);
}

TEST(RetryPolicy, PausesOfTwoClientsDiffer) {
  SeededRng rng(7);
  RetryPause one(1'000'000, 1'000'000, rng);
  RetryPause other(1'000'000, 1'000'000, rng);
  EXPECT_NE(one.NextMicros(), other.NextMicros());
}

}  // namespace
}  // namespace towline::client
