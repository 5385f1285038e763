// Reads that must see a position: a bookmark, or what this primary has answered.

#ifndef TOWLINE_SERVER_BOOKMARK_H_
#define TOWLINE_SERVER_BOOKMARK_H_

#include <cstdint>

#include "absl/status/status.h"

#include "server/node.h"
#include "towline/v1/types.pb.h"

namespace towline {

// Returns when the live state covers the position. INVALID_ARGUMENT, reason invalid_position; UNAVAILABLE, reason
// behind or no_data; FAILED_PRECONDITION, reason cluster_mismatch, position_discarded, rebootstrapping or rewinding.
// Waits on the calling thread, as few as may wait at a time.
absl::Status AwaitPosition(Node& node, const v1::Position& position, uint32_t wait_ms);

// The same for a request with min_position and wait_ms.
template <typename Request>
absl::Status AwaitBookmark(Node& node, const Request& request) {
  if (!request.has_min_position()) return absl::OkStatus();
  return AwaitPosition(node, request.min_position(), request.wait_ms());
}

// Returns when the live state shows every write that this node, as the primary, has answered: they are answered when
// they are durable, and applied a little later. RESOURCE_EXHAUSTED, reason disk_full, if the store waits for space;
// UNAVAILABLE, reason behind, after a second. Waits on the calling thread.
absl::Status AwaitAnswered(Node& node);

}  // namespace towline

#endif  // TOWLINE_SERVER_BOOKMARK_H_
