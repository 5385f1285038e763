#include "replica/controller.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/failpoint.h"
#include "common/names.h"
#include "replica/generation_switch.h"
#include "replica/log_history.h"
#include "replica/pull_messages.h"

namespace towline {
namespace {

constexpr int64_t kReadTimeoutMicros = 250'000;
// After so many failures in a row for the same cause the node calls itself halted and asks less often.
constexpr int kFailuresMax = 3;

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
  return control.Update(/*both=*/true, [&](Control& present) { present.history = history; });
}

}  // namespace

std::unique_ptr<ReplicaController> NewReplicaController(ReplicaHost& host, Upstream& upstream, ReplicaOptions options) {
  return std::make_unique<Controller>(host, upstream, std::move(options));
}

Controller::Controller(ReplicaHost& host, Upstream& upstream, ReplicaOptions options)
    : host_(host),
      upstream_(upstream),
      options_(std::move(options)),
      reconnect_backoff_(options_.reconnect_min_micros, options_.reconnect_max_micros, host.environment().rng),
      halted_backoff_(options_.reconnect_min_micros, options_.halted_retry_max_micros, host.environment().rng) {}

Controller::~Controller() { CloseStreams(); }

StepResult Controller::Step() {
  const StepResult result = stopping_.load() ? Stop() : RunPhase();
  Publish();
  return result;
}

// A load goes on: if its upstream is gone, its stream ends by itself.
void Controller::TakeReconnect() {
  if (!reconnect_.exchange(false)) return;
  reconnect_backoff_.Reset();
  halted_backoff_.Reset();
  if (phase_ != Phase::kHandshake && phase_ != Phase::kStream && phase_ != Phase::kPause) return;
  CloseStreams();
  phase_ = Phase::kConnect;
}

StepResult Controller::RunPhase() {
  retired_.RemoveSome(host_.environment());
  TakeReconnect();
  switch (phase_) {
    case Phase::kStart:
      return Follow(Start());
    case Phase::kConnect:
      if (staged_ == nullptr || !staged_->loaded() || ReplaysStaged()) return Follow(Connect());
      phase_ = Phase::kInstall;
      return StepResult::Again();
    case Phase::kHandshake:
      return Handshake();
    case Phase::kStream:
      return Follow(Stream());
    case Phase::kBootstrap:
      return Follow(Load());
    case Phase::kInstall:
      return Follow(Install());
    case Phase::kRewind:
      return Follow(GoBack());
    case Phase::kPause: {
      const int64_t left = resume_at_micros_ - Now();
      if (left > 0) return StepResult::WaitFor(left);
      phase_ = Phase::kConnect;
      return StepResult::Again();
    }
    case Phase::kStopped:
      break;
  }
  return StepResult::WaitForWake();
}

StageResult Controller::Start() {
  if (!host_.control().exists()) {
    return StageResult::Halt(Unusable("control_missing", "the data directory holds no control file"));
  }
  absl::Status settled = host_.control().Settle();
  if (!settled.ok()) return StageResult::Fatal(std::move(settled));
  absl::StatusOr<std::unique_ptr<StagedInstall>> staged = StagedInstall::Find(host_);
  if (!staged.ok()) return StageResult::Fatal(std::move(staged).status());
  staged_ = *std::move(staged);
  RemoveLeftovers();
  phase_ = staged_ != nullptr && staged_->loaded() ? Phase::kInstall : Phase::kConnect;
  return StageResult::GoOn();
}

// What was left behind by a stop inside a bootstrap or behind a switch. Only once control is known to be durable: a
// generation that an older control names must stay until then.
void Controller::RemoveLeftovers() {
  const uint64_t live = host_.control().Get().generation;
  std::vector<uint64_t> held = retired_.numbers();
  if (staged_ != nullptr) held.push_back(staged_->number());
  const absl::Status removed = RemoveOtherGenerations(host_.environment(), live, held);
  if (!removed.ok()) logger().Log(LogLevel::kWarning, "leftovers_not_removed", {{"status", removed.ToString()}});
}

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

