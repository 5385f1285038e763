// Unary calls whose work may touch the disk run on a pool.

#ifndef TOWLINE_SERVER_RUN_ON_POOL_H_
#define TOWLINE_SERVER_RUN_ON_POOL_H_

#include <grpcpp/grpcpp.h>

#include <functional>

#include "absl/status/status.h"
#include "common/work_pool.h"

namespace towline {

// Runs `work` on `pool` and finishes the call with its status; RESOURCE_EXHAUSTED, reason busy, if the pool is full.
grpc::ServerUnaryReactor* RunOnPool(WorkPool& pool, grpc::CallbackServerContext* context,
                                    std::function<absl::Status()> work);

}  // namespace towline

#endif  // TOWLINE_SERVER_RUN_ON_POOL_H_
