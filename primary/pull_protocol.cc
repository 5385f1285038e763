#include "primary/pull_protocol.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/names.h"
#include "primary/upstream_path.h"

namespace towline {
namespace {

constexpr uint64_t kTermMax = std::numeric_limits<Term>::max();

absl::Status Invalid(absl::string_view what) {
  return MakeError(absl::StatusCode::kInvalidArgument, "invalid_start", what,
                   "see docs/ for what a PullStart must hold");
}

bool IsClusterId(absl::string_view id) {
  const auto is_hex = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
  return id.empty() || (id.size() == kClusterIdSize && std::all_of(id.begin(), id.end(), is_hex));
}

absl::Status CheckOwner(const v1::PullStart& start) {
  TOWLINE_RETURN_IF_ERROR(ValidateName("slot", start.slot()));
  const bool replica = start.kind() == v1::SLOT_KIND_REPLICA;
  if (!replica && start.kind() != v1::SLOT_KIND_CONSUMER) return Invalid("kind is neither REPLICA nor CONSUMER");
  const v1::RecordFormat format = replica ? v1::RECORD_FORMAT_FRAMES : v1::RECORD_FORMAT_RECORDS;
  if (start.format() != format) return Invalid("the format must be FRAMES for a replica and RECORDS for a consumer");
  if (replica && start.incarnation() == 0) return Invalid("a replica's incarnation is 0");
  if (start.process_instance() == 0) return Invalid("process_instance is 0");
  if (start.credit_bytes() == 0) return Invalid("credit_bytes is 0");
  if (start.advertised_address().size() > kAddressSizeMax) return Invalid("advertised_address is too long");
  return absl::OkStatus();
}

absl::Status DecodeHistory(const v1::PullStart& start, History* history) {
  if (static_cast<size_t>(start.history_size()) > kHistoryEntriesMax) return Invalid("the history is too long");
  history->reserve(static_cast<size_t>(start.history_size()));
  for (const v1::HistoryEntry& entry : start.history()) {
    if (entry.term() > kTermMax) return Invalid("a term is too high");
    history->push_back({static_cast<Term>(entry.term()), entry.start_lsn(), entry.term_id()});
  }
  return absl::OkStatus();
}

v1::ResumeDecision EncodeDecision(Decision decision) {
  switch (decision) {
    case Decision::kPartial:
      return v1::RESUME_DECISION_PARTIAL;
    case Decision::kFull:
      return v1::RESUME_DECISION_FULL;
    case Decision::kRewind:
      return v1::RESUME_DECISION_REWIND;
    case Decision::kRefuse:
      return v1::RESUME_DECISION_REFUSE;
    case Decision::kRetryAfter:
      return v1::RESUME_DECISION_RETRY_AFTER;
  }
  return v1::RESUME_DECISION_REFUSE;
}

}  // namespace

absl::StatusOr<ResumeCursor> DecodeCursor(const v1::SnapshotCursor& from) {
  if (from.position().term() > kTermMax || from.read_position().term() > kTermMax) {
    return Invalid("a term of the cursor is too high");
  }
  if (from.sequence() == 0 || from.last_key().empty() || from.last_key().size() > kKeySizeMax || from.keys() == 0) {
    return Invalid("the cursor is not behind a chunk with keys");
  }
  const auto decode = [](const v1::Position& position) {
    return Position{static_cast<Term>(position.term()), position.term_id(), position.lsn(), position.chain()};
  };
  ResumeCursor cursor;
  cursor.snapshot_id = from.snapshot_id();
  cursor.position = decode(from.position());
  cursor.read = from.has_read_position() ? decode(from.read_position()) : cursor.position;
  if (cursor.read.lsn < cursor.position.lsn) return Invalid("the cursor was read before its own position");
  cursor.at = {from.sequence(), from.last_key(), from.keys(), from.bytes(), from.crc64(), {}};
  if (!Sum128::Parse(from.digest(), &cursor.at.digest)) return Invalid("the cursor's digest is not 32 hex digits");
  return cursor;
}

absl::StatusOr<ResumeRequest> DecodeStart(const v1::PullStart& start) {
  ResumeRequest request;
  request.protocol_version = start.protocol_version();
  if (request.protocol_version != kPullProtocolVersion) {
    // Who it is, so that the refusal is told of and counted for that one; the rest may mean something else there.
    if (ValidateName("slot", start.slot()).ok()) request.slot = start.slot();
    if (start.kind() == v1::SLOT_KIND_CONSUMER) request.kind = slots::SlotKind::kConsumer;
    return request;
  }
  TOWLINE_RETURN_IF_ERROR(CheckOwner(start));
  if (!IsClusterId(start.cluster_id())) return Invalid("cluster_id is not 24 lower-case hex digits");
  if (start.promised_term() > kTermMax || start.exact_from().term() > kTermMax) return Invalid("a term is too high");
  if (start.lsn() == std::numeric_limits<Lsn>::max()) return Invalid("lsn is too high");
  TOWLINE_RETURN_IF_ERROR(DecodeHistory(start, &request.history));
  request.slot = start.slot();
  request.kind = start.kind() == v1::SLOT_KIND_REPLICA ? slots::SlotKind::kReplica : slots::SlotKind::kConsumer;
  request.incarnation = start.incarnation();
  request.process_instance = start.process_instance();
  request.advertised_address = start.advertised_address();
  request.cluster_id = start.cluster_id();
  request.lsn = start.lsn();
  // A replica always knows its chain, and 0 is as good as any other value.
  if (start.lsn() != 0 && (start.chain() != 0 || request.kind == slots::SlotKind::kReplica)) {
    request.chain = start.chain();
  }
  request.first_retained_lsn = start.first_retained_lsn();
  request.oldest_rewind_lsn = start.oldest_rewind_lsn();
  if (start.has_exact_from() && start.exact_from().lsn() != 0) {
    const v1::Position& from = start.exact_from();
    request.exact_from = Position{static_cast<Term>(from.term()), from.term_id(), from.lsn(), from.chain()};
  }
  request.promised_term = static_cast<Term>(start.promised_term());
  request.from_slot = start.from_slot();
  request.temporary = start.temporary();
  request.snapshot_requested = start.snapshot_requested();
  if (start.has_snapshot_cursor()) {
    TOWLINE_ASSIGN_OR_RETURN(request.cursor, DecodeCursor(start.snapshot_cursor()));
  }
  return request;
}

absl::StatusOr<FileOffer> DecodeOffer(const v1::FetchSnapshotRequest& request) {
  FileOffer offer;
  offer.form = request.file_form();
  offer.snapshot_id = request.held_snapshot_id();
  for (const v1::SnapshotFile& file : request.held()) {
    if (file.name().empty() || file.held_bytes() == 0) return Invalid("a file that is held has no name, or no bytes");
    offer.held.push_back({file.name(), file.held_bytes(), file.held_crc32c()});
  }
  return offer;
}

void EncodeStarted(const Plan& plan, const NodeView& node, const LogFacts& log, v1::PullStarted* started) {
  started->set_decision(EncodeDecision(plan.decision));
  started->set_reason(plan.reason);
  started->set_message(plan.message);
  started->set_next_action(plan.next_action);
  started->set_cluster_id(node.cluster_id);
  started->set_node_id(node.node_id);
  EncodeHistory(node.history, started->mutable_history());
  started->set_term(node.term);
  started->set_from_lsn(plan.from_lsn);
  started->set_first_retained_lsn(log.first_lsn);
  started->set_durable_lsn(log.durable_lsn);
  started->set_retry_after_ms(plan.retry_after_ms);
  started->set_common_lsn(plan.common_lsn);
  started->set_primary_address(node.primary_address);
  EncodePath(node, started->mutable_upstream_path());
}

void EncodeHistory(const History& history, google::protobuf::RepeatedPtrField<v1::HistoryEntry>* out) {
  for (const HistoryEntry& entry : history) {
    v1::HistoryEntry* encoded = out->Add();
    encoded->set_term(entry.term);
    encoded->set_start_lsn(entry.start_lsn);
    encoded->set_term_id(entry.term_id);
  }
}

void EncodePosition(const ClusterId& cluster_id, const Position& position, v1::Position* out) {
  out->set_cluster_id(cluster_id);
  out->set_term(position.term);
  out->set_term_id(position.term_id);
  out->set_lsn(position.lsn);
  out->set_chain(position.chain);
}

void EncodeSlotCopies(const slots::SlotCopies& copies, v1::SlotCopies* out) {
  out->set_origin(copies.origin);
  out->set_complete(copies.complete);
  for (const slots::SlotCopy& copy : copies.slots) {
    v1::SlotCopy* const slot = out->add_slots();
    slot->set_name(copy.name);
    slot->set_kind(copy.kind == slots::SlotKind::kReplica ? v1::SLOT_KIND_REPLICA : v1::SLOT_KIND_CONSUMER);
    slot->set_generation(copy.generation);
    slot->set_confirmed_lsn(copy.confirmed_lsn);
    slot->set_invalidated(copy.invalidated);
    slot->set_created_time_ms(copy.created_time_ms);
    slot->set_last_active_time_ms(copy.last_active_time_ms);
  }
  for (const std::string& name : copies.dropped) out->add_dropped(name);
}

void EncodeError(const absl::Status& status, v1::ErrorDetail* out) {
  const ErrorInfo info = GetErrorInfo(status);
  out->set_reason(info.reason);
  out->set_message(info.message);
  out->set_next_action(info.next_action);
  for (const auto& [key, value] : info.metadata) (*out->mutable_metadata())[key] = value;
}

}  // namespace towline
