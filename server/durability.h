// Commit levels of writes: what a request asks for, what an answer tells, and what became of a write that failed.

#ifndef TOWLINE_SERVER_DURABILITY_H_
#define TOWLINE_SERVER_DURABILITY_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "common/types.h"
#include "primary/commit_level.h"
#include "primary/commit_tracker.h"
#include "primary/write_job.h"
#include "server/config.h"
#include "towline/v1/kv_service.pb.h"

namespace towline {

// What a write gets that does not say.
CommitLevel DefaultLevel(const NodeConfig& config);

// The level for a write; `asked` may be nullptr. INVALID_ARGUMENT, reason invalid_durability, and the errors of
// CommitTracker::Resolve.
absl::StatusOr<CommitLevel> ResolveLevel(const CommitTracker& commit, const v1::Durability* asked);

void FillAchieved(const AchievedLevel& achieved, v1::AchievedLevel* out);

// `status` with the metadata key `outcome`: not_logged, durable_here or unknown (docs/guides/commit-levels.md).
absl::Status WithOutcome(const absl::Status& status, absl::string_view outcome);

// The error of a record that the sequencer has answered, with its outcome.
absl::Status ErrorOf(const WriteRecord& record);

// The error of a write that is durable here and not, or not certainly, where it was to be: replication_timeout, or why
// this primary answers nothing any more. `position` is the record's.
absl::Status NotReached(const CommitResult& result, const AchievedLevel& achieved, const CommitLevel& level,
                        const v1::Position& position);

}  // namespace towline

#endif  // TOWLINE_SERVER_DURABILITY_H_
