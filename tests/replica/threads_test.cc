// The replica's loops on real threads, for ThreadSanitizer and for hangs.
//
// One loop runs the controller, one the applier, one feeds frames, and the test reads states and stops everything. The
// stream breaks now and then. Every wait has a deadline.

#include <atomic>
#include <memory>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "replica/watermark.h"
#include "tests/replica/replica_node.h"
#include "tests/support/status_matchers.h"

namespace towline::test {
namespace {

constexpr Lsn kRecords = 3000;
constexpr int64_t kDeadlineMicros = 60'000'000;

// A host on threads.
class ThreadedHost : public ReplicaHost {
 public:
  ThreadedHost()
      : stores_({.file_system = &fs_, .flush_every_batches = 0, .flush_on_close = false}),
        env_{fs_,
             *SystemClock(),
             *SystemRng(),
             *executor_,
             *NullLogger(),
             stores_,
             kDataDirectory,
             SmallSpool(),
             {},
             [](const absl::Status& status) { ADD_FAILURE() << status; }} {
    EXPECT_THAT(fs_.CreateDirectory(kDataDirectory), IsOk());
    auto control = ControlFile::Open(fs_, kDataDirectory);
    EXPECT_THAT(control, IsOk());
    control_ = *std::move(control);
    EXPECT_THAT(control_->Set(NewReplicaControl(), true), IsOk());
  }

  ControlFile& control() override { return *control_; }
  std::shared_ptr<Generation> LiveGeneration() override {
    MutexLock lock(&mutex_);
    return live_;
  }
  void SwitchGeneration(std::shared_ptr<Generation> generation) override {
    MutexLock lock(&mutex_);
    live_ = std::move(generation);
  }
  void OnHeartbeat(uint64_t, Lsn, Lsn) override { heartbeats_.fetch_add(1); }
  void OnSlotCopies(const slots::SlotCopies&) override {}
  void OnUpstreamPath(const UpstreamPath&) override {}
  const GenerationEnvironment& environment() override { return env_; }
  Mutex& fence_gate() override { return gate_; }
  Executor& executor() { return *executor_; }
  int heartbeats() const { return heartbeats_.load(); }

 private:
  SimFileSystem fs_;
  const std::unique_ptr<Executor> executor_ = NewThreadExecutor();
  MemoryStoreFactory stores_;
  const GenerationEnvironment env_;
  std::unique_ptr<ControlFile> control_;
  std::atomic<int> heartbeats_{0};
  Mutex mutex_;
  std::shared_ptr<Generation> live_ TOWLINE_GUARDED_BY(mutex_);
  Mutex gate_;
};

// Feeds a log to whoever pulls, in small messages, and breaks the stream after every 500 records.
class Feeder {
 public:
  Feeder(FakeUpstream& upstream, const LogMaker& log) : log_(log) {
    upstream.on_pull = [this, &upstream](FakePull& pull) {
      pull.SendPartial(log_);
      pull.on_ack = [this](const v1::PullAck& ack) {
        MutexLock lock(&mutex_);
        acked_ = std::max<Lsn>(acked_, ack.applied_lsn());
        changed_.NotifyAll();
      };
      MutexLock lock(&mutex_);
      pull_ = upstream.pulls.back();
      next_ = pull.start().lsn() + 1;
      left_ = 500;
    };
  }

  StepResult Step() {
    MutexLock lock(&mutex_);
    if (pull_ == nullptr) return StepResult::WaitFor(100);
    if (left_ <= 0) {
      pull_->inbox.Close(absl::UnavailableError("cut"));
      pull_.reset();
      return StepResult::Again();
    }
    const Lsn last = std::min(log_.end_lsn(), next_ + 6);
    if (next_ <= last) pull_->SendFrames(log_.Batch(next_, last));
    if (++heartbeat_ % 10 == 0) pull_->SendHeartbeat(heartbeat_, last);
    left_ -= static_cast<int>(last + 1 - next_);
    next_ = last + 1;
    return StepResult::WaitFor(50);
  }

