#include "server/grpc_server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include <chrono>
#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/error.h"
#include "common/work_pool.h"
#include "server/admin_service.h"
#include "server/kv_service.h"
#include "server/replication_service.h"
#include "server/slot_service.h"

namespace towline {
namespace {

constexpr int kMessageBytesMax = 16 << 20;
constexpr int kReadThreads = 2;
constexpr int kStreamThreads = 2;
constexpr int kAdminThreads = 1;
constexpr size_t kPoolQueueMax = 4096;
// Every stream has at most one task in the queue.
constexpr size_t kStreamQueueMax = SIZE_MAX;
constexpr int64_t kSelfPingMicros = 250'000;
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

class GrpcServerImpl final : public GrpcServer {
 public:
  explicit GrpcServerImpl(Node& node)
      : node_(node),
        reads_(NewThreadWorkPool("read", kReadThreads, kPoolQueueMax)),
        streams_(NewThreadWorkPool("stream", kStreamThreads, kStreamQueueMax)),
        admin_pool_(NewThreadWorkPool("admin", kAdminThreads, kPoolQueueMax)),
        kv_(node, *reads_),
        replication_(node, *streams_, *admin_pool_),
        slots_(node, *admin_pool_),
        admin_(node, *admin_pool_) {}

  ~GrpcServerImpl() override { Shutdown(); }

  absl::Status Start(const std::string& address, Executor& executor) {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    grpc::ServerBuilder builder;
    Configure(&builder);
    builder.AddListeningPort(address, grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(&kv_);
    builder.RegisterService(&replication_);
    builder.RegisterService(&slots_);
    builder.RegisterService(&admin_);
    server_ = builder.BuildAndStart();
    if (server_ == nullptr || port_ == 0) {
      return MakeError(absl::StatusCode::kFailedPrecondition, "port_in_use",
                       absl::StrCat("cannot listen for gRPC on ", address),
                       "stop what listens there, or give another --listen");
    }
    self_stub_ = v1::AdminService::NewStub(server_->InProcessChannel(grpc::ChannelArguments()));
    self_ping_ = executor.Start("self-ping", [this] { return SelfPing(); });
    UpdateHealth();
    return absl::OkStatus();
  }

  int port() const override { return port_; }

  void UpdateHealth() override {
    const bool readable = node_.CheckReadable().ok();
    SetHealth(v1::KvService::service_full_name(), node_.is_primary() ? node_.CheckWritable().ok() : readable);
    SetHealth(v1::ReplicationService::service_full_name(), readable);
    SetHealth(v1::SlotService::service_full_name(), readable);
    SetHealth(v1::AdminService::service_full_name(), true);
    SetHealth("", readable);
  }

  void Shutdown() override {
    if (server_ == nullptr) return;
    server_->GetHealthCheckService()->Shutdown();
    if (self_ping_) self_ping_->Stop();
    self_stub_.reset();
    // Open streams end by their sessions' status; what does not is cancelled after the grace period.
    server_->Shutdown(std::chrono::system_clock::now() + kShutdownGrace);
    server_->Wait();
    reads_->Stop();
    streams_->Stop();
    admin_pool_->Stop();
    server_.reset();
  }

 private:
  void SetHealth(const std::string& service, bool serving) {
    server_->GetHealthCheckService()->SetServingStatus(service, serving);
  }

  // gRPC's callback threads sleep for 100 ms after a second without an event, and a call that arrives then waits
  // (docs/adr/0004). A call to ourselves, four times a second, is such an event.
  StepResult SelfPing() {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(1));
    v1::PingResponse response;
    (void)self_stub_->Ping(&context, v1::PingRequest(), &response);
    return StepResult::WaitFor(kSelfPingMicros);
  }

  Node& node_;
  const std::unique_ptr<WorkPool> reads_;
  const std::unique_ptr<WorkPool> streams_;
  const std::unique_ptr<WorkPool> admin_pool_;
  KvServiceImpl kv_;
  ReplicationServiceImpl replication_;
  SlotServiceImpl slots_;
  AdminServiceImpl admin_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<v1::AdminService::Stub> self_stub_;
  std::unique_ptr<Loop> self_ping_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<GrpcServer>> StartGrpcServer(const std::string& address, Node& node,
                                                            Executor& executor) {
  auto server = std::make_unique<GrpcServerImpl>(node);
  TOWLINE_RETURN_IF_ERROR(server->Start(address, executor));
  return server;
}

}  // namespace towline
