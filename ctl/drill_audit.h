// What is really there at the end of a drill: keys, log, digests, quarantine, counted resyncs.

#ifndef TOWLINE_CTL_DRILL_AUDIT_H_
#define TOWLINE_CTL_DRILL_AUDIT_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "client/client.h"
#include "ctl/drill_history.h"

namespace towline::ctl {

// Fills present and wrong of the history from the keys of this drill on the node.
absl::Status ReadPresent(client::Client& client, DrillHistory* history);

// Fills `logged` from the node's log behind `behind_lsn`; leaves it absent if that is not there any more.
absl::Status ReadLogged(client::Client& client, uint64_t behind_lsn, DrillHistory* history);

// Adds what the quarantine of a data directory on this machine holds.
absl::Status ReadQuarantine(const std::string& data_dir, DrillHistory* history);

// How a node has decided so far, and since when it counts.
struct ResyncCounts {
  std::map<std::string, uint64_t> by_reason;  // "partial/resumed"; of consumers "consumer partial/resumed"
  double uptime_seconds = 0;
};
absl::StatusOr<ResyncCounts> ReadResyncs(client::Client& client);

}  // namespace towline::ctl

#endif  // TOWLINE_CTL_DRILL_AUDIT_H_
