#include "replica/pull_messages.h"

#include <limits>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/history.h"
#include "common/names.h"
#include "slots/slot_format.h"

namespace towline {
namespace {

constexpr uint32_t kProtocolVersion = 1;

absl::Status Malformed(absl::string_view what) {
  return MakeError(absl::StatusCode::kInvalidArgument, "malformed", what);
}

bool IsTerm(uint64_t term) { return term != 0 && term <= std::numeric_limits<Term>::max(); }

}  // namespace

absl::StatusOr<History> HistoryFromProto(const google::protobuf::RepeatedPtrField<v1::HistoryEntry>& entries) {
  History history;
  for (const v1::HistoryEntry& entry : entries) {
    if (!IsTerm(entry.term())) return Malformed(absl::StrCat("the upstream's history holds term ", entry.term()));
    history.push_back({static_cast<Term>(entry.term()), entry.start_lsn(), entry.term_id()});
  }
  if (!IsValidHistory(history)) {
    return Malformed(absl::StrCat("the upstream's history ", FormatHistory(history), " does not rise"));
  }
  return history;
}

absl::StatusOr<Position> PositionFromProto(const v1::Position& position) {
  if (position.lsn() == 0 && position.term() == 0 && position.term_id() == 0 && position.chain() == 0) {
    return Position{};
  }
  if (position.lsn() == 0 || !IsTerm(position.term()) || position.term_id() == 0) {
    return Malformed(absl::StrCat("the upstream's position at LSN ", position.lsn(), " has term ", position.term(),
                                  " and term id ", absl::Hex(position.term_id())));
  }
  return Position{static_cast<Term>(position.term()), position.term_id(), position.lsn(), position.chain()};
}

void PositionToProto(const ClusterId& cluster_id, const Position& position, v1::Position* out) {
  out->set_cluster_id(cluster_id);
  out->set_term(position.term);
  out->set_term_id(position.term_id);
  out->set_lsn(position.lsn);
  out->set_chain(position.chain);
}

absl::StatusOr<slots::SlotCopies> SlotCopiesFromProto(const v1::SlotCopies& copies) {
  if (!ValidateName("origin", copies.origin()).ok()) return Malformed("the upstream's slots have no origin");
  const auto most = static_cast<int>(slots::kSlotsMax);
  if (copies.slots_size() > most || copies.dropped_size() > most) {
    return Malformed(absl::StrCat("the upstream tells of ", copies.slots_size(), " slots and ", copies.dropped_size(),
                                  " dropped ones; a table holds ", most));
  }
  slots::SlotCopies out;
  out.origin = copies.origin();
  out.complete = copies.complete();
  for (const v1::SlotCopy& from : copies.slots()) {
    if (!ValidateName("slot", from.name()).ok() || (!out.slots.empty() && out.slots.back().name >= from.name())) {
      return Malformed(absl::StrCat("the upstream tells of a slot '", Printable(from.name()), "' out of order"));
    }
    const bool replica = from.kind() == v1::SLOT_KIND_REPLICA;
    if ((!replica && from.kind() != v1::SLOT_KIND_CONSUMER) || from.generation() == 0) {
      return Malformed(absl::StrCat("the upstream tells of slot ", from.name(), " without its kind or generation"));
    }
    const slots::SlotKind kind = replica ? slots::SlotKind::kReplica : slots::SlotKind::kConsumer;
    out.slots.push_back({from.name(), kind, from.generation(), from.confirmed_lsn(), from.invalidated(),
                         from.created_time_ms(), from.last_active_time_ms()});
  }
  out.dropped.assign(copies.dropped().begin(), copies.dropped().end());
  return out;
}

void TakeFileData(v1::FetchSnapshotResponse* message, absl::Cord* data) {
  data->Clear();
  if (!message->has_file_chunk()) return;
  std::string& bytes = *message->mutable_file_chunk()->mutable_data();
  *data = absl::Cord(std::move(bytes));
  bytes.clear();
}

v1::PullStart MakePullStart(const Control& control, Generation* live, const ReplicaOptions& options) {
  v1::PullStart start;
  start.set_protocol_version(kProtocolVersion);
  start.set_slot(options.node_id);
  start.set_kind(v1::SLOT_KIND_REPLICA);
  start.set_format(v1::RECORD_FORMAT_FRAMES);
  start.set_advertised_address(options.advertised_address);
  start.set_incarnation(control.incarnation);
  start.set_process_instance(options.process_instance);
  start.set_cluster_id(control.cluster_id);
  start.set_promised_term(control.promised_term);
  start.set_credit_bytes(options.credit_bytes);
  if (live == nullptr) return start;

  const wal::LogEnd end = live->spool().end();
  if (end.lsn == 0) return start;
  start.set_lsn(end.lsn);
  start.set_chain(end.chain);
  start.set_first_retained_lsn(live->spool().stats().first_lsn);
  for (const HistoryEntry& entry : CutAt(control.history, end.lsn)) {
    v1::HistoryEntry* added = start.add_history();
    added->set_term(entry.term);
    added->set_start_lsn(entry.start_lsn);
    added->set_term_id(entry.term_id);
  }
  if (control.exact_from.lsn != 0) {
    PositionToProto(control.cluster_id, control.exact_from, start.mutable_exact_from());
  }
  return start;
}

}  // namespace towline
