// A snapshot stream over gRPC, from a peer that is not what it should be.

#include "server/grpc_upstream.h"

#include <grpcpp/grpcpp.h>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"

#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"
#include "towline/v1/replication_service.grpc.pb.h"

namespace towline::test {
namespace {

constexpr int64_t kLong = 30'000'000;

// Answers every FetchSnapshot with one message of the given bytes.
class OneMessage final
    : public v1::ReplicationService::WithRawCallbackMethod_FetchSnapshot<v1::ReplicationService::Service> {
 public:
  explicit OneMessage(const std::string& bytes) {
    const grpc::Slice slice(bytes);
    message_ = grpc::ByteBuffer(&slice, 1);
  }

  grpc::ServerWriteReactor<grpc::ByteBuffer>* FetchSnapshot(grpc::CallbackServerContext*,
                                                            const grpc::ByteBuffer*) override {
    class Reactor final : public grpc::ServerWriteReactor<grpc::ByteBuffer> {
     public:
      explicit Reactor(const grpc::ByteBuffer* message) { StartWriteAndFinish(message, {}, grpc::Status::OK); }
      void OnDone() override { delete this; }
    };
    return new Reactor(&message_);
  }

 private:
  grpc::ByteBuffer message_;
};

class GrpcUpstreamTest : public ::testing::Test {
 protected:
  ~GrpcUpstreamTest() override {
    stream_.reset();
    server_->Shutdown();
  }

  void Serve(const std::string& bytes) {
    service_ = std::make_unique<OneMessage>(bytes);
    int port = 0;
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(service_.get());
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
    stream_ = NewGrpcUpstream(absl::StrCat("127.0.0.1:", port))->OpenSnapshot({});
  }

  std::unique_ptr<OneMessage> service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<SnapshotStream> stream_;
  v1::FetchSnapshotResponse message_;
  absl::Cord data_;
};

TEST_F(GrpcUpstreamTest, APieceIsReadAndThenTheEnd) {
  v1::FetchSnapshotResponse sent;
  sent.mutable_file_chunk()->set_offset(9);
  sent.mutable_file_chunk()->set_data(std::string(300'000, 'x'));
  Serve(sent.SerializeAsString());
  ASSERT_EQ(stream_->Read(&message_, &data_, kLong), ReadResult::kMessage);
  EXPECT_EQ(message_.file_chunk().offset(), 9u);
  EXPECT_TRUE(data_ == sent.file_chunk().data());
  EXPECT_EQ(stream_->Read(&message_, &data_, kLong), ReadResult::kClosed);
  EXPECT_THAT(stream_->Finish(), IsOk());
}

TEST_F(GrpcUpstreamTest, WhatIsNoMessageEndsTheStreamWithItsReason) {
  Serve("\xff\xff\xff");
  EXPECT_EQ(stream_->Read(&message_, &data_, kLong), ReadResult::kClosed);
  EXPECT_EQ(stream_->Read(&message_, &data_, kLong), ReadResult::kClosed);
  EXPECT_THAT(stream_->Finish(), ReasonIs("bad_snapshot"));
}

}  // namespace
}  // namespace towline::test
