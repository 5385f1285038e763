#include "client/stream_batcher.h"

#include <algorithm>
#include <deque>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "client/bookmark_proto.h"
#include "client/call_budget.h"
#include "client/retry_policy.h"
#include "common/clock.h"
#include "common/error.h"
#include "common/mutex.h"
#include "common/rng.h"
#include "towline/v1/kv_service.pb.h"

namespace towline::client {
namespace {

class StreamBatcher final : public WriteBatcher {
 public:
  StreamBatcher(ClusterClient& cluster, const BatcherOptions& options, OnRecordAnswer on_answer)
      : cluster_(cluster),
        options_(options),
        on_answer_(std::move(on_answer)),
        pause_(Micros(cluster.options().backoff_min), Micros(cluster.options().backoff_max), *SystemRng()) {
    thread_ = std::thread([this] { Run(); });
  }

  ~StreamBatcher() override {
    {
      MutexLock lock(&mutex_);
      cancelled_ = true;
      if (stream_ != nullptr) stream_->Cancel();  // the thread may wait for its window
      changed_.NotifyAll();
    }
    thread_.join();
  }

  absl::StatusOr<uint64_t> Add(WriteSet writes) override TOWLINE_EXCLUDES(mutex_);
  absl::Status Flush() override TOWLINE_EXCLUDES(mutex_);
  absl::Status Close() override TOWLINE_EXCLUDES(mutex_);

  Bookmark position() const override {
    MutexLock lock(&mutex_);
    return FromProto(position_);
  }

 private:
  struct Item {
    v1::WriteRequest request;
    size_t bytes;
  };

  void Run();
  bool WaitForRecords() TOWLINE_EXCLUDES(mutex_);
  absl::Status RunStream();
  WriteStreamOptions StreamOptions();
  // Takes the next record to send; false: the stream is to be ended.
  bool TakeNext(v1::WriteRequest* request) TOWLINE_EXCLUDES(mutex_);
  void OnAnswer(const WriteStreamAnswer& answer) TOWLINE_EXCLUDES(mutex_);
  // Whether to go on after a stream has ended like this.
  bool Recover(const absl::Status& error) TOWLINE_EXCLUDES(mutex_);
  void AnswerRest(const absl::Status& end) TOWLINE_EXCLUDES(mutex_);
  void Pop() TOWLINE_REQUIRES(mutex_);
  void Deliver(const std::vector<RecordAnswer>& answers) TOWLINE_EXCLUDES(mutex_);
  bool StreamIsOver() const TOWLINE_REQUIRES(mutex_) { return cancelled_ || stream_ended_ || !blocked_.ok(); }

  ClusterClient& cluster_;
  const BatcherOptions options_;
  const OnRecordAnswer on_answer_;

  // Of the batcher's thread.
  std::string endpoint_;  // of the stream
  RetryPause pause_;
  uint64_t first_at_loss_ = 0;  // `first_` when a stream ended last; 0 = none has
  int64_t give_up_us_ = 0;      // monotonic; valid if first_at_loss_ > 0
  uint64_t losses_ = 0;         // since the last progress
  bool followed_ = false;       // the last loss led to another node without a pause

  mutable Mutex mutex_;
  CondVar changed_;
  std::deque<Item> items_ TOWLINE_GUARDED_BY(mutex_);         // not answered, in order
  size_t bytes_ TOWLINE_GUARDED_BY(mutex_) = 0;               // of these
  uint64_t first_ TOWLINE_GUARDED_BY(mutex_) = 1;             // number of items_[0]
  uint64_t send_ TOWLINE_GUARDED_BY(mutex_) = 1;              // number of the next record to send on this stream
  uint64_t sent_ever_ TOWLINE_GUARDED_BY(mutex_) = 0;         // highest number that was sent on any
  uint64_t stream_first_ TOWLINE_GUARDED_BY(mutex_) = 1;      // number of the stream's sequence 1
  uint64_t delivered_ TOWLINE_GUARDED_BY(mutex_) = 0;         // number up to which callbacks have returned
  absl::Status blocked_ TOWLINE_GUARDED_BY(mutex_);           // why this stream's answers are no use any more
  WriteStream* stream_ TOWLINE_GUARDED_BY(mutex_) = nullptr;  // null = none is open
  bool stream_ended_ TOWLINE_GUARDED_BY(mutex_) = false;
  bool closing_ TOWLINE_GUARDED_BY(mutex_) = false;
  bool cancelled_ TOWLINE_GUARDED_BY(mutex_) = false;
  bool ended_ TOWLINE_GUARDED_BY(mutex_) = false;  // nothing happens any more
  absl::Status end_ TOWLINE_GUARDED_BY(mutex_);    // why, if not by Close
  v1::Position position_ TOWLINE_GUARDED_BY(mutex_);

