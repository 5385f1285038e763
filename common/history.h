// Questions to a history of terms. Pure functions.

#ifndef TOWLINE_COMMON_HISTORY_H_
#define TOWLINE_COMMON_HISTORY_H_

#include "absl/strings/string_view.h"
#include "common/types.h"

namespace towline {

// The entry whose term the record at `lsn` belongs to, or nullptr if `lsn` is 0 or lies before the first entry.
const HistoryEntry* EntryAt(const History& history, Lsn lsn);

// `history` without the entries that start above `lsn`.
History CutAt(const History& history, Lsn lsn);

// Last LSN up to which two nodes hold the same terms: node A has `a` up to `a_end`, node B has `b` up to `b_end`
// (inclusive). 0 = nothing in common. Equal terms mean equal logs, because one primary writes one term.
Lsn LastCommonLsn(const History& a, Lsn a_end, const History& b, Lsn b_end);

// Whether terms and start LSNs rise strictly, no id is 0 and the first entry starts at LSN >= 1.
bool IsValidHistory(const History& history);

// "1@1:9f..,2@500:ab.." for logs and messages.
std::string FormatHistory(const History& history);

}  // namespace towline

#endif  // TOWLINE_COMMON_HISTORY_H_