StageResult Controller::StartStream(const v1::PullStarted& started) {
  StageResult checked = CheckUpstream(started);
  if (checked.kind != StageResult::Kind::kGoOn) return checked;
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

StageResult Controller::Stream() {
  StageResult result = stage_->Step();
  const PullProgress& progress = stage_->progress();
  if (ReplaysStaged()) {
    staged_->SetHistory(stage_->history());
    if (result.kind == StageResult::Kind::kGoOn && staged_->exact()) {
      CloseStreams();
      phase_ = Phase::kInstall;
      return result;
    }
  } else if (progress.acked && !counted_) {
    counted_ = true;
    if (!after_full_ && !after_rewind_) ++partial_resyncs_;
    after_full_ = after_rewind_ = rewind_impossible_ = false;
    bootstrap_failures_ = 0;
    bootstrap_mark_ = 0;
  }
  if (bootstrap_requested_.load() && !ReplaysStaged() && result.kind == StageResult::Kind::kGoOn) {
    return StageResult::Done();  // connects again, and asks for it
  }
  if (progress.appended || progress.complete) {
    bad_resets_ = 0;
    ClearHalt();
    reconnect_backoff_.Reset();
  }
  return result;
}

StepResult Controller::Follow(const StageResult& result) {
  switch (result.kind) {
    case StageResult::Kind::kGoOn:
      return StepResult::Again();
    case StageResult::Kind::kDone:
      CloseStreams();
      phase_ = Phase::kConnect;
      return StepResult::Again();
    case StageResult::Kind::kReconnect:
      return Reset(result.status);
    case StageResult::Kind::kRetryAfter:
      Say(result.status.message());
      CloseStreams();
      return Pause("retry_after", std::max(result.pause_micros, reconnect_backoff_.Next()));
    case StageResult::Kind::kBadFrames:
      return ResetBadFrames(result.status);
    case StageResult::Kind::kHalt:
      return Halt(result.status, "disconnected", 0);
    case StageResult::Kind::kFatal:
      break;
  }
  halt_reason_ = GetErrorInfo(result.status).reason;
  Say(result.status.message());
  CloseStreams();
  phase_ = Phase::kStopped;
  host_.environment().on_fatal(result.status);
  return StepResult::WaitForWake();
}

StepResult Controller::Reset(const absl::Status& status) {
  const absl::Status why =
      status.ok() ? absl::UnavailableError("the upstream closed the stream without an answer") : status;
  const int64_t pause = reconnect_backoff_.Next();
  logger().Log(LogLevel::kInfo, "replica_disconnected",
               {{"upstream", upstream_.endpoint()},
                {"reason", GetErrorInfo(why).reason},
                {"message", why.message()},
                {"retry_ms", pause / 1000}});
  Say(why.message());
  CloseStreams();
  return Pause("disconnected", pause);
}

StepResult Controller::ResetBadFrames(const absl::Status& status) {
  const std::shared_ptr<Generation> live = host_.LiveGeneration();
  const Lsn end = live == nullptr ? 0 : live->spool().end().lsn;
  bad_resets_ = end == bad_lsn_ ? bad_resets_ + 1 : 1;
  bad_lsn_ = end;
  logger().Log(LogLevel::kWarning, "stream_reset",
               {{"upstream", upstream_.endpoint()},
                {"reason", GetErrorInfo(status).reason},
                {"message", status.message()},
                {"own_lsn", end},
                {"resets_in_a_row", bad_resets_}});
  return bad_resets_ >= kFailuresMax ? Halt(status, "disconnected", 0) : Reset(status);
}

StepResult Controller::Halt(const absl::Status& status, std::string upstream_state, int64_t pause_micros_min) {
  const std::string reason = GetErrorInfo(status).reason;
  const int64_t pause = std::max(halted_backoff_.Next(), pause_micros_min);
  logger().Log(reason == halt_reason_ ? LogLevel::kInfo : LogLevel::kError, "replica_halted",
               {{"upstream", upstream_.endpoint()},
                {"reason", reason},
                {"message", status.message()},
                {"retry_ms", pause / 1000}});
  halt_reason_ = reason;
  Say(status.message());
  CloseStreams();
  return Pause(std::move(upstream_state), pause);
}

StepResult Controller::Pause(std::string upstream_state, int64_t micros) {
  phase_ = Phase::kPause;
  paused_state_ = std::move(upstream_state);
  resume_at_micros_ = Now() + micros;
  return StepResult::WaitFor(micros);
}

StepResult Controller::Stop() {
  CloseStreams();
  phase_ = Phase::kStopped;
  return StepResult::WaitForWake();
}

void Controller::ClearHalt() {
  if (halt_reason_.empty()) return;
  logger().Log(LogLevel::kInfo, "replica_resumed", {{"reason", halt_reason_}});
  halt_reason_.clear();
  halted_backoff_.Reset();
}

void Controller::CloseStreams() {
  SetInterrupt(nullptr);
  stage_.reset();
  bootstrap_.reset();
  if (pull_ != nullptr) {
    pull_->Cancel();
    (void)pull_->Finish();  // only ends it: why it ends is known
    pull_.reset();
  }
  if (snapshot_ != nullptr) {
    snapshot_->Cancel();
    (void)snapshot_->Finish();
    snapshot_.reset();
  }
}

void Controller::Reconnect() {
  reconnect_.store(true);
  MutexLock lock(&mutex_);
  if (interrupt_ != nullptr) interrupt_();
}

void Controller::Shutdown() {
  stopping_.store(true);
  MutexLock lock(&mutex_);
  if (interrupt_ != nullptr) interrupt_();
}

void Controller::SetInterrupt(std::function<void()> interrupt) {
  MutexLock lock(&mutex_);
  interrupt_ = std::move(interrupt);
}

void Controller::Say(absl::string_view message) {
  MutexLock lock(&mutex_);
  view_.message = std::string(message);
}

void Controller::Publish() {
  MeasureBootstrap();
  std::optional<BootstrapProgress> bootstrap = DescribeBootstrap();
  MutexLock lock(&mutex_);
  view_.state = StateName();
  view_.upstream_state = UpstreamStateName();
  view_.halt_reason = halt_reason_;
  view_.partial_resyncs = partial_resyncs_;
  view_.full_resyncs = full_resyncs_;
  view_.rewinds = rewinds_;
  view_.bootstrap_resumes = bootstrap_resumes_;
  view_.bootstrap_restarts = bootstrap_restarts_;
  view_.bootstrap_bytes = bootstrap_bytes_;
  view_.bootstrap_bytes_again = bootstrap_bytes_again_;
  view_.bootstrap_seconds = bootstrap_seconds_;
  if (stage_ != nullptr) {
    const PullProgress& progress = stage_->progress();
    view_.upstream_durable_lsn = progress.upstream_durable_lsn;
    view_.upstream_committed_lsn = std::max(view_.upstream_committed_lsn, progress.upstream_committed_lsn);
    view_.heartbeat_sequence = progress.heartbeat_sequence;
  }
  const bool waits = !bootstrap.has_value() && (requested_ || bootstrap_requested_.load());
  if (!waits) {
    view_.bootstrap = std::move(bootstrap);
  } else if (!view_.bootstrap.has_value() || view_.bootstrap->lsn != 0) {
    view_.bootstrap = RequestedBootstrap();
  }
}

ReplicaStatusView Controller::Status() const {
  MutexLock lock(&mutex_);
  return view_;
}

}  // namespace towline
