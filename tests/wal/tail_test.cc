// Cursors, pins, pruning and the loop of the spool from several threads while another one appends.
//
// Method   Real threads (NewThreadExecutor) over SimFileSystem; meant to run under ThreadSanitizer. Threads wait for
//          conditions, with a deadline; nothing sleeps.

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/checksum.h"
#include "common/clock.h"
#include "common/error.h"
#include "common/executor.h"
#include "common/mutex.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"
#include "tests/wal/spool_fixture.h"

namespace towline::wal::test {
namespace {

using ::towline::test::IsOk;
using ::towline::test::ReasonIs;

constexpr int64_t kDeadlineMicros = 60000000;
#ifdef TOWLINE_SANITIZED
constexpr Lsn kRecords = 3000;
#else
constexpr Lsn kRecords = 20000;
#endif

size_t SizeOf(Lsn lsn) { return lsn % 37 == 0 ? 3000 : lsn % 200; }

// A spool on threads.
class TailTest : public ::testing::Test {
 protected:
  TailTest() : executor_(NewThreadExecutor()) {}

  void Open(uint64_t tail_cache_bytes) {
    SpoolOptions options = SmallOptions();
    options.spare_segments = 2;
    options.tail_cache_bytes = tail_cache_bytes;
    SpoolEnvironment env{fs_, *SystemClock(), rng_, *executor_, *NullLogger()};
    TOWLINE_ASSERT_OK_AND_ASSIGN(spool_, OpenSpool(env, kDirectory, kQuarantine, options, Inputs(), &report_));
    listener_ = spool_->AddDurableListener([this](Lsn) { Changed(); });
  }

  void Changed() {
    MutexLock lock(&mutex_);
    ++changes_;
    changed_.NotifyAll();
  }

  int64_t changes() {
    MutexLock lock(&mutex_);
    return changes_;
  }

  // Waits until something changed since `seen`. False after the deadline.
  bool WaitBeyond(int64_t seen) {
    const int64_t deadline = SystemClock()->MonotonicMicros() + kDeadlineMicros;
    MutexLock lock(&mutex_);
    while (changes_ == seen) {
      const int64_t left = deadline - SystemClock()->MonotonicMicros();
      if (left <= 0) return false;
      changed_.WaitFor(&mutex_, left);
    }
    return true;
  }

  // One group per step, until kRecords are in.
  std::unique_ptr<Loop> StartAppender() {
    return executor_->Start("appender", [this] {
      GroupBuilder builder(spool_->end());
      do {
        const Lsn lsn = builder.end().lsn + 1;
        const std::string payload = PayloadOf(lsn, SizeOf(lsn));
        builder.Add(RecordType::kBatch, 1, static_cast<int64_t>(lsn), payload, Crc32c(payload));
      } while (builder.end().lsn % 7 != 0 && builder.end().lsn < kRecords);
      EXPECT_THAT(spool_->Append(builder.Finish()), IsOk());
      return spool_->end().lsn < kRecords ? StepResult::Again() : StepResult::WaitForWake();
    });
  }

  // Follows the log to kRecords and checks every record. `max_bytes` decides how far behind it stays.
  std::unique_ptr<Loop> StartFollower(Cursor* cursor, size_t max_bytes, std::atomic<int>* running) {
    return executor_->Start("follower", [this, cursor, max_bytes, running] {
      const int64_t seen = changes();
      const absl::StatusOr<ShippedBatch> batch = cursor->Next(max_bytes);
      EXPECT_THAT(batch, IsOk());
      Lsn lsn = batch.ok() ? batch->before.lsn : kRecords;
      if (batch.ok()) {
        EXPECT_THAT(ForEachShipped(batch->bytes,
                                   [&](const ShippedFrame& frame) {
                                     EXPECT_EQ(frame.header.lsn, ++lsn);
                                     EXPECT_EQ(frame.payload, PayloadOf(lsn, SizeOf(lsn)));
                                     return absl::OkStatus();
                                   }),
                    IsOk());
        if (batch->empty() && cursor->next_lsn() <= kRecords) {
          EXPECT_TRUE(WaitBeyond(seen));
        }
      }
      if (lsn < kRecords) return StepResult::Again();
      --*running;
      Changed();
      return StepResult::WaitForWake();
    });
  }

  void WaitForZero(const std::atomic<int>& running) {
    while (true) {
      const int64_t seen = changes();
      if (running == 0) return;
      ASSERT_TRUE(WaitBeyond(seen));
    }
  }

