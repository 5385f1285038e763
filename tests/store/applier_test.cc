// Tests of the applier: order, listeners, exact snapshots, flushes and failures.

#include "store/applier.h"

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/clock.h"
#include "store/memory_store.h"
#include "tests/store/state_test_util.h"
#include "tests/support/fake_clock.h"
#include "tests/support/recording_logger.h"
#include "tests/support/sim_executor.h"
#include "tests/support/status_matchers.h"

namespace towline::test {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr int64_t kSecond = 1'000'000;
constexpr int64_t kLongEnough = 60 * kSecond;  // of a wait that must end earlier

// A store that can be told to fail.
class FaultyStore : public Store {
 public:
  explicit FaultyStore(std::unique_ptr<Store> inner) : inner_(std::move(inner)) {}

  std::unique_ptr<StoreBatch> NewBatch() override { return inner_->NewBatch(); }
  absl::Status Write(std::unique_ptr<StoreBatch> batch) override {
    ++writes;
    return write_error.ok() ? inner_->Write(std::move(batch)) : write_error;
  }
  absl::StatusOr<std::optional<std::string>> Get(absl::string_view key) override { return inner_->Get(key); }
  absl::StatusOr<std::optional<std::string>> GetPersisted(absl::string_view key) override {
    return inner_->GetPersisted(key);
  }
  absl::StatusOr<std::shared_ptr<const StoreSnapshot>> Snapshot() override { return inner_->Snapshot(); }
  absl::Status Flush(bool wait) override {
    ++flushes;
    return flush_error.ok() ? inner_->Flush(wait) : flush_error;
  }
  absl::StatusOr<FileSums> Checkpoint(const std::string& directory) override { return inner_->Checkpoint(directory); }
  StoreStats Stats() override { return inner_->Stats(); }

  int writes = 0;
  int flushes = 0;
  absl::Status write_error;
  absl::Status flush_error;

 private:
  const std::unique_ptr<Store> inner_;
};

class ApplierTest : public ::testing::Test {
 protected:
  ApplierTest() {
    auto store = std::make_unique<FaultyStore>(*factory_.Open("db"));
    store_ = store.get();
    state_ = *StateStore::Open(std::move(store));
  }

  void Start(ApplierOptions options = {}) {
    applier_ = std::make_unique<Applier>(*state_, executor_, clock_, logger_, options,
                                         [this](absl::Status status) { fatal_.push_back(std::move(status)); });
    applier_->SetAppliedListener([this](Lsn lsn) { listened_.push_back(lsn); });
  }

  // Enqueues the next `count` records as one batch of `bytes` log bytes each.
  void Enqueue(int count, uint64_t bytes = 100) {
    ApplyBatch batch;
    const Lsn first = log_.last() + 1;
    for (int i = 0; i < count; ++i) log_.Append(ChangeBuilder().Put("k", "v").Encode());
    const auto records = std::make_shared<TestLog>(log_);
    batch.records = records->Records(first, log_.last());
    batch.keep_alive = records;
    batch.bytes = bytes * static_cast<uint64_t>(count);
    batch.done = [this, last = log_.last()] { done_.push_back(last); };
    applier_->Enqueue(std::move(batch));
  }

