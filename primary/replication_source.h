// The serving side of replication: sessions that pull the log, snapshots, lag, counters, retention.
//
// Transport-free: the gRPC adapters in `server` feed requests in and send what Next gives out.

#ifndef TOWLINE_PRIMARY_REPLICATION_SOURCE_H_
#define TOWLINE_PRIMARY_REPLICATION_SOURCE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/clock.h"
#include "common/logger.h"
#include "common/rng.h"
#include "primary/node_view.h"
#include "primary/resync_planner.h"
#include "primary/slot_forecast.h"
#include "primary/snapshot_pool.h"
#include "primary/stage_lag.h"
#include "slots/slot_copies.h"
#include "slots/slot_table.h"

namespace towline {
namespace v1 {
class PullStart;
class PullStarted;
class PullRequest;
class PullResponse;
class FetchSnapshotRequest;
class FetchSnapshotResponse;
class SaveSnapshotRequest;
}  // namespace v1

// What Next found.
enum class NextResult {
  kMessage,  // *out is filled: send it, then call Next again
  kWait,     // nothing now: call Next again after the wake callback
  kEnd,      // close the stream with the returned status of end_status()
};

// One Pull stream. Transport contract: the first request goes to OnRequest before the first Next; OnRequest and Next
// are never called at the same time; after kEnd or a broken transport call Close once and drop it.
// Next may read from the disk: call it from a worker, not from an RPC thread.
class PullSession {
 public:
  virtual ~PullSession() = default;

  // A request arrived. An error ends the stream with that status.
  virtual absl::Status OnRequest(const v1::PullRequest& request) = 0;

  // Fills the next message: started first; then frames or records while there is credit; heartbeats when due.
  virtual NextResult Next(v1::PullResponse* out) = 0;

  virtual absl::Status end_status() const = 0;

  // Gives up the slot's session.
  virtual void Close() = 0;
};

// One FetchSnapshot or SaveSnapshot stream. Next reads from the disk.
class SnapshotSession {
 public:
  virtual ~SnapshotSession() = default;
  virtual NextResult Next(v1::FetchSnapshotResponse* out) = 0;
  virtual absl::Status end_status() const = 0;
  virtual void Close() = 0;
};

struct SourceOptions {
  PlannerOptions planner;
  size_t batch_bytes_max = 1 << 20;  // of records in one message
  uint64_t follow_bytes = 64 << 10;  // less waits while a replica has still to sync what it was sent
  int64_t heartbeat_micros = 250'000;
  int64_t stall_timeout_micros = 10'000'000;
  int64_t session_timeout_micros = 15'000'000;  // no request for so long: the session ends
  int64_t slots_persist_micros = 1'000'000;
  uint64_t wal_keep_bytes = 1ull << 30;
  uint64_t limits_check_bytes = 16ull << 20;  // growth of the log after which slots are held to their limits at once
  SnapshotPoolOptions snapshots;
  std::function<absl::StatusOr<SpaceInfo>()> disk_space;  // of the data directory's disk; empty = not known
  uint32_t commit_replicas = 0;                           // commit level of writes that do not say
  double disk_warn_ratio = 0;                             // share in use from which on a warning is logged; 0 = off
};

// A replica or consumer, for status and metrics.
struct PeerStatus {
  std::string node_id;
  std::string slot;
  slots::SlotKind kind = slots::SlotKind::kReplica;
  std::string state;  // streaming, catching_up, bootstrapping, stalled, disconnected
  Lsn sent_lsn = 0;
  Lsn received_lsn = 0;
  Lsn flushed_lsn = 0;
  Lsn applied_lsn = 0;
  bool connected = false;        // has a session
  std::vector<StageLag> stages;  // sent, received, flushed, applied
};

struct SlotStatus {
  slots::Slot slot;
  std::string health;  // reserved, at_risk, lost
  uint64_t retained_bytes = 0;
  uint64_t headroom_bytes = 0;
  std::optional<double> headroom_seconds;  // absent = it drains as fast as the log grows, or nothing is measured yet
};

// A snapshot on its way.
struct SnapshotSend {
  std::string slot;  // empty = it is saved as a file
  uint64_t snapshot_id = 0;
  Lsn lsn = 0;
  uint64_t keys = 0;   // of the whole stream, with what went before a cursor
  uint64_t bytes = 0;  // likewise
  uint64_t estimated_bytes = 0;
  double bytes_per_second = 0;  // since this stream began
  double elapsed_seconds = 0;
  bool resumed = false;
};

struct SnapshotsStatus {
  SnapshotPoolStatus pool;
  std::vector<SnapshotSend> sends;  // by slot
};

// Counters by "decision/reason"; replicas and consumers apart. A decision counts when the first ack behind it arrives;
// refusals count at once, but only once per session of the same owner until its decision changes.
struct ResyncCounters {
  uint64_t partial_total = 0;
  uint64_t full_total = 0;
  uint64_t rewind_total = 0;
  uint64_t refused_total = 0;
  std::map<std::string, uint64_t> by_reason;
  std::map<std::string, uint64_t> consumers_by_reason;
  uint64_t superseded_sessions = 0;
  uint64_t stalls = 0;
  std::map<std::string, uint64_t> invalidations_by_cause;
  std::map<std::string, uint64_t> refused_requests;  // on Pull streams, by reason: each ended its session
  uint64_t snapshot_bytes_sent = 0;
  // How streams of snapshots began: new, joined (a live snapshot), resumed, rolled (resumed from a newer one),
  // restarted (there was a cursor, and it was of no use), saved.
  std::map<std::string, uint64_t> snapshot_streams;
  uint64_t record_bytes_sent = 0;
};

// Threads: all methods from any thread. The references must outlive it, and it must outlive its sessions.
class ReplicationSource {
 public:
  virtual ~ReplicationSource() = default;

