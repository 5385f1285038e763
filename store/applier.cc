#include "store/applier.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/failpoint.h"

namespace towline {
namespace {

// A full disk is asked again after this time.
constexpr int64_t kRetryMicros = 1'000'000;
// Log bytes of a record besides its payload, for the size of store batches.
constexpr uint64_t kRecordOverhead = 64;

using SnapshotResult = absl::StatusOr<std::shared_ptr<const StateSnapshot>>;

absl::Status Stopped() { return MakeError(absl::StatusCode::kUnavailable, "stopping", "the applier is stopped"); }

// A test holds the state where it is.
bool Paused() { return Failpoint("applier_pause"); }

}  // namespace

// Someone who waits for the state at one LSN.
struct Applier::SnapshotWaiter {
  bool done = false;
  SnapshotResult result = Stopped();
};

Applier::Applier(StateStore& store, Executor& executor, Clock& clock, Logger& logger, ApplierOptions options,
                 std::function<void(absl::Status)> on_fatal)
    : store_(store),
      clock_(clock),
      logger_(logger),
      options_(options),
      on_fatal_(std::move(on_fatal)),
      applied_lsn_(store.applied().lsn) {
  loop_ = executor.Start(
      "apply", [this] { return Step(); }, LoopPriority::kBatch);
}

Applier::~Applier() { Stop(); }

void Applier::Enqueue(ApplyBatch batch) {
  {
    MutexLock lock(&mutex_);
    if (stopped_ || failed_) return;
    queued_bytes_.fetch_add(batch.bytes, std::memory_order_relaxed);
    queue_.push_back(std::move(batch));
  }
  loop_->Wake();
}

void Applier::SetAppliedListener(std::function<void(Lsn)> fn) {
  MutexLock lock(&mutex_);
  applied_listener_ = std::move(fn);
}

bool Applier::WaitApplied(Lsn lsn, int64_t timeout_micros) {
  const int64_t deadline = clock_.MonotonicMicros() + timeout_micros;
  MutexLock lock(&mutex_);
  while (applied_lsn() < lsn && !stopped_ && !failed_) {
    if (!applied_cv_.WaitFor(&mutex_, deadline - clock_.MonotonicMicros())) break;
  }
  return applied_lsn() >= lsn;
}

absl::StatusOr<std::shared_ptr<const StateSnapshot>> Applier::SnapshotAt(Lsn lsn, int64_t timeout_micros) {
  const auto passed = [lsn](Lsn applied) {
    return MakeError(absl::StatusCode::kOutOfRange, "position_passed",
                     absl::StrCat("the state at ", lsn, " is gone, ", applied, " is applied"));
  };
  if (applied_lsn() == lsn) {
    TOWLINE_ASSIGN_OR_RETURN(std::shared_ptr<const StateSnapshot> snapshot, store_.Snapshot());
    if (snapshot->position().lsn == lsn) return snapshot;
  }

  const int64_t deadline = clock_.MonotonicMicros() + timeout_micros;
  MutexLock lock(&mutex_);
  if (applied_lsn() > lsn) return passed(applied_lsn());
  if (failed_) return MakeError(absl::StatusCode::kInternal, "store_failed", "the store has failed");
  if (stopped_) return Stopped();
  const auto waiter = std::make_shared<SnapshotWaiter>();
  const auto it = snapshot_waiters_.emplace(lsn, waiter);
  loop_->Wake();
  while (!waiter->done) {
    if (!applied_cv_.WaitFor(&mutex_, deadline - clock_.MonotonicMicros())) break;
  }
  if (waiter->done) return std::move(waiter->result);
  snapshot_waiters_.erase(it);
  return MakeError(absl::StatusCode::kDeadlineExceeded, "behind",
                   absl::StrCat("the state at ", lsn, " was not reached in time, ", applied_lsn(), " is applied"));
}

// Takes the records of the next store batch from the front of the queue. They stay in the queue until they are
// applied; the batch ends where a snapshot is waited for.
void Applier::CollectLocked(std::vector<ApplyRecord>* records) {
  records->clear();
  uint64_t bytes = 0;
  const auto waiter = snapshot_waiters_.upper_bound(applied_lsn());
  const Lsn last = waiter == snapshot_waiters_.end() ? UINT64_MAX : waiter->first;
  size_t skip = front_applied_;
  for (const ApplyBatch& batch : queue_) {
    for (size_t i = skip; i < batch.records.size(); ++i) {
      if (records->size() >= options_.batch_records_max || bytes >= options_.batch_bytes_max) return;
      records->push_back(batch.records[i]);
      bytes += batch.records[i].payload.size() + kRecordOverhead;
      if (batch.records[i].position.lsn == last) return;
    }
    skip = 0;
  }
}

// Removes `count` applied records from the front of the queue; batches that are applied as a whole go to *done.
void Applier::RemoveLocked(size_t count, std::vector<ApplyBatch>* done) {
  while (count != 0) {
    ApplyBatch& front = queue_.front();
    const size_t left = front.records.size() - front_applied_;
    if (left > count) {
      front_applied_ += count;
      return;
    }
    count -= left;
    since_flush_bytes_.fetch_add(front.bytes, std::memory_order_relaxed);
    queued_bytes_.fetch_sub(front.bytes, std::memory_order_relaxed);
    done->push_back(std::move(front));
    queue_.pop_front();
    front_applied_ = 0;
  }
}

// Gives the present state to those who wait for it, and an error to those who came too late.
void Applier::ServeSnapshots() {
  const Lsn applied = applied_lsn();
  {
    MutexLock lock(&mutex_);
    if (snapshot_waiters_.empty() || snapshot_waiters_.begin()->first > applied) return;
  }
  const SnapshotResult snapshot = store_.Snapshot();
  MutexLock lock(&mutex_);
  while (!snapshot_waiters_.empty() && snapshot_waiters_.begin()->first <= applied) {
    const auto it = snapshot_waiters_.begin();
    if (it->first == applied) {
      it->second->result = snapshot;
    } else {
      it->second->result = MakeError(absl::StatusCode::kOutOfRange, "position_passed",
                                     absl::StrCat("the state at ", it->first, " is gone, ", applied, " is applied"));
    }
    it->second->done = true;
    snapshot_waiters_.erase(it);
  }
  applied_cv_.NotifyAll();
}

void Applier::Fail(const absl::Status& status) {
  std::deque<ApplyBatch> dropped;
  {
    MutexLock lock(&mutex_);
    failed_ = true;
    dropped.swap(queue_);
    for (const auto& [lsn, waiter] : snapshot_waiters_) {
      waiter->result = status;
      waiter->done = true;
    }
    snapshot_waiters_.clear();
    queued_bytes_.store(0, std::memory_order_relaxed);
    applied_cv_.NotifyAll();
  }
  logger_.Log(LogLevel::kError, "apply_failed", {{"applied_lsn", applied_lsn()}, {"error", status.message()}});
  on_fatal_(status);
}

StepResult Applier::Step() {
  ServeSnapshots();
  std::function<void(Lsn)> listener;
  {
    MutexLock lock(&mutex_);
    if (failed_) return StepResult::WaitForWake();
    CollectLocked(&records_);
    if (!records_.empty()) listener = applied_listener_;
  }
  if (!records_.empty() && Paused()) return StepResult::WaitFor(kRetryMicros);
  if (records_.empty()) return MaybeFlush();

  const absl::Status status = store_.Apply(records_);
  if (absl::IsResourceExhausted(status)) return Retry(status);
  if (!status.ok()) {
    Fail(status);
    return StepResult::WaitForWake();
  }
  waits_for_disk_.store(false, std::memory_order_release);

  const Lsn lsn = records_.back().position.lsn;
  std::vector<ApplyBatch> done;
  {
    MutexLock lock(&mutex_);
    applied_lsn_.store(lsn, std::memory_order_release);
    RemoveLocked(records_.size(), &done);
    applied_cv_.NotifyAll();
  }
  ServeSnapshots();
  if (listener) listener(lsn);
  for (const ApplyBatch& batch : done) {
    if (batch.done) batch.done();
  }
  if (!unflushed_) unflushed_since_micros_ = clock_.MonotonicMicros();
  unflushed_ = true;
  MaybeFlush();
  return StepResult::Again();
}

// Starts a flush if one is due; otherwise waits until it will be.
StepResult Applier::MaybeFlush() {
  if (!unflushed_) return StepResult::WaitForWake();
  const int64_t left = unflushed_since_micros_ + options_.flush_interval_micros - clock_.MonotonicMicros();
  if (since_flush_bytes_.load(std::memory_order_relaxed) < options_.flush_bytes && left > 0)
    return StepResult::WaitFor(left);
  const absl::Status status = store_.store().Flush(/*wait=*/false);
  if (absl::IsResourceExhausted(status)) return Retry(status);
  if (!status.ok()) {
    Fail(status);
    return StepResult::WaitForWake();
  }
  flushing_bytes_.store(since_flush_bytes_.exchange(0, std::memory_order_relaxed), std::memory_order_relaxed);
  unflushed_ = false;
  waits_for_disk_.store(false, std::memory_order_release);
  return StepResult::WaitForWake();
}

StepResult Applier::Retry(const absl::Status& status) {
  if (!waits_for_disk()) {
    logger_.Log(LogLevel::kWarning, "apply_waits_for_disk",
                {{"applied_lsn", applied_lsn()}, {"error", status.message()}});
  }
  waits_for_disk_.store(true, std::memory_order_release);
  return StepResult::WaitFor(kRetryMicros);
}

void Applier::Stop() {
  loop_->Stop();
  std::deque<ApplyBatch> dropped;  // their callbacks go away without the lock
  // The loop is over, so its steps can be made here: first what is queued, then nothing more.
  for (;;) {
    {
      MutexLock lock(&mutex_);
      if (stopped_) return;
      if (queue_.empty() || failed_ || waits_for_disk() || Paused()) {
        stopped_ = true;
        dropped.swap(queue_);
        for (const auto& [lsn, waiter] : snapshot_waiters_) waiter->done = true;
        snapshot_waiters_.clear();
        applied_cv_.NotifyAll();
        return;
      }
    }
    Step();
  }
}

}  // namespace towline
