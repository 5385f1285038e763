#include "server/admin_service.h"

#include <memory>

#include "absl/strings/str_cat.h"
#include "client/rpc_status.h"
#include "common/error.h"
#include "server/position_proto.h"
#include "server/run_on_pool.h"
#include "server/status_report.h"

namespace towline {
namespace {

constexpr size_t kPingBytesMax = 1 << 20;
constexpr uint32_t kDigestTimeoutDefaultMs = 10'000;
constexpr uint32_t kDigestTimeoutMaxMs = 600'000;

}  // namespace

grpc::ServerUnaryReactor* AdminServiceImpl::GetStatus(grpc::CallbackServerContext* context,
                                                      const v1::GetStatusRequest*, v1::GetStatusResponse* response) {
  return RunOnPool(pool_, context, [this, response] {
    FillStatus(node_, response);
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* AdminServiceImpl::GetHistory(grpc::CallbackServerContext* context,
                                                       const v1::GetHistoryRequest*,
                                                       v1::GetHistoryResponse* response) {
  return RunOnPool(pool_, context, [this, response] {
    const NodeView view = node_.View();
    response->set_cluster_id(view.cluster_id);
    for (const HistoryEntry& entry : view.history) FillHistoryEntry(entry, response->add_history());
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* AdminServiceImpl::GetTopology(grpc::CallbackServerContext* context,
                                                        const v1::GetTopologyRequest*,
                                                        v1::GetTopologyResponse* response) {
  return RunOnPool(pool_, context, [this, response] {
    FillTopology(node_, response);
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* AdminServiceImpl::GetDigest(grpc::CallbackServerContext* context,
                                                      const v1::GetDigestRequest* request,
                                                      v1::GetDigestResponse* response) {
  return RunOnPool(pool_, context, [this, request, response] { return Digest(*request, response); });
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

grpc::ServerUnaryReactor* AdminServiceImpl::Ping(grpc::CallbackServerContext* context, const v1::PingRequest* request,
                                                 v1::PingResponse* response) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  if (request->payload().size() > kPingBytesMax) {
    reactor->Finish(ToGrpcStatus(
        MakeError(absl::StatusCode::kInvalidArgument, "payload_too_large",
                  absl::StrCat("the payload has ", request->payload().size(), " bytes; at most ", kPingBytesMax))));
    return reactor;
  }
  response->set_payload(request->payload());
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

}  // namespace towline
