// A replica's upstream over gRPC.
//
// Every stream has a completion queue of its own, driven by the thread that reads it: as a rule no other thread stands
// between the socket and the log.

#ifndef TOWLINE_SERVER_GRPC_UPSTREAM_H_
#define TOWLINE_SERVER_GRPC_UPSTREAM_H_

#include <memory>
#include <string>

#include "replica/upstream.h"

namespace towline {

// `endpoint` is HOST:PORT.
std::unique_ptr<Upstream> NewGrpcUpstream(const std::string& endpoint);

}  // namespace towline

#endif  // TOWLINE_SERVER_GRPC_UPSTREAM_H_
