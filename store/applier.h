// Applies durable records to the state, in order, on a loop of its own; also decides when the store is flushed.

#ifndef TOWLINE_STORE_APPLIER_H_
#define TOWLINE_STORE_APPLIER_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/clock.h"
#include "common/executor.h"
#include "common/logger.h"
#include "common/mutex.h"
#include "store/state_store.h"

namespace towline {

// Consecutive records to apply.
struct ApplyBatch {
  std::vector<ApplyRecord> records;
  std::shared_ptr<const void> keep_alive;  // owns the payloads
  uint64_t bytes = 0;                      // of log, for the flush policy and queue accounting
  std::function<void()> done;              // called on the applier's loop once all records are visible; may be empty
};

struct ApplierOptions {
  uint64_t batch_records_max = 4096;           // most records in one store batch
  uint64_t batch_bytes_max = 1 << 20;          // a store batch is closed behind this many bytes
  uint64_t flush_bytes = 256ull << 20;         // log applied since the last flush that makes it flush
  int64_t flush_interval_micros = 60'000'000;  // ... or time, since the first of it was applied
};

// Threads: all methods from any thread. `store` must outlive it.
class Applier {
 public:
  // `on_fatal` is called once, from the loop, if the store fails; nothing is applied afterwards, and what is queued is
  // dropped. A full disk is no failure: applying goes on when there is space again.
  Applier(StateStore& store, Executor& executor, Clock& clock, Logger& logger, ApplierOptions options,
          std::function<void(absl::Status)> on_fatal);
  ~Applier();

  // Records, at least one, must follow what was enqueued before, without a hole.
  void Enqueue(ApplyBatch batch) TOWLINE_EXCLUDES(mutex_);

  // Calls `fn` from the loop after each store batch, with the last applied LSN. Set before the first Enqueue.
  void SetAppliedListener(std::function<void(Lsn)> fn) TOWLINE_EXCLUDES(mutex_);

  Lsn applied_lsn() const { return applied_lsn_.load(std::memory_order_acquire); }
  uint64_t queued_bytes() const { return queued_bytes_.load(std::memory_order_relaxed); }
  // Log bytes that the store holds in memory and will want to write: applied since the last flush but one, and queued.
  uint64_t unflushed_bytes() const {
    return queued_bytes() + since_flush_bytes_.load(std::memory_order_relaxed) +
           flushing_bytes_.load(std::memory_order_relaxed);
  }
  // The store found no space; what is queued waits for it.
  bool waits_for_disk() const { return waits_for_disk_.load(std::memory_order_acquire); }

  // Waits until applied_lsn() >= lsn; false on timeout or stop.
  bool WaitApplied(Lsn lsn, int64_t timeout_micros) TOWLINE_EXCLUDES(mutex_);

  // The state when exactly `lsn` is applied. OUT_OF_RANGE, reason position_passed, if a later one is applied already;
  // DEADLINE_EXCEEDED, reason behind, on timeout.
  absl::StatusOr<std::shared_ptr<const StateSnapshot>> SnapshotAt(Lsn lsn, int64_t timeout_micros)
      TOWLINE_EXCLUDES(mutex_);

  // Ends the loop and applies what is still queued, in the calling thread; what waits for the disk is dropped, and
  // applied from the log at the next start. Idempotent.
  void Stop() TOWLINE_EXCLUDES(mutex_);

 private:
  struct SnapshotWaiter;

  StepResult Step() TOWLINE_EXCLUDES(mutex_);
  StepResult MaybeFlush() TOWLINE_EXCLUDES(mutex_);
  StepResult Retry(const absl::Status& status);
  void Fail(const absl::Status& status) TOWLINE_EXCLUDES(mutex_);
  void ServeSnapshots() TOWLINE_EXCLUDES(mutex_);
  void CollectLocked(std::vector<ApplyRecord>* records) TOWLINE_REQUIRES(mutex_);
  void RemoveLocked(size_t count, std::vector<ApplyBatch>* done) TOWLINE_REQUIRES(mutex_);

  StateStore& store_;
  Clock& clock_;
  Logger& logger_;
  const ApplierOptions options_;
  const std::function<void(absl::Status)> on_fatal_;

  std::atomic<Lsn> applied_lsn_;
  std::atomic<uint64_t> queued_bytes_{0};
  std::atomic<uint64_t> since_flush_bytes_{0};  // written by the loop only
  std::atomic<uint64_t> flushing_bytes_{0};     // given to the last flush, which may still run; loop only
  std::atomic<bool> waits_for_disk_{false};     // written by the loop only

  Mutex mutex_;
  CondVar applied_cv_;
  std::function<void(Lsn)> applied_listener_ TOWLINE_GUARDED_BY(mutex_);
  std::deque<ApplyBatch> queue_ TOWLINE_GUARDED_BY(mutex_);
  size_t front_applied_ TOWLINE_GUARDED_BY(mutex_) = 0;  // records of queue_.front() that are applied already
  std::multimap<Lsn, std::shared_ptr<SnapshotWaiter>> snapshot_waiters_ TOWLINE_GUARDED_BY(mutex_);
  bool stopped_ TOWLINE_GUARDED_BY(mutex_) = false;
  bool failed_ TOWLINE_GUARDED_BY(mutex_) = false;

  // Loop only.
  std::vector<ApplyRecord> records_;  // of the batch in the making
  bool unflushed_ = false;            // something was applied since the last flush
  int64_t unflushed_since_micros_ = 0;

  std::unique_ptr<Loop> loop_;  // last member: stops before the rest goes away
};

}  // namespace towline

#endif  // TOWLINE_STORE_APPLIER_H_
