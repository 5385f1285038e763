// Unary methods whose work may touch the disk run on a pool.

#ifndef TOWLINE_SERVER_RUN_ON_POOL_H_
#define TOWLINE_SERVER_RUN_ON_POOL_H_

#include "absl/status/status.h"

#include "common/work_pool.h"
#include "server/rpc_call.h"

namespace towline {

// RESOURCE_EXHAUSTED, reason busy.
absl::Status PoolIsFull();

// Serves a method by `work(request, response)` on `pool`; RESOURCE_EXHAUSTED, reason busy, if the pool is full.
template <typename Service, typename Base, typename Request, typename Response, typename Work>
void ServeOnPool(RpcQueue& queue, Service* service,
                 void (Base::*request)(grpc::ServerContext*, Request*, grpc::ServerAsyncResponseWriter<Response>*,
                                       grpc::CompletionQueue*, grpc::ServerCompletionQueue*, void*),
                 WorkPool& pool, Work work) {
  ServeUnary(queue, service, request, [&pool, work](UnaryCall<Request, Response>* call) {
    const bool queued = pool.Submit([call, work] { call->Finish(work(call->request(), call->response())); });
    if (!queued) call->Finish(PoolIsFull());
  });
}

}  // namespace towline

#endif  // TOWLINE_SERVER_RUN_ON_POOL_H_
