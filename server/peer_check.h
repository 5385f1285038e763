// Before a primary opens writes: has any member more than we have?
//
// A primary that was put back to an older copy of its data directory, or that slept through a promotion, must not hand
// out LSNs that others hold already. So it asks each member for its position, and opens when all have answered or the
// time is over; who was not heard is told to the log.

#ifndef TOWLINE_SERVER_PEER_CHECK_H_
#define TOWLINE_SERVER_PEER_CHECK_H_

#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "common/clock.h"
#include "common/logger.h"
#include "common/mutex.h"
#include "common/types.h"
#include "primary/node_view.h"

namespace towline {
namespace v1 {
class PullStart;
}

enum class PeerStanding {
  kNotAhead,    // it holds nothing that we lack
  kAhead,       // it holds records of our last term behind our end: we have lost them
  kHigherTerm,  // it has seen, or promised, a term above ours
  kOther        // another cluster, or no answer that makes sense
};

// Compares what `peer` says of itself with a primary whose log ends durably at `durable_lsn`. A pure function.
PeerStanding ComparePeer(const NodeView& node, Lsn durable_lsn, const v1::PullStart& peer);

// Asks the node at HOST:PORT for its position (ReplicationService.DescribeStart); waits at most `timeout_micros`.
using AskPeer = std::function<absl::StatusOr<v1::PullStart>(const std::string& endpoint, int64_t timeout_micros)>;

// Threads: Step from one thread, Heard from any.
class PeerCheck {
 public:
  struct Verdict {
    bool open = false;    // nobody who was heard is ahead
    std::string reason;   // replica_ahead or stale_primary, unless open
    std::string message;  // with the compared numbers
  };

  // `members`: all but the node itself; those without an address are only heard when they connect.
  PeerCheck(const NodeView& node, Lsn durable_lsn, std::vector<MemberInfo> members, int64_t wait_micros, AskPeer ask,
            Clock& clock, Logger& logger);

  // Asks one member that was not heard yet. True when the verdict is there.
  bool Step(Verdict* verdict);

  // Until then nobody needs to be asked; 0 = now.
  int64_t pause_micros() const;

  // The member has connected by itself and holds nothing that we lack.
  void Heard(const std::string& node_id) TOWLINE_EXCLUDES(mutex_);

 private:
  bool WasHeard(const std::string& node_id) const TOWLINE_EXCLUDES(mutex_);
  void TellOfSilent() const;

  const NodeView node_;
  const Lsn durable_lsn_;
  const std::vector<MemberInfo> members_;
  const AskPeer ask_;
  Clock& clock_;
  Logger& logger_;
  const int64_t deadline_micros_;
  size_t next_ = 0;  // member to ask

  mutable Mutex mutex_;
  std::set<std::string> heard_ TOWLINE_GUARDED_BY(mutex_);
};

}  // namespace towline

#endif  // TOWLINE_SERVER_PEER_CHECK_H_
