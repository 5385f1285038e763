// Whether a drill may run on a cluster that is in use.

#ifndef TOWLINE_CTL_DRILL_GUARDS_H_
#define TOWLINE_CTL_DRILL_GUARDS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "ctl/drill_run.h"

namespace towline::ctl {

// The members of the cluster at `endpoint`, the primary first. FAILED_PRECONDITION if the drill may not run there,
// reason not_confirmed (`i_mean_it` is not the cluster's id), unhealthy_cluster, or drill_running (keys of another
// drill).
absl::StatusOr<std::vector<DrillNode>> GuardCluster(const std::string& endpoint, int64_t timeout_us,
                                                    const std::string& i_mean_it);

}  // namespace towline::ctl

#endif  // TOWLINE_CTL_DRILL_GUARDS_H_
