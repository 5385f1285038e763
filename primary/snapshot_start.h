// The start of a snapshot stream: which snapshot it reads, from where, and what its slot holds meanwhile.

#ifndef TOWLINE_PRIMARY_SNAPSHOT_START_H_
#define TOWLINE_PRIMARY_SNAPSHOT_START_H_

#include <functional>
#include <memory>
#include <optional>

#include "absl/status/statusor.h"

#include "primary/file_snapshot.h"
#include "primary/replication_source.h"
#include "primary/resync_planner.h"
#include "primary/source_core.h"

namespace towline {

// Plans, takes the slot, makes it hold the log, and picks a snapshot: the one of the request's cursor, else one that is
// young enough to be shared, else a new one. It is one of files if the owner's store and this one's are of the same
// form, and the owner has no cursor of an RDB stream; a new one waits for the store to flush. `growth` is how fast the
// log grows, in bytes a second. Errors as ReplicationSource::NewSnapshotSession.
absl::StatusOr<std::unique_ptr<SnapshotSession>> StartSnapshot(SourceCore& core, const ResumeRequest& request,
                                                               FileOffer offer, double growth,
                                                               std::function<void()> wake);

// Takes over the snapshots of files that an earlier process left, so that streams go on with them. Cheap when it was
// done.
void AdoptSnapshots(SourceCore& core);

// Without a slot. Errors as ReplicationSource::NewSaveSession.
absl::StatusOr<std::unique_ptr<SnapshotSession>> StartSave(SourceCore& core, const std::optional<ResumeCursor>& cursor,
                                                           std::function<void()> wake);

}  // namespace towline

#endif  // TOWLINE_PRIMARY_SNAPSHOT_START_H_
