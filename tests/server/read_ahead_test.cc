// A stream that is read ahead gives what its inner stream gives, in order, and ends with it.

#include "server/read_ahead.h"

#include <atomic>
#include <memory>

#include "common/mutex.h"
#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"

namespace towline::test {
namespace {

constexpr int64_t kLong = 30'000'000;

// Has `total` messages, numbered by the end's chunks, and is then over, or silent until it is cancelled.
class Numbers final : public SnapshotStream {
 public:
  Numbers(uint64_t total, bool silent) : total_(total), silent_(silent) {}

  ReadResult Read(v1::FetchSnapshotResponse* out, int64_t timeout_micros) override {
    MutexLock lock(&mutex_);
    if (given_ < total_) {
      out->mutable_end()->set_chunks(++given_);
      read_.NotifyAll();
      return ReadResult::kMessage;
    }
    if (silent_ && !cancelled_) cancel_.WaitFor(&mutex_, timeout_micros);
    return silent_ && !cancelled_ ? ReadResult::kTimeout : ReadResult::kClosed;
  }
  void Cancel() override {
    MutexLock lock(&mutex_);
    cancelled_ = true;
    cancel_.NotifyAll();
  }
  absl::Status Finish() override {
    MutexLock lock(&mutex_);
    return cancelled_ ? absl::CancelledError("cancelled") : absl::DataLossError("the end");
  }

  bool WaitGiven(uint64_t count) {
    MutexLock lock(&mutex_);
    while (given_ < count) {
      if (!read_.WaitFor(&mutex_, kLong)) return false;
    }
    return true;
  }
  uint64_t given() {
    MutexLock lock(&mutex_);
    return given_;
  }

 private:
  Mutex mutex_;
  CondVar read_;
  CondVar cancel_;
  const uint64_t total_;
  const bool silent_;
  uint64_t given_ = 0;
  bool cancelled_ = false;
};

class ReadAheadTest : public ::testing::Test {
 protected:
  std::unique_ptr<ReadAheadStream> Open(uint64_t total, bool silent) {
    auto numbers = std::make_unique<Numbers>(total, silent);
    numbers_ = numbers.get();
    return std::make_unique<ReadAheadStream>(std::move(numbers), *executor_);
  }

  const std::unique_ptr<Executor> executor_ = NewThreadExecutor();
  Numbers* numbers_ = nullptr;
};

TEST_F(ReadAheadTest, MessagesComeInOrderAndThenTheEnd) {
  const auto stream = Open(1000, /*silent=*/false);
  v1::FetchSnapshotResponse message;
  for (uint64_t i = 1; i <= 1000; ++i) {
    ASSERT_EQ(stream->Read(&message, kLong), ReadResult::kMessage);
    ASSERT_EQ(message.end().chunks(), i);
  }
  EXPECT_EQ(stream->Read(&message, kLong), ReadResult::kClosed);
  EXPECT_EQ(stream->Read(&message, 0), ReadResult::kClosed);
  EXPECT_THAT(stream->Finish(), StatusIs(absl::StatusCode::kDataLoss));
}

TEST_F(ReadAheadTest, NoMoreIsHeldThanTheLimit) {
  const auto stream = Open(1000, /*silent=*/false);
  ASSERT_TRUE(numbers_->WaitGiven(kReadAheadMessages));
  v1::FetchSnapshotResponse message;
  for (uint64_t taken = 1; taken <= 100; ++taken) {
    ASSERT_EQ(stream->Read(&message, kLong), ReadResult::kMessage);
    EXPECT_LE(numbers_->given(), taken + kReadAheadMessages);
    ASSERT_TRUE(numbers_->WaitGiven(taken + kReadAheadMessages));  // and no less
  }
}

TEST_F(ReadAheadTest, ASilentStreamTimesOutAndIsCancelled) {
  const auto stream = Open(1, /*silent=*/true);
  v1::FetchSnapshotResponse message;
  ASSERT_EQ(stream->Read(&message, kLong), ReadResult::kMessage);
  EXPECT_EQ(stream->Read(&message, 0), ReadResult::kTimeout);
  EXPECT_EQ(stream->Read(&message, 1000), ReadResult::kTimeout);
  stream->Cancel();
  EXPECT_EQ(stream->Read(&message, kLong), ReadResult::kClosed);
  EXPECT_THAT(stream->Finish(), StatusIs(absl::StatusCode::kCancelled));
}

TEST_F(ReadAheadTest, ItMayGoAwayAtAnyTime) {
  for (int i = 0; i < 50; ++i) {
    const auto stream = Open(static_cast<uint64_t>(i % 8), i % 2 == 0);
    v1::FetchSnapshotResponse message;
    if (i % 3 == 0) stream->Read(&message, 0);
    if (i % 5 == 0) {
      stream->Cancel();
      stream->Finish().IgnoreError();
    }
  }
}

}  // namespace
}  // namespace towline::test
