// Where a replica pulls from: the configured node while that serves, and the primary once it has changed.

#ifndef TOWLINE_SERVER_FOLLOWING_UPSTREAM_H_
#define TOWLINE_SERVER_FOLLOWING_UPSTREAM_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "common/logger.h"
#include "common/mutex.h"
#include "common/types.h"
#include "replica/upstream.h"
#include "server/peer_calls.h"
#include "towline/v1/failover_service.pb.h"

namespace towline {

// What is known when an upstream is chosen.
struct UpstreamCandidate {
  std::string endpoint;
  absl::StatusOr<v1::Standing> standing;
};

struct UpstreamQuestion {
  std::string node_id;     // of the replica itself
  ClusterId cluster_id;    // empty = it belongs to none yet
  Term promised_term = 0;  // nobody who is in a lower term will do
  std::string awaited;     // node id of the candidate of a promotion that is not through; empty = none runs
  std::string configured;  // --upstream; empty = none
  std::string current;     // chosen last; empty = nothing was
  bool current_was_primary = false;
  std::string current_node;                   // node id behind it; empty = not known
  std::vector<UpstreamCandidate> candidates;  // configured, current and all members, each once
};

// The endpoint to pull from. A primary of the highest term wins over a node that was the primary, or that cannot be
// reached; a replica that was chosen as such (cascading) stays while it serves. Empty: a promotion is on its way, and
// is to be waited for. A pure function.
std::string ChooseUpstream(const UpstreamQuestion& question);

// What a replica knows of itself and of its members.
struct OwnStanding {
  std::string node_id;
  ClusterId cluster_id;
  Term promised_term = 0;
  std::string awaited;                        // see UpstreamQuestion
  std::vector<std::string> member_addresses;  // of the others
};

// Looks around before each connection.
// Threads: as Upstream; Prefer from any thread.
class FollowingUpstream final : public Upstream {
 public:
  // `follow` false: the configured one, whatever happens.
  FollowingUpstream(std::string configured, bool follow, std::function<OwnStanding()> own, PeerCalls& peers,
                    std::function<std::unique_ptr<Upstream>(const std::string& endpoint)> make, Logger& logger);

  // A node that is, or is about to be, the primary: it is asked too.
  void Prefer(const std::string& endpoint) TOWLINE_EXCLUDES(mutex_);

  std::string endpoint() const override TOWLINE_EXCLUDES(mutex_);
  std::unique_ptr<PullStream> OpenPull() override TOWLINE_EXCLUDES(mutex_);
  std::unique_ptr<SnapshotStream> OpenSnapshot(const v1::FetchSnapshotRequest& request) override
      TOWLINE_EXCLUDES(mutex_);

 private:
  absl::Status Choose() TOWLINE_EXCLUDES(mutex_);  // UNAVAILABLE, reasons promotion_awaited, no_primary
  std::shared_ptr<Upstream> Present() TOWLINE_EXCLUDES(mutex_);

  const std::string configured_;
  const bool follow_;
  const std::function<OwnStanding()> own_;
  PeerCalls& peers_;
  const std::function<std::unique_ptr<Upstream>(const std::string& endpoint)> make_;
  Logger& logger_;

  mutable Mutex mutex_;
  std::string preferred_ TOWLINE_GUARDED_BY(mutex_);
  std::string current_ TOWLINE_GUARDED_BY(mutex_);
  std::string current_node_ TOWLINE_GUARDED_BY(mutex_);
  bool current_was_primary_ TOWLINE_GUARDED_BY(mutex_) = false;
  std::shared_ptr<Upstream> upstream_ TOWLINE_GUARDED_BY(mutex_);  // to current_
};

}  // namespace towline

#endif  // TOWLINE_SERVER_FOLLOWING_UPSTREAM_H_
