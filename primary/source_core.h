// What the sessions of a ReplicationSource share with it.

#ifndef TOWLINE_PRIMARY_SOURCE_CORE_H_
#define TOWLINE_PRIMARY_SOURCE_CORE_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/clock.h"
#include "common/logger.h"
#include "common/mutex.h"
#include "common/rng.h"
#include "primary/heartbeat_log.h"
#include "primary/node_view.h"
#include "primary/replication_source.h"
#include "primary/resync_planner.h"
#include "primary/snapshot_pool.h"
#include "slots/slot_copies.h"
#include "slots/slot_table.h"

namespace towline {

// Moment and log that Tick looks at.
struct TickView {
  int64_t now_micros = 0;
  Lsn durable_lsn = 0;
};

// A session of either kind, as the source sees it. It registers itself, and unregisters before it goes away.
// Threads: all methods from any thread, under sessions_mutex_.
class ServedSession {
 public:
  virtual ~ServedSession() = default;

  // Makes Next return kEnd with this status, unless it ended before.
  virtual void End(const absl::Status& status) = 0;

  // The slot session that it holds; 0 = none.
  virtual uint64_t slot_session() const = 0;

  // Called from Tick: timeout and stall.
  virtual void OnTick(const TickView& view) = 0;

  // A new heartbeat or another path to the primary is there.
  virtual void OnNews() = 0;

  // Called from Tick, under resume_mutex, before pruning: holds no more of the log than it needs.
  virtual void OnRetention() = 0;

  // Its slot, if it is `slot`, was invalidated: it must hold nothing of the log. A snapshot ends.
  virtual void OnInvalidated(const std::string& slot) = 0;

  // True if it streams on `slot`; it then holds the log that it has not sent.
  virtual bool HoldAgain(const std::string& slot) = 0;

  // Fills the row of its slot, and its name; false if it has none.
  virtual bool Describe(PeerStatus* status) const = 0;

  // Fills a row of the snapshots that are sent; false if it sends none.
  virtual bool DescribeSnapshot(SnapshotSend* send) const = 0;
};

// What was known when a plan was made.
struct Resumption {
  NodeView node;
  std::shared_ptr<LogAndState> live;  // nullptr only if the plan is no PARTIAL, FULL or REWIND
  LogFacts log;
  std::optional<slots::Slot> slot;
  Plan plan;
};

// Makes of a plan that the slot table refuses, reason slot_in_use, the refusal that it is.
void RefuseInUse(const absl::Status& status, Plan* plan);

// Lock order: resume_mutex, sessions_mutex_, a session's own mutex, mutex_. The locks of the slot table and the spool
// are below all of them.
class SourceCore {
 public:
  SourceCore(SourceHost& source_host, slots::SlotTable& slot_table, Clock& source_clock, Rng& source_rng,
             Logger& source_logger, SourceOptions source_options)
      : host(source_host),
        slots(slot_table),
        clock(source_clock),
        logger(source_logger),
        options(std::move(source_options)),
        snapshots(source_clock, source_rng, options.snapshots) {}

  // Plans without any effect.
  Resumption Resume(const ResumeRequest& request) const;

  // --- Sessions ---

  uint64_t Register(ServedSession* session) TOWLINE_EXCLUDES(sessions_mutex_);  // returns a key for Unregister
  void Unregister(uint64_t key) TOWLINE_EXCLUDES(sessions_mutex_);
  void ForEachSession(const std::function<void(ServedSession&)>& fn) const TOWLINE_EXCLUDES(sessions_mutex_);
  void EndSuperseded(uint64_t slot_session) TOWLINE_EXCLUDES(sessions_mutex_, mutex_);  // 0 = none

  // Makes the owner of `request` the one that uses the slot, which is created at `lsn` if there is none; ends its older
  // session. FAILED_PRECONDITION, reason slot_in_use.
  absl::StatusOr<slots::Session> TakeSlot(const ResumeRequest& request, const Resumption& resumption, Lsn lsn)
      TOWLINE_REQUIRES(resume_mutex);

  // If the plan is that a replica has diverged and must load a snapshot: its slot, which held the log for another line,
  // is invalidated for that cause. Nothing happens to a slot that another process uses.
  absl::Status GiveUpDiverged(const ResumeRequest& request, const Resumption& resumption)
      TOWLINE_REQUIRES(resume_mutex);

  // The log as the limits of slots see it. `live` must outlive what is returned.
  slots::LogView LimitsView(LogAndState& live) const;

  // A record of the log could not be read: whoever needs it takes a snapshot, until the spool says that it is whole
  // again or, if the spool cannot place the damage, until the restart.
  void MarkDamaged(LogAndState& live, Lsn lsn) TOWLINE_EXCLUDES(mutex_);

  // --- Counters and the log ---

