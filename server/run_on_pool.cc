#include "server/run_on_pool.h"

#include <utility>

#include "client/rpc_status.h"
#include "common/error.h"

namespace towline {

grpc::ServerUnaryReactor* RunOnPool(WorkPool& pool, grpc::CallbackServerContext* context,
                                    std::function<absl::Status()> work) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  const bool queued = pool.Submit([reactor, work = std::move(work)] { reactor->Finish(ToGrpcStatus(work())); });
  if (!queued) {
    reactor->Finish(ToGrpcStatus(MakeError(absl::StatusCode::kResourceExhausted, "busy",
                                           "too many calls of this kind are waiting", "retry with backoff")));
  }
  return reactor;
}

}  // namespace towline
