// Gives records their place in the log.
//
// One loop takes whatever is queued, has it decided (WriteRules), frames the accepted records into one group, and has
// the group appended (one write, one fdatasync). A job is answered once everything up to its last record, and
// everything its refusals depended on, is durable. It may not be applied then: who reads waits for answered_lsn.

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
#include "primary/queue_space.h"
#include "primary/standstill.h"
#include "primary/write_job.h"
#include "primary/write_rules.h"
#include "store/state_store.h"
#include "wal/frame.h"

namespace towline {

struct SequencerOptions {
  uint64_t queue_bytes_max = 64ull << 20;  // of jobs, until they are answered and applied
  uint64_t group_bytes_max = 1 << 20;      // of one append
  Standstill* standstill = nullptr;        // what it suspects is held, as by Hold; outlives the sequencer
};

// Where groups go. Threads: Append is called from the sequencer's loop only.
class GroupSink {
 public:
  virtual ~GroupSink() = default;
  // End of the log, for the next group.
  virtual wal::LogEnd End() = 0;
  // Appends and syncs `group`, and has it applied: `applied` is called, from any thread, once it and everything before
  // it is. RESOURCE_EXHAUSTED: nothing was written, try later. Anything else is final. After an error `applied` is not
  // called. An `applied` that is destroyed without a call: the records are not applied before the node ends.
  virtual absl::Status AppendAndApply(std::shared_ptr<wal::FrameGroup> group, std::function<void()> applied) = 0;
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
  // `term` and `term_id` are those of the records it writes; `state` as WriteRules wants it. `on_fatal` is called once
  // when the log has failed.
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

  // Calls `fn` once when at least half of the queue is free, as QueueSpace::NotifyHalfFree.
  void NotifySpace(std::function<void()> fn);

  // No write above it was answered: who has this applied reads everything that was. 0 once it is closed: the log may go
  // back behind it then.
  Lsn answered_lsn() const { return answered_lsn_.load(std::memory_order_acquire); }

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

  // Refuses new jobs, then waits until all queued ones are answered. Idempotent.
  void Stop() TOWLINE_EXCLUDES(mutex_);

  SequencerStats stats() const;

 private:
  struct Batch;  // jobs whose records are in one group; holds their space in the queue

  StepResult Step();
  std::shared_ptr<Batch> TakeBatch() TOWLINE_EXCLUDES(mutex_);
  void Decide(WriteRecord* record, wal::GroupBuilder* builder, int64_t now_us);
  void Fail(const std::shared_ptr<Batch>& batch, const absl::Status& status);
  void Answer(const std::shared_ptr<Batch>& batch) TOWLINE_EXCLUDES(mutex_);
  static void Refuse(WriteJob* job, const absl::Status& status);

  GroupSink& sink_;
  Clock& clock_;
  const Term term_;
  const uint64_t term_id_;
  const SequencerOptions options_;
  const std::function<void(absl::Status)> on_fatal_;
  const std::shared_ptr<WriteRules> rules_;
  const std::shared_ptr<QueueSpace> space_;

  std::atomic<Lsn> answered_lsn_{0};
  std::atomic<bool> kick_due_{false};  // jobs wait that the loop was not woken for

  mutable Mutex mutex_;
  CondVar idle_cv_;
  std::deque<std::unique_ptr<WriteJob>> queue_ TOWLINE_GUARDED_BY(mutex_);
  uint64_t unanswered_ TOWLINE_GUARDED_BY(mutex_) = 0;  // jobs
  bool stopping_ TOWLINE_GUARDED_BY(mutex_) = false;
  bool held_ TOWLINE_GUARDED_BY(mutex_) = false;
  std::vector<std::shared_ptr<Batch>> held_batches_ TOWLINE_GUARDED_BY(mutex_);  // to be answered at Release
  absl::Status paused_ TOWLINE_GUARDED_BY(mutex_);                               // an error between Pause and Unpause
  absl::Status closed_ TOWLINE_GUARDED_BY(mutex_);                               // an error once Close was called

  absl::Status failed_;  // loop only; the log has failed for good

  std::atomic<uint64_t> records_total_{0};
  std::atomic<uint64_t> refused_total_{0};
  std::atomic<uint64_t> duplicates_total_{0};
  std::atomic<uint64_t> groups_total_{0};

  std::unique_ptr<Loop> loop_;  // last: stops before the rest goes away
};

}  // namespace towline

#endif  // TOWLINE_PRIMARY_SEQUENCER_H_