  // One line, and the counter if it is a refusal that this owner did not get before.
  void LogDecision(const ResumeRequest& request, const Plan& plan) TOWLINE_EXCLUDES(mutex_);
  void CountDecision(const slots::Session& session, slots::SlotKind kind, Decision decision, const std::string& reason)
      TOWLINE_EXCLUDES(mutex_);
  // Whether the full resync or rewind for which the slot got this generation has been counted, but not yet revived.
  bool IsCounted(const std::string& slot, uint64_t generation) const TOWLINE_EXCLUDES(mutex_);
  absl::Status Revive(const std::string& slot) TOWLINE_EXCLUDES(mutex_);
  void CountStall() TOWLINE_EXCLUDES(mutex_);
  void CountInvalidation(const std::string& cause) TOWLINE_EXCLUDES(mutex_);
  void CountRefusedRequest(const std::string& reason) TOWLINE_EXCLUDES(mutex_);
  void CountRecordBytes(uint64_t bytes) TOWLINE_EXCLUDES(mutex_);
  void CountSnapshotBytes(uint64_t bytes) TOWLINE_EXCLUDES(mutex_);
  void CountSnapshotStream(const std::string& how) TOWLINE_EXCLUDES(mutex_);
  ResyncCounters counters() const TOWLINE_EXCLUDES(mutex_);

  // --- Writers ---

  // What is written to the log, in bytes a second; snapshots, and the log behind them, give way to much.
  void SetWriteRate(double bytes_per_second);
  // Bytes a second of the log that a replica behind a snapshot may be sent now; 0 = no limit. More than is written, so
  // that it comes to the end.
  double CatchUpLimit() const;
  // A stream waits for its rate limit; the time when one last did.
  void Paced() { paced_micros_.store(clock.MonotonicMicros(), std::memory_order_relaxed); }
  int64_t paced_micros() const { return paced_micros_.load(std::memory_order_relaxed); }

  // --- The path to the primary ---

  // Rises whenever the path in host.View() has become another one.
  uint64_t path_version() const { return path_version_.load(std::memory_order_acquire); }
  void RaisePathVersion() { path_version_.fetch_add(1, std::memory_order_release); }

  // --- Heartbeats ---

  void AddHeartbeat(const HeartbeatInfo& heartbeat) TOWLINE_EXCLUDES(mutex_);
  void ClearHeartbeats() TOWLINE_EXCLUDES(mutex_);
  HeartbeatInfo heartbeat() const TOWLINE_EXCLUDES(mutex_);
  double LagSeconds(Lsn applied_lsn) const TOWLINE_EXCLUDES(mutex_);

  // --- Slots that others keep copies of ---

  void TellSlots(const slots::SlotCopies& news) TOWLINE_EXCLUDES(mutex_);
  // What is new to who knows version *told, which becomes the present one; nullopt if nothing is.
  std::optional<slots::SlotCopies> SlotNews(uint64_t* told) const TOWLINE_EXCLUDES(mutex_);

  SourceHost& host;
  slots::SlotTable& slots;
  Clock& clock;
  Logger& logger;
  const SourceOptions options;
  SnapshotPool snapshots;

  // Orders the start of sessions with pruning: held from the look at the log until slot and pin hold it.
  Mutex resume_mutex;

 private:
  Lsn DamagedLsn(uint64_t data_generation) const TOWLINE_EXCLUDES(mutex_);
  void CountLocked(slots::SlotKind kind, Decision decision, const std::string& reason) TOWLINE_REQUIRES(mutex_);

  std::atomic<double> write_rate_{0};
  std::atomic<int64_t> paced_micros_{std::numeric_limits<int64_t>::min() / 2};
  std::atomic<uint64_t> path_version_{1};

  mutable Mutex sessions_mutex_;
  uint64_t last_key_ TOWLINE_GUARDED_BY(sessions_mutex_) = 0;
  std::map<uint64_t, ServedSession*> sessions_ TOWLINE_GUARDED_BY(sessions_mutex_);  // in the order of arrival

  mutable Mutex mutex_;
  ResyncCounters counters_ TOWLINE_GUARDED_BY(mutex_);
  std::map<std::string, std::string> refusals_ TOWLINE_GUARDED_BY(mutex_);  // slot -> the last one that was counted
  std::map<std::string, uint64_t> counted_ TOWLINE_GUARDED_BY(mutex_);      // slot -> generation: see IsCounted
  HeartbeatLog heartbeats_ TOWLINE_GUARDED_BY(mutex_);
  slots::SlotFeed slot_feed_ TOWLINE_GUARDED_BY(mutex_);  // own ones on a primary, else those of the upstream's telling
  // Data generation -> last LSN that cannot be read and that the spool's list does not hold.
  std::map<uint64_t, Lsn> damaged_ TOWLINE_GUARDED_BY(mutex_);
};

}  // namespace towline

#endif  // TOWLINE_PRIMARY_SOURCE_CORE_H_
