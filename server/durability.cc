#include "server/durability.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"

namespace towline {
namespace {

constexpr uint32_t kTimeoutMaxMs = 600'000;

absl::Status Invalid(absl::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, "invalid_durability", message);
}

const char* StageName(CommitStage stage) { return stage == CommitStage::kFlushed ? "flushed" : "applied"; }

}  // namespace

CommitLevel DefaultLevel(const NodeConfig& config) {
  CommitLevel level;
  level.replicas = static_cast<uint32_t>(config.durability_replicas);
  level.stage = config.durability_stage == "applied" ? CommitStage::kApplied : CommitStage::kFlushed;
  level.timeout_micros = config.durability_timeout_micros;
  level.on_timeout = config.durability_on_timeout == "accept" ? OnCommitTimeout::kAccept : OnCommitTimeout::kFail;
  return level;
}

absl::StatusOr<CommitLevel> ResolveLevel(const CommitTracker& commit, const v1::Durability* asked) {
  if (asked == nullptr) return commit.Resolve(nullptr);
  if (asked->timeout_ms() > kTimeoutMaxMs) {
    return Invalid(absl::StrCat("timeout_ms is ", asked->timeout_ms(), "; at most ", kTimeoutMaxMs));
  }
  if (!v1::CommitStage_IsValid(asked->stage())) return Invalid(absl::StrCat("there is no stage ", asked->stage()));
  if (!v1::OnCommitTimeout_IsValid(asked->on_timeout())) {
    return Invalid(absl::StrCat("there is no on_timeout ", asked->on_timeout()));
  }
  CommitLevel level;
  level.replicas = asked->replicas();
  level.stage = asked->stage() == v1::COMMIT_STAGE_APPLIED ? CommitStage::kApplied : CommitStage::kFlushed;
  level.timeout_micros = int64_t{asked->timeout_ms()} * 1000;
  const bool accept = asked->on_timeout() == v1::ON_COMMIT_TIMEOUT_ACCEPT;
  level.on_timeout = accept ? OnCommitTimeout::kAccept : OnCommitTimeout::kFail;
  return commit.Resolve(&level);
}

void FillAchieved(const AchievedLevel& achieved, v1::AchievedLevel* out) {
  out->set_replicas_flushed(achieved.flushed);
  out->set_replicas_applied(achieved.applied);
  out->set_reached(achieved.reached);
}

absl::Status WithOutcome(const absl::Status& status, absl::string_view outcome) {
  if (status.ok()) return status;
  ErrorInfo info = GetErrorInfo(status);
  info.metadata.emplace("outcome", outcome);
  return MakeError(status.code(), std::move(info));
}

absl::Status ErrorOf(const WriteRecord& record) {
  const absl::Status& status = record.outcome.status;
  if (record.lsn != 0) return WithOutcome(status, "durable_here");
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kUnavailable:
      return WithOutcome(status, "not_logged");
    case absl::StatusCode::kFailedPrecondition:
      // The one refusal of a request that may have been written before.
      return WithOutcome(status, GetErrorInfo(status).reason == "request_too_old" ? "unknown" : "not_logged");
    default:
      return WithOutcome(status, "unknown");  // the log has failed under it
  }
}

absl::Status NotReached(const CommitResult& result, const AchievedLevel& achieved, const CommitLevel& level,
                        const v1::Position& position) {
  ErrorInfo info;
  absl::StatusCode code = absl::StatusCode::kDeadlineExceeded;
  if (result.end == CommitResult::End::kClosed) {
    info = GetErrorInfo(result.closed);
    code = result.closed.code();
  } else {
    info.reason = "replication_timeout";
    info.message =
        absl::StrCat("the record is durable here at LSN ", position.lsn(), ", and ", achieved.flushed,
                     " replicas have flushed and ", achieved.applied, " applied it after ", level.timeout_micros / 1000,
                     " ms; ", level.replicas, " ", StageName(level.stage), " were asked for");
    info.next_action = "retry with the same request id to wait again; look at the replicas with towctl status";
  }
  info.metadata["outcome"] = "durable_here";
  info.metadata["lsn"] = absl::StrCat(position.lsn());
  info.metadata["term"] = absl::StrCat(position.term());
  info.metadata["term_id"] = absl::StrCat(position.term_id());
  info.metadata["chain"] = absl::StrCat(position.chain());
  info.metadata["replicas_flushed"] = absl::StrCat(achieved.flushed);
  info.metadata["replicas_applied"] = absl::StrCat(achieved.applied);
  return MakeError(code, std::move(info));
}

}  // namespace towline
