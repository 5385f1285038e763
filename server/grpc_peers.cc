#include "server/grpc_peers.h"

#include <chrono>
#include <grpcpp/grpcpp.h>
#include <utility>

#include "client/channel.h"
#include "client/rpc_status.h"
#include "common/error.h"
#include "towline/v1/failover_service.grpc.pb.h"

namespace towline {
namespace {

using Stub = v1::FailoverService::Stub;

std::chrono::system_clock::time_point DeadlineIn(int64_t micros) {
  return std::chrono::system_clock::now() + std::chrono::microseconds(micros);
}

std::unique_ptr<Stub> Connect(const std::string& endpoint) {
  return v1::FailoverService::NewStub(client::MakeChannel(endpoint, client::Connection::kDedicated));
}

// One unary call of several that run at the same time.
template <typename Response>
struct Asked {
  std::unique_ptr<Stub> stub;
  grpc::ClientContext context;
  Response response;
  grpc::Status status;
  std::unique_ptr<grpc::ClientAsyncResponseReader<Response>> reader;
};

// Makes one call per endpoint with `start`, and waits for all.
template <typename Response, typename Start>
std::vector<absl::StatusOr<Response>> AskAll(const std::vector<std::string>& endpoints, int64_t timeout_micros,
                                             const Start& start) {
  grpc::CompletionQueue queue;
  std::vector<Asked<Response>> calls(endpoints.size());
  const auto deadline = DeadlineIn(timeout_micros);
  for (size_t i = 0; i < endpoints.size(); ++i) {
    Asked<Response>& call = calls[i];
    call.stub = Connect(endpoints[i]);
    call.context.set_deadline(deadline);
    call.reader = start(*call.stub, i, &call.context, &queue);
    call.reader->Finish(&call.response, &call.status, &call);
  }
  void* tag = nullptr;
  bool ok = false;
  for (size_t i = 0; i < calls.size(); ++i) queue.Next(&tag, &ok);
  queue.Shutdown();
  while (queue.Next(&tag, &ok)) {
  }
  std::vector<absl::StatusOr<Response>> answers;
  for (Asked<Response>& call : calls) {
    const absl::Status status = FromGrpcStatus(call.status);
    if (status.ok()) {
      answers.push_back(std::move(call.response));
    } else {
      answers.push_back(status);
    }
  }
  return answers;
}

class GrpcPeers final : public PeerCalls {
 public:
  std::vector<absl::StatusOr<v1::Standing>> AskStandings(const std::vector<std::string>& endpoints,
                                                         int64_t timeout_micros) override {
    auto answers = AskAll<v1::GetStandingResponse>(
        endpoints, timeout_micros, [](Stub& stub, size_t, grpc::ClientContext* context, grpc::CompletionQueue* queue) {
          return stub.AsyncGetStanding(context, v1::GetStandingRequest(), queue);
        });
    std::vector<absl::StatusOr<v1::Standing>> standings;
    for (auto& answer : answers) {
      if (answer.ok()) {
        standings.push_back(std::move(*answer->mutable_standing()));
      } else {
        standings.push_back(std::move(answer).status());
      }
    }
    return standings;
  }

  std::vector<absl::StatusOr<v1::FenceResponse>> Fence(const std::vector<std::string>& endpoints,
                                                       const std::vector<v1::FenceRequest>& requests,
                                                       int64_t timeout_micros) override {
    return AskAll<v1::FenceResponse>(
        endpoints, timeout_micros,
        [&requests](Stub& stub, size_t i, grpc::ClientContext* context, grpc::CompletionQueue* queue) {
          return stub.AsyncFence(context, requests[i], queue);
        });
  }

  absl::StatusOr<v1::HandOverResponse> HandOver(const std::string& endpoint, const v1::HandOverRequest& request,
                                                int64_t timeout_micros) override {
    const std::unique_ptr<Stub> stub = Connect(endpoint);
    grpc::ClientContext context;
    context.set_deadline(DeadlineIn(timeout_micros));
    v1::HandOverResponse response;
    TOWLINE_RETURN_IF_ERROR(FromGrpcStatus(stub->HandOver(&context, request, &response)));
    return response;
  }
};

}  // namespace

std::unique_ptr<PeerCalls> NewGrpcPeers() { return std::make_unique<GrpcPeers>(); }

}  // namespace towline
