// How far away a peer is.

#ifndef TOWLINE_SERVER_NEAR_PEER_H_
#define TOWLINE_SERVER_NEAR_PEER_H_

#include <cstdint>

#include "towline/v1/admin_service.grpc.pb.h"

namespace towline {

// Whether the peer answers AdminService.Ping within `near_micros`, in the best of a few calls: either end may be busy.
// Tells what lies between the programs, proxies included, which the round trip of the TCP connection does not.
// False for a peer that does not answer. Takes about 5 ms at most, or `near_micros` if that is longer.
bool IsNear(v1::AdminService::StubInterface& peer, int64_t near_micros);

}  // namespace towline

#endif  // TOWLINE_SERVER_NEAR_PEER_H_