  std::thread thread_;
};

absl::StatusOr<uint64_t> StreamBatcher::Add(WriteSet writes) {
  v1::WriteRequest request = std::move(writes.request());
  cluster_.Complete(&request);
  request.clear_durability();  // the message has one for all
  const size_t bytes = request.ByteSizeLong();
  if (bytes > kStreamElementSizeMax) {
    return MakeError(
        absl::StatusCode::kInvalidArgument, "record_too_large",
        absl::StrCat("the encoded record has ", bytes, " bytes; a stream carries at most ", kStreamElementSizeMax),
        "split the value");
  }
  MutexLock lock(&mutex_);
  while (!ended_ && !closing_ && bytes_ > 0 && bytes_ + bytes > options_.window_bytes) changed_.Wait(&mutex_);
  if (!end_.ok()) return end_;
  if (ended_ || closing_) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "batcher_closed", "Close was called");
  }
  items_.push_back({std::move(request), bytes});
  bytes_ += bytes;
  changed_.NotifyAll();
  return first_ + items_.size() - 1;
}

absl::Status StreamBatcher::Flush() {
  MutexLock lock(&mutex_);
  const uint64_t last = first_ + items_.size() - 1;
  while (delivered_ < last && !ended_) changed_.Wait(&mutex_);
  return end_;
}

absl::Status StreamBatcher::Close() {
  MutexLock lock(&mutex_);
  closing_ = true;
  changed_.NotifyAll();
  while (!ended_) changed_.Wait(&mutex_);
  return end_;
}

void StreamBatcher::Run() {
  absl::Status end;
  while (WaitForRecords()) {
    end = RunStream();
    if (!end.ok() && !Recover(end)) break;
    end = absl::OkStatus();
  }
  AnswerRest(end);
}

bool StreamBatcher::WaitForRecords() {
  MutexLock lock(&mutex_);
  while (items_.empty() && !closing_ && !cancelled_) changed_.Wait(&mutex_);
  return !items_.empty() && !cancelled_;
}

WriteStreamOptions StreamBatcher::StreamOptions() {
  WriteStreamOptions options;
  options.window_bytes = options_.window_bytes;
  options.message_bytes = options_.batch_bytes;
  options.message_elements = options_.batch_records;
  const auto& durability = options_.durability.has_value() ? options_.durability : cluster_.options().durability;
  if (durability.has_value()) options.durability = ToProto(*durability);
  options.on_end = [this] {
    MutexLock lock(&mutex_);
    stream_ended_ = true;
    changed_.NotifyAll();
  };
  return options;
}

// Returns why the stream ended; OK: all is sent and answered, and there will be no more.
absl::Status StreamBatcher::RunStream() {
  endpoint_ = cluster_.StreamEndpoint(losses_);
  uint64_t first = 0;
  uint64_t sent_before = 0;
  {
    MutexLock lock(&mutex_);
    stream_first_ = send_ = first = first_;
    sent_before = sent_ever_;
    stream_ended_ = false;
    blocked_ = absl::OkStatus();
  }
  const auto stream = cluster_.OpenWriteStream(endpoint_, StreamOptions(),
                                               [this](const WriteStreamAnswer& answer) { OnAnswer(answer); });
  {
    MutexLock lock(&mutex_);
    stream_ = stream.get();
  }
  v1::WriteRequest request;
  while (TakeNext(&request)) {
    if (!stream->Add(std::move(request)).ok()) break;
  }
  {
    MutexLock lock(&mutex_);
    if (cancelled_ || !blocked_.ok()) stream->Cancel();
  }
  const absl::Status end = stream->Finish();
  MutexLock lock(&mutex_);
  stream_ = nullptr;
  if (!blocked_.ok()) return blocked_;
  // Refused as a whole, or never connected.
  if (!end.ok() && first_ == first && FateOfAttempt(end) == WriteFate::kNotLogged) sent_ever_ = sent_before;
  return end;
}

bool StreamBatcher::TakeNext(v1::WriteRequest* request) {
  MutexLock lock(&mutex_);
  const auto is_sent = [this]() TOWLINE_REQUIRES(mutex_) { return send_ == first_ + items_.size(); };
  while (!StreamIsOver() && is_sent() && !(closing_ && items_.empty())) changed_.Wait(&mutex_);
  if (StreamIsOver() || is_sent()) return false;
  *request = items_[send_ - first_].request;
  sent_ever_ = std::max(sent_ever_, send_);
  ++send_;
  return true;
}

