#include "primary/sequencer.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"

namespace towline {
namespace {

// A job is counted with what it holds besides its payloads.
constexpr uint64_t kRecordOverheadBytes = 256;

uint64_t JobBytes(const WriteJob& job) {
  uint64_t bytes = kRecordOverheadBytes;
  for (const WriteRecord& record : job.records) bytes += record.payload.size() + kRecordOverheadBytes;
  return bytes;
}

// `status` with what is known of the fate of a record; lsn 0 = it is not in the log.
absl::Status WithOutcome(const absl::Status& status, Lsn lsn) {
  ErrorInfo info = GetErrorInfo(status);
  info.metadata["outcome"] = lsn == 0 ? "not_logged" : "unknown";
  if (lsn != 0) info.metadata["lsn"] = absl::StrCat(lsn);
  return MakeError(status.code(), std::move(info));
}

}  // namespace

struct Sequencer::Batch {
  explicit Batch(std::shared_ptr<QueueSpace> batch_space) : space(std::move(batch_space)) {}
  Batch(const Batch&) = delete;
  Batch& operator=(const Batch&) = delete;
  // Answered, and applied or given up.
  ~Batch() { space->Give(bytes); }

  const std::shared_ptr<QueueSpace> space;
  uint64_t bytes = 0;
  std::vector<std::unique_ptr<WriteJob>> jobs;
};

Sequencer::Sequencer(GroupSink& sink, StateStore& state, Executor& executor, Clock& clock, Term term, uint64_t term_id,
                     SequencerOptions options, std::function<void(absl::Status)> on_fatal)
    : sink_(sink),
      clock_(clock),
      term_(term),
      term_id_(term_id),
      options_(options),
      on_fatal_(std::move(on_fatal)),
      rules_(std::make_shared<WriteRules>(state)),
      space_(std::make_shared<QueueSpace>(options.queue_bytes_max)) {
  loop_ = executor.Start("wal-writer", [this] { return Step(); });
}

Sequencer::~Sequencer() { Stop(); }

absl::Status Sequencer::Submit(std::unique_ptr<WriteJob>* job, Wake wake) {
  const uint64_t bytes = JobBytes(**job);
  {
    MutexLock lock(&mutex_);
    if (!closed_.ok()) return WithOutcome(closed_, 0);
    if (!paused_.ok()) return WithOutcome(paused_, 0);
    if (stopping_) {
      return MakeError(absl::StatusCode::kUnavailable, "stopping", "the node takes no writes any more",
                       "retry on the primary");
    }
    if (!space_->Take(bytes)) {
      return MakeError(absl::StatusCode::kResourceExhausted, "queue_full",
                       absl::StrCat("the write queue holds ", space_->taken(), " bytes; wal.queue_bytes is ",
                                    options_.queue_bytes_max),
                       "retry with backoff");
    }
    (*job)->bytes = bytes;
    ++unanswered_;
    queue_.push_back(std::move(*job));
  }
  kick_due_.store(true, std::memory_order_relaxed);
  if (wake == Wake::kNow) Kick();
  return absl::OkStatus();
}

void Sequencer::Kick() {
  if (!kick_due_.load(std::memory_order_relaxed) || !kick_due_.exchange(false, std::memory_order_acq_rel)) return;
  loop_->Wake();
}

void Sequencer::NotifySpace(std::function<void()> fn) { space_->NotifyHalfFree(std::move(fn)); }

void Sequencer::Hold() {
  MutexLock lock(&mutex_);
  held_ = true;
}

void Sequencer::Release() {
  std::vector<std::shared_ptr<Batch>> batches;
  {
    MutexLock lock(&mutex_);
    held_ = false;
    batches.swap(held_batches_);
  }
  for (const std::shared_ptr<Batch>& batch : batches) Answer(batch);
}

void Sequencer::Pause(const absl::Status& status) {
  MutexLock lock(&mutex_);
  paused_ = status;
}

void Sequencer::Unpause() {
  MutexLock lock(&mutex_);
  paused_ = absl::OkStatus();
}

void Sequencer::Close(const absl::Status& status) {
  const auto refused = std::make_shared<Batch>(space_);
  {
    MutexLock lock(&mutex_);
    if (!closed_.ok()) return;
    closed_ = status;
    for (auto& job : queue_) {
      refused->bytes += job->bytes;
      refused->jobs.push_back(std::move(job));
    }
    queue_.clear();
  }
  Release();
  Answer(refused);
  loop_->Stop();
  space_->Open();
  answered_lsn_.store(0, std::memory_order_release);
}

bool Sequencer::idle() const {
  MutexLock lock(&mutex_);
  return unanswered_ == 0;
}

void Sequencer::Stop() {
  Release();
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    while (unanswered_ != 0) idle_cv_.Wait(&mutex_);
  }
  loop_->Stop();
  space_->Open();
}

