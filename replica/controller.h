// The replica's loop: which stage is running, what follows it, and when to try again. Internal to replica; see
// replica_controller.h.

#ifndef TOWLINE_REPLICA_CONTROLLER_H_
#define TOWLINE_REPLICA_CONTROLLER_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"

#include "common/mutex.h"
#include "replica/backoff.h"
#include "replica/bootstrap.h"
#include "replica/generation_files.h"
#include "replica/pull_stage.h"
#include "replica/rate_window.h"
#include "replica/replica_controller.h"
#include "replica/rewind.h"
#include "replica/stage_result.h"
#include "replica/staged_install.h"
#include "replica/upstream.h"
#include "towline/v1/replication_service.pb.h"

namespace towline {

class Controller : public ReplicaController {
 public:
  Controller(ReplicaHost& host, Upstream& upstream, ReplicaOptions options);
  ~Controller() override;

  StepResult Step() override;
  ReplicaStatusView Status() const override TOWLINE_EXCLUDES(mutex_);
  bool RequestBootstrap() override TOWLINE_EXCLUDES(mutex_);
  void Reconnect() override TOWLINE_EXCLUDES(mutex_);
  void Shutdown() override TOWLINE_EXCLUDES(mutex_);

 private:
  enum class Phase { kStart, kConnect, kHandshake, kStream, kBootstrap, kInstall, kRewind, kPause, kStopped };

  StepResult RunPhase();
  void TakeReconnect();
  StageResult Start();
  void RemoveLeftovers();
  bool ReplaysStaged() const { return staged_ != nullptr && staged_->needs_log(); }
  StageResult Connect();
  StepResult Handshake();
  StepResult Decided(const v1::PullStarted& started);
  StageResult CheckUpstream(const v1::PullStarted& started) const;
  absl::Status TakePath(const v1::PullStarted& started);
  absl::Status NoteTermPrimary(const v1::PullStarted& started);
  StageResult StartStream(const v1::PullStarted& started);
  StageResult FirstAttach(const v1::PullStarted& started);
  StageResult Stream();

  // --- controller_bootstrap.cc ---
  StageResult StartBootstrap(const v1::PullStarted& started);
  StageResult Load();
  StageResult Install();
  StageResult LoadFailed(StageResult result);
  StageResult Outrun(const v1::PullStarted& started);
  void DropStaged(absl::string_view why);
  void MeasureBootstrap();
  std::optional<BootstrapProgress> DescribeBootstrap() const;
  BootstrapProgress RequestedBootstrap() const;

  // --- controller_rewind.cc ---
  void OfferRewind(Generation* live);
  StageResult StartRewind(const v1::PullStarted& started);
  absl::StatusOr<Lsn> CheckRewind(const v1::PullStarted& started) const;
  absl::Status CheckCommonChain(Lsn common_lsn, const v1::PullStarted& started) const;
  StageResult GoBack();
  StageResult CannotGoBack(Lsn common_lsn, const absl::Status& why);
  void SetRewinding(bool rewinding);
  bool IsRewinding() const;

  // What follows a stage that is over.
  StepResult Follow(const StageResult& result);
  StepResult Reset(const absl::Status& status);
  StepResult ResetBadFrames(const absl::Status& status);
  StepResult Halt(const absl::Status& status, std::string upstream_state, int64_t pause_micros_min);
  StepResult Pause(std::string upstream_state, int64_t micros);
  StepResult Stop();

  void ClearHalt();
  void CloseStreams();
  void SetInterrupt(std::function<void()> interrupt) TOWLINE_EXCLUDES(mutex_);
  void Say(absl::string_view message) TOWLINE_EXCLUDES(mutex_);
  void Publish() TOWLINE_EXCLUDES(mutex_);
  std::string StateName() const;
  std::string UpstreamStateName() const;
  int64_t Now() const { return host_.environment().clock.MonotonicMicros(); }
  Logger& logger() const { return host_.environment().logger; }

  ReplicaHost& host_;
  Upstream& upstream_;
  const ReplicaOptions options_;

  // Loop only.
  Phase phase_ = Phase::kStart;
  v1::PullStart start_;
  std::unique_ptr<PullStream> pull_;
  std::unique_ptr<PullStage> stage_;
  std::unique_ptr<SnapshotStream> snapshot_;
  std::unique_ptr<Bootstrap> bootstrap_;
  std::unique_ptr<StagedInstall> staged_;  // a new generation in the making; outlives streams
  std::unique_ptr<Rewind> rewind_;
  RetiredGenerations retired_;
  Backoff reconnect_backoff_;
  Backoff halted_backoff_;
  int64_t deadline_micros_ = 0;   // of the handshake
  int64_t resume_at_micros_ = 0;  // end of the pause
  std::string paused_state_;      // upstream state during the pause
  std::string halt_reason_;       // empty = not halted
  Lsn bad_lsn_ = 0;               // end of our log at the last reset for bad frames
  int bad_resets_ = 0;            // in a row there
  int bootstrap_failures_ = 0;    // in a row, without a byte of progress between them
  uint64_t bootstrap_mark_ = 0;   // bytes that the load had at the last failure
  bool requested_ = false;        // an operator wants a full resync
  RateWindow bootstrap_rate_;
  uint64_t bootstrap_resumes_ = 0;
  uint64_t bootstrap_restarts_ = 0;
  uint64_t bootstrap_bytes_ = 0;
  uint64_t bootstrap_bytes_again_ = 0;
  double bootstrap_seconds_ = 0;
  bool counted_ = false;            // this stream's resync
  bool after_full_ = false;         // the next stream continues a full resync
  bool after_rewind_ = false;       // ... a rewind
  bool rewinding_ = false;          // the host was told so
  bool rewind_impossible_ = false;  // until the next stream: a snapshot is wanted
  RewindTotals rewinds_;
  uint64_t partial_resyncs_ = 0;
  uint64_t full_resyncs_ = 0;

  std::atomic<bool> stopping_{false};
  std::atomic<bool> reconnect_{false};            // not yet seen by the loop
  std::atomic<bool> bootstrap_requested_{false};  // not yet seen by the loop
  mutable Mutex mutex_;
  std::function<void()> interrupt_ TOWLINE_GUARDED_BY(mutex_);  // makes the present stream's Read return; may be null
  ReplicaStatusView view_ TOWLINE_GUARDED_BY(mutex_);
};

}  // namespace towline

#endif  // TOWLINE_REPLICA_CONTROLLER_H_
