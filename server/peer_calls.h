// What nodes ask one another about who is the primary. A seam: gRPC in production (grpc_peers.h).

#ifndef TOWLINE_SERVER_PEER_CALLS_H_
#define TOWLINE_SERVER_PEER_CALLS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace towline {
namespace v1 {
class FenceRequest;
class FenceResponse;
class HandOverRequest;
class HandOverResponse;
class Standing;
}  // namespace v1

// Threads: all methods from any thread. They wait for the answers, at most `timeout_micros`.
class PeerCalls {
 public:
  virtual ~PeerCalls() = default;

  // Asks all at once; the answers are in the order of `endpoints` (HOST:PORT).
  virtual std::vector<absl::StatusOr<v1::Standing>> AskStandings(const std::vector<std::string>& endpoints,
                                                                 int64_t timeout_micros) = 0;

  // As AskStandings; `requests[i]` goes to `endpoints[i]`.
  virtual std::vector<absl::StatusOr<v1::FenceResponse>> Fence(const std::vector<std::string>& endpoints,
                                                               const std::vector<v1::FenceRequest>& requests,
                                                               int64_t timeout_micros) = 0;

  virtual absl::StatusOr<v1::HandOverResponse> HandOver(const std::string& endpoint, const v1::HandOverRequest& request,
                                                        int64_t timeout_micros) = 0;
};

}  // namespace towline

#endif  // TOWLINE_SERVER_PEER_CALLS_H_
