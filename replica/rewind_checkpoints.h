// Rewind checkpoints of one generation: states of its past from which a node can go back to a record below its end.
//
//   gen/<n>/checkpoints/<lsn>/    a store whose state is that behind record <lsn>, by hard links
//
// A checkpoint holds the log behind it, which is what a rewind replays. Kept are the newest one, and of those before it
// the newest at or below the common LSN: what all live members have flushed, and what therefore no successor of the
// primary lacks. Both are given up rather than fill the disk. See docs/guides/rewind.md.

#ifndef TOWLINE_REPLICA_REWIND_CHECKPOINTS_H_
#define TOWLINE_REPLICA_REWIND_CHECKPOINTS_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/clock.h"
#include "common/executor.h"
#include "common/file_system.h"
#include "common/logger.h"
#include "common/mutex.h"
#include "store/state_store.h"
#include "wal/spool.h"

namespace towline {

struct RewindOptions {
  int64_t interval_micros = 0;        // from one checkpoint to the next while the log grows; 0 = none are made
  uint64_t log_bytes = 256ull << 20;  // ... or so much log, if that is sooner
  int64_t age_max_micros = 3600ll * 1'000'000;  // of all but the newest, while the log grows
  uint64_t held_bytes_max = 1ull << 30;         // log behind a checkpoint that is more is not held for it
  double disk_warn_ratio = 0;                   // share of the disk in use from which on none is made; 0 = off
  double disk_guard_ratio = 0;                  // ... and from which on none is kept; 0 = off
};

struct RewindCheckpoint {
  Lsn lsn = 0;
  int64_t since_micros = 0;  // monotonic: made, or found at open
};

struct RewindCheckpointStats {
  std::vector<RewindCheckpoint> kept;  // by LSN
  Lsn common_lsn = 0;                  // 0 = not known
  uint64_t made = 0;                   // since open
  uint64_t given_up = 0;  // since open: for want of space or for their age, not because a newer one is there
};

// Threads: all methods from any thread.
class RewindCheckpoints {
 public:
  struct Environment {
    FileSystem& fs;
    Clock& clock;
    Executor& executor;
    Logger& logger;
    std::string data_directory;
    RewindOptions options;
  };

  // Finds what is there and removes what is of no use: unfinished ones, those without a number or a file, and those
  // whose log is gone or was never there. Never fails for want of a checkpoint. The parts must outlive it. No
  // checkpoint is made below `exact_from`, where the state may be a mixture.
  static std::unique_ptr<RewindCheckpoints> Open(Environment env, uint64_t generation, StateStore& state,
                                                 wal::Spool& spool, Lsn exact_from);
  ~RewindCheckpoints();

  // What all live members that count have flushed, as far as is known; 0 = not known. It decides which are kept.
  void SetCommonLsn(Lsn lsn) TOWLINE_EXCLUDES(mutex_);

  Lsn oldest() const TOWLINE_EXCLUDES(mutex_);  // 0 = there is none
  // The newest at or below `lsn`; 0 = there is none.
  Lsn NewestUpTo(Lsn lsn) const TOWLINE_EXCLUDES(mutex_);
  std::string Path(Lsn lsn) const;
  RewindCheckpointStats stats() const TOWLINE_EXCLUDES(mutex_);

  // None is made or removed while the hold lives, but by Remove.
  class Hold {
   public:
    explicit Hold(RewindCheckpoints& owner);
    ~Hold();
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;

   private:
    RewindCheckpoints& owner_;
  };

  // It turned out to be of no use.
  void Remove(Lsn lsn, absl::string_view why) TOWLINE_EXCLUDES(work_mutex_, mutex_);

  // Makes one now, of what is persisted after a flush, whatever is due. OK without one if the newest is there already,
  // or the state is not exact. The loop does this by itself.
  absl::Status MakeNow() TOWLINE_EXCLUDES(work_mutex_, mutex_);

  // Ends the loop; what is kept stays. Idempotent.
  void Stop();

 private:
  RewindCheckpoints(Environment env, uint64_t generation, StateStore& state, wal::Spool& spool, Lsn exact_from);

  void FindOnDisk();
  StepResult Step() TOWLINE_EXCLUDES(work_mutex_, mutex_);
  bool IsDue(Lsn persisted, bool* flush) const TOWLINE_REQUIRES(work_mutex_) TOWLINE_EXCLUDES(mutex_);
  absl::Status Make(bool flush) TOWLINE_REQUIRES(work_mutex_) TOWLINE_EXCLUDES(mutex_);
  void KeepTheRight() TOWLINE_REQUIRES(work_mutex_) TOWLINE_EXCLUDES(mutex_);
  void KeepTheBounds(double used_ratio) TOWLINE_REQUIRES(work_mutex_) TOWLINE_EXCLUDES(mutex_);
  void Drop(Lsn lsn, LogLevel level, absl::string_view why) TOWLINE_REQUIRES(work_mutex_) TOWLINE_EXCLUDES(mutex_);
  void PinLocked() TOWLINE_REQUIRES(mutex_);
  double UsedRatio() const;
  Lsn newest() const TOWLINE_EXCLUDES(mutex_);
  int64_t Now() const { return env_.clock.MonotonicMicros(); }

  const Environment env_;
  const std::string directory_;
  StateStore& state_;
  wal::Spool& spool_;
  const Lsn exact_from_;

  // Held over the work on the disk; locked before mutex_.
  mutable Mutex work_mutex_;
  int holds_ TOWLINE_GUARDED_BY(work_mutex_) = 0;
  int64_t last_micros_ TOWLINE_GUARDED_BY(work_mutex_);  // when the newest one was made, or the generation opened
  bool made_one_ TOWLINE_GUARDED_BY(work_mutex_) = false;
  bool failing_ TOWLINE_GUARDED_BY(work_mutex_) = false;

  mutable Mutex mutex_;
  std::vector<RewindCheckpoint> kept_ TOWLINE_GUARDED_BY(mutex_);  // by LSN
  std::unique_ptr<wal::Pin> pin_ TOWLINE_GUARDED_BY(mutex_);       // of the log behind the oldest one
  Lsn common_lsn_ TOWLINE_GUARDED_BY(mutex_) = 0;
  uint64_t made_ TOWLINE_GUARDED_BY(mutex_) = 0;
  uint64_t given_up_ TOWLINE_GUARDED_BY(mutex_) = 0;

  std::unique_ptr<Loop> loop_;  // last member: stops before the rest goes away
};

}  // namespace towline

#endif  // TOWLINE_REPLICA_REWIND_CHECKPOINTS_H_
