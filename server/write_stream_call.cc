#include "server/write_stream_call.h"

#include <algorithm>
#include <google/protobuf/arena.h>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/history.h"
#include "primary/write_intake.h"
#include "server/durability.h"
#include "server/position_proto.h"

namespace towline {
namespace {

constexpr int kElementsMax = 65536;
// Messages of one stream on their way; enough to keep the log busy while answers travel.
constexpr int kMessagesInFlightMax = 32;
constexpr uint64_t kBytesInFlightMax = 8ull << 20;

void FillRefused(uint64_t sequence, const absl::Status& status, v1::RefusedElement* out) {
  const ErrorInfo info = GetErrorInfo(status);
  out->set_sequence(sequence);
  out->mutable_error()->set_reason(info.reason);
  out->mutable_error()->set_message(info.message);
  out->mutable_error()->set_next_action(info.next_action);
  for (const auto& [key, value] : info.metadata) (*out->mutable_error()->mutable_metadata())[key] = value;
}

// Everything happens on the queue's thread; what comes from elsewhere is posted to it.
class WriteStreamCall final : public BidiCall<v1::WriteStreamRequest, v1::WriteStreamResponse> {
 public:
  WriteStreamCall(RpcQueue& queue, Asker asker, Node& node) : BidiCall(queue, std::move(asker)), node_(node) {}

 private:
  class Job;

  void OnOpen() override {
    self_.reset(this);
    const absl::Status writable = node_.CheckWritable();
    if (!writable.ok()) {
      End(WithOutcome(writable, "not_logged"));
      return;
    }
    ReadNext();
  }

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override {
    cancelled_ = true;
    MaybeFinish();
  }
  // Jobs on their way hold the call too.
  void OnDone() override { self_.reset(); }

  absl::Status CheckMessage(const v1::WriteStreamRequest& message);
  void Admit(std::unique_ptr<Job> job);
  void Submit(std::unique_ptr<Job> job);
  static void Refuse(std::unique_ptr<WriteJob> job, const absl::Status& status);
  void OnJobDone(std::unique_ptr<Job> job);
  void Take(std::shared_ptr<Job> job);
  void ReadNext();
  void Answer();
  void MaybeFinish();
  void End(const absl::Status& status);

  Node& node_;
  std::shared_ptr<WriteStreamCall> self_;  // from the first event to the last

  std::unique_ptr<Job> reading_;
  bool read_pending_ = false;
  bool half_closed_ = false;  // the client sends nothing more, or is gone
  bool cancelled_ = false;
  bool finished_ = false;
  absl::Status failure_;
  uint64_t next_sequence_ = 1;
  uint64_t next_report_ = 1;  // first sequence of the message that is to be reported next
  // Messages that wait for earlier ones, which have another commit level, by first sequence.
  std::map<uint64_t, std::shared_ptr<Job>> done_;
  int in_flight_ = 0;
  uint64_t in_flight_bytes_ = 0;
  bool waiting_for_space_ = false;

  bool write_pending_ = false;
  bool answer_due_ = false;
  v1::WriteStreamResponse next_answer_;
};

// One message of the stream. Owns it, because the records' views point into it.
class WriteStreamCall::Job final : public WriteJob, public CommitWaiter {
 public:
  explicit Job(std::shared_ptr<WriteStreamCall> call)
      : call_(std::move(call)), message_(google::protobuf::Arena::CreateMessage<v1::WriteStreamRequest>(&arena_)) {}

  v1::WriteStreamRequest* message() { return message_; }

