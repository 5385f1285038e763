// Tests of the snapshots that streams share: caps, joining, age, rate.

#include "primary/snapshot_pool.h"

#include <algorithm>
#include <optional>
#include <string>

#include "absl/strings/numbers.h"

#include "common/error.h"
#include "tests/primary/source_fixture.h"

namespace towline::test {
namespace {

constexpr int64_t kSecond = 1'000'000;

class SnapshotPoolTest : public SourceTest {
 protected:
  SharedSnapshotPtr Make(SnapshotPool& pool) {
    SnapshotMeta meta;
    meta.cluster_id = kCluster;
    absl::StatusOr<SharedSnapshotPtr> made = pool.Make(SnapshotForm::kRdb, host_.live, meta, host_.view.history);
    EXPECT_THAT(made, IsOk());
    return *std::move(made);
  }

  // The pause that a refusal asks for, in milliseconds.
  static int64_t RetryMs(const absl::Status& status) {
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kResourceExhausted));
    EXPECT_THAT(status, ReasonIs("snapshot_limit"));
    int64_t ms = 0;
    EXPECT_TRUE(absl::SimpleAtoi(GetErrorInfo(status).metadata["retry_after_ms"], &ms));
    return ms;
  }

  SnapshotPoolOptions pool_options_;
};

TEST_F(SnapshotPoolTest, ASnapshotIsOfThePositionAppliedAndNamesItself) {
  Write(5);
  SnapshotPool pool(clock_, rng_, pool_options_);
  const SharedSnapshotPtr first = Make(pool);
  EXPECT_EQ(first->meta.position.lsn, 6u);
  EXPECT_EQ(first->meta.position.chain, ChainAt(6));
  EXPECT_EQ(first->meta.history, host_.view.history);
  EXPECT_EQ(first->meta.created_unix_s, static_cast<uint64_t>(clock_.WallMicros()) / 1'000'000);
  EXPECT_NE(first->id, 0u);
  StartTerm(2, 0xa2);
  const SharedSnapshotPtr second = Make(pool);
  EXPECT_NE(second->id, first->id);
  EXPECT_EQ(second->meta.history.size(), 2u);
  EXPECT_EQ(pool.Find(first->id), first);
  EXPECT_EQ(pool.Find(second->id), second);
  EXPECT_EQ(pool.Find(12345), nullptr);
  const SnapshotPoolStatus status = pool.Status();
  EXPECT_EQ(status.live, 2u);
  EXPECT_EQ(status.oldest_lsn, 6u);
}

TEST_F(SnapshotPoolTest, SoManyStreamsAndNoMoreWhoIsSentAwayIsToldWhenToComeBack) {
  pool_options_.sessions_max = 3;
  SnapshotPool pool(clock_, rng_, pool_options_);
  for (int i = 0; i < 3; ++i) ASSERT_THAT(pool.Enter(), IsOk());
  int64_t least = 1 << 20;
  int64_t most = 0;
  for (int i = 0; i < 2000; ++i) {
    const int64_t ms = RetryMs(pool.Enter());
    least = std::min(least, ms);
    most = std::max(most, ms);
  }
  EXPECT_GE(least, 500);
  EXPECT_LT(least, 600);  // a crowd spreads over the whole of it
  EXPECT_GT(most, 1400);
  EXPECT_LT(most, 1500);
  EXPECT_EQ(pool.Status().sessions, 3u);
  pool.Leave();
  EXPECT_THAT(pool.Enter(), IsOk());
  const int64_t ms = RetryMs(pool.Full());
  EXPECT_GE(ms, 500);
  EXPECT_LT(ms, 1500);
}

TEST_F(SnapshotPoolTest, AYoungOneIsJoinedAnOldOneIsNot) {
  Write(5);
  SnapshotPool pool(clock_, rng_, pool_options_);
  EXPECT_EQ(pool.Newest(SnapshotForm::kRdb, 1, 0, true), nullptr);
  const SharedSnapshotPtr old = Make(pool);
  clock_.Advance(pool_options_.join_micros);
  EXPECT_EQ(pool.Newest(SnapshotForm::kRdb, 1, 6, true), old);
  EXPECT_EQ(pool.Newest(SnapshotForm::kRdb, 2, 0, true), nullptr);   // of another data generation
  EXPECT_EQ(pool.Newest(SnapshotForm::kRdb, 1, 7, false), nullptr);  // the log behind it is needed from a later LSN
  clock_.Advance(1);
  EXPECT_EQ(pool.Newest(SnapshotForm::kRdb, 1, 0, true), nullptr);
  EXPECT_EQ(pool.Newest(SnapshotForm::kRdb, 1, 0, false), old);
  Write(1);
  const SharedSnapshotPtr young = Make(pool);
  EXPECT_EQ(pool.Newest(SnapshotForm::kRdb, 1, 0, true), young);
  EXPECT_EQ(pool.Newest(SnapshotForm::kRdb, 1, 0, false), young);
}

