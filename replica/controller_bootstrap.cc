// The controller's way through a full resync.

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/failpoint.h"
#include "replica/controller.h"

namespace towline {
namespace {

// After so many failures in a row without progress the node calls itself halted and asks less often.
constexpr int kFailuresMax = 3;
// A chunk that is refused so often, or one after it: the transfer begins anew.
constexpr int kStrikesMax = 3;

// Who is told to come again later has not failed. 0 = not told so.
int64_t RetryAfterMicros(const absl::Status& status) {
  if (!absl::IsResourceExhausted(status)) return 0;
  const ErrorInfo info = GetErrorInfo(status);
  if (info.reason != "snapshot_limit") return 0;
  const auto found = info.metadata.find("retry_after_ms");
  int64_t ms = 0;
  if (found == info.metadata.end() || !absl::SimpleAtoi(found->second, &ms)) return 0;
  return std::clamp<int64_t>(ms, 0, 60'000) * 1000;
}

}  // namespace

StageResult Controller::StartBootstrap(const v1::PullStarted& started) {
  StageResult checked = CheckUpstream(started);
  if (checked.kind != StageResult::Kind::kGoOn) return checked;
  CloseStreams();
  if (staged_ != nullptr && staged_->strikes() >= kStrikesMax) {
    DropStaged(absl::StrCat(staged_->strikes(), " chunks in a row were refused"));
    start_.clear_snapshot_cursor();
  }
  RemoveLeftovers();
  if (Failpoint("replica_remove_early")) (void)RemoveOtherGenerations(host_.environment(), 0);
  v1::FetchSnapshotRequest request;
  *request.mutable_start() = start_;
  request.set_file_form(options_.file_form);
  if (staged_ != nullptr) staged_->FillHeld(&request);
  snapshot_ = upstream_.OpenSnapshot(request);
  SetInterrupt([stream = snapshot_.get()] { stream->Cancel(); });
  bootstrap_ = std::make_unique<Bootstrap>(host_, options_, *snapshot_, started, &staged_);
  phase_ = Phase::kBootstrap;
  return StageResult::GoOn();
}

StageResult Controller::Load() {
  const bool restarted_before = bootstrap_->restarted();
  StageResult result = bootstrap_->Step();
  if (bootstrap_->loading()) ClearHalt();
  if (bootstrap_->restarted() && !restarted_before) {
    ++bootstrap_restarts_;
    bootstrap_bytes_again_ += bootstrap_->given_up_bytes();
  }
  switch (result.kind) {
    case StageResult::Kind::kGoOn:
      return result;
    case StageResult::Kind::kDone:
      CloseStreams();
      phase_ = Phase::kInstall;
      return StageResult::GoOn();
    default:
      return LoadFailed(std::move(result));
  }
}

StageResult Controller::LoadFailed(StageResult result) {
  const uint64_t bytes = staged_ == nullptr ? 0 : staged_->bytes();
  const bool restarted = bootstrap_ != nullptr && bootstrap_->restarted();
  if (const int64_t micros = RetryAfterMicros(result.status); micros != 0)
    return StageResult::RetryAfter(result.status, micros);
  // One that gets ahead between failures comes to its end.
  bootstrap_failures_ = bytes > bootstrap_mark_ && !restarted ? 1 : bootstrap_failures_ + 1;
  bootstrap_mark_ = bytes;
  logger().Log(LogLevel::kWarning, "bootstrap_failed",
               {{"reason", GetErrorInfo(result.status).reason},
                {"message", result.status.message()},
                {"resync_reason", staged_ == nullptr ? "" : staged_->record().reason},
                {"keys", staged_ == nullptr ? 0 : staged_->keys()},
                {"bytes", bytes},
                {"failures", bootstrap_failures_}});
  if (result.kind == StageResult::Kind::kReconnect && bootstrap_failures_ >= kFailuresMax) {
    result.kind = StageResult::Kind::kHalt;
  }
  return result;
}

// The snapshot is loaded: what is left is ours to do, but for the log that it may need.
StageResult Controller::Install() {
  const std::shared_ptr<Generation> old = host_.LiveGeneration();
  StageResult result = staged_->Step();
  switch (result.kind) {
    case StageResult::Kind::kGoOn:
      if (staged_->needs_log()) phase_ = Phase::kConnect;
      return result;
    case StageResult::Kind::kDone:
      break;
    case StageResult::Kind::kFatal:
      return result;
    default:
      if (absl::IsDataLoss(result.status)) DropStaged("what was loaded is damaged");
      phase_ = Phase::kConnect;
      return LoadFailed(std::move(result));
  }
  MeasureBootstrap();
  const uint64_t now_ms = static_cast<uint64_t>(host_.environment().clock.WallMicros()) / 1000;
  const uint64_t began_ms = staged_->record().started_unix_ms;
  bootstrap_seconds_ = now_ms > began_ms ? static_cast<double>(now_ms - began_ms) / 1000 : 0;
  bootstrap_bytes_again_ += staged_->received_bytes() - std::min(staged_->received_bytes(), staged_->bytes());
  staged_.reset();
  if (old != nullptr) retired_.Add(old);
  ++full_resyncs_;
  after_full_ = true;
  requested_ = false;
  ClearHalt();
  reconnect_backoff_.Reset();
  return result;
}

// A snapshot was loaded, and the log behind it is gone all the same.
StageResult Controller::Outrun(const v1::PullStarted& started) {
  DropStaged("the log behind it is gone");
  after_full_ = false;
  return LoadFailed(StageResult::Reconnect(
      MakeError(absl::StatusCode::kAborted, "snapshot_outrun",
                absl::StrCat("the snapshot was loaded, but the log behind it is gone: ", started.message()),
                "raise slots.max_retained_bytes at the upstream, or write less until it is through")));
}

void Controller::DropStaged(absl::string_view why) {
  if (staged_ == nullptr) return;
  const uint64_t number = staged_->number();
  const uint64_t bytes = staged_->bytes();
  MeasureBootstrap();
  bootstrap_bytes_again_ += staged_->received_bytes();  // all of it will come again
  staged_.reset();
  const GenerationEnvironment& env = host_.environment();
  const absl::Status removed = RemoveGeneration(env.fs, env.data_directory, number);
  logger().Log(LogLevel::kWarning, "bootstrap_dropped",
               {{"generation", number}, {"bytes", bytes}, {"why", why}, {"status", removed.ToString()}});
}

// --- Status ---

void Controller::MeasureBootstrap() {
  if (staged_ == nullptr) {
    bootstrap_rate_.Clear();
    return;
  }
  const StagedInstall::Received received = staged_->TakeReceived();
  bootstrap_bytes_ += received.bytes;
  bootstrap_resumes_ += received.resumes;
  bootstrap_rate_.Observe(Now(), bootstrap_bytes_);
}

std::optional<BootstrapProgress> Controller::DescribeBootstrap() const {
  if (staged_ == nullptr) return std::nullopt;
  const InstallRecord& record = staged_->record();
  BootstrapProgress progress;
  progress.phase = phase_ == Phase::kPause ? "waiting" : staged_->loaded() ? "replaying" : "loading";
  progress.reason = record.reason;
  progress.lsn = record.point.meta.position.lsn;
  progress.exact_from_lsn = record.read.lsn;
  progress.keys = staged_->keys();
  progress.bytes = staged_->bytes();
  progress.durable_bytes = record.point.cursor.bytes;
  progress.estimated_keys = record.point.meta.estimated_keys;
  progress.estimated_bytes = record.estimated_bytes;
  progress.received_bytes = staged_->received_bytes();
  progress.resumes = record.resumes;
  progress.bytes_per_second = phase_ == Phase::kBootstrap ? bootstrap_rate_.per_second() : 0;
  progress.started_unix_ms = record.started_unix_ms;
  return progress;
}

// A load that was asked for and has not begun.
BootstrapProgress Controller::RequestedBootstrap() const {
  BootstrapProgress progress;
  progress.phase = "waiting";
  progress.reason = "requested";
  progress.started_unix_ms = static_cast<uint64_t>(host_.environment().clock.WallMicros() / 1000);
  return progress;
}

bool Controller::RequestBootstrap() {
  MutexLock lock(&mutex_);
  if (view_.bootstrap.has_value()) return false;
  bootstrap_requested_.store(true);
  view_.bootstrap = RequestedBootstrap();  // whoever asks for the status next must not take it for done
  return true;
}

}  // namespace towline
