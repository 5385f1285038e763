// The pages of a scan, one after the other, on whichever node can serve them.

#ifndef TOWLINE_CLIENT_SCAN_PAGES_H_
#define TOWLINE_CLIENT_SCAN_PAGES_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

#include "client/cluster_client.h"

namespace towline::client {

// Pages come from one node. If it fails, an unpinned scan goes on at another one, which is not older; a pinned one
// ends. Threads: external synchronization. Must not outlive the client.
class ScanPages {
 public:
  // `range` says prefix, begin, end, limit and pinned.
  ScanPages(ClusterClient& cluster, v1::ScanRequest range, CallRoute route)
      : cluster_(cluster), range_(std::move(range)), route_(std::move(route)) {}

  // Fills in the next page, of at most `limit` entries (0 = as the range says); false at the end.
  absl::StatusOr<bool> Next(v1::ScanResponse* page, uint32_t limit = 0);

 private:
  absl::StatusOr<FromNode<v1::ScanResponse>> Ask(uint32_t limit);

  ClusterClient& cluster_;
  v1::ScanRequest range_;
  CallRoute route_;
  std::string token_;     // of the next page; empty = it is a first page
  std::string endpoint_;  // that gave the token
  bool at_end_ = false;
};

}  // namespace towline::client

#endif  // TOWLINE_CLIENT_SCAN_PAGES_H_
