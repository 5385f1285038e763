#include "replica/controller.h"

#include <algorithm>
#include <utility>

#include "common/error.h"
#include "replica/generation_switch.h"

namespace towline {
namespace {

// After so many failures in a row for the same cause the node calls itself halted and asks less often.
constexpr int kFailuresMax = 3;

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
    return StageResult::Halt(MakeError(absl::StatusCode::kFailedPrecondition, "control_missing",
                                       "the data directory holds no control file"));
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
