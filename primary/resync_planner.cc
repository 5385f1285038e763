#include "primary/resync_planner.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/history.h"
#include "primary/upstream_path.h"

namespace towline {
namespace {

constexpr uint32_t kRetryAfterMs = 1000;
constexpr uint32_t kRefuseRetryMs = 5000;

// Everything that the rows compare.
struct Facts {
  const ResumeRequest& request;
  const std::optional<slots::Slot>& slot;
  const NodeView& node;
  const LogFacts& log;
  const PlannerOptions& options;
  Lsn lsn = 0;        // the position that was asked for
  Lsn common = 0;     // last LSN up to which both logs are the same
  Term term = 0;      // last log term of the asking side
  Term our_term = 0;  // our last log term
};

bool IsConsumer(const Facts& f) { return f.request.kind == slots::SlotKind::kConsumer; }

Term LastTerm(const History& history) { return history.empty() ? 0 : history.back().term; }

Facts Compare(const ResumeRequest& request, const std::optional<slots::Slot>& slot, const NodeView& node,
              const LogFacts& log, const PlannerOptions& options) {
  Facts f{request, slot, node, log, options};
  f.lsn = request.lsn;
  if (request.from_slot) f.lsn = slot.has_value() ? slot->confirmed_lsn : log.durable_lsn;
  // A consumer that shows no history is taken by its word to be on our line.
  f.common = request.history.empty() && IsConsumer(f)
                 ? std::min(f.lsn, log.durable_lsn)
                 : LastCommonLsn(request.history, f.lsn, node.history, log.durable_lsn);
  f.term = LastTerm(request.history);
  f.our_term = LastTerm(node.history);
  return f;
}

// --- Results ---

Plan Make(const Facts& f, Decision decision, absl::string_view reason, std::string message,
          absl::string_view next_action) {
  Plan plan;
  plan.decision = decision;
  plan.reason = std::string(reason);
  plan.message = std::move(message);
  plan.next_action = std::string(next_action);
  if (decision == Decision::kRetryAfter) plan.retry_after_ms = kRetryAfterMs;
  if (decision == Decision::kRefuse) plan.retry_after_ms = kRefuseRetryMs;
  const bool serves = decision != Decision::kRefuse && decision != Decision::kRetryAfter;
  plan.create_slot = serves && !f.slot.has_value();
  return plan;
}

Plan Refuse(const Facts& f, absl::string_view reason, std::string message, absl::string_view next_action) {
  return Make(f, Decision::kRefuse, reason, std::move(message), next_action);
}

Plan RetryAfter(const Facts& f, absl::string_view reason, std::string message) {
  return Make(f, Decision::kRetryAfter, reason, std::move(message), "ask again later");
}

Plan UpstreamBehind(const Facts& f) {
  return RetryAfter(f, "upstream_behind",
                    absl::StrCat("the owner is at LSN ", f.lsn, " of term ", std::max(f.term, f.request.promised_term),
                                 ", this replica at LSN ", f.log.durable_lsn, " of term ", f.our_term));
}

// A decision for replicas that a consumer has to take itself.
Plan FullOrRefuse(const Facts& f, absl::string_view reason, std::string message) {
  if (!IsConsumer(f)) return Make(f, Decision::kFull, reason, std::move(message), "fetch a snapshot");
  return Refuse(f, reason, std::move(message),
                absl::StrCat("start again from an LSN between ", std::max(f.log.first_lsn - 1, f.log.damaged_lsn),
                             " and ", f.log.durable_lsn, ", or from a snapshot"));
}

Plan Partial(const Facts& f, absl::string_view reason, std::string message) {
  Plan plan = Make(f, Decision::kPartial, reason, std::move(message), "");
  plan.from_lsn = f.lsn + 1;
  return plan;
}

// --- Predicates and results that are longer than a line ---

// Whether every record from `lsn` on is retained and not known to be damaged.
bool IsReadableFrom(const Facts& f, Lsn lsn) { return f.log.first_lsn <= lsn && f.log.damaged_lsn < lsn; }

// Why it is not.
const char* UnreadableReason(const Facts& f, Lsn lsn) { return lsn < f.log.first_lsn ? "wal_removed" : "wal_damaged"; }

std::string Unreadable(const Facts& f, Lsn lsn) {
  std::string text = absl::StrCat("the owner needs LSN ", lsn, ", the log begins at LSN ", f.log.first_lsn);
  if (f.log.damaged_lsn >= lsn) absl::StrAppend(&text, " and LSN ", f.log.damaged_lsn, " cannot be read");
  return text;
}

bool IsSelf(const Facts& f) {
  if (IsConsumer(f)) return false;
  return f.request.slot == f.node.node_id || f.request.incarnation == f.node.incarnation;
}

bool ClaimsPosition(const ResumeRequest& request) {
  return request.lsn != 0 || request.promised_term != 0 || !request.history.empty();
}

bool IsMalformed(const Facts& f) {
  const ResumeRequest& request = f.request;
  if (request.cluster_id.empty() && ClaimsPosition(request)) return true;
  if (request.from_slot && (!IsConsumer(f) || request.lsn != 0)) return true;
  if (!IsValidHistory(request.history)) return true;
  if (!request.from_slot && !request.history.empty() && request.history.back().start_lsn > request.lsn) return true;
  return !IsConsumer(f) && request.lsn != 0 && EntryAt(request.history, request.lsn) == nullptr;
}

bool IsMember(const Facts& f) {
  return std::any_of(f.node.members.members.begin(), f.node.members.members.end(), [&f](const MemberInfo& member) {
    return member.node_id == f.request.slot && member.incarnation == f.request.incarnation;
  });
}

Plan HigherTerm(const Facts& f) {
  if (!f.node.is_primary) return UpstreamBehind(f);
  const Term shown = std::max(f.term, f.request.promised_term);
  Plan plan = Refuse(f, "stale_primary",
                     absl::StrCat(f.request.slot, " has seen term ", shown, ", this primary is in term ", f.node.term),
                     "find the primary of the higher term");
  plan.step_down = !IsConsumer(f) && IsMember(f);
  return plan;
}

Plan HigherLogTerm(const Facts& f) {
  if (!f.node.is_primary) return UpstreamBehind(f);
  return Refuse(f, "stale_upstream",
                absl::StrCat("the owner's log ends in term ", f.term, ", this log ends in term ", f.our_term),
                "find the primary of the higher term");
}

// The entry of our line that `position` lies on, if it is the same term there.
bool IsOnLine(const NodeView& node, const Position& position) {
  const HistoryEntry* entry = EntryAt(node.history, position.lsn);
  return entry != nullptr && entry->term == position.term && entry->term_id == position.term_id;
}

bool IsOnOurLine(const Facts& f, const Position& position) { return IsOnLine(f.node, position); }

bool IsExactOnlyAheadOfUs(const Facts& f) {
  const std::optional<Position>& from = f.request.exact_from;
  return from.has_value() && from->lsn > f.log.durable_lsn && IsOnOurLine(f, *from);
}

bool IsInexact(const Facts& f) {
  const std::optional<Position>& from = f.request.exact_from;
  if (!from.has_value() || from->lsn == 0) return false;
  if (!IsOnOurLine(f, *from)) return true;
  return f.log.chain_at_exact_from.has_value() && *f.log.chain_at_exact_from != from->chain;
}

Plan Inexact(const Facts& f) {
  const Position& from = *f.request.exact_from;
  return FullOrRefuse(f, "inexact",
                      absl::StrCat("the owner's state is exact from LSN ", from.lsn, " of term ", from.term,
                                   " on, which is not on this line (", FormatHistory(f.node.history), ")"));
}

Plan Ahead(const Facts& f) {
  if (!f.node.is_primary) return UpstreamBehind(f);
  std::string numbers =
      absl::StrCat("the owner holds LSN ", f.lsn, ", this primary only LSN ", f.log.durable_lsn, " of the same term");
  if (IsConsumer(f)) return Refuse(f, "ahead", std::move(numbers), "start again from an LSN of this log");
  Plan plan = Refuse(f, "replica_ahead", std::move(numbers), "recover the primary: it has lost durable records");
  plan.recovery_required = true;
  return plan;
}

Plan FromNothing(const Facts& f) {
  const bool whole = IsReadableFrom(f, 1);
  if (IsConsumer(f)) {
    if (!whole) return FullOrRefuse(f, UnreadableReason(f, 1), Unreadable(f, 1));
    return Partial(f, "new_consumer", absl::StrCat("all ", f.log.durable_lsn, " records are retained"));
  }
  if (!whole) return FullOrRefuse(f, "new_replica", absl::StrCat("the owner is empty: ", Unreadable(f, 1)));
  const std::string numbers = absl::StrCat("the owner is empty, the log has ", f.log.bytes_from_first,
                                           " bytes, and at most ", f.options.replay_max_bytes, " are replayed");
  if (f.log.bytes_from_first > f.options.replay_max_bytes) return FullOrRefuse(f, "new_replica", numbers);
  return Partial(f, "new_replica", numbers);
}

bool CanRewind(const Facts& f) {
  const ResumeRequest& request = f.request;
  const Lsn next = f.common + 1;
  return !IsConsumer(f) && IsReadableFrom(f, next) && request.first_retained_lsn != 0 &&
         request.first_retained_lsn <= next && request.oldest_rewind_lsn != 0 && request.oldest_rewind_lsn <= f.common;
}

Plan Diverged(const Facts& f) {
  std::string numbers =
      absl::StrCat("the owner is at LSN ", f.lsn, " of term ", f.term, ", the logs are the same up to LSN ", f.common,
                   ", this log holds LSN ", f.log.first_lsn, " to ", f.log.durable_lsn);
  if (!CanRewind(f)) return FullOrRefuse(f, "diverged", std::move(numbers));
  return Make(f, Decision::kRewind, "diverged", std::move(numbers), "go back to the common point");
}

bool ChainDiffers(const Facts& f) {
  return f.request.chain.has_value() && f.log.chain_at_request.has_value() &&
         *f.request.chain != *f.log.chain_at_request;
}

Plan Removed(const Facts& f) {
  const Lsn next = f.lsn + 1;
  if (f.slot.has_value() && f.slot->invalidation.has_value()) {
    return FullOrRefuse(f, f.slot->invalidation->cause, Unreadable(f, next));
  }
  return FullOrRefuse(f, UnreadableReason(f, next), Unreadable(f, next));
}

Plan Resume(const Facts& f) {
  const bool lost = f.slot.has_value() && f.slot->state == slots::SlotState::kInvalidated;
  return Partial(f, lost ? "revived" : "resumed",
                 absl::StrCat("the owner needs LSN ", f.lsn + 1, ", the log holds LSN ", f.log.first_lsn, " to ",
                              f.log.durable_lsn));
}

Plan OtherVersion(const Facts& f) {
  return Refuse(f, "protocol_version",
                absl::StrCat("the owner speaks version ", f.request.protocol_version, ", this node version ",
                             kPullProtocolVersion),
                "run the same version on both ends");
}

Plan Self(const Facts& f) {
  return Refuse(f, "self", absl::StrCat("the owner is ", f.node.node_id, " itself"),
                "give every node its own node id and another node as upstream");
}

bool HasBadPath(const Facts& f) { return FindPathProblem(f.node, f.request).has_value(); }

Plan BadPath(const Facts& f) {
  const PathProblem problem = *FindPathProblem(f.node, f.request);
  return Refuse(f, problem.reason, problem.message, problem.next_action);
}

Plan Starting(const Facts& f) { return RetryAfter(f, "starting", absl::StrCat(f.node.node_id, " is not serving yet")); }

Plan NotExact(const Facts& f) {
  return RetryAfter(f, "not_exact", absl::StrCat("the state of ", f.node.node_id, " is not exact yet"));
}

bool IsOfOtherCluster(const Facts& f) {
  return !f.request.cluster_id.empty() && f.request.cluster_id != f.node.cluster_id;
}

Plan OtherCluster(const Facts& f) {
  return Refuse(
      f, "cluster_mismatch",
      absl::StrCat("the owner belongs to cluster ", f.request.cluster_id, ", this node to ", f.node.cluster_id),
      "connect to a node of the same cluster, or start with an empty data directory");
}

Plan Malformed(const Facts& f) {
  return Refuse(f, "malformed",
                absl::StrCat("cluster '", f.request.cluster_id, "', a history of ", f.request.history.size(),
                             " terms that ends in term ", f.term, ", LSN ", f.request.lsn, " and promised term ",
                             f.request.promised_term, " do not go together"),
                "send the cluster_id and the history that the position belongs to");
}

Plan SlotNotFound(const Facts& f) {
  return Refuse(f, "slot_not_found", absl::StrCat("there is no slot ", f.request.slot), "create the slot first");
}

bool IsMissingSlot(const Facts& f) {
  return !f.slot.has_value() && !f.request.temporary && !f.options.auto_create_slots;
}

bool IsOtherwiseTemporary(const Facts& f) { return f.slot.has_value() && f.slot->temporary != f.request.temporary; }

Plan SlotOtherwiseTemporary(const Facts& f) {
  if (f.request.temporary) {
    return Refuse(f, "slot_exists", absl::StrCat("slot ", f.request.slot, " exists, and is not temporary"),
                  "use another slot name");
  }
  return Refuse(f, "slot_in_use", absl::StrCat("slot ", f.request.slot, " is temporary and has a session"),
                "wait until that session ends, or use another slot");
}

Plan SlotOfOtherKind(const Facts& f) {
  return Refuse(f, "slot_kind", absl::StrCat("slot ", f.request.slot, " is of the other kind"),
                "use another slot name");
}

// Of a replica whose log would do: an operator asked for it.
bool IsRequested(const Facts& f) { return f.request.snapshot_requested && !IsConsumer(f); }

Plan Requested(const Facts& f) {
  return FullOrRefuse(f, "requested", absl::StrCat("the owner asks for a snapshot; it is at LSN ", f.lsn));
}

Plan DivergedSameTerm(const Facts& f) {
  return Refuse(
      f, "diverged_same_term",
      absl::StrCat("LSN ", f.lsn, " of term ", f.term, " has chain ", absl::Hex(*f.request.chain, absl::kZeroPad16),
                   " there and ", absl::Hex(*f.log.chain_at_request, absl::kZeroPad16), " here"),
      "one of the two logs is damaged: an operator decides which node to empty");
}

// --- The table ---

struct Row {
  const char* name;  // as in docs/guides/resync.md
  bool (*matches)(const Facts&);
  Plan (*result)(const Facts&);
};

// First match wins.
constexpr Row kRows[] = {
    {"0", [](const Facts& f) { return f.request.protocol_version != kPullProtocolVersion; }, OtherVersion},
    {"0", IsSelf, Self},
    {"0", HasBadPath, BadPath},
    {"0", [](const Facts& f) { return f.node.starting; }, Starting},
    {"0", [](const Facts& f) { return !f.node.exact; }, NotExact},
    {"1", IsOfOtherCluster, OtherCluster},
    {"1", IsMalformed, Malformed},
    {"2", [](const Facts& f) { return std::max(f.term, f.request.promised_term) > f.node.term; }, HigherTerm},
    {"3", [](const Facts& f) { return f.term > f.our_term; }, HigherLogTerm},
    {"4", IsMissingSlot, SlotNotFound},
    {"4", IsOtherwiseTemporary, SlotOtherwiseTemporary},
    {"4", [](const Facts& f) { return f.slot.has_value() && f.slot->kind != f.request.kind; }, SlotOfOtherKind},
    {"5", IsExactOnlyAheadOfUs, Ahead},
    {"5a", IsInexact, Inexact},
    {"6", [](const Facts& f) { return f.lsn == 0; }, FromNothing},
    {"7", [](const Facts& f) { return f.lsn > f.log.durable_lsn && f.common == f.log.durable_lsn; }, Ahead},
    {"7a", IsRequested, Requested},
    {"8", [](const Facts& f) { return f.common < f.lsn; }, Diverged},
    {"9", ChainDiffers, DivergedSameTerm},
    {"10", [](const Facts& f) { return !IsReadableFrom(f, f.lsn + 1); }, Removed},
    {"11", [](const Facts&) { return true; }, Resume},
};

std::map<std::string, std::string> Numbers(const Facts& f) {
  std::map<std::string, std::string> numbers;
  const auto put = [&numbers](const char* key, uint64_t value) { numbers[key] = absl::StrCat(value); };
  put("lsn", f.lsn);
  put("last_term", f.term);
  put("promised_term", f.request.promised_term);
  put("our_term", f.node.term);
  put("our_last_term", f.our_term);
  put("first_lsn", f.log.first_lsn);
  put("durable_lsn", f.log.durable_lsn);
  put("common_lsn", f.common);
  if (f.log.damaged_lsn != 0) put("damaged_lsn", f.log.damaged_lsn);
  put("bytes_from_first", f.log.bytes_from_first);
  if (f.slot.has_value()) put("slot_confirmed_lsn", f.slot->confirmed_lsn);
  if (f.request.exact_from.has_value()) put("exact_from_lsn", f.request.exact_from->lsn);
  return numbers;
}

}  // namespace

Plan PlanResume(const ResumeRequest& request, const std::optional<slots::Slot>& slot, const NodeView& node,
                const LogFacts& log, const PlannerOptions& options) {
  const Facts facts = Compare(request, slot, node, log, options);
  const Row* row = std::begin(kRows);
  while (!row->matches(facts)) ++row;  // the last one matches always
  Plan plan = row->result(facts);
  plan.row = row->name;
  plan.numbers = Numbers(facts);
  if (facts.common < facts.lsn) plan.common_lsn = facts.common;
  return plan;
}

absl::Status CheckCursor(const ResumeRequest& request, const NodeView& node, const LogFacts& log) {
  const ResumeCursor& cursor = *request.cursor;
  const auto is_ours = [&](const Position& position, const std::optional<uint64_t>& chain) {
    if (position.lsn == 0) return position == Position{};
    if (position.lsn > log.durable_lsn || !IsOnLine(node, position)) return false;
    return !chain.has_value() || *chain == position.chain;
  };
  if (!is_ours(cursor.position, log.chain_at_cursor) || !is_ours(cursor.read, log.chain_at_cursor_read)) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "cursor_off_line",
                     absl::StrCat("the unfinished snapshot is of LSN ", cursor.position.lsn, " to ", cursor.read.lsn,
                                  " of term ", cursor.read.term, ", which is not on this line (",
                                  FormatHistory(node.history), ", durable up to LSN ", log.durable_lsn, ")"));
  }
  const Lsn next = cursor.position.lsn + 1;
  if (log.first_lsn <= next && log.damaged_lsn < next) return absl::OkStatus();
  return MakeError(absl::StatusCode::kFailedPrecondition, "cursor_log_removed",
                   absl::StrCat("the unfinished snapshot needs the log from LSN ", next, " on, which begins at LSN ",
                                std::max(log.first_lsn, log.damaged_lsn + 1)));
}

absl::string_view DecisionName(Decision decision) {
  switch (decision) {
    case Decision::kPartial:
      return "partial";
    case Decision::kFull:
      return "full";
    case Decision::kRewind:
      return "rewind";
    case Decision::kRefuse:
      return "refuse";
    case Decision::kRetryAfter:
      return "retry_after";
  }
  return "refuse";
}

}  // namespace towline
