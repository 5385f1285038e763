#include "server/near_peer.h"

#include <atomic>
#include <grpcpp/grpcpp.h>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"

#include "gtest/gtest.h"

namespace towline::test {
namespace {

constexpr int64_t kLong = 30'000'000;

class Answers final : public v1::AdminService::Service {
 public:
  grpc::Status Ping(grpc::ServerContext*, const v1::PingRequest*, v1::PingResponse*) override {
    ++calls;
    return grpc::Status::OK;
  }
  std::atomic<int> calls{0};
};

// Answers when it is told to.
class Waits final : public v1::AdminService::Service {
 public:
  grpc::Status Ping(grpc::ServerContext*, const v1::PingRequest*, v1::PingResponse*) override {
    over.WaitForNotification();
    return grpc::Status::OK;
  }
  absl::Notification over;
};

class AnswersNothing final : public v1::AdminService::Service {};

class NearPeerTest : public ::testing::Test {
 protected:
  ~NearPeerTest() override {
    if (server_ != nullptr) server_->Shutdown();
  }

  v1::AdminService::StubInterface& Serve(v1::AdminService::Service& service) {
    int port = 0;
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&service);
    server_ = builder.BuildAndStart();
    return Connect(port);
  }

  v1::AdminService::StubInterface& Connect(int port) {
    stub_ = v1::AdminService::NewStub(
        grpc::CreateChannel(absl::StrCat("127.0.0.1:", port), grpc::InsecureChannelCredentials()));
    return *stub_;
  }

  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<v1::AdminService::StubInterface> stub_;
};

TEST_F(NearPeerTest, WhoAnswersInTimeIsNear) {
  Answers service;
  EXPECT_TRUE(IsNear(Serve(service), kLong));
  EXPECT_EQ(service.calls, 1);
}

TEST_F(NearPeerTest, WhoAnswersLaterIsNotThoughItMayTryAgain) {
  Answers service;
  v1::AdminService::StubInterface& peer = Serve(service);
  EXPECT_TRUE(IsNear(peer, kLong));  // it is connected
  EXPECT_FALSE(IsNear(peer, 0));
}

TEST_F(NearPeerTest, WhoDoesNotAnswerIsNotNear) {
  Waits service;
  EXPECT_FALSE(IsNear(Serve(service), 1));
  service.over.Notify();
}

TEST_F(NearPeerTest, WhoKnowsNoPingIsNotNear) {
  AnswersNothing service;
  EXPECT_FALSE(IsNear(Serve(service), kLong));
}

TEST_F(NearPeerTest, WhoIsNotThereIsNotNear) { EXPECT_FALSE(IsNear(Connect(1), kLong)); }

}  // namespace
}  // namespace towline::test
