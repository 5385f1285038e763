// A replica's upstream over gRPC.
//
// Every stream has a completion queue of its own, driven by the thread that reads it: as a rule no other thread stands
// between the socket and the log.

#ifndef TOWLINE_SERVER_GRPC_UPSTREAM_H_
#define TOWLINE_SERVER_GRPC_UPSTREAM_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

#include "replica/upstream.h"
#include "towline/v1/replication_service.pb.h"

namespace towline {

// `endpoint` is HOST:PORT.
std::unique_ptr<Upstream> NewGrpcUpstream(const std::string& endpoint);

// ReplicationService.DescribeStart of the node at `endpoint`; waits at most `timeout_micros`.
absl::StatusOr<v1::PullStart> AskForStart(const std::string& endpoint, int64_t timeout_micros);

}  // namespace towline

#endif  // TOWLINE_SERVER_GRPC_UPSTREAM_H_
