// Between the messages of ReplicationService and the values that the serving side works with.

#ifndef TOWLINE_PRIMARY_PULL_PROTOCOL_H_
#define TOWLINE_PRIMARY_PULL_PROTOCOL_H_

#include <cstddef>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/types.h"
#include "primary/file_snapshot.h"
#include "primary/node_view.h"
#include "primary/resync_planner.h"
#include "slots/slot_copies.h"
#include "towline/v1/replication_service.pb.h"

namespace towline {

// Entries of a history that a start may hold.
inline constexpr size_t kHistoryEntriesMax = 100'000;
inline constexpr size_t kAddressSizeMax = 1024;

// Checks names, sizes and what must go together, but nothing that is the planner's to judge. INVALID_ARGUMENT, reason
// invalid_name | invalid_start. Of a start of another protocol version only that version, the name and the kind
// are taken.
absl::StatusOr<ResumeRequest> DecodeStart(const v1::PullStart& start);

// INVALID_ARGUMENT, reason invalid_start.
absl::StatusOr<FileOffer> DecodeOffer(const v1::FetchSnapshotRequest& request);

// INVALID_ARGUMENT, reason invalid_start.
absl::StatusOr<ResumeCursor> DecodeCursor(const v1::SnapshotCursor& from);

// All but session_id and slot_generation.
void EncodeStarted(const Plan& plan, const NodeView& node, const LogFacts& log, v1::PullStarted* started);

void EncodeHistory(const History& history, google::protobuf::RepeatedPtrField<v1::HistoryEntry>* out);
void EncodePosition(const ClusterId& cluster_id, const Position& position, v1::Position* out);

void EncodeSlotCopies(const slots::SlotCopies& copies, v1::SlotCopies* out);

// The reason why the server ends a session.
void EncodeError(const absl::Status& status, v1::ErrorDetail* out);

}  // namespace towline

#endif  // TOWLINE_PRIMARY_PULL_PROTOCOL_H_
