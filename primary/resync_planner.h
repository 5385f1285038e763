// Decides how a connecting owner goes on. A pure function: DESIGN's planner table as data, first matching row wins.

#ifndef TOWLINE_PRIMARY_RESYNC_PLANNER_H_
#define TOWLINE_PRIMARY_RESYNC_PLANNER_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

#include "common/types.h"
#include "primary/node_view.h"
#include "slots/slot_table.h"
#include "store/snapshot_codec.h"

namespace towline {

inline constexpr uint32_t kPullProtocolVersion = 1;

enum class Decision { kPartial, kFull, kRewind, kRefuse, kRetryAfter };

// How far an unfinished snapshot of the asking side came.
struct ResumeCursor {
  uint64_t snapshot_id = 0;
  Position position;  // of the stream
  Position read;      // newest position that was read; position.lsn or behind it
  SnapshotCursor at;
};

// The asking side, decoded from PullStart.
struct ResumeRequest {
  uint32_t protocol_version = 0;
  std::string slot;
  slots::SlotKind kind = slots::SlotKind::kReplica;
  uint64_t incarnation = 0;
  uint64_t process_instance = 0;
  std::string advertised_address;
  ClusterId cluster_id;
  History history;  // up to lsn
  Lsn lsn = 0;
  std::optional<uint64_t> chain;  // after lsn, if known
  Lsn first_retained_lsn = 0;     // of its own log; 0 = none
  Lsn oldest_rewind_lsn = 0;      // 0 = none
  std::optional<Position> exact_from;
  Term promised_term = 0;
  bool from_slot = false;           // consumer: go on behind the slot's confirmed LSN
  bool temporary = false;           // the slot is made for the session
  bool snapshot_requested = false;  // a replica that is to load a snapshot though the log would do
  std::optional<ResumeCursor> cursor;
};

// The answering side.
struct LogFacts {
  Lsn first_lsn = 0;  // first retained; durable_lsn + 1 if the log is empty
  Lsn durable_lsn = 0;
  uint64_t bytes_from_first = 0;             // bytes of the whole retained log
  std::optional<uint64_t> chain_at_request;  // our chain after request.lsn, if we hold that record
  std::optional<uint64_t> chain_at_exact_from;
  std::optional<uint64_t> chain_at_cursor;       // at the position of its stream
  std::optional<uint64_t> chain_at_cursor_read;  // at the position that was read last
  Lsn damaged_lsn = 0;                           // last record that is known to be unreadable; 0 = none
};

struct PlannerOptions {
  bool auto_create_slots = true;
  uint64_t replay_max_bytes = 64ull << 20;  // an empty replica replays at most this much log instead of a snapshot
};

struct Plan {
  Decision decision = Decision::kRefuse;
  std::string row;      // "0", "1", ... as in the table
  std::string reason;   // resumed, revived, new_replica, wal_removed, diverged, ...
  std::string message;  // the compared numbers
  std::string next_action;
  std::map<std::string, std::string> numbers;
  bool create_slot = false;
  Lsn from_lsn = 0;                // first LSN to send, if kPartial
  Lsn common_lsn = 0;              // F, if the histories differ
  uint32_t retry_after_ms = 0;     // for kRetryAfter and kRefuse
  bool step_down = false;          // row 2: a member shows a higher term
  bool recovery_required = false;  // row 7: we lost durable data
};

// `slot` is the slot of that name, if there is one.
Plan PlanResume(const ResumeRequest& request, const std::optional<slots::Slot>& slot, const NodeView& node,
                const LogFacts& log, const PlannerOptions& options);

// Whether an unfinished snapshot can go on here: its positions are on our line, and the log from the first one on is
// whole. FAILED_PRECONDITION, reason cursor_off_line or cursor_log_removed, with the numbers. Requires request.cursor.
absl::Status CheckCursor(const ResumeRequest& request, const NodeView& node, const LogFacts& log);

// "partial", "full", "rewind", "refuse", "retry_after".
absl::string_view DecisionName(Decision decision);

}  // namespace towline

#endif  // TOWLINE_PRIMARY_RESYNC_PLANNER_H_