  FakeClock clock_;
  SimExecutor executor_{&clock_};
  RecordingLogger logger_;
  MemoryStoreFactory factory_;
  FaultyStore* store_ = nullptr;
  std::unique_ptr<StateStore> state_;
  TestLog log_;
  std::unique_ptr<Applier> applier_;
  std::vector<absl::Status> fatal_;
  std::vector<Lsn> listened_;
  std::vector<Lsn> done_;
};

TEST_F(ApplierTest, AppliesWhatWasEnqueuedAndTells) {
  Start();
  Enqueue(3);
  Enqueue(2);
  EXPECT_EQ(applier_->queued_bytes(), 500u);
  EXPECT_EQ(applier_->applied_lsn(), 0u);
  ASSERT_TRUE(executor_.RunUntilIdle());
  EXPECT_EQ(applier_->applied_lsn(), 5u);
  EXPECT_EQ(state_->applied(), log_.PositionAt(5));
  EXPECT_EQ(applier_->queued_bytes(), 0u);
  EXPECT_EQ(store_->writes, 1) << "small batches are applied together";
  EXPECT_THAT(listened_, ElementsAre(5));
  EXPECT_THAT(done_, ElementsAre(3, 5));
  EXPECT_TRUE(applier_->WaitApplied(5, 0));
  EXPECT_FALSE(applier_->WaitApplied(6, 1));
}

TEST_F(ApplierTest, LargeBatchesAreCut) {
  ApplierOptions options;
  options.batch_records_max = 4;
  Start(options);
  Enqueue(10);
  ASSERT_TRUE(executor_.RunUntilIdle());
  EXPECT_THAT(listened_, ElementsAre(4, 8, 10));
  EXPECT_THAT(done_, ElementsAre(10));

  ApplierOptions small;
  small.batch_bytes_max = 1;
  applier_.reset();
  Start(small);
  listened_.clear();
  Enqueue(2);
  ASSERT_TRUE(executor_.RunUntilIdle());
  EXPECT_THAT(listened_, ElementsAre(11, 12));
}

TEST_F(ApplierTest, GoesOnWhereTheStoreIs) {
  for (int i = 0; i < 4; ++i) log_.Append(ChangeBuilder().Put("k", "v").Encode());
  ASSERT_THAT(ApplyRest(*state_, log_), IsOk());
  Start();
  EXPECT_EQ(applier_->applied_lsn(), 4u);
  Enqueue(1);
  ASSERT_TRUE(executor_.RunUntilIdle());
  EXPECT_EQ(applier_->applied_lsn(), 5u);
}

TEST_F(ApplierTest, AHoleIsFatalOnce) {
  Start();
  Enqueue(1);
  log_.Append(ChangeBuilder().Put("k", "v").Encode());  // never enqueued
  Enqueue(1);
  Enqueue(1);
  ASSERT_TRUE(executor_.RunUntilIdle());
  ASSERT_EQ(fatal_.size(), 1u);
  EXPECT_THAT(fatal_[0], ReasonIs("apply_gap"));
  EXPECT_THAT(done_, IsEmpty());
  Enqueue(1);
  ASSERT_TRUE(executor_.RunUntilIdle());
  EXPECT_EQ(fatal_.size(), 1u);
  EXPECT_EQ(logger_.Events("apply_failed").size(), 1u);
  EXPECT_FALSE(applier_->WaitApplied(9, kLongEnough));
  EXPECT_THAT(applier_->SnapshotAt(9, kLongEnough), ReasonIs("store_failed"));
}

TEST_F(ApplierTest, AFullDiskIsWaitedFor) {
  Start();
  store_->write_error = absl::ResourceExhaustedError("disk full");
  Enqueue(2);
  executor_.AdvanceTime(10 * kSecond);
  EXPECT_EQ(applier_->applied_lsn(), 0u);
  EXPECT_EQ(logger_.Events("apply_waits_for_disk").size(), 1u);
  store_->write_error = absl::OkStatus();
  executor_.AdvanceTime(2 * kSecond);
  EXPECT_EQ(applier_->applied_lsn(), 2u);
  EXPECT_THAT(done_, ElementsAre(2));
  EXPECT_THAT(fatal_, IsEmpty());
}

TEST_F(ApplierTest, AStopDropsWhatWaitsForTheDisk) {
  Start();
  store_->write_error = absl::ResourceExhaustedError("disk full");
  const auto held = std::make_shared<int>();
  ApplyBatch batch;
  batch.done = [held] { ADD_FAILURE(); };
  Enqueue(2);
  applier_->Enqueue(std::move(batch));
  executor_.AdvanceTime(kSecond);
  EXPECT_TRUE(applier_->waits_for_disk());
  EXPECT_EQ(held.use_count(), 2);
  applier_->Stop();
  EXPECT_EQ(held.use_count(), 1);
  EXPECT_EQ(applier_->applied_lsn(), 0u);
}

TEST_F(ApplierTest, AFailedFlushIsTriedAgainUntilThereIsSpace) {
  ApplierOptions options;
  options.flush_bytes = 1000;
  Start(options);
  store_->flush_error = absl::ResourceExhaustedError("disk full");
  Enqueue(10);
  executor_.AdvanceTime(3 * kSecond);
  EXPECT_TRUE(applier_->waits_for_disk());
  EXPECT_GE(applier_->unflushed_bytes(), 1000u);
  store_->flush_error = absl::OkStatus();
  executor_.AdvanceTime(2 * kSecond);
  EXPECT_FALSE(applier_->waits_for_disk());
  EXPECT_THAT(state_->PersistedLsn(), IsOkAndHolds(10u));
}

TEST_F(ApplierTest, FlushesAfterSoManyBytes) {
  ApplierOptions options;
  options.flush_bytes = 1000;
  Start(options);
  Enqueue(9);
  ASSERT_TRUE(executor_.RunUntilIdle());
  EXPECT_EQ(store_->flushes, 0);
  Enqueue(1);
  ASSERT_TRUE(executor_.RunUntilIdle());
  EXPECT_EQ(store_->flushes, 1);
  EXPECT_THAT(state_->PersistedLsn(), IsOkAndHolds(10u));
  Enqueue(9);
  ASSERT_TRUE(executor_.RunUntilIdle());
  EXPECT_EQ(store_->flushes, 1);
}

TEST_F(ApplierTest, FlushesAfterAWhileIfSomethingWasApplied) {
  Start();
  executor_.AdvanceTime(200 * kSecond);
  EXPECT_EQ(store_->flushes, 0);
  Enqueue(1);
  ASSERT_TRUE(executor_.RunUntilIdle());
  executor_.AdvanceTime(50 * kSecond);
  Enqueue(1);
  ASSERT_TRUE(executor_.RunUntilIdle());
  EXPECT_EQ(store_->flushes, 0);
  executor_.AdvanceTime(10 * kSecond);  // 60 s after the first
  EXPECT_EQ(store_->flushes, 1);
  EXPECT_THAT(state_->PersistedLsn(), IsOkAndHolds(2u));
  executor_.AdvanceTime(200 * kSecond);
  EXPECT_EQ(store_->flushes, 1);
}

TEST_F(ApplierTest, AFailedFlushIsFatal) {
  ApplierOptions options;
  options.flush_bytes = 1;
  Start(options);
  store_->flush_error = absl::DataLossError("EIO");
  Enqueue(1);
  ASSERT_TRUE(executor_.RunUntilIdle());
  ASSERT_EQ(fatal_.size(), 1u);
  EXPECT_THAT(fatal_[0], StatusIs(absl::StatusCode::kDataLoss));
}

TEST_F(ApplierTest, StopAppliesWhatIsQueued) {
  Start();
  Enqueue(3);
  applier_->Stop();
  applier_->Stop();
  EXPECT_EQ(applier_->applied_lsn(), 3u);
  EXPECT_THAT(done_, ElementsAre(3));
  Enqueue(1);
  ASSERT_TRUE(executor_.RunUntilIdle());
  EXPECT_EQ(applier_->applied_lsn(), 3u);
  EXPECT_THAT(applier_->SnapshotAt(9, kLongEnough), ReasonIs("stopping"));
  EXPECT_FALSE(applier_->WaitApplied(9, kLongEnough));
}

TEST_F(ApplierTest, ASnapshotIsExactlyAtItsLsn) {
  Start();
  Enqueue(5);
  ASSERT_TRUE(executor_.RunUntilIdle());
  TOWLINE_ASSERT_OK_AND_ASSIGN(const auto now, applier_->SnapshotAt(5, 0));
  EXPECT_EQ(now->position(), log_.PositionAt(5));
  EXPECT_THAT(applier_->SnapshotAt(4, 0), ReasonIs("position_passed"));
  EXPECT_THAT(applier_->SnapshotAt(6, 1000), ReasonIs("behind"));
}

// With real threads: many who wait for every LSN get exactly that one, whatever the batches.
TEST(ApplierThreads, SnapshotsAreExactWhileRecordsRunThrough) {
  constexpr Lsn kRecords = 3000;
  const TestLog log = RandomLog(1, kRecords);
  MemoryStoreFactory factory;
  const auto state = *StateStore::Open(*factory.Open("db"));
  const auto executor = NewThreadExecutor();
  Applier applier(*state, *executor, *SystemClock(), *NullLogger(), {},
                  [](absl::Status status) { ADD_FAILURE() << status.ToString(); });
  std::atomic<int> exact{0};
  std::vector<std::thread> waiters;
  for (int t = 0; t < 4; ++t) {
    waiters.emplace_back([&, t] {
      for (Lsn lsn = static_cast<Lsn>(t) * 17 + 1; lsn <= kRecords; lsn += 83) {
        const auto snapshot = applier.SnapshotAt(lsn, kLongEnough);
        if (!snapshot.ok()) {
          EXPECT_THAT(snapshot, ReasonIs("position_passed"));
          continue;
        }
        EXPECT_EQ((*snapshot)->position(), log.PositionAt(lsn));
        ++exact;
      }
      EXPECT_TRUE(applier.WaitApplied(kRecords, kLongEnough));
    });
  }
  for (Lsn first = 1; first <= kRecords; first += 10) {
    ApplyBatch batch;
    batch.records = log.Records(first, first + 9);
    batch.bytes = 1000;
    applier.Enqueue(std::move(batch));
    if (first % 500 == 1) {
      EXPECT_TRUE(applier.WaitApplied(first, kLongEnough));
    }
  }
  for (std::thread& waiter : waiters) waiter.join();
  EXPECT_EQ(applier.applied_lsn(), kRecords);
  EXPECT_EQ(applier.queued_bytes(), 0u);
  EXPECT_GT(exact, 4);
  EXPECT_EQ(DigestOf(*state), [&] {
    MemoryStoreFactory other;
    const auto expected = *StateStore::Open(*other.Open("db"));
    EXPECT_THAT(ApplyRest(*expected, log), IsOk());
    return DigestOf(*expected);
  }());
  applier.Stop();
}

}  // namespace
}  // namespace towline::test