  // Turns the elements into records; invalid ones are refused here.
  void Build(Node& node) {
    role_ = node.primary();
    CommitTracker& commit = role_->commit();
    const auto level = ResolveLevel(commit, message_->has_durability() ? &message_->durability() : nullptr);
    if (level.ok()) level_ = *level;
    if (level_.replicas != 0) interest_.emplace(commit, level_.stage);
    const uint64_t now_ms = static_cast<uint64_t>(node.clock().WallMicros()) / 1000;
    records.reserve(static_cast<size_t>(message_->elements_size()));
    sequences_.reserve(static_cast<size_t>(message_->elements_size()));
    uint64_t sequence = message_->first_sequence();
    for (const v1::WriteRequest& element : message_->elements()) {
      WriteRecord record;
      absl::Status status = level.status();
      if (status.ok() && element.has_durability()) status = ElementWithLevel();
      if (status.ok()) status = BuildWriteRecord(element, now_ms, node.config().limits_record_bytes, &record);
      if (status.ok()) {
        records.push_back(std::move(record));
        sequences_.push_back(sequence);
      } else {
        invalid_.emplace_back(sequence, WithOutcome(status, "not_logged"));
      }
      ++sequence;
    }
    last_sequence_ = sequence - 1;
    message_bytes_ = message_->ByteSizeLong();
  }

  // Durable here, or refused: what was written waits for its level.
  void OnDone(std::unique_ptr<WriteJob> self) override {
    std::unique_ptr<Job> job(static_cast<Job*>(self.release()));
    Lsn first = 0;
    Lsn last = 0;
    for (const WriteRecord& record : records) {
      if (!record.outcome.status.ok()) continue;
      const Lsn lsn = record.outcome.position.lsn;
      first = first == 0 ? lsn : std::min(first, lsn);
      last = std::max(last, lsn);
    }
    WriteStreamCall& call = *call_;
    if (last == 0) return call.OnJobDone(std::move(job));
    role_->commit().Await(first, last, level_, bytes, std::move(job));
  }

  void OnCommit(std::unique_ptr<CommitWaiter> self, const CommitResult& result) override {
    result_ = result;
    WriteStreamCall& call = *call_;
    call.OnJobDone(std::unique_ptr<Job>(static_cast<Job*>(self.release())));
  }

  // Adds what became of the elements. `position` gets the last record written.
  void Report(Node& node, v1::WriteStreamResponse* answer) const {
    answer->set_acked_sequence(last_sequence_);
    size_t next_invalid = 0;
    const WriteOutcome* last_written = nullptr;
    for (size_t i = 0; i < records.size(); ++i) {
      for (; next_invalid < invalid_.size() && invalid_[next_invalid].first < sequences_[i]; ++next_invalid) {
        FillRefused(invalid_[next_invalid].first, invalid_[next_invalid].second, answer->add_refused());
      }
      if (!records[i].outcome.status.ok()) {
        FillRefused(sequences_[i], ErrorOf(records[i]), answer->add_refused());
        continue;
      }
      last_written = &records[i].outcome;
      if (result_.end != CommitResult::End::kReached) ReportLower(node, i, answer);
    }
    for (; next_invalid < invalid_.size(); ++next_invalid) {
      FillRefused(invalid_[next_invalid].first, invalid_[next_invalid].second, answer->add_refused());
    }
    if (last_written != nullptr) FillOutcomePosition(node, *last_written, answer->mutable_position());
    answer->set_committed_lsn(node.CommittedLsn());
  }

  PrimaryRole& role() const { return *role_; }
  uint64_t message_bytes() const { return message_bytes_; }
  uint64_t first_sequence() const { return message_->first_sequence(); }
  uint64_t last_sequence() const { return last_sequence_; }

 private:
  static absl::Status ElementWithLevel() {
    return MakeError(absl::StatusCode::kInvalidArgument, "invalid_durability",
                     "an element of a stream has a commit level of its own", "set it in the message, for all of them");
  }

