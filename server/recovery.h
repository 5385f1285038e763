// The two ways out of RECOVERY_REQUIRED: fetch what was lost, or give it up.

#ifndef TOWLINE_SERVER_RECOVERY_H_
#define TOWLINE_SERVER_RECOVERY_H_

#include <functional>

#include "absl/status/status.h"

#include "replica/replica_controller.h"
#include "replica/upstream.h"

namespace towline {

// Pulls the records behind the live log's end from `upstream`, which was ahead, appends and applies them, and returns
// when the state holds all that the other one had when it was asked. Frames are checked against the chain as a replica
// checks them. FAILED_PRECONDITION, reason recovery_refused: the other one does not have them, or not on this line.
// UNAVAILABLE, reason recovery_interrupted: the stream broke, or `stopping` returned true; what came is kept.
// Other errors are fatal for the node. Threads: nobody else may append to the log meanwhile.
absl::Status PullLostRecords(ReplicaHost& host, Upstream& upstream, const ReplicaOptions& options,
                             const std::function<bool()>& stopping);

// Begins a new term behind the end of the live log: saved in both copies of control, which leaves RECOVERY_REQUIRED.
// Its TERM_START is written when the primary opens.
absl::Status BeginTermAtEnd(ReplicaHost& host);

}  // namespace towline

#endif  // TOWLINE_SERVER_RECOVERY_H_
