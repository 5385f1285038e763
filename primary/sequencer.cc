#include "primary/sequencer.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/names.h"

namespace towline {
namespace {

// A job is counted with what it holds besides its payloads.
constexpr uint64_t kRecordOverheadBytes = 256;

// How often Stop looks whether the sink is stuck.
constexpr int64_t kStuckPollMicros = 50'000;

uint64_t JobBytes(const WriteJob& job) {
  uint64_t bytes = kRecordOverheadBytes;
  for (const WriteRecord& record : job.records) bytes += record.payload.size() + kRecordOverheadBytes;
  return bytes;
}

absl::Status ConditionFailed(const KeyCondition& condition, const Overlay::KeyState& state) {
  const std::string expected = condition.exists ? (*condition.exists ? "to exist" : "not to exist")
                                                : absl::StrCat("last modified at LSN ", condition.modified_lsn);
  const std::string found =
      state.exists ? absl::StrCat("exists, last modified at LSN ", state.modified_lsn) : "does not exist";
  ErrorInfo info;
  info.reason = "condition_failed";
  info.message = absl::StrCat("key \"", Printable(condition.key), "\" was expected ", expected, " but ", found);
  info.next_action = "read the key again and decide anew";
  info.metadata["exists"] = state.exists ? "true" : "false";
  info.metadata["modified_lsn"] = absl::StrCat(state.exists ? state.modified_lsn : 0);
  return MakeError(absl::StatusCode::kFailedPrecondition, std::move(info));
}

absl::Status Dropped(Lsn lsn) {
  const std::string message = lsn == 0 ? "the node stopped; the write is not in the log"
                                       : absl::StrCat("the node stopped; the write is in the log at LSN ", lsn,
                                                      " and takes effect at its next start");
  return MakeError(absl::StatusCode::kUnavailable, "stopping", message, "read the keys after the restart");
}

// `status` with what is known of the fate of a record; lsn 0 = it is not in the log.
absl::Status WithOutcome(const absl::Status& status, Lsn lsn) {
  ErrorInfo info = GetErrorInfo(status);
  info.metadata["outcome"] = lsn == 0 ? "not_logged" : "unknown";
  if (lsn != 0) info.metadata["lsn"] = absl::StrCat(lsn);
  return MakeError(status.code(), std::move(info));
}

}  // namespace

// A batch that goes away unanswered was dropped by the sink.
struct Sequencer::Batch {
  Batch() = default;
  Batch(const Batch&) = delete;
  Batch& operator=(const Batch&) = delete;
  ~Batch() {
    for (auto& job : jobs) {
      if (job == nullptr) continue;
      for (WriteRecord& record : job->records) record.outcome.status = Dropped(record.lsn);
      WriteJob* const raw = job.get();
      raw->OnDone(std::move(job));
    }
  }

  std::vector<std::unique_ptr<WriteJob>> jobs;
  Lsn last_lsn = 0;  // of the records written; 0 = none
};

Sequencer::Sequencer(GroupSink& sink, StateStore& state, Executor& executor, Clock& clock, Term term, uint64_t term_id,
                     SequencerOptions options, std::function<void(absl::Status)> on_fatal)
    : sink_(sink),
      state_(state),
      clock_(clock),
      term_(term),
      term_id_(term_id),
      options_(options),
      on_fatal_(std::move(on_fatal)) {
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
    // A job larger than the whole queue must still pass when nothing else is in it.
    if (queue_bytes_ != 0 && queue_bytes_ + bytes > options_.queue_bytes_max) {
      return MakeError(
          absl::StatusCode::kResourceExhausted, "queue_full",
          absl::StrCat("the write queue holds ", queue_bytes_, " bytes; wal.queue_bytes is ", options_.queue_bytes_max),
          "retry with backoff");
    }
    (*job)->bytes = bytes;
    queue_bytes_ += bytes;
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

void Sequencer::NotifySpace(std::function<void()> fn) {
  {
    MutexLock lock(&mutex_);
    if (queue_bytes_ != 0 && closed_.ok()) {  // an answer is to come, and it looks at the waiters
      space_waiters_.push_back(std::move(fn));
      return;
    }
  }
  fn();
}

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
  const auto refused = std::make_shared<Batch>();
  {
    MutexLock lock(&mutex_);
    if (!closed_.ok()) return;
    closed_ = status;
    for (auto& job : queue_) refused->jobs.push_back(std::move(job));
    queue_.clear();
  }
  Release();
  Answer(refused);
  loop_->Stop();
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
    while (unanswered_ != 0 && !(sink_.Stuck() && queue_.empty())) idle_cv_.WaitFor(&mutex_, kStuckPollMicros);
  }
  loop_->Stop();
}

