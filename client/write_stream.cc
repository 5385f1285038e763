#include "client/write_stream.h"

#include <deque>
#include <map>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"

#include "client/rpc_status.h"
#include "common/mutex.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"
#include "grpcpp/support/sync_stream.h"
#include "towline/v1/kv_service.grpc.pb.h"

namespace towline::client {
namespace {

class SyncWriteStream final : public WriteStream {
 public:
  SyncWriteStream(std::shared_ptr<grpc::Channel> channel, const WriteStreamOptions& options,
                  OnWriteStreamAnswer on_answer)
      : options_(options), on_answer_(std::move(on_answer)), stub_(v1::KvService::NewStub(std::move(channel))) {
    stream_ = stub_->WriteStream(&context_);
    BeginMessage(1);
    writer_ = std::thread([this] { SendMessages(); });
    reader_ = std::thread([this] { ReadAnswers(); });
  }

  ~SyncWriteStream() override {
    Cancel();
    (void)Finish();
    reader_.join();
  }

  absl::StatusOr<uint64_t> Add(v1::WriteRequest&& element) override TOWLINE_EXCLUDES(mutex_) {
    const size_t size = element.ByteSizeLong();
    if (size > kStreamElementSizeMax) {
      return MakeError(
          absl::StatusCode::kInvalidArgument, "record_too_large",
          absl::StrCat("the encoded record has ", size, " bytes; a stream carries at most ", kStreamElementSizeMax),
          "split the value");
    }
    MutexLock lock(&mutex_);
    while (!stopping_ && !HasRoomFor(size)) changed_.Wait(&mutex_);
    if (stopping_) {
      while (!ended_) changed_.Wait(&mutex_);
      return end_.ok() ? absl::FailedPreconditionError("the stream is closed") : end_;
    }
    // The writer waits only for the first element of a message.
    if (pending_.elements().empty()) changed_.NotifyAll();
    pending_.add_elements()->Swap(&element);
    pending_bytes_ += size;
    unanswered_bytes_ += size;
    unanswered_sizes_.push_back(static_cast<uint32_t>(size));
    return ++last_sequence_;
  }

  absl::Status Finish() override TOWLINE_EXCLUDES(mutex_) {
    MutexLock lock(&mutex_);
    stopping_ = true;
    changed_.NotifyAll();
    while (!ended_) changed_.Wait(&mutex_);
    return end_;
  }

  void Cancel() override { context_.TryCancel(); }

 private:
  bool HasRoomFor(size_t size) const TOWLINE_REQUIRES(mutex_) {
    if (unanswered_bytes_ > 0 && unanswered_bytes_ + size > options_.window_bytes) return false;
    if (pending_.elements().empty()) return true;
    return pending_bytes_ + size <= options_.message_bytes &&
           static_cast<size_t>(pending_.elements_size()) < options_.message_elements;
  }

  void BeginMessage(uint64_t first_sequence) TOWLINE_NO_THREAD_SAFETY_ANALYSIS {
    pending_.set_first_sequence(first_sequence);
    if (options_.durability.has_value()) *pending_.mutable_durability() = *options_.durability;
  }

  // Takes the gathered message; false when there is nothing more to send.
  bool TakeMessage(v1::WriteStreamRequest& message) TOWLINE_EXCLUDES(mutex_) {
    MutexLock lock(&mutex_);
    while (pending_.elements().empty() && !stopping_) changed_.Wait(&mutex_);
    if (pending_.elements().empty() || broken_) return false;
    message.Clear();
    message.Swap(&pending_);
    BeginMessage(last_sequence_ + 1);
    pending_bytes_ = 0;
    sent_sequence_ = last_sequence_;
    changed_.NotifyAll();
    return true;
  }

  void SendMessages() {
    v1::WriteStreamRequest message;
    while (TakeMessage(message)) {
      if (!stream_->Write(message)) return;
    }
    stream_->WritesDone();
  }

  void ReadAnswers() {
    v1::WriteStreamResponse response;
    absl::Status broken;
    while (broken.ok() && stream_->Read(&response)) broken = TakeAnswer(response);
    if (!broken.ok()) context_.TryCancel();
    {
      MutexLock lock(&mutex_);
      stopping_ = true;
      broken_ = true;
      changed_.NotifyAll();
    }
    writer_.join();
    absl::Status end = FromGrpcStatus(stream_->Finish());
    MutexLock lock(&mutex_);
    if (end.ok() && answered_sequence_ < last_sequence_) {
      end = MakeError(
          absl::StatusCode::kUnavailable, "stream_ended",
          absl::StrCat("the server ended the stream with ", last_sequence_ - answered_sequence_, " unanswered records"),
          "send them again");
    }
    end_ = broken.ok() ? end : broken;
    ended_ = true;
    changed_.NotifyAll();
    if (options_.on_end) options_.on_end();
  }