  // A record that is durable here, of a message that has not wholly reached its level.
  void ReportLower(Node& node, size_t i, v1::WriteStreamResponse* answer) const {
    const AchievedLevel achieved = role_->commit().AchievedAt(records[i].outcome.position.lsn, level_);
    if (achieved.reached) return;
    const uint64_t sequence = sequences_[i];
    if (result_.end == CommitResult::End::kClosed || level_.on_timeout == OnCommitTimeout::kFail) {
      v1::Position position;
      FillOutcomePosition(node, records[i].outcome, &position);
      FillRefused(sequence, NotReached(result_, achieved, level_, position), answer->add_refused());
      return;
    }
    const int ranges = answer->degraded_size();
    const bool follows = ranges > 0 && answer->degraded(ranges - 1).last_sequence() + 1 == sequence;
    v1::DegradedElements* const range = follows ? answer->mutable_degraded(ranges - 1) : answer->add_degraded();
    if (!follows) range->set_first_sequence(sequence);
    range->set_last_sequence(sequence);
    FillAchieved(achieved, range->mutable_achieved());
  }

  const std::shared_ptr<WriteStreamCall> call_;
  google::protobuf::Arena arena_;
  v1::WriteStreamRequest* const message_;
  PrimaryRole* role_ = nullptr;  // that takes the message
  CommitLevel level_;
  CommitResult result_;
  std::optional<CommitInterest> interest_;
  std::vector<uint64_t> sequences_;  // of records
  std::vector<std::pair<uint64_t, absl::Status>> invalid_;
  uint64_t last_sequence_ = 0;
  uint64_t message_bytes_ = 0;
};

void WriteStreamCall::OnReadDone(bool ok) {
  read_pending_ = false;
  std::unique_ptr<Job> job = std::move(reading_);
  if (ok && !finished_) failure_ = CheckMessage(*job->message());
  if (!ok || finished_ || !failure_.ok()) {
    half_closed_ = true;
    job.reset();
    MaybeFinish();
    return;
  }
  ++in_flight_;
  next_sequence_ += static_cast<uint64_t>(job->message()->elements_size());
  job->Build(node_);
  in_flight_bytes_ += job->message_bytes();
  Admit(std::move(job));
}

absl::Status WriteStreamCall::CheckMessage(const v1::WriteStreamRequest& message) {
  if (message.first_sequence() != next_sequence_) {
    return MakeError(absl::StatusCode::kInvalidArgument, "sequence_gap",
                     absl::StrCat("first_sequence is ", message.first_sequence(), "; expected ", next_sequence_));
  }
  if (message.elements_size() == 0 || message.elements_size() > kElementsMax) {
    return MakeError(absl::StatusCode::kInvalidArgument, "invalid_message",
                     absl::StrCat("a message has ", message.elements_size(), " elements; 1 to ", kElementsMax));
  }
  return absl::OkStatus();
}

// Hands a message on, now or when flow control lets it; no further one is read meanwhile.
void WriteStreamCall::Admit(std::unique_ptr<Job> job) {
  absl::Status refused;
  const auto resume = [this, &job]() -> FlowControl::Resume {
    waiting_for_space_ = true;
    const auto waiting = std::make_shared<std::unique_ptr<Job>>(std::move(job));
    // `waiting` holds the job, which holds this call.
    return [this, waiting](const absl::Status& status) {
      queue().Post([this, waiting, status] {
        waiting_for_space_ = false;
        if (status.ok()) return Submit(std::move(*waiting));
        ReadNext();
        Refuse(std::move(*waiting), status);
      });
    };
  };
  switch (job->role().flow().Admit(job->message_bytes(), resume, &refused)) {
    case FlowControl::Admission::kGo:
      return Submit(std::move(job));
    case FlowControl::Admission::kWait:
      return;
    case FlowControl::Admission::kRefused:
      ReadNext();
      return Refuse(std::move(job), refused);
  }
}

void WriteStreamCall::Submit(std::unique_ptr<Job> submitted) {
  Sequencer& sequencer = submitted->role().sequencer();
  std::unique_ptr<WriteJob> job = std::move(submitted);
  const absl::Status status = sequencer.Submit(&job, Sequencer::Wake::kAtKick);
  if (status.ok()) {
    ReadNext();
    return;
  }
  if (absl::IsResourceExhausted(status)) {
    // The client is not refused, it is slowed down: this message waits, and no further one is read.
    waiting_for_space_ = true;
    auto waiting = std::make_shared<std::unique_ptr<Job>>(static_cast<Job*>(job.release()));
    // `waiting` holds the job, which holds this call.
    sequencer.NotifySpace([this, waiting] {
      queue().Post([this, waiting] {
        waiting_for_space_ = false;
        Submit(std::move(*waiting));
      });
    });
    return;
  }
  Refuse(std::move(job), status);
}

void WriteStreamCall::Refuse(std::unique_ptr<WriteJob> job, const absl::Status& status) {
  for (WriteRecord& record : job->records) record.outcome.status = status;
  WriteJob* const raw = job.get();
  raw->OnDone(std::move(job));
}

// From any thread.
void WriteStreamCall::OnJobDone(std::unique_ptr<Job> job) {
  // std::function copies what it holds.
  std::shared_ptr<Job> done = std::move(job);
  if (queue().OnThread()) return Take(std::move(done));
  queue().Post([this, done] { Take(done); });
}

// Answers are cumulative, so a message waits until those before it are answered.
void WriteStreamCall::Take(std::shared_ptr<Job> job) {
  --in_flight_;
  in_flight_bytes_ -= job->message_bytes();
  const std::shared_ptr<WriteStreamCall> self = self_;  // the jobs that go away may be the last to hold it
  done_.emplace(job->first_sequence(), std::move(job));
  for (auto next = done_.find(next_report_); next != done_.end(); next = done_.find(next_report_)) {
    next->second->Report(node_, &next_answer_);
    next_report_ = next->second->last_sequence() + 1;
    done_.erase(next);
    answer_due_ = true;
  }
  Answer();
  ReadNext();
  MaybeFinish();
}

void WriteStreamCall::ReadNext() {
  if (read_pending_ || half_closed_ || finished_ || cancelled_ || waiting_for_space_) return;
  if (in_flight_ >= kMessagesInFlightMax || in_flight_bytes_ >= kBytesInFlightMax) return;
  reading_ = std::make_unique<Job>(self_);
  read_pending_ = true;
  StartRead(reading_->message());
}

void WriteStreamCall::Answer() {
  if (!answer_due_ || write_pending_ || finished_ || cancelled_) return;
  answer_due_ = false;
  write_pending_ = true;
  StartWrite(next_answer_);
  next_answer_.Clear();
}

void WriteStreamCall::OnWriteDone(bool ok) {
  write_pending_ = false;
  if (!ok) cancelled_ = true;
  Answer();
  MaybeFinish();
}

void WriteStreamCall::MaybeFinish() {
  if (finished_ || in_flight_ != 0 || write_pending_) return;
  if (cancelled_) {
    End(MakeError(absl::StatusCode::kCancelled, "cancelled", "the client went away"));
  } else if (half_closed_ && !answer_due_) {
    End(failure_);
  }
}

void WriteStreamCall::End(const absl::Status& status) {
  finished_ = true;
  Finish(status);
}

}  // namespace

void ServeWriteStream(RpcQueue& queue, v1::KvService::AsyncService& service, Node& node) {
  ServeStream<WriteStreamCall>(
      queue,
      [&service](grpc::ServerContext* context, WriteStreamCall::Stream* stream, RpcQueue& calls, void* tag) {
        service.RequestWriteStream(context, stream, calls.get(), calls.get(), tag);
      },
      [&node](RpcQueue& calls, WriteStreamCall::Asker asker) {
        return new WriteStreamCall(calls, std::move(asker), node);
      });
}

void FillOutcomePosition(Node& node, const WriteOutcome& outcome, v1::Position* out) {
  Position position = outcome.position;
  if (position.term == 0) {
    const NodeView view = node.View();
    if (const HistoryEntry* entry = EntryAt(view.history, position.lsn)) {
      position.term = entry->term;
      position.term_id = entry->term_id;
    }
    if (const auto live = node.Live()) {
      const auto end = live->spool().EndAt(position.lsn);
      if (end.ok()) position.chain = end->chain;
    }
  }
  FillPosition(node.primary_cluster_id(), position, out);
}

}  // namespace towline