  // `wake` is called, from any thread and perhaps under locks, whenever Next may have something new. It must only
  // schedule. After Close no new call starts.
  virtual std::unique_ptr<PullSession> NewPullSession(std::function<void()> wake) = 0;

  // `wake` as for NewPullSession. FAILED_PRECONDITION, reason plan_changed, unless the decision for `request` is FULL.
  // RESOURCE_EXHAUSTED, reason snapshot_limit when too many run, snapshot_outruns_log when the slot's log would be lost
  // before the snapshot is through; both with `retry_after_ms`.
  virtual absl::StatusOr<std::unique_ptr<SnapshotSession>> NewSnapshotSession(const v1::FetchSnapshotRequest& request,
                                                                              std::function<void()> wake) = 0;

  // A snapshot without a slot. RESOURCE_EXHAUSTED, reason snapshot_limit; FAILED_PRECONDITION, reason snapshot_gone;
  // UNAVAILABLE, reason not_exact or no_data.
  virtual absl::StatusOr<std::unique_ptr<SnapshotSession>> NewSaveSession(const v1::SaveSnapshotRequest& request,
                                                                          std::function<void()> wake) = 0;

  // What a Pull with this start would be answered, without any effect. `bytes_to_ship` may be nullptr.
  virtual absl::StatusOr<v1::PullStarted> Explain(const v1::PullStart& start, uint64_t* bytes_to_ship) = 0;

  // The start that the owner of this slot would send as far as this node knows: what it has confirmed, on this node's
  // line. NOT_FOUND, reason slot_not_found.
  virtual absl::StatusOr<v1::PullStart> StartOfSlotOwner(const std::string& name) = 0;

  // Drops a slot as SlotTable::Drop does, and counts it as an invalidation, cause dropped, if it held log.
  virtual absl::StatusOr<slots::Slot> DropSlot(const std::string& name, bool force) = 0;

  // Timer work: heartbeats, stall detection, slot saves, limits, pruning, what waits for a rate limit. Call it from one
  // thread, again after TickMicros. An error is fatal for the node (the slot file or the log cannot be written).
  virtual absl::Status Tick() = 0;
  virtual int64_t TickMicros() const = 0;

  // On a replica: the upstream's heartbeat, to be forwarded instead of own ones. Null function = make own ones.
  virtual void ForwardHeartbeat(const HeartbeatInfo& heartbeat) = 0;

  // On a replica: what the upstream tells of the primary's slots. Copies of them are saved by Tick, once per
  // slots_persist_micros, and own replicas are told.
  virtual void ForwardSlots(const slots::SlotCopies& news) = 0;

  // At a promotion to `term`, before its first record is written: see SlotTable::TakeOver. Ordered with pruning and the
  // start of sessions. FAILED_PRECONDITION, reason no_data.
  virtual absl::StatusOr<std::vector<slots::Slot>> TakeOverSlots(Term term) = 0;

  // On a replica: NodeView::upstream_path has become another one. Sessions tell it, and end if they are on it.
  virtual void OnPathChanged() = 0;

  virtual std::vector<PeerStatus> Peers() const = 0;
  virtual std::vector<SlotStatus> Slots() const = 0;
  // Of all slots, ordered by name, and of the disk. What is not measured yet is absent.
  virtual Forecast ForecastSlots(const ForecastWhatIf& what_if) const = 0;
  // The same without the slots, which costs next to nothing.
  virtual Forecast ForecastNode() const = 0;
  virtual ResyncCounters Counters() const = 0;
  virtual SnapshotsStatus Snapshots() const = 0;

  // Ends all sessions (the node changes its role or generation, or stops). Their Next returns kEnd with this status.
  virtual void EndSessions(const absl::Status& status) = 0;
};

std::unique_ptr<ReplicationSource> NewReplicationSource(SourceHost& host, slots::SlotTable& slots, Clock& clock,
                                                        Rng& rng, Logger& logger, SourceOptions options);

}  // namespace towline

#endif  // TOWLINE_PRIMARY_REPLICATION_SOURCE_H_
