#include "common/history.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace towline {
namespace {

// The last LSN of a node that holds `history` up to `end`, as far as its first `entries` entries reach.
Lsn EndOf(const History& history, size_t entries, Lsn end) {
  return entries < history.size() ? std::min(end, history[entries].start_lsn - 1) : end;
}

}  // namespace

const HistoryEntry* EntryAt(const History& history, Lsn lsn) {
  const auto above = std::upper_bound(history.begin(), history.end(), lsn,
                                      [](Lsn value, const HistoryEntry& entry) { return value < entry.start_lsn; });
  return lsn == 0 || above == history.begin() ? nullptr : &*(above - 1);
}

History CutAt(const History& history, Lsn lsn) {
  History cut;
  for (const HistoryEntry& entry : history) {
    if (entry.start_lsn <= lsn) cut.push_back(entry);
  }
  return cut;
}

Lsn LastCommonLsn(const History& a, Lsn a_end, const History& b, Lsn b_end) {
  size_t common = 0;
  while (common < a.size() && common < b.size() && a[common] == b[common]) ++common;
  if (common == 0) return 0;
  const Lsn last = std::min(EndOf(a, common, a_end), EndOf(b, common, b_end));
  return last < a.front().start_lsn ? 0 : last;
}

bool IsValidHistory(const History& history) {
  Term term = 0;
  Lsn start_lsn = 0;
  for (const HistoryEntry& entry : history) {
    if (entry.term <= term || entry.start_lsn <= start_lsn || entry.term_id == 0) return false;
    term = entry.term;
    start_lsn = entry.start_lsn;
  }
  return true;
}

std::string FormatHistory(const History& history) {
  std::string text;
  for (const HistoryEntry& entry : history) {
    absl::StrAppend(&text, text.empty() ? "" : ",", entry.term, "@", entry.start_lsn, ":",
                    absl::Hex(entry.term_id, absl::kZeroPad16));
  }
  return text;
}

}  // namespace towline