  absl::Status TakeAnswer(const v1::WriteStreamResponse& response) TOWLINE_EXCLUDES(mutex_) {
    for (const v1::RefusedElement& refused : response.refused()) {
      refused_[refused.sequence()] = FromErrorDetail(refused.error());
    }
    for (const v1::DegradedElements& degraded : response.degraded()) degraded_.push_back(degraded);
    WriteStreamAnswer answer;
    {
      MutexLock lock(&mutex_);
      if (response.acked_sequence() > sent_sequence_) {
        return MakeError(absl::StatusCode::kInternal, "bad_ack",
                         absl::StrCat("the server acknowledged element ", response.acked_sequence(), ", but only ",
                                      sent_sequence_, " were sent"));
      }
      answer.first_sequence = answered_sequence_ + 1;
    }
    if (response.acked_sequence() < answer.first_sequence) return absl::OkStatus();
    answer.last_sequence = response.acked_sequence();
    answer.committed_lsn = response.committed_lsn();
    if (response.has_position()) answer.position = response.position();
    answer.degraded.assign(response.degraded().begin(), response.degraded().end());
    while (!refused_.empty() && refused_.begin()->first <= answer.last_sequence) {
      answer.refused.push_back({refused_.begin()->first, std::move(refused_.begin()->second)});
      refused_.erase(refused_.begin());
    }
    while (!degraded_.empty() && degraded_.front().last_sequence() <= answer.last_sequence) {
      answer.degraded.push_back(std::move(degraded_.front()));
      degraded_.pop_front();
    }
    if (on_answer_) on_answer_(answer);

    MutexLock lock(&mutex_);
    for (; answered_sequence_ < answer.last_sequence; ++answered_sequence_) {
      unanswered_bytes_ -= unanswered_sizes_.front();
      unanswered_sizes_.pop_front();
    }
    changed_.NotifyAll();
    return absl::OkStatus();
  }

  const WriteStreamOptions options_;
  const OnWriteStreamAnswer on_answer_;
  grpc::ClientContext context_;
  std::unique_ptr<v1::KvService::Stub> stub_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::WriteStreamRequest, v1::WriteStreamResponse>> stream_;
  std::map<uint64_t, ErrorInfo> refused_;      // not covered by an ack yet; reader thread only
  std::deque<v1::DegradedElements> degraded_;  // likewise

  Mutex mutex_;
  CondVar changed_;
  v1::WriteStreamRequest pending_ TOWLINE_GUARDED_BY(mutex_);  // not sent yet
  size_t pending_bytes_ TOWLINE_GUARDED_BY(mutex_) = 0;
  std::deque<uint32_t> unanswered_sizes_ TOWLINE_GUARDED_BY(mutex_);
  size_t unanswered_bytes_ TOWLINE_GUARDED_BY(mutex_) = 0;
  uint64_t last_sequence_ TOWLINE_GUARDED_BY(mutex_) = 0;  // of the newest element
  uint64_t sent_sequence_ TOWLINE_GUARDED_BY(mutex_) = 0;  // handed to the writer
  uint64_t answered_sequence_ TOWLINE_GUARDED_BY(mutex_) = 0;
  bool stopping_ TOWLINE_GUARDED_BY(mutex_) = false;  // no more elements
  bool broken_ TOWLINE_GUARDED_BY(mutex_) = false;    // the server's side has ended
  bool ended_ TOWLINE_GUARDED_BY(mutex_) = false;     // both threads are done with the stream
  absl::Status end_ TOWLINE_GUARDED_BY(mutex_);

  std::thread writer_;  // joined by the reader
  std::thread reader_;
};

}  // namespace

std::unique_ptr<WriteStream> NewWriteStream(std::shared_ptr<grpc::Channel> channel, const WriteStreamOptions& options,
                                            OnWriteStreamAnswer on_answer) {
  return std::make_unique<SyncWriteStream>(std::move(channel), options, std::move(on_answer));
}

}  // namespace towline::client
