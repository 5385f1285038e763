#include "client/client.h"

#include <utility>

#include "client/rpc_status.h"
#include "client/unary_call.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"
#include "grpcpp/support/sync_stream.h"
#include "towline/v1/admin_service.grpc.pb.h"
#include "towline/v1/failover_service.grpc.pb.h"
#include "towline/v1/kv_service.grpc.pb.h"
#include "towline/v1/replication_service.grpc.pb.h"
#include "towline/v1/slot_service.grpc.pb.h"

namespace towline::client {
namespace {

constexpr int64_t kChangeMembersMicros = 10'000'000;
constexpr int64_t kRecoverMicros = int64_t{24} * 3600 * 1'000'000;

constexpr int64_t kPromotionMicros = int64_t{600} * 1'000'000;
constexpr int kFollowsMax = 4;

class SyncPullStream final : public PullStream {
 public:
  explicit SyncPullStream(std::shared_ptr<grpc::Channel> channel)
      : stub_(v1::ReplicationService::NewStub(std::move(channel))), stream_(stub_->Pull(&context_)) {}

  ~SyncPullStream() override {
    context_.TryCancel();
    if (!finished_) (void)stream_->Finish();
  }

  bool Read(v1::PullResponse* response) override { return stream_->Read(response); }
  bool Write(const v1::PullRequest& request) override { return stream_->Write(request); }
  void CloseSending() override { stream_->WritesDone(); }
  void Cancel() override { context_.TryCancel(); }
  absl::Status Finish() override {
    finished_ = true;
    return FromGrpcStatus(stream_->Finish());
  }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<v1::ReplicationService::Stub> stub_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::PullRequest, v1::PullResponse>> stream_;
  bool finished_ = false;
};

class SyncSaveStream final : public SaveStream {
 public:
  SyncSaveStream(std::shared_ptr<grpc::Channel> channel, const v1::SaveSnapshotRequest& request)
      : stub_(v1::ReplicationService::NewStub(std::move(channel))), stream_(stub_->SaveSnapshot(&context_, request)) {}

  ~SyncSaveStream() override {
    context_.TryCancel();
    if (!finished_) (void)stream_->Finish();
  }

  bool Read(v1::SaveSnapshotResponse* response) override { return stream_->Read(response); }
  void Cancel() override { context_.TryCancel(); }
  absl::Status Finish() override {
    finished_ = true;
    return FromGrpcStatus(stream_->Finish());
  }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<v1::ReplicationService::Stub> stub_;
  std::unique_ptr<grpc::ClientReader<v1::SaveSnapshotResponse>> stream_;
  bool finished_ = false;
};

class GrpcClient final : public Client {
 public:
  explicit GrpcClient(const NodeClientOptions& options) : options_(options) { Connect(); }

  const std::string& endpoint() const override { return options_.endpoint; }

  absl::StatusOr<v1::WriteResponse> Write(const v1::WriteRequest& request) override {
    for (int follows = 0;; ++follows) {
      auto response = Call<v1::WriteResponse>(*kv_, &v1::KvService::Stub::Write, request);
      if (response.ok() || follows == kFollowsMax || !Follow(response.status())) return response;
    }
  }
  absl::StatusOr<v1::GetResponse> Get(const v1::GetRequest& request) override {
    return Call<v1::GetResponse>(*kv_, &v1::KvService::Stub::Get, request);
  }
  absl::StatusOr<v1::ScanResponse> Scan(const v1::ScanRequest& request) override {
    return Call<v1::ScanResponse>(*kv_, &v1::KvService::Stub::Scan, request);
  }
  absl::StatusOr<v1::GetStatusResponse> GetStatus() override {
    return Call<v1::GetStatusResponse>(*admin_, &v1::AdminService::Stub::GetStatus, v1::GetStatusRequest());
  }
  absl::StatusOr<v1::GetHistoryResponse> GetHistory() override {
    return Call<v1::GetHistoryResponse>(*admin_, &v1::AdminService::Stub::GetHistory, v1::GetHistoryRequest());
  }
  absl::StatusOr<v1::GetTopologyResponse> GetTopology() override {
    return Call<v1::GetTopologyResponse>(*admin_, &v1::AdminService::Stub::GetTopology, v1::GetTopologyRequest());
  }
  absl::StatusOr<v1::GetDigestResponse> GetDigest(const v1::GetDigestRequest& request) override {
    return Call<v1::GetDigestResponse>(*admin_, &v1::AdminService::Stub::GetDigest, request,
                                       int64_t{1000} * request.timeout_ms());
  }
  absl::StatusOr<v1::PingResponse> Ping(const v1::PingRequest& request) override {
    return Call<v1::PingResponse>(*admin_, &v1::AdminService::Stub::Ping, request);
  }
  absl::StatusOr<v1::ListSlotsResponse> ListSlots() override {
    return Call<v1::ListSlotsResponse>(*slots_, &v1::SlotService::Stub::ListSlots, v1::ListSlotsRequest());
  }
  absl::StatusOr<v1::GetSlotResponse> GetSlot(const v1::GetSlotRequest& request) override {
    return Call<v1::GetSlotResponse>(*slots_, &v1::SlotService::Stub::GetSlot, request);
  }
  absl::StatusOr<v1::CreateSlotResponse> CreateSlot(const v1::CreateSlotRequest& request) override {
    return Call<v1::CreateSlotResponse>(*slots_, &v1::SlotService::Stub::CreateSlot, request);
  }
  absl::StatusOr<v1::DropSlotResponse> DropSlot(const v1::DropSlotRequest& request) override {
    return Call<v1::DropSlotResponse>(*slots_, &v1::SlotService::Stub::DropSlot, request);
  }
  absl::StatusOr<v1::ForecastSlotsResponse> ForecastSlots(const v1::ForecastSlotsRequest& request) override {
    return Call<v1::ForecastSlotsResponse>(*slots_, &v1::SlotService::Stub::ForecastSlots, request);
  }
  absl::StatusOr<v1::CopySlotResponse> CopySlot(const v1::CopySlotRequest& request) override {
    return Call<v1::CopySlotResponse>(*slots_, &v1::SlotService::Stub::CopySlot, request);
  }
  absl::StatusOr<v1::AdvanceSlotResponse> AdvanceSlot(const v1::AdvanceSlotRequest& request) override {
    return Call<v1::AdvanceSlotResponse>(*slots_, &v1::SlotService::Stub::AdvanceSlot, request);
  }
  absl::StatusOr<v1::AcceptSlotLossResponse> AcceptSlotLoss() override {
    return Call<v1::AcceptSlotLossResponse>(*slots_, &v1::SlotService::Stub::AcceptSlotLoss,
                                            v1::AcceptSlotLossRequest());
  }
  absl::StatusOr<v1::PlanResumeResponse> PlanResume(const v1::PlanResumeRequest& request) override {
    return Call<v1::PlanResumeResponse>(*replication_, &v1::ReplicationService::Stub::PlanResume, request);
  }
  absl::StatusOr<v1::DescribeStartResponse> DescribeStart() override {
    return Call<v1::DescribeStartResponse>(*replication_, &v1::ReplicationService::Stub::DescribeStart,
                                           v1::DescribeStartRequest());
  }
  absl::StatusOr<v1::SetMinReplicasResponse> SetMinReplicas(const v1::SetMinReplicasRequest& request) override {
    return Call<v1::SetMinReplicasResponse>(*admin_, &v1::AdminService::Stub::SetMinReplicas, request,
                                            kChangeMembersMicros);
  }
  absl::StatusOr<v1::RemoveMemberResponse> RemoveMember(const v1::RemoveMemberRequest& request) override {
    return Call<v1::RemoveMemberResponse>(*admin_, &v1::AdminService::Stub::RemoveMember, request,
                                          kChangeMembersMicros);
  }
  absl::StatusOr<v1::BootstrapResponse> Bootstrap() override {
    return Call<v1::BootstrapResponse>(*admin_, &v1::AdminService::Stub::Bootstrap, v1::BootstrapRequest());
  }
  absl::StatusOr<v1::RecoverResponse> Recover(const v1::RecoverRequest& request) override {
    return Call<v1::RecoverResponse>(*admin_, &v1::AdminService::Stub::Recover, request, kRecoverMicros);
  }