TEST_F(SnapshotPoolTest, TooOldAOneIsGivenUpAndNotFoundAnyMore) {
  SnapshotPool pool(clock_, rng_, pool_options_);
  SharedSnapshotPtr snapshot = Make(pool);
  clock_.Advance(pool_options_.age_max_micros);
  EXPECT_FALSE(pool.IsExpired(*snapshot));
  EXPECT_EQ(pool.Find(snapshot->id), snapshot);
  clock_.Advance(1);
  EXPECT_TRUE(pool.IsExpired(*snapshot));
  EXPECT_EQ(pool.Find(snapshot->id), nullptr);
  EXPECT_EQ(pool.Newest(SnapshotForm::kRdb, 1, 0, false), nullptr);
  pool.Tick();
  EXPECT_EQ(pool.Status().live, 1u);  // a stream still holds it
  snapshot.reset();
  pool.Tick();
  EXPECT_EQ(pool.Status().live, 0u);
}

TEST_F(SnapshotPoolTest, OneThatNobodyReadsLingersForAWhile) {
  SnapshotPool pool(clock_, rng_, pool_options_);
  SharedSnapshotPtr snapshot = Make(pool);
  const uint64_t id = snapshot->id;
  for (int i = 0; i < 60; ++i) {
    clock_.Advance(kSecond);
    pool.Tick();
  }
  snapshot.reset();
  clock_.Advance(pool_options_.linger_micros - 1);
  pool.Tick();
  EXPECT_NE(pool.Find(id), nullptr);  // whoever was cut finds it again
  clock_.Advance(1);
  pool.Tick();
  EXPECT_EQ(pool.Find(id), nullptr);
  EXPECT_EQ(pool.Status().live, 0u);
}

TEST_F(SnapshotPoolTest, RoomIsMadeByThoseThatNobodyReads) {
  pool_options_.snapshots_max = 2;
  SnapshotPool pool(clock_, rng_, pool_options_);
  SharedSnapshotPtr read = Make(pool);
  EXPECT_TRUE(pool.HasRoom());
  const uint64_t unread = Make(pool)->id;
  EXPECT_NE(pool.Find(unread), nullptr);
  EXPECT_TRUE(pool.HasRoom());
  EXPECT_EQ(pool.Find(unread), nullptr);
  const SharedSnapshotPtr second = Make(pool);
  EXPECT_FALSE(pool.HasRoom());
  EXPECT_EQ(pool.Status().live, 2u);
  pool.Clear();
  EXPECT_TRUE(pool.HasRoom());
  EXPECT_EQ(read->meta.position.lsn, 1u);  // and can still be read
}

TEST_F(SnapshotPoolTest, TheRateOfAllStreamsIsTheLimit) {
  constexpr uint64_t kRate = 10'000'000;
  constexpr uint64_t kChunk = 300'000;
  pool_options_.bytes_per_second = kRate;
  SnapshotPool pool(clock_, rng_, pool_options_);
  uint64_t sent = 0;
  const auto run = [&](int64_t micros, int64_t step) {
    sent = 0;
    for (int64_t at = 0; at < micros; at += step) {
      clock_.Advance(step);
      for (; pool.MaySend(); sent += kChunk) pool.Sent(kChunk);
    }
    return sent;
  };
  for (const int64_t step : {1'000, 50'000, 90'000}) {
    const uint64_t total = run(10 * kSecond, step);
    EXPECT_GT(total, kRate * 10 * 98 / 100) << step;
    EXPECT_LT(total, kRate * 10 * 102 / 100 + 2 * kChunk) << step;
  }
  clock_.Advance(3600 * kSecond);  // a pause is no credit but for a tenth of a second
  EXPECT_LE(run(1, 1), kRate / 10 + kChunk);
  pool_options_.bytes_per_second = 0;
  pool_options_.busy_bytes_per_second = kRate;
  SnapshotPool free(clock_, rng_, pool_options_);
  for (int i = 0; i < 100; ++i) {
    EXPECT_TRUE(free.MaySend());
    free.Sent(1 << 30);
  }
  EXPECT_EQ(free.Limit(), 0u);
  free.SetBusy(true);  // writers are at work
  EXPECT_EQ(free.Limit(), kRate);
  EXPECT_TRUE(free.MaySend());
  free.Sent(kRate);
  EXPECT_FALSE(free.MaySend());
  free.SetBusy(false);
  EXPECT_TRUE(free.MaySend());
  pool_options_.bytes_per_second = kRate / 2;
  SnapshotPool both(clock_, rng_, pool_options_);
  EXPECT_EQ(both.Limit(), kRate / 2);
  both.SetBusy(true);
  EXPECT_EQ(both.Limit(), kRate / 2);
}

TEST_F(SnapshotPoolTest, TheRateOfStreamsIsMeasuredOnThoseThatCameToTheirEnd) {
  SnapshotPool pool(clock_, rng_, pool_options_);
  EXPECT_EQ(pool.StreamRate(), std::nullopt);
  pool.Finished(0, kSecond);
  pool.Finished(1000, 0);
  EXPECT_EQ(pool.StreamRate(), std::nullopt);
  pool.Finished(1000, kSecond / 2);
  EXPECT_EQ(pool.StreamRate(), 2000);
  pool.Finished(3000, kSecond);
  EXPECT_GT(*pool.StreamRate(), 2000);
  EXPECT_LT(*pool.StreamRate(), 3000);
}

}  // namespace
}  // namespace towline::test
