// Tests of RpcQueue and unary calls, over a real server on loopback.

#include "server/rpc_queue.h"

#include <atomic>
#include <chrono>
#include <functional>
#include <grpcpp/grpcpp.h>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "gtest/gtest.h"
#include "server/rpc_call.h"
#include "towline/v1/admin_service.grpc.pb.h"

namespace towline {
namespace {

using PingCall = UnaryCall<v1::PingRequest, v1::PingResponse>;

// A server whose only method is `handle`.
class RpcQueueTest : public ::testing::Test {
 protected:
  void Start(
      std::function<void(PingCall*)> handle, std::function<void()> at_end_of_round = [] {},
      const std::string& host = "127.0.0.1") {
    int port = 0;
    grpc::ServerBuilder builder;
    builder.AddListeningPort(absl::StrCat(host, ":0"), grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&service_);
    queue_ = std::make_unique<RpcQueue>(builder.AddCompletionQueue());
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
    ServeUnary(*queue_, &service_, &v1::AdminService::AsyncService::RequestPing, std::move(handle), 2);
    queue_->AtEndOfRound(std::move(at_end_of_round));
    queue_->Start();
    const std::string address = absl::StrCat(host, ":", port);
    stub_ = v1::AdminService::NewStub(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
  }

  void Stop() {
    if (server_ == nullptr) return;
    server_->Shutdown(std::chrono::system_clock::now() + std::chrono::milliseconds(100));
    queue_->Stop();
    server_.reset();
  }
  ~RpcQueueTest() override { Stop(); }

  grpc::Status Ping(const std::string& payload, std::string* answer) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    v1::PingRequest request;
    request.set_payload(payload);
    v1::PingResponse response;
    const grpc::Status status = stub_->Ping(&context, request, &response);
    *answer = response.payload();
    return status;
  }

  v1::AdminService::AsyncService service_;
  std::unique_ptr<RpcQueue> queue_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<v1::AdminService::Stub> stub_;
};

TEST_F(RpcQueueTest, EveryCallGetsItsOwnAnswerFromWhateverThread) {
  std::atomic<int> rounds{0};
  std::atomic<int> elsewhere{0};
  std::vector<std::thread> answering;
  Start(
      [&](PingCall* call) {
        EXPECT_TRUE(queue_->OnThread());
        const std::string payload = call->request().payload();
        call->response()->set_payload(payload);
        if (payload.back() % 2 == 0) return call->Finish(absl::OkStatus());
        answering.emplace_back([&, call] {
          EXPECT_FALSE(queue_->OnThread());
          ++elsewhere;
          call->Finish(absl::OkStatus());
        });
      },
      [&rounds] { ++rounds; });
  std::vector<std::thread> clients;
  for (int client = 0; client < 8; ++client) {
    clients.emplace_back([&, client] {
      for (int i = 0; i < 50; ++i) {
        const std::string payload = absl::StrCat(client, "/", i);
        std::string answer;
        EXPECT_TRUE(Ping(payload, &answer).ok());
        EXPECT_EQ(answer, payload);
      }
    });
  }
  for (std::thread& client : clients) client.join();
  Stop();
  for (std::thread& thread : answering) thread.join();
  EXPECT_EQ(elsewhere, 8 * 25);
  EXPECT_GT(rounds, 0);
}

// What AnswerBurst takes for granted: how gRPC writes a peer's address, and that its sockets are this process's.
class PeerAddressTest : public RpcQueueTest, public ::testing::WithParamInterface<std::string> {};

TEST_P(PeerAddressTest, TheSocketOfACallIsFound) {
  std::atomic<int> found{-1};
  Start(
      [&found](PingCall* call) {
        found = SocketsByPeer().Find(call->context()->peer());
        call->Finish(absl::OkStatus());
      },
      [] {}, GetParam());
  std::string answer;
  EXPECT_TRUE(Ping("x", &answer).ok());
  EXPECT_GE(found, 0);
}

INSTANTIATE_TEST_SUITE_P(Hosts, PeerAddressTest, ::testing::Values("127.0.0.1", "[::1]"));

TEST_F(RpcQueueTest, AnErrorReachesTheClient) {
  Start([](PingCall* call) {
    call->Finish(MakeError(absl::StatusCode::kResourceExhausted, "busy", "too many", "later"));
  });
  std::string answer;
  const grpc::Status status = Ping("x", &answer);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_NE(status.error_message().find("too many"), std::string::npos);
}

TEST_F(RpcQueueTest, AStopWaitsForCallsThatAreWorkedOn) {
  std::atomic<PingCall*> held{nullptr};
  Start([&held](PingCall* call) { held = call; });
  std::thread client([this] {
    std::string answer;
    EXPECT_FALSE(Ping("x", &answer).ok());  // cut off by the server's shutdown
  });
  while (held == nullptr) std::this_thread::yield();
  std::atomic<bool> stopped{false};
  std::thread stopping([&] {
    Stop();
    stopped = true;
  });
  client.join();
  EXPECT_FALSE(stopped);  // the call is still worked on
  held.load()->Finish(absl::OkStatus());
  stopping.join();
  EXPECT_TRUE(stopped);
}

TEST_F(RpcQueueTest, PostsRunInTheirOrder) {
  Start([](PingCall* call) { call->Finish(absl::OkStatus()); });
  queue_->Enter();  // as a call that posts
  std::vector<int> order;
  std::atomic<bool> done{false};
  for (int i = 0; i < 1000; ++i) queue_->Post([&order, i] { order.push_back(i); });
  queue_->Post([&done] { done = true; });
  while (!done) std::this_thread::yield();
  queue_->Leave();
  Stop();
  ASSERT_EQ(order.size(), 1000u);
  for (int i = 0; i < 1000; ++i) ASSERT_EQ(order[static_cast<size_t>(i)], i);
}

}  // namespace
}  // namespace towline