SequencerStats Sequencer::stats() const {
  SequencerStats stats;
  stats.records_total = records_total_.load(std::memory_order_relaxed);
  stats.refused_total = refused_total_.load(std::memory_order_relaxed);
  stats.duplicates_total = duplicates_total_.load(std::memory_order_relaxed);
  stats.groups_total = groups_total_.load(std::memory_order_relaxed);
  MutexLock lock(&mutex_);
  stats.queue_bytes = queue_bytes_;
  return stats;
}

std::shared_ptr<Sequencer::Batch> Sequencer::TakeBatch() {
  auto batch = std::make_shared<Batch>();
  uint64_t bytes = 0;
  MutexLock lock(&mutex_);
  while (!queue_.empty() && (batch->jobs.empty() || bytes + queue_.front()->bytes <= options_.group_bytes_max)) {
    bytes += queue_.front()->bytes;
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
  {
    const int64_t now_us = clock_.WallMicros();
    MutexLock lock(&overlay_mutex_);
    for (const auto& job : batch->jobs) {
      for (WriteRecord& record : job->records) Decide(&record, &builder, now_us);
    }
  }
  const bool empty = builder.empty();
  batch->last_lsn = empty ? 0 : builder.end().lsn;
  absl::Status appended = sink_.AppendAndApply(empty ? nullptr : builder.Finish(), [this, batch] { OnApplied(batch); });
  if (appended.ok()) {
    groups_total_.fetch_add(empty ? 0 : 1, std::memory_order_relaxed);
    return StepResult::Again();
  }

  {
    MutexLock lock(&overlay_mutex_);
    overlay_.Discard(before.lsn);
  }
  batch->last_lsn = 0;
  Fail(batch, appended);
  if (absl::IsResourceExhausted(appended)) {
    // Answers keep their order: behind everything that is still on its way.
    appended = sink_.AppendAndApply(nullptr, [this, batch] { OnApplied(batch); });
    if (appended.ok()) return StepResult::Again();
  }
  failed_ = appended;
  on_fatal_(appended);
  Answer(batch);
  return StepResult::Again();
}

void Sequencer::Decide(WriteRecord* record, wal::GroupBuilder* builder, int64_t now_us) {
  const uint64_t now_ms = static_cast<uint64_t>(now_us) / 1000;
  WriteOutcome& outcome = record->outcome;
  if (record->request) outcome.status = CheckRequest(*record->request, &outcome);
  if (outcome.status.ok() && outcome.duplicate) {
    duplicates_total_.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  if (outcome.status.ok() && !record->conditions.empty()) outcome.status = CheckConditions(*record, now_ms);
  if (outcome.status.ok() && record->is_expiry) outcome.status = CheckExpiry(*record, now_ms);
  if (!outcome.status.ok()) {
    refused_total_.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  record->lsn = builder->Add(record->type, term_, now_us, record->payload, record->payload_crc);
  outcome.position = Position{term_, term_id_, record->lsn, builder->end().chain};
  overlay_.Add(record->lsn, record);
  if (record->request) requests_.Add(record->request->client_id, record->request->sequence, record->lsn);
  records_total_.fetch_add(1, std::memory_order_relaxed);
}

// A client that is not known here has nothing in flight, so the state tells all.
absl::Status Sequencer::LearnClient(const RequestKey& request) {
  if (requests_.Knows(request.client_id)) return absl::OkStatus();
  // What lies below the sequence is not looked at.
  TOWLINE_ASSIGN_OR_RETURN(const std::optional<uint64_t> highest,
                           state_.HighestRequest(request.client_id, request.sequence - 1));
  requests_.Learn(request.client_id, highest.value_or(RequestCache::kNothing), retired_lsn_);
  return absl::OkStatus();
}

absl::Status Sequencer::CheckRequest(const RequestKey& request, WriteOutcome* outcome) {
  TOWLINE_RETURN_IF_ERROR(LearnClient(request));
  if (requests_.IsNew(request.client_id, request.sequence)) return absl::OkStatus();
  if (const Lsn lsn = overlay_.FindRequest(request.client_id, request.sequence); lsn != 0) {
    outcome->duplicate = true;
    outcome->position.lsn = lsn;
    return absl::OkStatus();
  }
  TOWLINE_ASSIGN_OR_RETURN(const RequestLookup lookup, state_.LookupRequest(request.client_id, request.sequence));
  switch (lookup.outcome) {
    case RequestLookup::Outcome::kNew:
      return absl::OkStatus();
    case RequestLookup::Outcome::kSeen:
      outcome->duplicate = true;
      outcome->position.lsn = lookup.lsn;
      return absl::OkStatus();
    case RequestLookup::Outcome::kTooOld:
      break;
  }
  return MakeError(absl::StatusCode::kFailedPrecondition, "request_too_old",
                   absl::StrCat("request ", request.client_id, ":", request.sequence, " is older than the window of ",
                                kRequestWindow, " records; whether it was written is not known any more"),
                   "read the keys to find out, then write with a new sequence");
}

absl::StatusOr<Overlay::KeyState> Sequencer::LookUp(absl::string_view key) {
  if (const auto found = overlay_.Find(key)) return *found;
  // now 0: the caller judges the expiry.
  TOWLINE_ASSIGN_OR_RETURN(const auto entry, state_.Get(key, 0));
  if (!entry) return Overlay::KeyState{};
  return Overlay::KeyState{true, entry->expire_at_ms, entry->modified_lsn};
}

absl::Status Sequencer::CheckConditions(const WriteRecord& record, uint64_t now_ms) {
  for (const KeyCondition& condition : record.conditions) {
    TOWLINE_ASSIGN_OR_RETURN(Overlay::KeyState state, LookUp(condition.key));
    if (state.exists && IsExpired(state.expire_at_ms, now_ms)) state = {};
    const bool holds = condition.exists ? state.exists == *condition.exists
                                        : state.exists && state.modified_lsn == condition.modified_lsn;
    if (!holds) return ConditionFailed(condition, state);
  }
  return absl::OkStatus();
}

absl::Status Sequencer::CheckExpiry(const WriteRecord& record, uint64_t now_ms) {
  TOWLINE_ASSIGN_OR_RETURN(const Overlay::KeyState state, LookUp(record.effects[0].key));
  if (state.exists && IsExpired(state.expire_at_ms, now_ms)) return absl::OkStatus();
  return MakeError(absl::StatusCode::kFailedPrecondition, "not_expired", "the key was written or deleted meanwhile");
}

void Sequencer::OnApplied(const std::shared_ptr<Batch>& batch) {
  if (batch->last_lsn != 0) {
    MutexLock lock(&overlay_mutex_);
    overlay_.Retire(batch->last_lsn);
    retired_lsn_ = batch->last_lsn;
  }
  Answer(batch);
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
  uint64_t bytes = 0;
  const uint64_t count = batch->jobs.size();
  for (auto& job : batch->jobs) {
    bytes += job->bytes;
    if (!closed.ok()) Refuse(job.get(), closed);
    WriteJob* const raw = job.get();
    raw->OnDone(std::move(job));
  }
  std::vector<std::function<void()>> waiters;
  {
    MutexLock lock(&mutex_);
    queue_bytes_ -= bytes;
    unanswered_ -= count;
    if (queue_bytes_ <= options_.queue_bytes_max / 2) waiters.swap(space_waiters_);
    if (unanswered_ == 0) idle_cv_.NotifyAll();
  }
  for (const auto& waiter : waiters) waiter();
}

}  // namespace towline
