#include "server/admin_service.h"

#include <memory>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "server/bookmark.h"
#include "server/position_proto.h"
#include "server/run_on_pool.h"
#include "server/status_report.h"

namespace towline {
namespace {

constexpr size_t kPingBytesMax = 1 << 20;
constexpr uint32_t kDigestTimeoutDefaultMs = 10'000;
constexpr uint32_t kDigestTimeoutMaxMs = 600'000;

using PingCall = UnaryCall<v1::PingRequest, v1::PingResponse>;

// As many as of writes: a ping measures what a call costs besides its work.
constexpr int kArmedPings = 64;

absl::Status Ping(const v1::PingRequest& request, v1::PingResponse* response) {
  if (request.payload().size() > kPingBytesMax) {
    return MakeError(absl::StatusCode::kInvalidArgument, "payload_too_large",
                     absl::StrCat("the payload has ", request.payload().size(), " bytes; at most ", kPingBytesMax));
  }
  response->set_payload(request.payload());
  return absl::OkStatus();
}

}  // namespace

void AdminServiceImpl::Serve(RpcQueue& queue) {
  using Service = v1::AdminService::AsyncService;
  ServeOnPool(queue, &service_, &Service::RequestGetStatus, pool_,
              [this](const v1::GetStatusRequest&, v1::GetStatusResponse* response) {
                FillStatus(node_, response);
                return absl::OkStatus();
              });
  ServeOnPool(queue, &service_, &Service::RequestGetHistory, pool_,
              [this](const v1::GetHistoryRequest&, v1::GetHistoryResponse* response) {
                const NodeView view = node_.View();
                response->set_cluster_id(view.cluster_id);
                for (const HistoryEntry& entry : view.history) FillHistoryEntry(entry, response->add_history());
                return absl::OkStatus();
              });
  ServeOnPool(queue, &service_, &Service::RequestGetTopology, pool_,
              [this](const v1::GetTopologyRequest&, v1::GetTopologyResponse* response) {
                FillTopology(node_, response);
                return absl::OkStatus();
              });
  ServeOnPool(queue, &service_, &Service::RequestGetDigest, pool_,
              [this](const v1::GetDigestRequest& request, v1::GetDigestResponse* response) {
                return Digest(request, response);
              });
  ServeOnPool(queue, &service_, &Service::RequestRemoveMember, pool_,
              [this](const v1::RemoveMemberRequest& request, v1::RemoveMemberResponse* response) -> absl::Status {
                TOWLINE_RETURN_IF_ERROR(node_.RemoveMember(request.node_id(), request.force()));
                v1::GetTopologyResponse topology;
                FillTopology(node_, &topology);
                response->mutable_members()->Swap(topology.mutable_members());
                response->set_slot_exists(node_.slots().Get(request.node_id()).has_value());
                return absl::OkStatus();
              });
  ServeOnPool(queue, &service_, &Service::RequestSetMinReplicas, pool_,
              [this](const v1::SetMinReplicasRequest& request, v1::SetMinReplicasResponse* response) -> absl::Status {
                bool unchanged = false;
                TOWLINE_ASSIGN_OR_RETURN(const Lsn lsn, node_.SetMinReplicas(request.min_replicas(), &unchanged));
                response->set_members_lsn(lsn);
                response->set_unchanged(unchanged);
                return absl::OkStatus();
              });
  ServeOnPool(
      queue, &service_, &Service::RequestRecover, pool_,
      [this](const v1::RecoverRequest& request, v1::RecoverResponse* response) { return Recover(request, response); });
  ServeOnPool(queue, &service_, &Service::RequestBootstrap, pool_,
              [this](const v1::BootstrapRequest&, v1::BootstrapResponse* response) -> absl::Status {
                TOWLINE_ASSIGN_OR_RETURN(const bool asked, node_.RequestBootstrap());
                response->set_already_running(!asked);
                return absl::OkStatus();
              });
  ServeUnary(
      queue, &service_, &Service::RequestPing,
      [](PingCall* call) { call->Finish(Ping(call->request(), call->response())); }, kArmedPings);
}

absl::Status AdminServiceImpl::Recover(const v1::RecoverRequest& request, v1::RecoverResponse* response) {
  if (request.from().empty() && !request.accept_loss()) {
    return MakeError(absl::StatusCode::kInvalidArgument, "invalid_request", "neither from nor accept_loss is set",
                     "say from which node, or that the loss is accepted");
  }
  if (const auto live = node_.Live(); live != nullptr) response->set_old_durable_lsn(live->spool().end().lsn);
  TOWLINE_RETURN_IF_ERROR(node_.Recover(request.from()));
  response->set_durable_lsn(node_.Live()->spool().end().lsn);
  response->set_term(node_.View().term);
  return absl::OkStatus();
}

absl::Status AdminServiceImpl::Digest(const v1::GetDigestRequest& request, v1::GetDigestResponse* response) {
  TOWLINE_RETURN_IF_ERROR(node_.CheckReadable());
  if (request.timeout_ms() > kDigestTimeoutMaxMs) {
    return MakeError(absl::StatusCode::kInvalidArgument, "invalid_timeout",
                     absl::StrCat("timeout_ms is ", request.timeout_ms(), "; at most ", kDigestTimeoutMaxMs));
  }
  const auto live = node_.Live();
  std::shared_ptr<const StateSnapshot> snapshot;
  if (request.at_lsn() == 0) {
    TOWLINE_RETURN_IF_ERROR(AwaitAnswered(node_));
    TOWLINE_ASSIGN_OR_RETURN(snapshot, live->state().Snapshot());
  } else {
    const int64_t timeout_ms = request.timeout_ms() == 0 ? kDigestTimeoutDefaultMs : request.timeout_ms();
    TOWLINE_ASSIGN_OR_RETURN(snapshot, live->applier().SnapshotAt(request.at_lsn(), timeout_ms * 1000));
  }
  TOWLINE_ASSIGN_OR_RETURN(const StateDigest digest, snapshot->Digest());
  FillPosition(node_.View().cluster_id, snapshot->position(), response->mutable_position());
  response->set_digest(digest.sum.Hex());
  response->set_keys(digest.keys);
  return absl::OkStatus();
}

}  // namespace towline
