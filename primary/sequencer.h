// Gives records their place in the log.
//
// One loop takes whatever is queued, decides conditions, request ids and expiry in LSN order against the state plus the
// records in flight, frames the accepted records into one group, and has the group appended (one write, one fdatasync)
// and applied. A job is answered once everything up to its last record, and everything its refusals depended on, is
// durable and applied.

#ifndef TOWLINE_PRIMARY_SEQUENCER_H_
#define TOWLINE_PRIMARY_SEQUENCER_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"

#include "common/clock.h"
#include "common/executor.h"
#include "common/logger.h"
#include "common/mutex.h"
#include "common/types.h"
#include "primary/overlay.h"
#include "primary/request_cache.h"
#include "primary/standstill.h"
#include "primary/write_job.h"
#include "store/state_store.h"
#include "wal/frame.h"

namespace towline {

struct SequencerOptions {
  uint64_t queue_bytes_max = 64ull << 20;  // of jobs from intake to answer
  uint64_t group_bytes_max = 1 << 20;      // of one append
  Standstill* standstill = nullptr;        // what it suspects is held, as by Hold; outlives the sequencer
};

// Where groups go. Threads: Append is called from the sequencer's loop only.
class GroupSink {
 public:
  virtual ~GroupSink() = default;
  // End of the log, for the next group.
  virtual wal::LogEnd End() = 0;
  // Appends and syncs `group` (nullptr: nothing to append), hands it to the applier, and calls `done` once it and
  // everything before it is applied. RESOURCE_EXHAUSTED: nothing was written, try later. Anything else is final.
  // After an error `done` is not called.
  // A `done` that is destroyed without a call: the records are in the log, but not applied before the node ends.
  virtual absl::Status AppendAndApply(std::shared_ptr<wal::FrameGroup> group, std::function<void()> done) = 0;
  // What was appended is not applied for now, because the disk is full. New groups would be refused.
  virtual bool Stuck() = 0;
};

struct SequencerStats {
  uint64_t records_total = 0;  // written
  uint64_t refused_total = 0;  // by conditions, request ids, disk full
  uint64_t duplicates_total = 0;
  uint64_t groups_total = 0;
  uint64_t queue_bytes = 0;
};

// Threads: all methods from any thread.
class Sequencer {
 public:
  // `term` and `term_id` are those of the records it writes. `state` shows all records of the log that carry a request
  // id: what it does not know of a client now is taken for never written. `on_fatal` is called once when the log has
  // failed.
  Sequencer(GroupSink& sink, StateStore& state, Executor& executor, Clock& clock, Term term, uint64_t term_id,
            SequencerOptions options, std::function<void(absl::Status)> on_fatal);
  ~Sequencer();

  // When the loop is to look at a new job: at once, or when the caller, who has more to submit, calls Kick. A burst
  // that is kicked once goes into one group, and so costs one sync.
  enum class Wake { kNow, kAtKick };

  // Queues a job; one without records is answered in its turn. RESOURCE_EXHAUSTED, reason queue_full, or UNAVAILABLE,
  // reason stopping: *job is untouched and OnDone will not be called. Never blocks.
  absl::Status Submit(std::unique_ptr<WriteJob>* job, Wake wake = Wake::kNow) TOWLINE_EXCLUDES(mutex_);

  // Wakes the loop if jobs were submitted with kAtKick since the last time. Cheap if not.
  void Kick() TOWLINE_EXCLUDES(mutex_);

  // Calls `fn` once when at least half of the queue is free: at once if it is empty, else from an answer.
  void NotifySpace(std::function<void()> fn) TOWLINE_EXCLUDES(mutex_);

  // Nothing is answered between Hold and Release; the log goes on. Idempotent.
  void Hold() TOWLINE_EXCLUDES(mutex_);
  void Release() TOWLINE_EXCLUDES(mutex_);

  // Refuses new jobs with `status` (metadata outcome: not_logged), until Unpause; what is queued goes on.
  void Pause(const absl::Status& status) TOWLINE_EXCLUDES(mutex_);
  void Unpause() TOWLINE_EXCLUDES(mutex_);

  // Ends writing because another node may be the primary now: new and queued jobs are refused with `status` (metadata
  // outcome: not_logged), and so are those that are in the log already (outcome: unknown, with their LSN), whose
  // answers may come a little later. Returns when nothing is appended any more. The first status stays.
  void Close(const absl::Status& status) TOWLINE_EXCLUDES(mutex_);

