#include "server/grpc_server.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <grpcpp/grpcpp.h>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/work_pool.h"
#include "server/admin_service.h"
#include "server/failover_service.h"
#include "server/health_service.h"
#include "server/kv_service.h"
#include "server/reflection_service.h"
#include "server/replication_service.h"
#include "server/rpc_queue.h"
#include "server/slot_service.h"

namespace towline {
namespace {

constexpr int kMessageBytesMax = 16 << 20;
constexpr int kReadThreads = 4;
constexpr int kStreamThreads = 2;
constexpr int kAdminThreads = 4;  // waits for digests, recoveries and Members records hold one each
constexpr int kPeerThreads = 2;   // what other nodes ask waits for nobody
constexpr int kSnapshotThreads = 2;
constexpr size_t kPoolQueueMax = 4096;
// Every stream has at most one task in the queue.
constexpr size_t kStreamQueueMax = SIZE_MAX;
// Threads that read and answer calls. One serves a small machine best: a second one steals its events.
constexpr unsigned kRpcThreadsMax = 4;
constexpr auto kShutdownGrace = std::chrono::seconds(1);

void Configure(grpc::ServerBuilder* builder) {
  builder->SetMaxReceiveMessageSize(kMessageBytesMax);
  builder->SetMaxSendMessageSize(-1);
  // Two servers on one port must be an error, not a lottery.
  builder->AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 10'000);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 5'000);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5'000);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MAX_FRAME_SIZE, 1 << 20);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_WRITE_BUFFER_SIZE, 1 << 20);
}

std::vector<std::string> ServiceNames() {
  return {v1::KvService::service_full_name(),
          v1::ReplicationService::service_full_name(),
          v1::SlotService::service_full_name(),
          v1::AdminService::service_full_name(),
          v1::FailoverService::service_full_name(),
          grpc::health::v1::Health::service_full_name(),
          grpc::reflection::v1alpha::ServerReflection::service_full_name()};
}

class GrpcServerImpl final : public GrpcServer {
 public:
  explicit GrpcServerImpl(Node& node)
      : node_(node),
        reads_(NewThreadWorkPool("read", kReadThreads, kPoolQueueMax)),
        streams_(NewThreadWorkPool("stream", kStreamThreads, kStreamQueueMax)),
        snapshots_(NewThreadWorkPool("snapshot", kSnapshotThreads, kStreamQueueMax, LoopPriority::kBackground)),
        admin_pool_(NewThreadWorkPool("admin", kAdminThreads, kPoolQueueMax)),
        peers_(NewThreadWorkPool("peer", kPeerThreads, kPoolQueueMax)),
        kv_(node, *reads_),
        replication_(node, *streams_, *snapshots_, *admin_pool_),
        slots_(node, *admin_pool_),
        admin_(node, *admin_pool_),
        failover_(node, *peers_, *admin_pool_),
        reflection_(ServiceNames()) {}

  ~GrpcServerImpl() override { Shutdown(); }

  absl::Status Start(const std::string& address) {
    grpc::ServerBuilder builder;
    Configure(&builder);
    builder.AddListeningPort(address, grpc::InsecureServerCredentials(), &port_);
    for (grpc::Service* service : {kv_.service(), replication_.service(), slots_.service(), admin_.service(),
                                   failover_.service(), health_.service(), reflection_.service()}) {
      builder.RegisterService(service);
    }
    const unsigned threads = std::clamp(std::thread::hardware_concurrency() / 2, 1u, kRpcThreadsMax);
    for (unsigned i = 0; i < threads; ++i) queues_.push_back(std::make_unique<RpcQueue>(builder.AddCompletionQueue()));
    server_ = builder.BuildAndStart();
    if (server_ == nullptr || port_ == 0) {
      return MakeError(absl::StatusCode::kFailedPrecondition, "port_in_use",
                       absl::StrCat("cannot listen for gRPC on ", address),
                       "stop what listens there, or give another --listen");
    }
    UpdateHealth();
    for (const std::unique_ptr<RpcQueue>& queue : queues_) {
      kv_.Serve(*queue);
      replication_.Serve(*queue);
      slots_.Serve(*queue);
      admin_.Serve(*queue);
      failover_.Serve(*queue);
      health_.Serve(*queue);
      reflection_.Serve(*queue);
      queue->Start();
    }
    return absl::OkStatus();
  }

  int port() const override { return port_; }

  void UpdateHealth() override {
    const bool readable = node_.CheckReadable().ok();
    health_.Set(v1::KvService::service_full_name(), node_.is_primary() ? node_.CheckWritable().ok() : readable);
    health_.Set(v1::ReplicationService::service_full_name(), readable);
    health_.Set(v1::SlotService::service_full_name(), readable);
    health_.Set(v1::AdminService::service_full_name(), true);
    health_.Set("", readable);
  }

  void Shutdown() override {
    if (server_ == nullptr) return;
    health_.Shutdown();
    // Open streams end by their sessions' status; what does not is cancelled after the grace period.
    server_->Shutdown(std::chrono::system_clock::now() + kShutdownGrace);
    server_->Wait();
    // Calls that are still worked on need the pools.
    for (const std::unique_ptr<RpcQueue>& queue : queues_) queue->Stop();
    reads_->Stop();
    streams_->Stop();
    snapshots_->Stop();
    admin_pool_->Stop();
    peers_->Stop();
    server_.reset();
  }

 private:
  Node& node_;
  const std::unique_ptr<WorkPool> reads_;
  const std::unique_ptr<WorkPool> streams_;
  const std::unique_ptr<WorkPool> snapshots_;
  const std::unique_ptr<WorkPool> admin_pool_;
  const std::unique_ptr<WorkPool> peers_;
  KvServiceImpl kv_;
  ReplicationServiceImpl replication_;
  SlotServiceImpl slots_;
  AdminServiceImpl admin_;
  FailoverServiceImpl failover_;
  HealthServiceImpl health_;
  ReflectionServiceImpl reflection_;
  int port_ = 0;
  std::vector<std::unique_ptr<RpcQueue>> queues_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<GrpcServer>> StartGrpcServer(const std::string& address, Node& node) {
  auto server = std::make_unique<GrpcServerImpl>(node);
  TOWLINE_RETURN_IF_ERROR(server->Start(address));
  return server;
}

}  // namespace towline
