// What both ways of snapshot load share: into a running primary, and into a new data directory.

#ifndef TOWLINE_CTL_SNAPSHOT_LOAD_H_
#define TOWLINE_CTL_SNAPSHOT_LOAD_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "ctl/app.h"
#include "ctl/snapshot_file.h"
#include "store/rdb_check.h"
#include "store/rdb_load_plan.h"

namespace towline::ctl {

struct LoadOptions {
  std::string path;
  bool skip_other_types = false;
  bool has_db = false;
  uint64_t db = 0;
  std::string data_dir;       // empty = into the node at --endpoint
  std::string node_id;        // of the new data directory
  uint64_t record_bytes = 0;  // limits.record_bytes of that node; 0 = the default
};

// Of a node that does not say.
inline constexpr uint64_t kDefaultRecordBytes = 8 << 20;

// Verifies the whole file and decides what of it is loaded: *plan. FAILED_PRECONDITION, reason not_loadable.
absl::StatusOr<RdbReport> PlanLoad(Context& context, const LoadOptions& options, uint64_t record_bytes_max,
                                   const SnapshotFile& file, std::optional<RdbLoadPlan>* plan);

// The keys of a file were other ones in the second pass than in the first.
absl::Status FileChanged(const SnapshotFile& file, uint64_t planned, uint64_t found);

// What was left out, as the last part of a summary: "12 expired, 3 list, 5 keys in other databases".
std::string LeftOutText(const RdbLoadPlan& plan);
// The same as members of a summary.
void AddLeftOut(const RdbLoadPlan& plan, Json* json);

// Makes `options.data_dir` the data directory of a new cluster's primary that holds what `options` say. Returns the
// exit code.
int LoadIntoDirectory(Context& context, const LoadOptions& options);

}  // namespace towline::ctl

#endif  // TOWLINE_CTL_SNAPSHOT_LOAD_H_
