// Who holds what of the log, and which writes wait for it.
//
// From the opening of writes to their end: acks count per term.

#ifndef TOWLINE_PRIMARY_COMMIT_TRACKER_H_
#define TOWLINE_PRIMARY_COMMIT_TRACKER_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"

#include "common/clock.h"
#include "common/logger.h"
#include "common/mutex.h"
#include "common/types.h"
#include "primary/commit_level.h"
#include "primary/commit_members.h"
#include "primary/heartbeat_log.h"
#include "primary/node_view.h"

namespace towline {

struct CommitStats {
  // Upper bounds of the buckets of wait_buckets, in seconds; one more bucket is for all above.
  static constexpr std::array<double, 12> kWaitBounds = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025,
                                                         0.05,   0.1,   0.25,   0.5,   1,    5};
  uint32_t counting_members = 0;
  uint32_t acking_members = 0;   // of these, those with a live session
  uint32_t min_replicas = 0;     // in force
  uint32_t pending_records = 0;  // Members records without their full effect
  uint64_t waiters = 0;
  uint64_t waiting_bytes = 0;
  uint64_t timeouts_total = 0;
  bool degraded = false;
  Lsn degraded_first_lsn = 0;  // of the present or last episode
  Lsn degraded_last_lsn = 0;
  uint64_t degraded_records_total = 0;  // answered OK at a lower level, because of a timeout
  uint64_t degraded_episodes_total = 0;
  Lsn exposed_from_lsn = 0;  // answered, and behind the committed LSN: (from, to]; equal = none
  Lsn exposed_to_lsn = 0;
  double exposed_seconds = 0;  // age of the oldest of them
  std::array<uint64_t, kWaitBounds.size() + 1> wait_buckets{};
  uint64_t waits_total = 0;
  double wait_seconds_sum = 0;
};

// Threads: all methods from any thread.
class CommitTracker {
 public:
  // The references must outlive it. `level` is what a write gets that does not say; with min_replicas it is the level
  // of the committed LSN. `members` is the list of the log up to `opened_lsn`, its end.
  CommitTracker(Clock& clock, Logger& logger, std::string self, Term term, CommitLevel level, MemberList members,
                Lsn opened_lsn);

  // --- What is known of the members ---

  // The Members record at `lsn` is durable here.
  void SetMembers(const MemberList& list, Lsn lsn) TOWLINE_EXCLUDES(mutex_);

  // Answers whom it completes.
  void OnAck(const ReplicaAck& ack) TOWLINE_EXCLUDES(mutex_);

  // What the session has confirmed stays true; it confirms nothing more.
  void OnSessionEnd(const std::string& node_id, uint64_t session_id) TOWLINE_EXCLUDES(mutex_);

  // --- Writes ---

  // Makes of what a write asks for what it gets: nullptr = the default level. Nothing may be written if it fails.
  // INVALID_ARGUMENT, reason below_min_replicas; FAILED_PRECONDITION, reason too_few_replicas.
  absl::StatusOr<CommitLevel> Resolve(const CommitLevel* asked) const TOWLINE_EXCLUDES(mutex_);

  // Answers `waiter`, whose records up to `last_lsn` are durable here, once `level` is reached, at once if
  // it is, or when its time is over. `first_lsn`: of its first record. `bytes`: what it holds in memory meanwhile.
  void Await(Lsn first_lsn, Lsn last_lsn, const CommitLevel& level, uint64_t bytes,
             std::unique_ptr<CommitWaiter> waiter) TOWLINE_EXCLUDES(mutex_);

  // What holds `lsn` now, without waiting.
  AchievedLevel AchievedAt(Lsn lsn, const CommitLevel& level) const TOWLINE_EXCLUDES(mutex_);

  // The last stage that a write waits for, or will once it is durable here (CommitInterest); nullopt = no write does.
  // Cheap.
  std::optional<CommitStage> Interest() const {
    if (Interested(CommitStage::kApplied).load(std::memory_order_relaxed) != 0) return CommitStage::kApplied;
    if (Interested(CommitStage::kFlushed).load(std::memory_order_relaxed) != 0) return CommitStage::kFlushed;
    return std::nullopt;
  }

  // Ends waits whose time is over, and what is left of an episode of degraded answers. Call every few hundredths of a
  // second.
  void Tick() TOWLINE_EXCLUDES(mutex_);

  // Between Hold and Release nothing is answered; acks count, and time runs.
  void Hold() TOWLINE_EXCLUDES(mutex_);
  void Release() TOWLINE_EXCLUDES(mutex_);

