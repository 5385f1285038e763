// What the log's own control records say: terms and members.
//
// The log is the truth of history: what is saved elsewhere may lag behind it by the records of one crash.

#ifndef TOWLINE_REPLICA_LOG_HISTORY_H_
#define TOWLINE_REPLICA_LOG_HISTORY_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "common/types.h"
#include "wal/frame.h"

namespace towline {

// What a TERM_START record says.
struct TermStartRecord {
  HistoryEntry entry;
  ClusterId cluster_id;
  std::string node_id;
};

// Decodes the payload of the TERM_START record at `lsn`. DATA_LOSS, reason bad_term_start, unless term and id are set.
absl::StatusOr<TermStartRecord> DecodeTermStart(Lsn lsn, absl::string_view payload);

// Decodes the payload of a Members record. DATA_LOSS, reason bad_members, unless control could hold it: the names are
// valid and rise strictly, no incarnation is 0, no address is longer than 1024 bytes.
absl::StatusOr<MemberList> DecodeMembers(absl::string_view payload);

// Adds an entry that was found in the log. Unless it is there already, it replaces what `history` says from its LSN or
// its term on.
void MergeEntry(const HistoryEntry& entry, History* history);

// `history`, as control saved it, with the TERM_STARTs found in the log (RecoveryReport::term_starts, in LSN order).
absl::StatusOr<History> HistoryWith(History history, const std::vector<std::pair<Lsn, std::string>>& term_starts);

// The position behind the record at which `end` stands; {} at LSN 0. DATA_LOSS, reason unknown_term, if `history` does
// not hold that record's term there.
absl::StatusOr<Position> PositionAt(const History& history, const wal::LogEnd& end);

}  // namespace towline

#endif  // TOWLINE_REPLICA_LOG_HISTORY_H_
