#include "primary/write_rules.h"

#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/names.h"

namespace towline {
namespace {

absl::Status ConditionFailed(const KeyCondition& condition, const Overlay::KeyState& state) {
  const std::string expected = condition.exists ? (*condition.exists ? "to exist" : "not to exist")
                                                : absl::StrCat("last modified at LSN ", condition.modified_lsn);
  const std::string found =
      state.exists ? absl::StrCat("exists, last modified at LSN ", state.modified_lsn) : "does not exist";
  ErrorInfo info;
  info.reason = "condition_failed";
  info.message = absl::StrCat("key \"", Printable(condition.key), "\" was expected ", expected, " but ", found);
  info.next_action = "read the key again and decide anew";
  info.metadata["exists"] = state.exists ? "true" : "false";
  info.metadata["modified_lsn"] = absl::StrCat(state.exists ? state.modified_lsn : 0);
  return MakeError(absl::StatusCode::kFailedPrecondition, std::move(info));
}

}  // namespace

WriteOutcome WriteRules::Admit(const WriteRecord& record, uint64_t now_ms) {
  WriteOutcome outcome;
  MutexLock lock(&mutex_);
  if (record.request) outcome.status = CheckRequest(*record.request, &outcome);
  if (!outcome.status.ok() || outcome.duplicate) return outcome;
  if (!record.conditions.empty()) outcome.status = CheckConditions(record, now_ms);
  if (outcome.status.ok() && !record.expired_key.empty()) outcome.status = CheckExpiry(record.expired_key, now_ms);
  return outcome;
}

void WriteRules::Assigned(WriteRecord* record) {
  MutexLock lock(&mutex_);
  overlay_.Add(record->lsn, std::move(record->payload));
  if (record->request) requests_.Add(record->request->client_id, record->request->sequence, record->lsn);
}

void WriteRules::Applied(Lsn applied) {
  MutexLock lock(&mutex_);
  overlay_.Retire(applied);
  applied_lsn_ = applied;
}

void WriteRules::Discard(Lsn last) {
  MutexLock lock(&mutex_);
  overlay_.Discard(last);
}

// A client that is not known here has nothing in flight, so the state tells all.
absl::Status WriteRules::LearnClient(const RequestKey& request) {
  if (requests_.Knows(request.client_id)) return absl::OkStatus();
  // What lies below the sequence is not looked at.
  TOWLINE_ASSIGN_OR_RETURN(const std::optional<uint64_t> highest,
                           state_.HighestRequest(request.client_id, request.sequence - 1));
  requests_.Learn(request.client_id, highest.value_or(RequestCache::kNothing), applied_lsn_);
  return absl::OkStatus();
}

absl::Status WriteRules::CheckRequest(const RequestKey& request, WriteOutcome* outcome) {
  TOWLINE_RETURN_IF_ERROR(LearnClient(request));
  if (requests_.IsNew(request.client_id, request.sequence)) return absl::OkStatus();
  if (const Lsn lsn = overlay_.FindRequest(request.client_id, request.sequence); lsn != 0) {
    outcome->duplicate = true;
    outcome->position.lsn = lsn;
    return absl::OkStatus();
  }
  TOWLINE_ASSIGN_OR_RETURN(const RequestLookup lookup, state_.LookupRequest(request.client_id, request.sequence));
  switch (lookup.outcome) {
    case RequestLookup::Outcome::kNew:
      return absl::OkStatus();
    case RequestLookup::Outcome::kSeen:
      outcome->duplicate = true;
      outcome->position.lsn = lookup.lsn;
      return absl::OkStatus();
    case RequestLookup::Outcome::kTooOld:
      break;
  }
  return MakeError(absl::StatusCode::kFailedPrecondition, "request_too_old",
                   absl::StrCat("request ", request.client_id, ":", request.sequence, " is older than the window of ",
                                kRequestWindow, " records; whether it was written is not known any more"),
                   "read the keys to find out, then write with a new sequence");
}

absl::StatusOr<Overlay::KeyState> WriteRules::LookUp(absl::string_view key) {
  if (const auto found = overlay_.Find(key)) return *found;
  // now 0: the caller judges the expiry.
  TOWLINE_ASSIGN_OR_RETURN(const auto entry, state_.Get(key, 0));
  if (!entry) return Overlay::KeyState{};
  return Overlay::KeyState{true, entry->expire_at_ms, entry->modified_lsn};
}

absl::Status WriteRules::CheckConditions(const WriteRecord& record, uint64_t now_ms) {
  for (const KeyCondition& condition : record.conditions) {
    TOWLINE_ASSIGN_OR_RETURN(Overlay::KeyState state, LookUp(condition.key));
    if (state.exists && IsExpired(state.expire_at_ms, now_ms)) state = {};
    const bool holds = condition.exists ? state.exists == *condition.exists
                                        : state.exists && state.modified_lsn == condition.modified_lsn;
    if (!holds) return ConditionFailed(condition, state);
  }
  return absl::OkStatus();
}

absl::Status WriteRules::CheckExpiry(absl::string_view key, uint64_t now_ms) {
  TOWLINE_ASSIGN_OR_RETURN(const Overlay::KeyState state, LookUp(key));
  if (state.exists && IsExpired(state.expire_at_ms, now_ms)) return absl::OkStatus();
  return MakeError(absl::StatusCode::kFailedPrecondition, "not_expired", "the key was written or deleted meanwhile");
}

}  // namespace towline