  SimFileSystem fs_;
  SeededRng rng_{1};
  std::unique_ptr<Executor> executor_;
  RecoveryReport report_;
  Mutex mutex_;
  CondVar changed_;
  int64_t changes_ TOWLINE_GUARDED_BY(mutex_) = 0;
  std::unique_ptr<Spool> spool_;
  uint64_t listener_ = 0;
};

// From memory, from disk, and back and forth between the two.
TEST_F(TailTest, CursorsFollowTheEndWhileAnotherThreadAppends) {
  for (const uint64_t cache_bytes : {uint64_t{0}, uint64_t{3000}, uint64_t{16} << 20}) {
    SCOPED_TRACE(cache_bytes);
    fs_.SetContents("unrelated", "");
    ASSERT_THAT(RemoveAll(fs_, kDirectory), IsOk());
    Open(cache_bytes);
    std::vector<std::unique_ptr<Cursor>> cursors;
    std::vector<std::unique_ptr<Loop>> loops;
    std::atomic<int> running{3};
    for (const size_t max_bytes : {size_t{1}, size_t{700}, size_t{1} << 20}) {
      TOWLINE_ASSERT_OK_AND_ASSIGN(std::unique_ptr<Cursor> cursor, spool_->NewCursor(1));
      cursors.push_back(std::move(cursor));
      loops.push_back(StartFollower(cursors.back().get(), max_bytes, &running));
    }
    loops.push_back(StartAppender());
    ASSERT_NO_FATAL_FAILURE(WaitForZero(running));
    loops.clear();
    cursors.clear();
    spool_.reset();
  }
}

// Seeks, questions and pruning meet a moving log; what they answer must hold at some moment of it.
TEST_F(TailTest, QuestionsAndPruningRunBesideAppends) {
  Open(10000);
  std::atomic<int> running{4};
  std::atomic<Lsn> saved{1};
  std::vector<std::unique_ptr<Loop>> loops;
  const auto start = [&](const char* name, std::function<void()> fn) {
    loops.push_back(executor_->Start(name, [this, fn, &running] {
      const bool last = spool_->end().lsn >= kRecords;
      fn();
      if (!last) return StepResult::Again();
      --running;
      Changed();
      return StepResult::WaitForWake();
    }));
  };
  const auto prune = [&] {
    const Lsn end = spool_->end().lsn;
    EXPECT_THAT(spool_->Prune(end / 2, 0,
                              [&](Lsn first) {
                                EXPECT_LE(first, std::max<Lsn>(end / 2, 1));
                                saved = first;
                                return absl::OkStatus();
                              }),
                IsOk());
  };
  start("pruner", prune);
  start("pinned", [&] {
    const Lsn from = spool_->stats().first_lsn;
    const std::unique_ptr<Pin> pin = spool_->NewPin(from);
    const absl::StatusOr<std::unique_ptr<Cursor>> cursor = spool_->NewCursor(from);
    if (!cursor.ok()) {
      EXPECT_THAT(cursor, ReasonIs("wal_removed"));  // pruned in front of the pin
      return;
    }
    for (int i = 0; i < 5; ++i) {
      const absl::StatusOr<ShippedBatch> batch = (*cursor)->Next(10000);
      EXPECT_THAT(batch, IsOk());
    }
  });
  start("asker", [&] {
    const Lsn end = spool_->end().lsn;
    const Lsn lsn = end - end / 3;
    // Also where segments are just going.
    for (const Lsn asked : {lsn, spool_->stats().first_lsn + 2}) {
      if (asked > end) continue;
      const absl::StatusOr<LogEnd> at = spool_->EndAt(asked);
      if (at.ok()) {
        EXPECT_EQ(at->lsn, asked);
      } else {
        EXPECT_THAT(at, ReasonIs("wal_removed"));
      }
    }
    EXPECT_THAT(spool_->SeekTime(static_cast<int64_t>(end / 2)), IsOk());
    EXPECT_GT(spool_->BytesBehind(end / 2) + 1, 0u);
    const absl::StatusOr<Lsn> found = spool_->SeekTime(static_cast<int64_t>(lsn));
    EXPECT_THAT(found, IsOk());
    if (found.ok()) {
      EXPECT_GE(*found, std::min<Lsn>(lsn, end));
    }
  });
  start("listener", [&] {
    std::atomic<int> calls{0};
    const uint64_t id = spool_->AddDurableListener([&](Lsn) { ++calls; });
    spool_->RemoveListener(id);
    // No call comes after this, or it would find `calls` gone.
  });
  loops.push_back(StartAppender());
  ASSERT_NO_FATAL_FAILURE(WaitForZero(running));
  loops.clear();
  prune();  // no pin is left
  EXPECT_GT(saved, kRecords / 4);
  TOWLINE_ASSERT_OK_AND_ASSIGN(const std::vector<ReadRecord> records, ReadAll(*spool_, spool_->stats().first_lsn));
  EXPECT_EQ(records.back().lsn, kRecords);
}

}  // namespace
}  // namespace towline::wal::test
