// The controller's way back to the last record in common with the upstream.

#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/history.h"
#include "replica/controller.h"
#include "replica/pull_messages.h"

namespace towline {

// Whether going back is possible is for the upstream to know: it is told from where.
void Controller::OfferRewind(Generation* live) {
  if (live != nullptr && !rewind_impossible_) start_.set_oldest_rewind_lsn(live->checkpoints().oldest());
}

// The common point, by this node's own look at the upstream's history: what the node gives up must not hang on a
// number.
absl::StatusOr<Lsn> Controller::CheckRewind(const v1::PullStarted& started) const {
  const History own = host_.control().Get().history;
  const auto refuse = [](absl::string_view reason, absl::string_view message) {
    return MakeError(absl::StatusCode::kFailedPrecondition, reason, message);
  };
  TOWLINE_ASSIGN_OR_RETURN(const History theirs, HistoryFromProto(started.history()));
  if (start_.oldest_rewind_lsn() == 0 || own.empty())
    return refuse("malformed", "the upstream decided what was not offered");
  if (theirs.empty() || theirs.back().term < own.back().term) {
    return refuse("stale_upstream", absl::StrCat("the upstream's log is of ", FormatHistory(theirs),
                                                 ", this node's of the higher ", FormatHistory(own)));
  }
  const Lsn common = LastCommonLsn(own, start_.lsn(), theirs, started.durable_lsn());
  if (common != started.common_lsn() || common < start_.oldest_rewind_lsn() || common >= start_.lsn()) {
    return refuse("malformed", absl::StrCat("the upstream decided to go back to LSN ", started.common_lsn(),
                                            "; by the histories the logs are the same up to LSN ", common,
                                            ", and this node is at LSN ", start_.lsn()));
  }
  return common;
}

// One primary writes one term; but one that has lost the end of its term may have written it again.
absl::Status Controller::CheckCommonChain(Lsn common_lsn, const v1::PullStarted& started) const {
  TOWLINE_ASSIGN_OR_RETURN(const wal::LogEnd own, host_.LiveGeneration()->spool().EndAt(common_lsn));
  if (started.has_common_chain() && started.common_chain() == own.chain) return absl::OkStatus();
  return MakeError(absl::StatusCode::kFailedPrecondition, "diverged_same_term",
                   absl::StrCat("the histories are the same up to LSN ", common_lsn, ", but the chain there is ",
                                absl::Hex(own.chain, absl::kZeroPad16), " here and ",
                                absl::Hex(started.common_chain(), absl::kZeroPad16), " at the upstream"));
}

StageResult Controller::StartRewind(const v1::PullStarted& started) {
  StageResult checked = CheckUpstream(started);
  if (checked.kind != StageResult::Kind::kGoOn) return checked;
  const absl::StatusOr<Lsn> common = CheckRewind(started);
  if (!common.ok()) return StageResult::Halt(common.status());
  CloseStreams();
  if (const absl::Status same = CheckCommonChain(*common, started); !same.ok()) return CannotGoBack(*common, same);
  DropStaged("the node goes back instead");
  RemoveLeftovers();
  SetRewinding(true);
  rewind_ = std::make_unique<Rewind>(host_, *common);
  phase_ = Phase::kRewind;
  return StageResult::GoOn();
}

StageResult Controller::GoBack() {
  const std::shared_ptr<Generation> old = host_.LiveGeneration();
  StageResult result = rewind_->Step();
  if (result.kind == StageResult::Kind::kGoOn) return result;
  const RewindReport report = rewind_->report();
  rewind_.reset();
  if (result.kind == StageResult::Kind::kDone) {
    ++rewinds_.rewinds;
    rewinds_.discarded_records += report.discarded_records;
    rewinds_.last = report;
    after_rewind_ = true;
    after_full_ = false;
    retired_.Add(old);
    SetRewinding(false);
    ClearHalt();
    reconnect_backoff_.Reset();
    return result;
  }
  if (result.kind != StageResult::Kind::kReconnect) return result;
  return CannotGoBack(report.common_lsn, result.status);
}

StageResult Controller::CannotGoBack(Lsn common_lsn, const absl::Status& why) {
  ++rewinds_.not_possible;
  rewind_impossible_ = true;
  SetRewinding(false);
  logger().Log(LogLevel::kWarning, "rewind_not_possible",
               {{"reason", GetErrorInfo(why).reason},
                {"message", why.message()},
                {"common_lsn", common_lsn},
                {"own_lsn", start_.lsn()},
                {"next_action", "the node asks for a snapshot instead"}});
  Say(absl::StrCat("cannot go back to LSN ", common_lsn, ": ", why.message()));
  phase_ = Phase::kConnect;
  return StageResult::GoOn();
}

void Controller::SetRewinding(bool rewinding) {
  if (std::exchange(rewinding_, rewinding) != rewinding) host_.SetRewinding(rewinding);
}

bool Controller::IsRewinding() const { return phase_ == Phase::kRewind || (after_rewind_ && phase_ != Phase::kStream); }

}  // namespace towline