void StreamBatcher::OnAnswer(const WriteStreamAnswer& answer) {
  std::vector<RecordAnswer> answers;
  {
    MutexLock lock(&mutex_);
    if (!blocked_.ok()) return;
    auto refused = answer.refused.begin();
    for (uint64_t sequence = answer.first_sequence; sequence <= answer.last_sequence; ++sequence) {
      RecordAnswer& record = answers.emplace_back();
      record.number = stream_first_ + sequence - 1;
      if (refused != answer.refused.end() && refused->sequence == sequence) {
        record.status = RefusalOf(refused->error);
        if (!IsAboutTheRecord((refused++)->error.reason)) {
          // It may be taken later or elsewhere. What is behind it is sent again with it, and recognised.
          blocked_ = record.status;
          answers.pop_back();
          changed_.NotifyAll();
          break;
        }
      }
      for (const v1::DegradedElements& degraded : answer.degraded) {
        if (degraded.first_sequence() <= sequence && sequence <= degraded.last_sequence()) record.level_reached = false;
      }
      Pop();
    }
    if (answer.position.has_value()) position_ = *answer.position;
    changed_.NotifyAll();
  }
  if (answer.position.has_value()) cluster_.ObserveWrite(*answer.position, endpoint_);
  Deliver(answers);
}

void StreamBatcher::Pop() {
  bytes_ -= items_.front().bytes;
  items_.pop_front();
  ++first_;
}

void StreamBatcher::Deliver(const std::vector<RecordAnswer>& answers) {
  if (answers.empty()) return;
  for (const RecordAnswer& answer : answers) {
    if (on_answer_) on_answer_(answer);
  }
  MutexLock lock(&mutex_);
  delivered_ = answers.back().number;
  changed_.NotifyAll();
}

bool StreamBatcher::Recover(const absl::Status& error) {
  uint64_t first = 0;
  {
    MutexLock lock(&mutex_);
    if (cancelled_) return false;
    if (items_.empty()) return true;  // nobody waits; the next record opens a stream
    first = first_;
  }
  if (!IsWorthAnotherWrite(error)) return false;
  const int64_t now = SystemClock()->MonotonicMicros();
  if (first > first_at_loss_) {
    first_at_loss_ = first;
    give_up_us_ = now + Micros(options_.retry_for);
    pause_.Reset();
    followed_ = false;
    losses_ = 0;
  }
  // Two nodes that name each other must not keep this thread busy.
  const bool hint = GetErrorInfo(error).reason == "not_primary";
  losses_ = hint ? 0 : losses_ + 1;
  followed_ = cluster_.FollowStream(endpoint_, error) && !followed_;
  if (followed_) return true;
  const int64_t pause = pause_.NextMicros();
  if (now + pause >= give_up_us_) return false;
  MutexLock lock(&mutex_);
  const int64_t until = now + pause;
  while (!cancelled_) {
    const int64_t left = until - SystemClock()->MonotonicMicros();
    if (left <= 0) return true;
    changed_.WaitFor(&mutex_, left);
  }
  return false;
}

void StreamBatcher::AnswerRest(const absl::Status& end) {
  std::vector<RecordAnswer> answers;
  {
    MutexLock lock(&mutex_);
    end_ = end;
    if (cancelled_ && !items_.empty()) {
      end_ = MakeError(absl::StatusCode::kCancelled, "cancelled", "the batcher was destroyed",
                       "read the keys to find out");
    } else if (!end_.ok()) {
      end_ = Annotate(end_, "gave up to write");
    }
    while (!items_.empty()) {
      RecordAnswer& record = answers.emplace_back();
      record.number = first_;
      record.status = WithFate(end_, first_ > sent_ever_ ? WriteFate::kNotLogged : WriteFate::kUnknown);
      Pop();
    }
  }
  Deliver(answers);
  MutexLock lock(&mutex_);
  ended_ = true;
  changed_.NotifyAll();
}

}  // namespace

std::unique_ptr<WriteBatcher> NewStreamBatcher(ClusterClient& cluster, const BatcherOptions& options,
                                               OnRecordAnswer on_answer) {
  return std::make_unique<StreamBatcher>(cluster, options, std::move(on_answer));
}

}  // namespace towline::client
