// The snapshots that streams read from: who shares which, how many there are, how fast they are sent.
//
// A snapshot is one moment of the store, held while streams read it and a little longer, so that an owner whose stream
// was cut finds the same one again. Each stream walks it with a cursor of its own, at its own pace; nothing is kept in
// memory for it but the chunk on its way. What a live snapshot costs is disk: versions and files of the store that
// would have been dropped.

#ifndef TOWLINE_PRIMARY_SNAPSHOT_POOL_H_
#define TOWLINE_PRIMARY_SNAPSHOT_POOL_H_

#include <atomic>
#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/clock.h"
#include "common/mutex.h"
#include "common/rng.h"
#include "primary/file_snapshot.h"
#include "primary/node_view.h"
#include "primary/token_bucket.h"
#include "store/snapshot_codec.h"
#include "store/state_store.h"

namespace towline {

struct SnapshotPoolOptions {
  int snapshots_max = 2;                           // live at a time
  int sessions_max = 4;                            // streams at a time
  int64_t join_micros = 60'000'000;                // younger ones are shared by whoever needs one
  int64_t age_max_micros = 30ll * 60 * 1'000'000;  // older ones are given up; streams go on from a newer one
  int64_t linger_micros = 10'000'000;              // kept for so long after the last stream
  uint64_t bytes_per_second = 0;                   // of all streams together; 0 = no limit
  uint64_t busy_bytes_per_second = 0;              // the same while writers are at work: see SetBusy
};

// One moment of the store.
// Destruction: the files go before the store that they were linked from.
struct SharedSnapshot {
  uint64_t id = 0;  // random, never 0
  std::shared_ptr<LogAndState> live;
  std::shared_ptr<const StateSnapshot> state;  // for an RDB stream, or
  std::unique_ptr<const FileSnapshot> files;   // for the sending of files
  SnapshotMeta meta;
  uint64_t estimated_bytes = 0;  // of its stream
  int64_t made_micros = 0;       // monotonic

  SnapshotForm form() const { return files != nullptr ? SnapshotForm::kFiles : SnapshotForm::kRdb; }
};
using SharedSnapshotPtr = std::shared_ptr<const SharedSnapshot>;

struct SnapshotPoolStatus {
  uint64_t live = 0;
  uint64_t sessions = 0;
  double oldest_seconds = 0;  // age of the oldest live one
  Lsn oldest_lsn = 0;         // 0 = there is none
  uint64_t pinned_bytes = 0;  // of store files that are kept for snapshots and scans only
};

// Threads: all methods from any thread.
class SnapshotPool {
 public:
  SnapshotPool(Clock& clock, Rng& rng, SnapshotPoolOptions options) : clock_(clock), rng_(rng), options_(options) {}
  ~SnapshotPool() { Clear(); }

  const SnapshotPoolOptions& options() const { return options_; }

  // A place for one more stream, given back by Leave. RESOURCE_EXHAUSTED, reason snapshot_limit, with `retry_after_ms`.
  absl::Status Enter() TOWLINE_EXCLUDES(mutex_);
  void Leave() TOWLINE_EXCLUDES(mutex_);
  // A stream came to its end, for the measured rate.
  void Finished(uint64_t bytes, int64_t micros) TOWLINE_EXCLUDES(mutex_);

  // The live one with this id; nullptr if it is gone.
  SharedSnapshotPtr Find(uint64_t id) TOWLINE_EXCLUDES(mutex_);
  // The newest one of this form and data generation at `lsn` or behind it; with `young`, only if it may still be
  // joined.
  SharedSnapshotPtr Newest(SnapshotForm form, uint64_t data_generation, Lsn lsn, bool young) TOWLINE_EXCLUDES(mutex_);
  // Whether another one may be made. Gives up those that nobody reads to make room.
  bool HasRoom() TOWLINE_EXCLUDES(mutex_);
  // Takes one. `meta` needs all but the position and its history, which are those of the snapshot. Of files: what is
  // persisted, copied to the place that `live` names.
  absl::StatusOr<SharedSnapshotPtr> Make(SnapshotForm form, std::shared_ptr<LogAndState> live, SnapshotMeta meta,
                                         const History& history) TOWLINE_EXCLUDES(mutex_);
  absl::Status Full() const;  // snapshot_limit, for the snapshots
  // Takes over the file snapshots of `live` that an earlier process left, if they lie on `history`; removes what is of
  // no use. Once for each data generation. `meta` as for Make.
  void Adopt(const std::shared_ptr<LogAndState>& live, const SnapshotMeta& meta, const History& history)
      TOWLINE_EXCLUDES(adopt_mutex_, mutex_);

  // Whether a stream must go on from a newer one.
  bool IsExpired(const SharedSnapshot& snapshot) const;

  // Whether so much is written to the log that snapshots give way to it.
  void SetBusy(bool busy) { busy_.store(busy, std::memory_order_relaxed); }
  // Bytes a second that all streams together may send now; 0 = no limit.
  uint64_t Limit() const;
  // The rate limit: a stream asks before each chunk and tells its size behind it.
  bool MaySend() TOWLINE_EXCLUDES(mutex_);
  void Sent(uint64_t bytes) TOWLINE_EXCLUDES(mutex_);

  // Bytes a second of one stream, as measured on those that came to their end; nullopt = none did yet.
  std::optional<double> StreamRate() const TOWLINE_EXCLUDES(mutex_);

  // Gives up those that nobody needs any more. Call every second or so.
  void Tick() TOWLINE_EXCLUDES(mutex_);
  // Gives up all but those that streams still hold. Files stay for a later process.
  void Clear() TOWLINE_EXCLUDES(adopt_mutex_, mutex_);

  SnapshotPoolStatus Status() const TOWLINE_EXCLUDES(mutex_);

 private:
  struct Entry {
    SharedSnapshotPtr snapshot;
    int64_t used_micros = 0;  // when it was last seen in use
  };
  absl::Status Fill(SnapshotForm form, LogAndState& live, SharedSnapshot* snapshot) const;
  SharedSnapshotPtr AdoptOne(const FileSnapshotPlace& place, const std::string& name,
                             const std::shared_ptr<LogAndState>& live, const SnapshotMeta& meta,
                             const History& history) const;
  void DropUnusedLocked(int64_t used_before_micros, std::list<Entry>* dropped) TOWLINE_REQUIRES(mutex_);
  absl::Status TooMany(const std::string& what) const;

  Clock& clock_;
  Rng& rng_;
  const SnapshotPoolOptions options_;
  std::atomic<bool> busy_{false};

  // Held over the look at the disk, so that whoever needs what is found waits for it; locked before mutex_.
  Mutex adopt_mutex_;
  uint64_t adopted_ TOWLINE_GUARDED_BY(adopt_mutex_) = 0;  // the data generation that was looked at; 0 = none

  mutable Mutex mutex_;
  std::list<Entry> entries_ TOWLINE_GUARDED_BY(mutex_);  // oldest first
  int sessions_ TOWLINE_GUARDED_BY(mutex_) = 0;
  double rate_ TOWLINE_GUARDED_BY(mutex_) = 0;  // 0 = not measured
  TokenBucket tokens_ TOWLINE_GUARDED_BY(mutex_);
};

}  // namespace towline

#endif  // TOWLINE_PRIMARY_SNAPSHOT_POOL_H_
