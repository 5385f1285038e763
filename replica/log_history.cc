#include "replica/log_history.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/history.h"
#include "common/names.h"
#include "towline/v1/change.pb.h"

namespace towline {
namespace {

bool Parse(absl::string_view payload, v1::Change* change) {
  return change->ParseFromArray(payload.data(), static_cast<int>(payload.size()));
}

constexpr size_t kAddressSizeMax = 1024;  // as in docs/formats/control_v2.md

bool AreValidMembers(const std::vector<MemberInfo>& members) {
  for (size_t i = 0; i < members.size(); ++i) {
    if (!ValidateName("node_id", members[i].node_id).ok() || members[i].incarnation == 0) return false;
    if (members[i].address.size() > kAddressSizeMax) return false;
    if (i > 0 && members[i - 1].node_id >= members[i].node_id) return false;
  }
  return true;
}

}  // namespace

absl::StatusOr<TermStartRecord> DecodeTermStart(Lsn lsn, absl::string_view payload) {
  v1::Change change;
  const bool parsed = Parse(payload, &change) && change.has_term_start();
  const v1::TermStart& start = change.term_start();
  if (!parsed || start.term() == 0 || start.term() > std::numeric_limits<Term>::max() || start.term_id() == 0) {
    return MakeError(absl::StatusCode::kDataLoss, "bad_term_start",
                     absl::StrCat("record ", lsn, " is marked as the start of a term and does not hold one"));
  }
  return TermStartRecord{{static_cast<Term>(start.term()), lsn, start.term_id()}, start.cluster_id(), start.node_id()};
}

absl::StatusOr<MemberList> DecodeMembers(absl::string_view payload) {
  v1::Change change;
  MemberList list;
  const bool parsed = Parse(payload, &change) && change.has_members();
  for (const v1::Member& member : change.members().members()) {
    list.members.push_back({member.node_id(), member.incarnation(), member.address(), member.counting()});
  }
  list.min_replicas = change.members().min_replicas();
  if (!parsed || !AreValidMembers(list.members)) {
    return MakeError(absl::StatusCode::kDataLoss, "bad_members",
                     "a record is marked as a list of members and does not hold a valid one");
  }
  return list;
}

void MergeEntry(const HistoryEntry& entry, History* history) {
  if (std::find(history->begin(), history->end(), entry) != history->end()) return;
  const auto contradicts = [&](const HistoryEntry& other) {
    return other.start_lsn >= entry.start_lsn || other.term >= entry.term;
  };
  history->erase(std::remove_if(history->begin(), history->end(), contradicts), history->end());
  history->push_back(entry);
}

absl::StatusOr<History> HistoryWith(History history, const std::vector<std::pair<Lsn, std::string>>& term_starts) {
  for (const auto& [lsn, payload] : term_starts) {
    TOWLINE_ASSIGN_OR_RETURN(const TermStartRecord record, DecodeTermStart(lsn, payload));
    MergeEntry(record.entry, &history);
  }
  return history;
}

absl::StatusOr<Position> PositionAt(const History& history, const wal::LogEnd& end) {
  if (end.lsn == 0) return Position{};
  const HistoryEntry* entry = EntryAt(history, end.lsn);
  if (entry == nullptr || entry->term != end.term) {
    return MakeError(absl::StatusCode::kDataLoss, "unknown_term",
                     absl::StrCat("record ", end.lsn, " is of term ", end.term, ", which the history ",
                                  FormatHistory(history), " does not hold there"));
  }
  return Position{end.term, entry->term_id, end.lsn, end.chain};
}

}  // namespace towline