SequencerStats Sequencer::stats() const {
  SequencerStats stats;
  stats.records_total = records_total_.load(std::memory_order_relaxed);
  stats.refused_total = refused_total_.load(std::memory_order_relaxed);
  stats.duplicates_total = duplicates_total_.load(std::memory_order_relaxed);
  stats.groups_total = groups_total_.load(std::memory_order_relaxed);
  stats.queue_bytes = space_->taken();
  return stats;
}

std::shared_ptr<Sequencer::Batch> Sequencer::TakeBatch() {
  auto batch = std::make_shared<Batch>(space_);
  MutexLock lock(&mutex_);
  while (!queue_.empty() && (batch->jobs.empty() || batch->bytes + queue_.front()->bytes <= options_.group_bytes_max)) {
    batch->bytes += queue_.front()->bytes;
    batch->jobs.push_back(std::move(queue_.front()));
    queue_.pop_front();
  }
  return batch;
}

StepResult Sequencer::Step() {
  const std::shared_ptr<Batch> batch = TakeBatch();
  if (batch->jobs.empty()) return StepResult::WaitForWake();
  if (!failed_.ok()) {
    Fail(batch, failed_);
    Answer(batch);
    return StepResult::Again();
  }

  const wal::LogEnd before = sink_.End();
  wal::GroupBuilder builder(before);
  const int64_t now_us = clock_.WallMicros();
  for (const auto& job : batch->jobs) {
    for (WriteRecord& record : job->records) Decide(&record, &builder, now_us);
  }
  if (!builder.empty()) {
    const Lsn last = builder.end().lsn;
    // The sequencer may be gone when the records are applied.
    const absl::Status appended =
        sink_.AppendAndApply(builder.Finish(), [rules = rules_, batch, last] { rules->Applied(last); });
    if (appended.ok()) {
      groups_total_.fetch_add(1, std::memory_order_relaxed);
      answered_lsn_.store(last, std::memory_order_release);
    } else {
      rules_->Discard(before.lsn);
      Fail(batch, appended);
      if (!absl::IsResourceExhausted(appended)) {
        failed_ = appended;
        on_fatal_(appended);
      }
    }
  }
  Answer(batch);
  return StepResult::Again();
}

void Sequencer::Decide(WriteRecord* record, wal::GroupBuilder* builder, int64_t now_us) {
  record->outcome = rules_->Admit(*record, static_cast<uint64_t>(now_us) / 1000);
  if (!record->outcome.status.ok()) {
    refused_total_.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  if (record->outcome.duplicate) {
    duplicates_total_.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  record->lsn = builder->Add(record->type, term_, now_us, record->payload, record->payload_crc);
  record->outcome.position = Position{term_, term_id_, record->lsn, builder->end().chain};
  rules_->Assigned(record);
  records_total_.fetch_add(1, std::memory_order_relaxed);
}

void Sequencer::Fail(const std::shared_ptr<Batch>& batch, const absl::Status& status) {
  for (const auto& job : batch->jobs) {
    for (WriteRecord& record : job->records) {
      // A duplicate or refusal may have rested on a record of this same batch, which is not in the log now.
      record.outcome = WriteOutcome{};
      record.outcome.status = status;
      record.lsn = 0;
    }
  }
}

// What is in the log here may be discarded by the next primary: nobody is told that it was written.
void Sequencer::Refuse(WriteJob* job, const absl::Status& status) {
  for (WriteRecord& record : job->records) {
    if (!record.outcome.status.ok()) continue;
    record.outcome.status = WithOutcome(status, record.outcome.position.lsn);
  }
}

void Sequencer::Answer(const std::shared_ptr<Batch>& batch) {
  absl::Status closed;
  {
    MutexLock lock(&mutex_);
    closed = closed_;
    if (closed.ok() && options_.standstill != nullptr && options_.standstill->suspected()) held_ = true;
    if (held_) {
      held_batches_.push_back(batch);
      return;
    }
  }
  const uint64_t count = batch->jobs.size();
  for (auto& job : batch->jobs) {
    if (!closed.ok()) Refuse(job.get(), closed);
    WriteJob* const raw = job.get();
    raw->OnDone(std::move(job));
  }
  MutexLock lock(&mutex_);
  unanswered_ -= count;
  if (unanswered_ == 0) idle_cv_.NotifyAll();
}

}  // namespace towline
