// PeerCalls over gRPC.

#ifndef TOWLINE_SERVER_GRPC_PEERS_H_
#define TOWLINE_SERVER_GRPC_PEERS_H_

#include <memory>

#include "server/peer_calls.h"

namespace towline {

// Each call has a connection of its own, so that a dead one of before delays nobody.
std::unique_ptr<PeerCalls> NewGrpcPeers();

}  // namespace towline

#endif  // TOWLINE_SERVER_GRPC_PEERS_H_
