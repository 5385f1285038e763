#include "client/rpc_status.h"

#include <string>

#include "client/proto_json.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace towline {
namespace {

TEST(RpcStatus, ErrorInfoSurvivesTheRoundTrip) {
  const ErrorInfo info{"not_primary", "r1 is a replica", "write to p1", {{"primary_address", "127.0.0.1:7700"}}};
  const grpc::Status status = ToGrpcStatus(MakeError(absl::StatusCode::kFailedPrecondition, info));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  const absl::Status back = FromGrpcStatus(status);
  EXPECT_EQ(back.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(GetErrorInfo(back), info);
}

TEST(RpcStatus, DetailsAreAnRpcStatusWithOneErrorDetail) {
  const grpc::Status status = ToGrpcStatus(MakeError(absl::StatusCode::kNotFound, "slot_not_found", "no slot s"));
  v1::RpcStatus rpc_status;
  ASSERT_TRUE(rpc_status.ParseFromString(status.error_details()));
  EXPECT_EQ(rpc_status.code(), 5);
  ASSERT_EQ(rpc_status.details_size(), 1);
  EXPECT_EQ(rpc_status.details(0).type_url(), "type.googleapis.com/towline.v1.ErrorDetail");
}

TEST(RpcStatus, OkStaysOk) {
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
  EXPECT_TRUE(FromGrpcStatus(grpc::Status::OK).ok());
}

TEST(RpcStatus, StatusWithoutInfoGetsTheNameOfItsCodeAsReason) {
  const absl::Status back = FromGrpcStatus(ToGrpcStatus(absl::UnavailableError("gone")));
  EXPECT_EQ(GetErrorInfo(back).reason, "unavailable");
}

TEST(RpcStatus, ForeignOrBrokenDetailsAreIgnored) {
  const absl::Status broken = FromGrpcStatus(grpc::Status(grpc::StatusCode::INTERNAL, "text", "\xff\xff garbage"));
  EXPECT_EQ(broken, absl::InternalError("text"));
  v1::RpcStatus foreign;
  foreign.add_details()->set_type_url("type.googleapis.com/google.rpc.ErrorInfo");
  const absl::Status other =
      FromGrpcStatus(grpc::Status(grpc::StatusCode::ABORTED, "text", foreign.SerializeAsString()));
  EXPECT_EQ(other, absl::AbortedError("text"));
}

TEST(RpcStatus, LargeErrorsAreCutToFitTheTrailersAndStayUtf8) {
  ErrorInfo info{"big", "", "", {{"numbers", std::string(10000, '1')}}};
  for (int i = 0; i < 5000; ++i) info.message += "\xc3\xbc";
  const grpc::Status status = ToGrpcStatus(MakeError(absl::StatusCode::kInternal, info));
  EXPECT_LT(status.error_details().size() + status.error_message().size(), 6000u);
  const ErrorInfo back = GetErrorInfo(FromGrpcStatus(status));
  EXPECT_EQ(back.reason, "big");
  EXPECT_FALSE(back.message.empty());
  EXPECT_TRUE(IsValidUtf8(back.message));
}

TEST(RpcStatus, ErrorDetailRoundTrip) {
  const ErrorInfo info{"queue_full", "64 of 64 MiB", "write slower", {{"queued", "64"}}};
  EXPECT_EQ(FromErrorDetail(ToErrorDetail(MakeError(absl::StatusCode::kResourceExhausted, info))), info);
}

}  // namespace
}  // namespace towline
