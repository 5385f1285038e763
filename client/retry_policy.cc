#include "client/retry_policy.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

#include "common/error.h"

namespace towline::client {
namespace {

constexpr char kOutcome[] = "outcome";

// Refusals of a node that cannot serve now. Of other codes than these of FAILED_PRECONDITION the code is enough.
constexpr absl::string_view kNotHereNotNow[] = {"not_primary", "stale_primary",     "switchover", "waiting_for_members",
                                                "recovering",  "recovery_required", "stopping",   "queue_full",
                                                "starting",    "promise_lost"};

// Reads: another node may be further, or on the line that won.
constexpr absl::string_view kReadElsewhere[] = {"rebootstrapping", "rewinding", "position_discarded", "stalled",
                                                "recovery_required"};

// Refused before anything was logged.
constexpr absl::string_view kNotLogged[] = {
    "not_primary",   "stale_primary",   "switchover", "waiting_for_members", "recovering",       "recovery_required",
    "queue_full",    "disk_full",       "starting",   "condition_failed",    "too_few_replicas", "below_min_replicas",
    "key_too_large", "record_too_large"};

constexpr absl::string_view kAboutTheRecord[] = {"record_too_large",  "key_too_large",       "condition_failed",
                                                 "request_too_old",   "replication_timeout", "too_few_replicas",
                                                 "below_min_replicas"};

template <typename List>
bool Contains(const List& list, absl::string_view reason) {
  return absl::c_linear_search(list, reason);
}

}  // namespace

bool IsTransportError(const absl::Status& error) {
  const bool code = absl::IsUnavailable(error) || absl::IsDeadlineExceeded(error) || absl::IsCancelled(error) ||
                    absl::IsUnknown(error);
  return code && GetErrorInfo(error).reason == absl::AsciiStrToLower(absl::StatusCodeToString(error.code()));
}

bool IsWorthAnotherWrite(const absl::Status& error) {
  if (absl::IsUnavailable(error) || absl::IsResourceExhausted(error) || IsTransportError(error)) return true;
  return absl::IsFailedPrecondition(error) && Contains(kNotHereNotNow, GetErrorInfo(error).reason);
}

bool IsWorthAnotherRead(const absl::Status& error) {
  if (IsWorthAnotherWrite(error)) return true;
  return absl::IsFailedPrecondition(error) && Contains(kReadElsewhere, GetErrorInfo(error).reason);
}

bool IsAboutTheRecord(absl::string_view reason) {
  return Contains(kAboutTheRecord, reason) || absl::StartsWith(reason, "invalid_") ||
         absl::StartsWith(reason, "empty_");
}

absl::Status RefusalOf(const ErrorInfo& refusal) {
  const bool state = refusal.reason == "condition_failed" || refusal.reason == "request_too_old" ||
                     refusal.reason == "too_few_replicas";
  const absl::StatusCode code = refusal.reason == "replication_timeout" ? absl::StatusCode::kDeadlineExceeded
                                : state                                 ? absl::StatusCode::kFailedPrecondition
                                : IsAboutTheRecord(refusal.reason)      ? absl::StatusCode::kInvalidArgument
                                                                        : absl::StatusCode::kUnavailable;
  const absl::Status error = MakeError(code, refusal);
  return WithFate(error, FateOfAttempt(error));
}

int64_t ReadSuspensionMicros(const absl::Status& error) {
  return GetErrorInfo(error).reason == "rebootstrapping" ? 5'000'000 : 1'000'000;
}

WriteFate FateOfAttempt(const absl::Status& error) {
  const ErrorInfo info = GetErrorInfo(error);
  if (const auto outcome = info.metadata.find(kOutcome); outcome != info.metadata.end()) {
    if (outcome->second == "not_logged") return WriteFate::kNotLogged;
    if (outcome->second == "durable_here") return WriteFate::kDurableHere;
    return WriteFate::kUnknown;
  }
  // gRPC's own words for a request that never left.
  const bool unsent = IsTransportError(error) && absl::StrContains(info.message, "failed to connect");
  const bool refused = unsent || absl::IsInvalidArgument(error) || Contains(kNotLogged, info.reason);
  return refused ? WriteFate::kNotLogged : WriteFate::kUnknown;
}

WriteFate CombineFates(WriteFate before, WriteFate last) {
  // What a refusal says of an attempt does not undo an earlier one.
  if (last == WriteFate::kDurableHere || before == WriteFate::kNotLogged) return last;
  return WriteFate::kUnknown;
}

absl::Status GaveUp(const absl::Status& last, int attempts, int64_t micros) {
  if (attempts == 1) return last;
  ErrorInfo info = GetErrorInfo(last);
  info.message =
      absl::StrCat("gave up after ", attempts, " attempts in ", micros / 1000, " ms, the last: ", info.message);
  info.metadata["attempts"] = absl::StrCat(attempts);
  return MakeError(last.code(), std::move(info));
}

absl::Status WithFate(const absl::Status& error, WriteFate fate) {
  ErrorInfo info = GetErrorInfo(error);
  info.metadata[kOutcome] = fate == WriteFate::kNotLogged     ? "not_logged"
                            : fate == WriteFate::kDurableHere ? "durable_here"
                                                              : "unknown";
  return MakeError(error.code(), std::move(info));
}

int64_t RetryPause::NextMicros() {
  const int64_t pause = next_us_;
  next_us_ = std::min(2 * pause, max_us_);
  return pause - static_cast<int64_t>(rng_.Next() % static_cast<uint64_t>(pause / 2 + 1));
}

}  // namespace towline::client

namespace towline {

ErrorDetails DetailsOf(const absl::Status& error) {
  ErrorInfo info = GetErrorInfo(error);
  return {std::move(info.reason), std::move(info.message), std::move(info.next_action), std::move(info.metadata)};
}

WriteFate FateOf(const absl::Status& error) { return client::FateOfAttempt(error); }

}  // namespace towline
