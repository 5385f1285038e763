#include "common/error.h"

#include <string>

#include "absl/strings/cord.h"

#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"

namespace towline {
namespace {

using test::IsOk;
using test::IsOkAndHolds;
using test::ReasonIs;
using test::StatusIs;

ErrorInfo Sample() {
  return {"wal_removed", "needs LSN 5, oldest is 9", "take a snapshot", {{"needed", "5"}, {"oldest", "9"}}};
}

TEST(ErrorTest, MessageHoldsReasonNumbersAndNextAction) {
  const absl::Status status = MakeError(absl::StatusCode::kOutOfRange, Sample());
  EXPECT_EQ(status.code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(status.message(), "wal_removed: needs LSN 5, oldest is 9 (take a snapshot)");
  EXPECT_EQ(MakeError(absl::StatusCode::kAborted, "r", "m").message(), "r: m");
}

TEST(ErrorTest, InfoComesBackWhole) {
  EXPECT_EQ(GetErrorInfo(MakeError(absl::StatusCode::kOutOfRange, Sample())), Sample());
  const ErrorInfo odd = {"", std::string("a\0(b)", 5), "", {{"", ""}, {"k", std::string("\xff\0", 2)}}};
  EXPECT_EQ(GetErrorInfo(MakeError(absl::StatusCode::kInternal, odd)), odd);
}

TEST(ErrorTest, PlainStatusHasItsCodeAsReason) {
  const ErrorInfo info = GetErrorInfo(absl::InvalidArgumentError("bad"));
  EXPECT_EQ(info.reason, "invalid_argument");
  EXPECT_EQ(info.message, "bad");
  EXPECT_EQ(info.next_action, "");
  EXPECT_THAT(absl::DeadlineExceededError(""), ReasonIs("deadline_exceeded"));
}

TEST(ErrorTest, ForeignPayloadCountsAsNone) {
  absl::Status status = absl::AbortedError("text");
  status.SetPayload("towline.v1/ErrorInfo", absl::Cord("\x05"));
  EXPECT_THAT(status, ReasonIs("aborted"));
}

TEST(ErrorTest, AnnotateKeepsCodeAndInfo) {
  const absl::Status status = Annotate(MakeError(absl::StatusCode::kDataLoss, Sample()), "opening gen/1");
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_EQ(status.message(), "opening gen/1: wal_removed: needs LSN 5, oldest is 9 (take a snapshot)");
  EXPECT_EQ(GetErrorInfo(status), Sample());
  EXPECT_THAT(Annotate(absl::OkStatus(), "context"), IsOk());
}

absl::StatusOr<int> Half(int n) {
  if (n % 2 != 0) return MakeError(absl::StatusCode::kInvalidArgument, "odd", "not even");
  return n / 2;
}

absl::StatusOr<int> Quarter(int n) {
  TOWLINE_ASSIGN_OR_RETURN(const int half, Half(n));
  TOWLINE_RETURN_IF_ERROR(Half(half).status());
  return half / 2;
}

TEST(ErrorTest, MacrosReturnTheFirstError) {
  EXPECT_THAT(Quarter(8), IsOkAndHolds(2));
  EXPECT_THAT(Quarter(3), ReasonIs("odd"));
  EXPECT_THAT(Quarter(6), ReasonIs("odd"));
}

}  // namespace
}  // namespace towline
