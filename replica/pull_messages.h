// Positions and histories in the messages of the pull protocol, and the start message of a replica.

#ifndef TOWLINE_REPLICA_PULL_MESSAGES_H_
#define TOWLINE_REPLICA_PULL_MESSAGES_H_

#include "absl/status/statusor.h"
#include "absl/strings/cord.h"
#include "google/protobuf/repeated_field.h"

#include "common/control.h"
#include "common/types.h"
#include "replica/generation.h"
#include "replica/replica_controller.h"
#include "slots/slot_copies.h"
#include "towline/v1/replication_service.pb.h"

namespace towline {

// INVALID_ARGUMENT, reason malformed, unless terms and LSNs rise and all values fit.
absl::StatusOr<History> HistoryFromProto(const google::protobuf::RepeatedPtrField<v1::HistoryEntry>& entries);

// INVALID_ARGUMENT, reason malformed, unless term and id are set exactly when the LSN is.
absl::StatusOr<Position> PositionFromProto(const v1::Position& position);

void PositionToProto(const ClusterId& cluster_id, const Position& position, v1::Position* out);

// INVALID_ARGUMENT, reason malformed, unless names are names and rise, kinds are known, generations are set, and there
// are no more slots than a table can hold. The term is left 0.
absl::StatusOr<slots::SlotCopies> SlotCopiesFromProto(const v1::SlotCopies& copies);

// Takes the data out of a piece of a file that came as one message (SnapshotStream::Read); any other leaves none.
void TakeFileData(v1::FetchSnapshotResponse* message, absl::Cord* data);

// What this node asks its upstream for. `live` may be null (nothing held yet).
v1::PullStart MakePullStart(const Control& control, Generation* live, const ReplicaOptions& options);

}  // namespace towline

#endif  // TOWLINE_REPLICA_PULL_MESSAGES_H_
