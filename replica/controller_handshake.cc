// How the controller gets from a connection to what its upstream decides.

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/names.h"
#include "replica/controller.h"
#include "replica/generation_switch.h"
#include "replica/log_history.h"
#include "replica/pull_messages.h"

namespace towline {
namespace {

constexpr int64_t kReadTimeoutMicros = 250'000;

bool IsClusterId(const ClusterId& id) {
  const auto is_hex = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
  return id.size() == kClusterIdSize && std::all_of(id.begin(), id.end(), is_hex);
}

const char* DecisionName(v1::ResumeDecision decision) {
  switch (decision) {
    case v1::RESUME_DECISION_PARTIAL:
      return "partial";
    case v1::RESUME_DECISION_FULL:
      return "full";
    case v1::RESUME_DECISION_REWIND:
      return "rewind";
    case v1::RESUME_DECISION_REFUSE:
      return "refuse";
    case v1::RESUME_DECISION_RETRY_AFTER:
      return "retry_after";
    default:
      return "unknown";
  }
}

absl::Status Unusable(absl::string_view reason, absl::string_view message, absl::string_view next_action = "") {
  return MakeError(absl::StatusCode::kFailedPrecondition, reason, message, next_action);
}

// Terms that the log told at start-up and control does not know of are saved before the history is used.
absl::Status SaveRecoveredHistory(ControlFile& control, const Generation& live) {
  History history = control.Get().history;
  const History known = history;
  for (const HistoryEntry& entry : live.history_at_open()) MergeEntry(entry, &history);
  if (history == known) return absl::OkStatus();
  return control.Update(/*both=*/true, [&](Control& present) { SetHistory(history, &present); });
}

}  // namespace

StageResult Controller::Connect() {
  const std::shared_ptr<Generation> live = host_.LiveGeneration();
  if (live != nullptr) {
    absl::Status saved = SaveRecoveredHistory(host_.control(), *live);
    if (!saved.ok()) return StageResult::Fatal(std::move(saved));
  }
  if (bootstrap_requested_.exchange(false)) requested_ = true;
  if (ReplaysStaged()) {
    start_ = MakePullStart(staged_->control(), staged_->generation().get(), options_);
  } else {
    start_ = MakePullStart(host_.control().Get(), live.get(), options_);
    OfferRewind(live.get());
    if (staged_ != nullptr && !staged_->FillCursor(start_.mutable_snapshot_cursor())) start_.clear_snapshot_cursor();
    start_.set_snapshot_requested(requested_ || (staged_ != nullptr && staged_->record().reason == "requested"));
  }
  pull_ = upstream_.OpenPull();
  SetInterrupt([stream = pull_.get()] { stream->Cancel(); });
  v1::PullRequest request;
  *request.mutable_start() = start_;
  if (!pull_->Write(request)) return StageResult::Reconnect(pull_->Finish());
  phase_ = Phase::kHandshake;
  deadline_micros_ = Now() + options_.upstream_timeout_micros;
  return StageResult::GoOn();
}

StepResult Controller::Handshake() {
  v1::PullResponse message;
  switch (pull_->Read(&message, kReadTimeoutMicros)) {
    case ReadResult::kTimeout:
      if (Now() < deadline_micros_) return StepResult::Again();
      return Reset(MakeError(absl::StatusCode::kDeadlineExceeded, "upstream_silent", "no answer to the start message"));
    case ReadResult::kClosed:
      return Reset(pull_->Finish());
    case ReadResult::kMessage:
      break;
  }
  if (message.has_started()) return Decided(message.started());
  const v1::ErrorDetail& ended = message.ended();
  return Reset(message.has_ended()
                   ? MakeError(absl::StatusCode::kUnavailable, ended.reason(), ended.message(), ended.next_action())
                   : absl::InternalError("the first answer is not a decision"));
}

StepResult Controller::Decided(const v1::PullStarted& started) {
  logger().Log(LogLevel::kInfo, "replica_connected",
               {{"upstream", upstream_.endpoint()},
                {"upstream_node_id", started.node_id()},
                {"cluster_id", started.cluster_id()},
                {"term", started.term()},
                {"upstream_durable_lsn", started.durable_lsn()}});
  logger().Log(LogLevel::kInfo, "resync_decision",
               {{"decision", DecisionName(started.decision())},
                {"reason", started.reason()},
                {"message", started.message()},
                {"own_lsn", start_.lsn()},
                {"from_lsn", started.from_lsn()},
                {"upstream_first_retained_lsn", started.first_retained_lsn()},
                {"common_lsn", started.common_lsn()}});
  Say(absl::StrCat(DecisionName(started.decision()), " (", started.reason(), "): ", started.message()));
  {
    MutexLock lock(&mutex_);
    view_.primary_address = started.primary_address();
  }
  // A refusal tells the path too: others that pull from here must know of a loop.
  const absl::Status path = TakePath(started);
  const bool serves = started.decision() != v1::RESUME_DECISION_REFUSE;
  if (serves && !path.ok()) return Follow(StageResult::Halt(path));
  const bool resyncs =
      started.decision() == v1::RESUME_DECISION_PARTIAL || started.decision() == v1::RESUME_DECISION_FULL;
  if (resyncs) SetRewinding(false);
  const int64_t asked_micros = std::min(int64_t{started.retry_after_ms()} * 1000, options_.halted_retry_max_micros);
  switch (started.decision()) {
    case v1::RESUME_DECISION_PARTIAL:
      return Follow(StartStream(started));
    case v1::RESUME_DECISION_FULL:
      return Follow(ReplaysStaged() || after_full_ ? Outrun(started) : StartBootstrap(started));
    case v1::RESUME_DECISION_REWIND:
      return Follow(StartRewind(started));
    case v1::RESUME_DECISION_RETRY_AFTER:
      CloseStreams();
      return Pause("retry_after", std::max(asked_micros, reconnect_backoff_.Next()));
    case v1::RESUME_DECISION_REFUSE:
      return Halt(
          MakeError(absl::StatusCode::kFailedPrecondition, started.reason(), started.message(), started.next_action()),
          "refused", asked_micros);
    default:
      return Follow(StageResult::Halt(Unusable(
          "unsupported_decision",
          absl::StrCat("the upstream decided ", DecisionName(started.decision()), ", which this version cannot do"))));
  }
}

absl::Status Controller::TakePath(const v1::PullStarted& started) {
  TOWLINE_ASSIGN_OR_RETURN(UpstreamPath path, PathFromProto(started.upstream_path(), options_.node_id));
  if (path.empty()) return absl::OkStatus();
  host_.OnUpstreamPath(path);
  return CheckPath(path, options_.node_id);
}

// What has to hold before anything of the upstream is taken.
StageResult Controller::CheckUpstream(const v1::PullStarted& started) const {
  const Control control = host_.control().Get();
  if (!IsClusterId(started.cluster_id())) {
    return StageResult::Halt(
        Unusable("malformed", absl::StrCat("the upstream's cluster id is '", Printable(started.cluster_id()), "'")));
  }
  if (!control.cluster_id.empty() && control.cluster_id != started.cluster_id()) {
    return StageResult::Halt(Unusable(
        "cluster_mismatch",
        absl::StrCat("the upstream is of cluster ", started.cluster_id(), ", this node of ", control.cluster_id),
        "check --upstream"));
  }
  const Term own_term = control.history.empty() ? 0 : control.history.back().term;
  if (started.term() > std::numeric_limits<Term>::max() || started.term() < std::max(own_term, control.promised_term)) {
    return StageResult::Halt(Unusable(
        "stale_upstream", absl::StrCat("the upstream is at term ", started.term(), ", this node has seen term ",
                                       own_term, " and promised term ", control.promised_term)));
  }
  return StageResult::GoOn();
}

// The log's first record of the term may be gone, but its primary speaks for itself.
absl::Status Controller::NoteTermPrimary(const v1::PullStarted& started) {
  const Control control = host_.control().Get();
  const bool is_primary = started.upstream_path_size() == 1 && started.upstream_path(0) == started.node_id();
  const bool same_term = !control.history.empty() && started.history_size() != 0 &&
                         started.history().rbegin()->term_id() == control.history.back().term_id &&
                         started.term() == control.history.back().term;
  if (!is_primary || !same_term || control.term_primary == started.node_id()) return absl::OkStatus();
  return host_.control().Update(/*both=*/false, [&](Control& next) { next.term_primary = started.node_id(); });
}

StageResult Controller::StartStream(const v1::PullStarted& started) {
  StageResult checked = CheckUpstream(started);
  if (checked.kind != StageResult::Kind::kGoOn) return checked;
  if (absl::Status noted = NoteTermPrimary(started); !noted.ok()) return StageResult::Fatal(std::move(noted));
  if (ReplaysStaged()) {
    stage_ = std::make_unique<PullStage>(host_, options_, *pull_,
                                         PullTarget{staged_->generation(), staged_->control().history, false}, started);
    phase_ = Phase::kStream;
    return StageResult::GoOn();
  }
  DropStaged("the log will do");
  std::shared_ptr<Generation> live = host_.LiveGeneration();
  if (live == nullptr) {
    StageResult attached = FirstAttach(started);
    if (attached.kind != StageResult::Kind::kDone) return attached;
    live = host_.LiveGeneration();
  }
  const Lsn next = live->spool().end().lsn + 1;
  if (started.session_id() == 0 || started.from_lsn() != next) {
    return StageResult::BadFrames(MakeError(
        absl::StatusCode::kDataLoss, "lsn_gap",
        absl::StrCat("the upstream would send from LSN ", started.from_lsn(), " on, this node needs ", next)));
  }
  History history = host_.control().Get().history;
  stage_ =
      std::make_unique<PullStage>(host_, options_, *pull_, PullTarget{std::move(live), std::move(history)}, started);
  counted_ = false;
  phase_ = Phase::kStream;
  return StageResult::GoOn();
}

// An empty node becomes one of the cluster: an empty generation, written to control before its first record.
StageResult Controller::FirstAttach(const v1::PullStarted& started) {
  const uint64_t generation = host_.control().Get().generation;
  if (generation != 0) {
    return StageResult::Halt(
        Unusable("generation_missing", absl::StrCat("control names generation ", generation, ", which is not open")));
  }
  RemoveLeftovers();
  return SwitchToGeneration(host_, {generation + 1, started.cluster_id(), {}, {}, {}, nullptr});
}

}  // namespace towline
