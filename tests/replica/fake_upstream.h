// An upstream in memory whose answers a test writes.
//
//   FakeUpstream upstream(&clock);
//   upstream.on_pull = [&](FakePull& pull) { pull.Send(started); ... };   // called with the start message
//   upstream.pulls.back()->Send(frames);                                  // later

#ifndef TOWLINE_TESTS_REPLICA_FAKE_UPSTREAM_H_
#define TOWLINE_TESTS_REPLICA_FAKE_UPSTREAM_H_

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"

#include "common/mutex.h"
#include "replica/upstream.h"
#include "tests/replica/log_maker.h"
#include "tests/support/fake_clock.h"
#include "towline/v1/replication_service.pb.h"

namespace towline::test {

// Messages to the replica, until it is closed. With a fake clock a Read that finds nothing moves it by its timeout;
// without one it waits.
// Threads: all methods from any thread.
template <typename Message>
class FakeInbox {
 public:
  explicit FakeInbox(FakeClock* clock) : clock_(clock) {}

  void Send(Message message) TOWLINE_EXCLUDES(mutex_) {
    MutexLock lock(&mutex_);
    messages_.push_back(std::move(message));
    changed_.NotifyAll();
  }

  // The stream ends with `status` behind what was sent.
  void Close(absl::Status status) TOWLINE_EXCLUDES(mutex_) {
    MutexLock lock(&mutex_);
    if (closed_) return;
    closed_ = true;
    status_ = std::move(status);
    changed_.NotifyAll();
  }

  // Time that passes with each message that is read; for a fake clock.
  void SetMessageMicros(int64_t micros) TOWLINE_EXCLUDES(mutex_) {
    MutexLock lock(&mutex_);
    message_micros_ = micros;
  }

  void Wake() TOWLINE_EXCLUDES(mutex_) {
    MutexLock lock(&mutex_);
    woken_ = true;
    changed_.NotifyAll();
  }

  ReadResult Read(Message* out, int64_t timeout_micros) TOWLINE_EXCLUDES(mutex_) {
    MutexLock lock(&mutex_);
    if (messages_.empty() && !closed_ && !woken_) {
      if (clock_ != nullptr) {
        clock_->Advance(timeout_micros);
      } else {
        changed_.WaitFor(&mutex_, timeout_micros);
      }
    }
    if (timeout_micros != 0 && std::exchange(woken_, false)) return ReadResult::kTimeout;
    if (messages_.empty()) return closed_ ? ReadResult::kClosed : ReadResult::kTimeout;
    *out = std::move(messages_.front());
    messages_.pop_front();
    if (clock_ != nullptr) clock_->Advance(message_micros_);
    return ReadResult::kMessage;
  }

  bool closed() const TOWLINE_EXCLUDES(mutex_) {
    MutexLock lock(&mutex_);
    return closed_;
  }
  absl::Status status() const TOWLINE_EXCLUDES(mutex_) {
    MutexLock lock(&mutex_);
    return status_;
  }
  size_t unread() const TOWLINE_EXCLUDES(mutex_) {
    MutexLock lock(&mutex_);
    return messages_.size();
  }

 private:
  FakeClock* const clock_;
  mutable Mutex mutex_;
  CondVar changed_;
  std::deque<Message> messages_ TOWLINE_GUARDED_BY(mutex_);
  bool closed_ TOWLINE_GUARDED_BY(mutex_) = false;
  bool woken_ TOWLINE_GUARDED_BY(mutex_) = false;
  int64_t message_micros_ TOWLINE_GUARDED_BY(mutex_) = 0;
  absl::Status status_ TOWLINE_GUARDED_BY(mutex_);
};

// The upstream's end of one Pull.
// Threads: all methods from any thread.
class FakePull {
 public:
  explicit FakePull(FakeClock* clock) : inbox(clock) {}

  const v1::PullStart& start() const { return start_; }  // once on_pull was called
  std::vector<std::string> upstream_path;                // of the next decision

  // Answers with PARTIAL, session 7, slot generation 9.
  void SendPartial(const LogMaker& log);
  void SendDecision(const LogMaker& log, v1::ResumeDecision decision, const std::string& reason,
                    uint32_t retry_after_ms = 0);
  // Answers with REWIND, reason diverged.
  void SendRewind(const LogMaker& log, Lsn common_lsn);
  void SendFrames(const v1::FrameBatch& batch);
  void SendHeartbeat(uint64_t sequence, Lsn durable_lsn, Lsn committed_lsn = 0);
  void SendEnded(const std::string& reason);

  std::vector<v1::PullAck> acks() const TOWLINE_EXCLUDES(mutex_);
  v1::PullAck last_ack() const;  // an empty one if there is none
  std::vector<uint64_t> grants() const TOWLINE_EXCLUDES(mutex_);

  FakeInbox<v1::PullResponse> inbox;
  std::function<void(const v1::PullAck&)> on_ack;  // before the ack counts as received; set in on_pull

 private:
  friend class FakePullStream;
  friend class FakeUpstream;
  void Receive(const v1::PullRequest& request) TOWLINE_EXCLUDES(mutex_);

  v1::PullStart start_;
  mutable Mutex mutex_;
  std::vector<v1::PullAck> acks_ TOWLINE_GUARDED_BY(mutex_);
  std::vector<uint64_t> grants_ TOWLINE_GUARDED_BY(mutex_);
};

// The upstream's end of one FetchSnapshot.
struct FakeSnapshot {
  explicit FakeSnapshot(FakeClock* clock) : inbox(clock) {}
  v1::FetchSnapshotRequest request;
  FakeInbox<v1::FetchSnapshotResponse> inbox;
};

// Threads: the handlers are called on the replica's loop; set them, and look at the lists, while it does not run.
class FakeUpstream : public Upstream {
 public:
  explicit FakeUpstream(FakeClock* clock) : clock_(clock) {}

  std::string endpoint() const override { return "127.0.0.1:7700"; }
  std::unique_ptr<PullStream> OpenPull() override;
  std::unique_ptr<SnapshotStream> OpenSnapshot(const v1::FetchSnapshotRequest& request) override;

  // Called with a new stream, its start message known. Without a handler the stream closes, as a dead peer's does.
  std::function<void(FakePull&)> on_pull;
  std::function<void(FakeSnapshot&)> on_snapshot;

  std::vector<std::shared_ptr<FakePull>> pulls;
  std::vector<std::shared_ptr<FakeSnapshot>> snapshots;

 private:
  FakeClock* const clock_;
};

}  // namespace towline::test

#endif  // TOWLINE_TESTS_REPLICA_FAKE_UPSTREAM_H_