  absl::StatusOr<v1::GetStandingResponse> GetStanding() override {
    return Call<v1::GetStandingResponse>(*failover_, &v1::FailoverService::Stub::GetStanding, v1::GetStandingRequest());
  }
  absl::StatusOr<v1::PromoteResponse> Promote(const v1::PromoteRequest& request) override {
    return Call<v1::PromoteResponse>(*failover_, &v1::FailoverService::Stub::Promote, request, kPromotionMicros);
  }
  absl::StatusOr<v1::SwitchoverResponse> Switchover(const v1::SwitchoverRequest& request) override {
    return Call<v1::SwitchoverResponse>(*failover_, &v1::FailoverService::Stub::Switchover, request, kPromotionMicros);
  }

  std::unique_ptr<WriteStream> OpenWriteStream(const WriteStreamOptions& options,
                                               OnWriteStreamAnswer on_answer) override {
    return NewWriteStream(MakeChannel(options_.endpoint, Connection::kDedicated), options, std::move(on_answer));
  }
  std::unique_ptr<PullStream> OpenPull() override {
    return std::make_unique<SyncPullStream>(MakeChannel(options_.endpoint, Connection::kDedicated));
  }
  std::unique_ptr<SaveStream> OpenSave(const v1::SaveSnapshotRequest& request) override {
    return std::make_unique<SyncSaveStream>(MakeChannel(options_.endpoint, Connection::kDedicated), request);
  }

  bool Follow(const absl::Status& error) override {
    if (!options_.follow_primary || error.ok()) return false;
    const ErrorInfo info = GetErrorInfo(error);
    const auto address = info.metadata.find("primary_address");
    if (info.reason != "not_primary" || address == info.metadata.end() || address->second == options_.endpoint ||
        !ValidateEndpoint(address->second).ok()) {
      return false;
    }
    options_.endpoint = address->second;
    Connect();
    return true;
  }

 private:
  void Connect() {
    const std::shared_ptr<grpc::Channel> channel = MakeChannel(options_.endpoint, Connection::kShared);
    kv_ = v1::KvService::NewStub(channel);
    admin_ = v1::AdminService::NewStub(channel);
    failover_ = v1::FailoverService::NewStub(channel);
    slots_ = v1::SlotService::NewStub(channel);
    replication_ = v1::ReplicationService::NewStub(channel);
  }

  template <typename Response, typename Stub, typename Request>
  absl::StatusOr<Response> Call(Stub& stub,
                                grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                                const Request& request, int64_t extra_us = 0) {
    return CallUnary(stub, method, request, options_.endpoint, options_.timeout_us + extra_us);
  }

  NodeClientOptions options_;
  std::unique_ptr<v1::KvService::Stub> kv_;
  std::unique_ptr<v1::AdminService::Stub> admin_;
  std::unique_ptr<v1::FailoverService::Stub> failover_;
  std::unique_ptr<v1::SlotService::Stub> slots_;
  std::unique_ptr<v1::ReplicationService::Stub> replication_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Client>> NewClient(const NodeClientOptions& options) {
  TOWLINE_RETURN_IF_ERROR(ValidateEndpoint(options.endpoint));
  return std::make_unique<GrpcClient>(options);
}

}  // namespace towline::client
