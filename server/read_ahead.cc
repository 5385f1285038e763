#include "server/read_ahead.h"

#include <chrono>
#include <utility>

namespace towline {
namespace {

// So long the loop takes at most to see that it is to stop.
constexpr int64_t kReadMicros = 100'000;

int64_t NowMicros() {
  return std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

ReadAheadStream::ReadAheadStream(std::unique_ptr<SnapshotStream> stream, Executor& executor)
    : stream_(std::move(stream)) {
  loop_ = executor.Start(
      "snapshot-read", [this] { return Step(); }, LoopPriority::kBatch);
}

ReadAheadStream::~ReadAheadStream() {
  Cancel();
  loop_->Stop();
}

StepResult ReadAheadStream::Step() {
  {
    MutexLock lock(&mutex_);
    if (closed_ || messages_.size() >= kReadAheadMessages) return StepResult::WaitForWake();
  }
  v1::FetchSnapshotResponse message;
  const ReadResult read = stream_->Read(&message, kReadMicros);
  if (read == ReadResult::kTimeout) return StepResult::Again();
  MutexLock lock(&mutex_);
  if (read == ReadResult::kClosed) {
    closed_ = true;
  } else {
    messages_.push_back(std::move(message));
  }
  arrived_.NotifyOne();
  return StepResult::Again();
}

ReadResult ReadAheadStream::Read(v1::FetchSnapshotResponse* out, int64_t timeout_micros) {
  const int64_t until = NowMicros() + timeout_micros;
  MutexLock lock(&mutex_);
  while (messages_.empty() && !closed_) {
    const int64_t left = until - NowMicros();
    if (timeout_micros == 0 || left <= 0) return ReadResult::kTimeout;
    arrived_.WaitFor(&mutex_, left);
  }
  if (messages_.empty()) return ReadResult::kClosed;
  out->Swap(&messages_.front());
  messages_.pop_front();
  if (messages_.size() == kReadAheadMessages - 1) loop_->Wake();
  return ReadResult::kMessage;
}

void ReadAheadStream::Cancel() { stream_->Cancel(); }

absl::Status ReadAheadStream::Finish() {
  loop_->Stop();
  return stream_->Finish();
}

}  // namespace towline
