#include "server/failover_service.h"

#include "common/error.h"
#include "server/run_on_pool.h"
#include "server/standing.h"

namespace towline {

void FailoverServiceImpl::Serve(RpcQueue& queue) {
  using Service = v1::FailoverService::AsyncService;
  ServeOnPool(queue, &service_, &Service::RequestGetStanding, peers_,
              [this](const v1::GetStandingRequest&, v1::GetStandingResponse* response) {
                *response->mutable_standing() = DescribeStanding(node_);
                return absl::OkStatus();
              });
  ServeOnPool(queue, &service_, &Service::RequestFence, peers_,
              [this](const v1::FenceRequest& request, v1::FenceResponse* response) -> absl::Status {
                TOWLINE_ASSIGN_OR_RETURN(*response, node_.failover().Fence(request));
                return absl::OkStatus();
              });
  ServeOnPool(queue, &service_, &Service::RequestHandOver, operators_,
              [this](const v1::HandOverRequest& request, v1::HandOverResponse* response) -> absl::Status {
                TOWLINE_ASSIGN_OR_RETURN(*response, node_.failover().HandOver(request));
                return absl::OkStatus();
              });
  ServeOnPool(queue, &service_, &Service::RequestPromote, operators_,
              [this](const v1::PromoteRequest& request, v1::PromoteResponse* response) -> absl::Status {
                TOWLINE_ASSIGN_OR_RETURN(*response->mutable_report(), node_.failover().Promote(request));
                return absl::OkStatus();
              });
  ServeOnPool(queue, &service_, &Service::RequestSwitchover, operators_,
              [this](const v1::SwitchoverRequest& request, v1::SwitchoverResponse* response) -> absl::Status {
                TOWLINE_ASSIGN_OR_RETURN(*response, node_.failover().Switchover(request));
                return absl::OkStatus();
              });
}

}  // namespace towline