  // Whether every job that was submitted is answered.
  bool idle() const TOWLINE_EXCLUDES(mutex_);

  // Refuses new jobs, then waits until all queued ones are answered, or none can be because the sink is stuck: those
  // are answered UNAVAILABLE, reason stopping, when the sink drops them. Idempotent.
  void Stop() TOWLINE_EXCLUDES(mutex_);

  SequencerStats stats() const;

 private:
  struct Batch;  // jobs whose records are in one group

  StepResult Step();
  std::shared_ptr<Batch> TakeBatch() TOWLINE_EXCLUDES(mutex_);
  void Decide(WriteRecord* record, wal::GroupBuilder* builder, int64_t now_us) TOWLINE_REQUIRES(overlay_mutex_);
  absl::Status CheckRequest(const RequestKey& request, WriteOutcome* outcome) TOWLINE_REQUIRES(overlay_mutex_);
  absl::Status LearnClient(const RequestKey& request) TOWLINE_REQUIRES(overlay_mutex_);
  absl::Status CheckConditions(const WriteRecord& record, uint64_t now_ms) TOWLINE_REQUIRES(overlay_mutex_);
  absl::Status CheckExpiry(const WriteRecord& record, uint64_t now_ms) TOWLINE_REQUIRES(overlay_mutex_);
  absl::StatusOr<Overlay::KeyState> LookUp(absl::string_view key) TOWLINE_REQUIRES(overlay_mutex_);
  void OnApplied(const std::shared_ptr<Batch>& batch) TOWLINE_EXCLUDES(mutex_, overlay_mutex_);
  void Fail(const std::shared_ptr<Batch>& batch, const absl::Status& status);
  void Answer(const std::shared_ptr<Batch>& batch) TOWLINE_EXCLUDES(mutex_);
  static void Refuse(WriteJob* job, const absl::Status& status);

  GroupSink& sink_;
  StateStore& state_;
  Clock& clock_;
  const Term term_;
  const uint64_t term_id_;
  const SequencerOptions options_;
  const std::function<void(absl::Status)> on_fatal_;

  std::atomic<bool> kick_due_{false};  // jobs wait that the loop was not woken for

  mutable Mutex mutex_;
  CondVar idle_cv_;
  std::deque<std::unique_ptr<WriteJob>> queue_ TOWLINE_GUARDED_BY(mutex_);
  uint64_t queue_bytes_ TOWLINE_GUARDED_BY(mutex_) = 0;  // queued and in flight
  uint64_t unanswered_ TOWLINE_GUARDED_BY(mutex_) = 0;   // jobs
  bool stopping_ TOWLINE_GUARDED_BY(mutex_) = false;
  bool held_ TOWLINE_GUARDED_BY(mutex_) = false;
  std::vector<std::shared_ptr<Batch>> held_batches_ TOWLINE_GUARDED_BY(mutex_);  // to be answered at Release
  absl::Status paused_ TOWLINE_GUARDED_BY(mutex_);                               // an error between Pause and Unpause
  absl::Status closed_ TOWLINE_GUARDED_BY(mutex_);                               // an error once Close was called
  std::vector<std::function<void()>> space_waiters_ TOWLINE_GUARDED_BY(mutex_);

  // Points into the records of unanswered jobs: a batch is retired from it before its jobs are answered.
  Mutex overlay_mutex_;
  Overlay overlay_ TOWLINE_GUARDED_BY(overlay_mutex_);
  RequestCache requests_ TOWLINE_GUARDED_BY(overlay_mutex_);
  Lsn retired_lsn_ TOWLINE_GUARDED_BY(overlay_mutex_) = 0;  // the state shows records up to it

  absl::Status failed_;  // loop only; the log has failed for good

  std::atomic<uint64_t> records_total_{0};
  std::atomic<uint64_t> refused_total_{0};
  std::atomic<uint64_t> duplicates_total_{0};
  std::atomic<uint64_t> groups_total_{0};

  std::unique_ptr<Loop> loop_;  // last: stops before the rest goes away
};

}  // namespace towline

#endif  // TOWLINE_PRIMARY_SEQUENCER_H_