  // Answers every waiter, and every later one, with `status`. The first one stays.
  void Close(const absl::Status& status) TOWLINE_EXCLUDES(mutex_);

  // --- Standing ---

  // Highest LSN that meets the cluster's commit level; `durable_lsn` if that is 0.
  Lsn CommittedLsn(Lsn durable_lsn) const;

  // What `replicas` counting members hold durably, as far as they said since the opening, or the end of the log at the
  // opening if that is more. 0 = there are not so many members.
  Lsn HeldBy(uint32_t replicas) const TOWLINE_EXCLUDES(mutex_);

  // Replicas of the level of the committed LSN.
  uint32_t cluster_replicas() const { return cluster_replicas_.load(std::memory_order_relaxed); }

  CommitStats stats() const TOWLINE_EXCLUDES(mutex_);

 private:
  friend class CommitInterest;

  // Stage and number of replicas that waiters wait for. 0 replicas: only while answers are held.
  using GroupKey = std::pair<uint32_t, CommitStage>;
  struct Session {
    uint64_t id = 0;
    uint64_t incarnation = 0;
    bool live = false;
  };
  struct Waiting {
    std::unique_ptr<CommitWaiter> waiter;
    Lsn first_lsn;
    OnCommitTimeout on_timeout;
    uint64_t bytes;
    int64_t since_micros;
    int64_t deadline_micros;
  };
  using Group = std::multimap<Lsn, Waiting>;
  struct Done {
    std::unique_ptr<CommitWaiter> waiter;
    CommitResult result;
  };
  using DoneList = std::vector<Done>;

  const std::atomic<uint64_t>& Interested(CommitStage stage) const { return interest_[static_cast<size_t>(stage)]; }

  bool IsReached(Lsn lsn, const GroupKey& key) const TOWLINE_REQUIRES(mutex_);
  void Collect(DoneList* done) TOWLINE_REQUIRES(mutex_);
  void CollectLate(int64_t now, DoneList* done) TOWLINE_REQUIRES(mutex_);
  void Finish(Lsn lsn, const GroupKey& key, Waiting* waiting, CommitResult::End end, DoneList* done)
      TOWLINE_REQUIRES(mutex_);
  void NoteDegraded(Lsn first_lsn, Lsn last_lsn, const GroupKey& key) TOWLINE_REQUIRES(mutex_);
  void UpdateCommitted() TOWLINE_REQUIRES(mutex_);
  void LogTransition() TOWLINE_EXCLUDES(mutex_);
  static void Deliver(DoneList* done);

  Clock& clock_;
  Logger& logger_;
  const Term term_;
  const CommitLevel level_;
  const Lsn opened_lsn_;

  std::atomic<uint32_t> cluster_replicas_{0};
  std::atomic<Lsn> committed_lsn_{0};
  std::atomic<uint64_t> waiting_{0};
  std::array<std::atomic<uint64_t>, 2> interest_{};  // by stage

  mutable Mutex mutex_;
  CommitMembers members_ TOWLINE_GUARDED_BY(mutex_);
  std::map<std::string, Session> sessions_ TOWLINE_GUARDED_BY(mutex_);  // the last one of each node
  std::map<GroupKey, Group> groups_ TOWLINE_GUARDED_BY(mutex_);
  int64_t next_deadline_micros_ TOWLINE_GUARDED_BY(mutex_);
  bool held_ TOWLINE_GUARDED_BY(mutex_) = false;
  absl::Status closed_ TOWLINE_GUARDED_BY(mutex_);

  CommitStats stats_ TOWLINE_GUARDED_BY(mutex_);
  GroupKey degraded_level_ TOWLINE_GUARDED_BY(mutex_);
  int64_t degraded_micros_ TOWLINE_GUARDED_BY(mutex_) = 0;  // of the last such answer
  bool degraded_logged_ TOWLINE_GUARDED_BY(mutex_) = false;
  HeartbeatLog exposures_ TOWLINE_GUARDED_BY(mutex_);
};

// Held by a write from its intake to its answer if it is to wait for replicas.
class CommitInterest {
 public:
  CommitInterest(CommitTracker& tracker, CommitStage stage) : count_(tracker.interest_[static_cast<size_t>(stage)]) {
    count_.fetch_add(1);
  }
  ~CommitInterest() { count_.fetch_sub(1); }
  CommitInterest(const CommitInterest&) = delete;
  CommitInterest& operator=(const CommitInterest&) = delete;

 private:
  std::atomic<uint64_t>& count_;
};

}  // namespace towline

#endif  // TOWLINE_PRIMARY_COMMIT_TRACKER_H_
