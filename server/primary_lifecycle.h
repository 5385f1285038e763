// When a primary takes writes: after its peers were asked, until somebody shows that it must not, and again after a
// recovery or a promotion. On a replica it is inactive.

#ifndef TOWLINE_SERVER_PRIMARY_LIFECYCLE_H_
#define TOWLINE_SERVER_PRIMARY_LIFECYCLE_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/executor.h"
#include "common/mutex.h"
#include "primary/node_view.h"
#include "replica/replica_controller.h"
#include "server/config.h"
#include "server/membership.h"
#include "server/peer_check.h"
#include "server/primary_role.h"

namespace towline {

// What the lifecycle needs of its node. The references must outlive it.
struct LifecycleDependencies {
  const NodeConfig& config;
  ReplicaHost& host;  // control and live generation
  std::function<NodeView()> view;
  std::function<MemberInfo()> self;  // as the Members record is to name this node
  std::function<ReplicaOptions()> pull_options;
  std::function<std::unique_ptr<Upstream>(const std::string& endpoint)> make_upstream;
  AskPeer ask_peer;
  // Somebody has shown a higher term: the node becomes a replica. Called from Tick. An error is fatal.
  std::function<absl::Status(const std::string& reason, const std::string& message)> step_down;
};

// Threads: all methods from any thread, but Start, Tick and Stop from one each.
class PrimaryLifecycle {
 public:
  enum class Phase {
    kInactive,          // a replica
    kChecking,          // peers are asked; no writes, and no answers, yet
    kOpen,              // takes writes
    kPaused,            // hands over; no new writes
    kReadOnly,          // somebody has shown a higher term
    kRecoveryRequired,  // somebody holds records that this node has lost; kept in control
    kRecovering,        // Recover runs
  };

  explicit PrimaryLifecycle(LifecycleDependencies deps);
  ~PrimaryLifecycle();

  // On a primary: opens at once if there is nobody to ask, else starts to ask; stays closed if control says
  // RECOVERY_REQUIRED. On a replica it only watches the time.
  absl::Status Start();

  // A replica has become the primary: writes the TERM_START of the newest term of `control`, calls `save`, which makes
  // that control durable, and opens. RESOURCE_EXHAUSTED: nothing was written. Other errors are fatal for the node.
  absl::Status OpenTerm(const Control& control, const std::function<absl::Status()>& save)
      TOWLINE_EXCLUDES(mutex_, change_mutex_);

  // Refuses new writes with `status`, which says that they are not in the log; what was taken goes on.
  // FAILED_PRECONDITION or UNAVAILABLE, as CheckOpen, if it does not take writes anyway.
  absl::Status Pause(const absl::Status& status) TOWLINE_EXCLUDES(mutex_);
  // Takes writes again, if it is still paused.
  void Resume() TOWLINE_EXCLUDES(mutex_);
  // Whether everything that was taken is answered.
  bool drained() const;

  // Another node may be the primary: from now on nothing is appended and nothing answered but with `status`. The phase
  // is kInactive afterwards.
  void Close(const absl::Status& status) TOWLINE_EXCLUDES(mutex_, change_mutex_);

  // Closes what OnStaleSelf has condemned, submits Members records. Call it every few hundredths of a second.
  absl::Status Tick();

  void Stop();

  // A replica attached; it holds nothing that this node lacks.
  void OnAttached(const MemberInfo& member, bool knows_members);

  // As SourceHost::OnStaleSelf. Writes end: at once for new ones; Tick ends the loops. Never blocks.
  void OnStaleSelf(Term judged, absl::string_view reason, absl::string_view message) TOWLINE_EXCLUDES(mutex_);

  // Whether it was, and Tick has not ended it yet. A term that opens ends it too.
  bool condemned() const TOWLINE_EXCLUDES(mutex_);

  // OK if writes are taken; else why not and what to do.
  absl::Status CheckOpen() const TOWLINE_EXCLUDES(mutex_);

  Phase phase() const TOWLINE_EXCLUDES(mutex_);
  // Stable reason of a phase other than kOpen: waiting_for_members, stale_primary, replica_ahead, recovering.
  std::string reason() const TOWLINE_EXCLUDES(mutex_);

  // See recovery.h. `from`: a member's node id or HOST:PORT; empty = accept the loss. FAILED_PRECONDITION, reason
  // not_in_recovery or recovery_running. May take long.
  absl::Status Recover(const std::string& from) TOWLINE_EXCLUDES(mutex_, recovery_mutex_);

  Membership& membership() { return membership_; }

  // nullptr until it opened once; then the newest, which refuses when it is stopped. Valid for this object's life.
  PrimaryRole* role() const { return role_view_.load(std::memory_order_acquire); }

 private:
  absl::Status Open() TOWLINE_EXCLUDES(mutex_);
  absl::Status CheckPeersThenOpen() TOWLINE_EXCLUDES(mutex_);
  StepResult StepCheck();
  StepResult StepWatch();
  void AskAgain(int64_t still_micros) TOWLINE_EXCLUDES(mutex_, change_mutex_);
  void StartCheck(std::vector<MemberInfo> others, const NodeView& view) TOWLINE_EXCLUDES(mutex_, change_mutex_);
  absl::Status ReopenChecked() TOWLINE_EXCLUDES(mutex_);
  absl::Status Publish(std::unique_ptr<PrimaryRole> role) TOWLINE_EXCLUDES(mutex_);
  bool CondemnLocked(absl::string_view reason, absl::string_view message) TOWLINE_REQUIRES(mutex_);
  void LogClosed(absl::string_view reason, absl::string_view message) const;
  absl::Status Condemn() TOWLINE_EXCLUDES(mutex_, change_mutex_);
  absl::Status Fetch(const std::string& endpoint);
  absl::StatusOr<std::string> EndpointOf(const std::string& from) const;
  void SetPhase(Phase phase, std::string reason, std::string message) TOWLINE_EXCLUDES(mutex_);
  Logger& logger() const { return deps_.host.environment().logger; }

  const LifecycleDependencies deps_;
  Membership membership_;
  std::atomic<PrimaryRole*> role_view_{nullptr};
  std::atomic<bool> stopping_{false};

  mutable Mutex mutex_;
  std::vector<std::unique_ptr<PrimaryRole>> roles_ TOWLINE_GUARDED_BY(mutex_);  // all but the last are stopped
  Phase phase_ TOWLINE_GUARDED_BY(mutex_) = Phase::kInactive;
  std::string reason_ TOWLINE_GUARDED_BY(mutex_);
  std::string message_ TOWLINE_GUARDED_BY(mutex_);
  absl::Status paused_ TOWLINE_GUARDED_BY(mutex_);     // what writers are told in phase kPaused
  bool holding_ TOWLINE_GUARDED_BY(mutex_) = false;    // an open role stood still, and holds its answers
  bool condemned_ TOWLINE_GUARDED_BY(mutex_) = false;  // the role is still to be stopped
  Term opened_term_ TOWLINE_GUARDED_BY(mutex_) = 0;    // by OpenTerm
  std::shared_ptr<PeerCheck> check_ TOWLINE_GUARDED_BY(mutex_);

  Mutex recovery_mutex_;  // held while a recovery runs; locked before the others
  Mutex change_mutex_;    // one change of roles at a time; locked before mutex_
  std::unique_ptr<Loop> check_loop_ TOWLINE_GUARDED_BY(change_mutex_);

  Standstill standstill_;
  std::unique_ptr<Loop> watch_loop_;  // beats; made by Start
};

}  // namespace towline

#endif  // TOWLINE_SERVER_PRIMARY_LIFECYCLE_H_