  bool WaitAcked(Lsn lsn, int64_t micros) {
    const int64_t deadline = SystemClock()->MonotonicMicros() + micros;
    MutexLock lock(&mutex_);
    while (acked_ < lsn) {
      if (!changed_.WaitFor(&mutex_, deadline - SystemClock()->MonotonicMicros())) break;
    }
    return acked_ >= lsn;
  }

 private:
  const LogMaker& log_;
  Mutex mutex_;
  CondVar changed_;
  std::shared_ptr<FakePull> pull_ TOWLINE_GUARDED_BY(mutex_);
  Lsn next_ TOWLINE_GUARDED_BY(mutex_) = 1;
  int left_ TOWLINE_GUARDED_BY(mutex_) = 0;
  uint64_t heartbeat_ TOWLINE_GUARDED_BY(mutex_) = 0;
  Lsn acked_ TOWLINE_GUARDED_BY(mutex_) = 0;
};

TEST(ReplicaThreadsTest, StreamsReconnectsAndStops) {
  LogMaker log;
  log.StartTerm(1, 11);
  log.Puts(kRecords / 2);
  log.StartTerm(2, 22);
  log.Puts(kRecords / 2);

  ThreadedHost host;
  FakeUpstream upstream(nullptr);
  Feeder feeder(upstream, log);
  ReplicaOptions options = TestReplicaOptions();
  options.reconnect_min_micros = 100;
  options.reconnect_max_micros = 1000;
  const auto controller = NewReplicaController(host, upstream, options);
  WatermarkSaver watermark(host.control(), *SystemClock(), /*idle_micros=*/0);
  auto feed = host.executor().Start("feed", [&] { return feeder.Step(); });
  auto run = host.executor().Start("replica", [&] { return controller->Step(); });
  auto save = host.executor().Start("watermark", [&] {
    const std::shared_ptr<Generation> live = host.LiveGeneration();
    if (live != nullptr) {
      EXPECT_THAT(watermark.MaybeSaveWatermark(*live), IsOk());
    }
    (void)controller->Status();
    return StepResult::WaitFor(200);
  });

  EXPECT_TRUE(feeder.WaitAcked(log.end_lsn(), kDeadlineMicros));
  controller->Shutdown();
  run->Stop();
  feed->Stop();
  save->Stop();
  const std::shared_ptr<Generation> live = host.LiveGeneration();
  EXPECT_EQ(live->state().applied(), log.PositionAt(log.end_lsn()));
  EXPECT_GE(controller->Status().partial_resyncs, 5u);
  EXPECT_GT(host.heartbeats(), 0);
  EXPECT_THAT(watermark.SaveWatermark(*live), IsOk());
  EXPECT_EQ(host.control().Get().watermark, log.end_lsn());
  EXPECT_THAT(live->Close(), IsOk());
}

// A read that waits for messages ends soon after Shutdown, long before its time limit.
TEST(ReplicaThreadsTest, ShutdownInterruptsAWaitingRead) {
  LogMaker log;
  log.StartTerm(1, 11);
  ThreadedHost host;
  FakeUpstream upstream(nullptr);
  Feeder feeder(upstream, log);
  const auto controller = NewReplicaController(host, upstream, TestReplicaOptions());
  auto feed = host.executor().Start("feed", [&] { return feeder.Step(); });
  auto run = host.executor().Start("replica", [&] { return controller->Step(); });
  EXPECT_TRUE(feeder.WaitAcked(1, kDeadlineMicros));
  controller->Shutdown();
  run->Stop();
  feed->Stop();
  EXPECT_EQ(upstream.pulls.size(), 1u);
  EXPECT_TRUE(upstream.pulls[0]->inbox.closed());
}

}  // namespace
}  // namespace towline::test
