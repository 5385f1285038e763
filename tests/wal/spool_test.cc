// Tests of the spool as its users see it: append, read, seek, roll, prune, and what a reopen brings back.
//
// Method   SimFileSystem, SimExecutor and FakeClock, one thread. Crashes are in crash_test.cc, recovery in
//          recovery_test.cc, failing calls in error_test.cc, threads in tail_test.cc, indexes in index_test.cc.

#include "wal/spool.h"

#include <string>
#include <vector>

#include "common/checksum.h"
#include "common/error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"
#include "tests/wal/known_log.h"

namespace towline::wal::test {
namespace {

using ::testing::ElementsAre;
using ::towline::test::IsOk;
using ::towline::test::IsOkAndHolds;
using ::towline::test::ReasonIs;
using ::towline::test::StatusIs;

class SpoolTest : public OpenSpoolTest {};

// --- Append and read ---

TEST_F(SpoolTest, ReadsBackWhatWasAppendedAcrossSegmentsAndReopen) {
  Open();
  std::vector<ReadRecord> expected;
  for (int i = 0; i < 100; ++i) {
    const std::vector<size_t> sizes = {static_cast<size_t>(i * 37 % 3000), 0, 9};
    for (const size_t size : sizes) {
      const Lsn lsn = expected.size() + 1;
      expected.push_back({lsn, 1, RecordType::kBatch, PayloadOf(lsn, size)});
    }
    ASSERT_THAT(node_.Append(sizes), IsOk());
  }
  EXPECT_GT(spool().stats().segments, 2u);
  EXPECT_THAT(ReadAll(spool(), 1), IsOkAndHolds(expected));
  Open();
  EXPECT_EQ(node_.report.row, "newest_clean");
  for (const size_t max_bytes : {1, 5000, 1 << 20}) {
    EXPECT_THAT(ReadAll(spool(), 1, max_bytes), IsOkAndHolds(expected));
  }
  for (Lsn from = 1; from <= expected.size() + 1; ++from) {
    const std::vector<ReadRecord> rest(expected.begin() + static_cast<ptrdiff_t>(from) - 1, expected.end());
    ASSERT_THAT(ReadAll(spool(), from, 3000), IsOkAndHolds(rest));
  }
}

TEST_F(SpoolTest, BatchesAreAtMostAsLargeAsAskedFor) {
  Open();
  ASSERT_THAT(node_.Append({100, 100, 5000, 100, 100}), IsOk());
  const auto sizes = [&](size_t max_bytes) {
    std::vector<uint64_t> records;
    absl::StatusOr<std::unique_ptr<Cursor>> cursor = spool().NewCursor(1);
    while (true) {
      const absl::StatusOr<ShippedBatch> batch = (*cursor)->Next(max_bytes);
      EXPECT_THAT(batch, IsOk());
      if (batch->empty()) return records;
      EXPECT_TRUE(batch->bytes.size() <= max_bytes || batch->after.lsn == batch->before.lsn + 1);
      EXPECT_EQ((*cursor)->next_lsn(), batch->after.lsn + 1);
      records.push_back(batch->after.lsn - batch->before.lsn);
    }
  };
  for (const bool from_disk : {false, true}) {
    if (from_disk) Open();
    EXPECT_THAT(sizes(1), ElementsAre(1, 1, 1, 1, 1));
    EXPECT_THAT(sizes(280), ElementsAre(2, 1, 2));  // a shipped part of 100 has 140 bytes
    EXPECT_THAT(sizes(1 << 20), ElementsAre(5));
  }
}

TEST_F(SpoolTest, AGroupThatDoesNotFollowIsRefusedWithoutHarm) {
  Open();
  ASSERT_THAT(node_.Append({10, 20}), IsOk());
  LogEnd end = spool().end();
  end.lsn = 1;
  EXPECT_THAT(spool().Append(MakeGroup(end, {1})), ReasonIs("append_mismatch"));
  end = spool().end();
  end.chain ^= 1;
  EXPECT_THAT(spool().Append(MakeGroup(end, {1})), ReasonIs("append_mismatch"));
  EXPECT_THAT(spool().Append(std::make_shared<FrameGroup>()), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_EQ(spool().end().lsn, 2u);
  EXPECT_THAT(node_.Append({30}), IsOk());
}

TEST_F(SpoolTest, ARecordLargerThanASegmentGetsALargerSegment) {
  Open();
  // Into an empty segment, behind records, twice in a row, and small ones behind it.
  const std::vector<size_t> sizes = {200000, 10, 300000, 70000, 10, 65000};
  std::vector<ReadRecord> expected;
  for (const size_t size : sizes) {
    const Lsn lsn = expected.size() + 1;
    expected.push_back({lsn, 1, RecordType::kBatch, PayloadOf(lsn, size)});
    ASSERT_THAT(node_.Append({size}), IsOk());
  }
  EXPECT_THAT(ReadAll(spool(), 1), IsOkAndHolds(expected));
  Open();
  EXPECT_THAT(ReadAll(spool(), 1), IsOkAndHolds(expected));
  // The empty first segment made way; no other size is ever recycled.
  EXPECT_EQ(fs_.Contents(SegmentPath(1)).size() % 4096, 0u);
  EXPECT_GT(fs_.Contents(SegmentPath(1)).size(), 200000u);
}

TEST_F(SpoolTest, AGroupIsNeverSplitBetweenSegments) {
  Open();
  AppendTo(5);
  ASSERT_THAT(node_.Append({kPayload, kPayload, kPayload}), IsOk());  // two of them would fit
  EXPECT_TRUE(fs_.HasFile(SegmentPath(6)));
  EXPECT_THAT(ReadAll(spool(), 1), IsOk());
  Open();
  EXPECT_EQ(node_.report.end.lsn, 8u);
}

TEST_F(SpoolTest, AFullSegmentLeavesRoomForItsFooterOnly) {
  // 64 KiB less two sectors, in one frame and in two.
  for (const bool two : {false, true}) {
    SimFileSystem fs;
    Node node(fs);
    ASSERT_THAT(node.Open(), IsOk());
    const size_t room = (64 << 10) - 2 * 512;
    const std::vector<size_t> exact =
        two ? std::vector<size_t>{1000 - 56, room - 1000 - 56} : std::vector<size_t>{room - 56};
    ASSERT_THAT(node.Append(exact), IsOk());
    EXPECT_EQ(node.spool->stats().segments, 1u);
    ASSERT_THAT(node.Append({0}), IsOk());
    EXPECT_EQ(node.spool->stats().segments, 2u);
    ASSERT_THAT(node.Open(), IsOk());
    EXPECT_EQ(node.spool->end().lsn, exact.size() + 1);
    EXPECT_THAT(ReadAll(*node.spool, 1), IsOk());
  }
}

TEST_F(SpoolTest, TermStartsOfTheNewestSegmentAreReported) {
  Open();
  std::vector<std::pair<Lsn, std::string>> expected;
  for (const Term term : {1, 2, 5}) {
    const std::string payload = "start of " + std::to_string(term);
    GroupBuilder builder(spool().end());
    expected.emplace_back(builder.Add(RecordType::kTermStart, term, 1, payload, Crc32c(payload)), payload);
    ASSERT_THAT(spool().Append(builder.Finish()), IsOk());
    ASSERT_THAT(node_.Append({10}), IsOk());
  }
  EXPECT_EQ(spool().end().term, 5u);
  Open();
  EXPECT_EQ(node_.report.term_starts, expected);
  TOWLINE_ASSERT_OK_AND_ASSIGN(const std::vector<ReadRecord> records, ReadAll(spool(), 3));
  EXPECT_EQ(records[0].type, RecordType::kTermStart);
  EXPECT_EQ(records[0].term, 2u);
}

// --- Positions ---

TEST_F(SpoolTest, EndAtTellsTheLogEndBehindEveryRecord) {
  Open();
  std::vector<LogEnd> ends = {spool().end()};
  for (int i = 0; i < 60; ++i) {
    ASSERT_THAT(node_.Append({static_cast<size_t>(i * 97 % 4000)}), IsOk());
    ends.push_back(spool().end());
  }
  for (const bool reopened : {false, true}) {
    if (reopened) Open();
    for (Lsn lsn = 0; lsn < ends.size(); ++lsn) EXPECT_THAT(spool().EndAt(lsn), IsOkAndHolds(ends[lsn]));
    EXPECT_THAT(spool().EndAt(ends.size()), StatusIs(absl::StatusCode::kOutOfRange));
    EXPECT_THAT(spool().NewCursor(ends.size() + 1), StatusIs(absl::StatusCode::kOutOfRange));
  }
}

TEST_F(SpoolTest, TheBaseIsAnsweredFromTheInputs) {
  RecoveryInputs inputs = Inputs();
  inputs.base = {7, 77, 1000, 0xabc};
  ASSERT_THAT(node_.Open(SmallOptions(), inputs), IsOk());
  EXPECT_EQ(spool().end(), (LogEnd{1000, 7, 0xabc, 0}));
  EXPECT_EQ(spool().stats().first_lsn, 1001u);
  EXPECT_THAT(spool().EndAt(1000), IsOkAndHolds(LogEnd{1000, 7, 0xabc, 0}));
  EXPECT_THAT(spool().EndAt(999), ReasonIs("wal_removed"));
  EXPECT_THAT(spool().NewCursor(1000), ReasonIs("wal_removed"));
  ASSERT_THAT(node_.Append({5}), IsOk());
  EXPECT_TRUE(fs_.HasFile(SegmentPath(1001)));
  ASSERT_THAT(node_.Open(SmallOptions(), inputs), IsOk());
  EXPECT_EQ(spool().end().lsn, 1001u);
}

TEST_F(SpoolTest, SeekTimeFindsTheFirstRecordAsNew) {
  Open();
  // Record n has commit time 1000 * n.
  AppendTo(30);
  for (const bool reopened : {false, true}) {
    if (reopened) Open();
    EXPECT_THAT(spool().SeekTime(0), IsOkAndHolds(1u));
    for (Lsn lsn = 1; lsn <= 30; ++lsn) {
      const int64_t time = static_cast<int64_t>(lsn) * 1000;
      EXPECT_THAT(spool().SeekTime(time), IsOkAndHolds(lsn));
      EXPECT_THAT(spool().SeekTime(time + 1), IsOkAndHolds(lsn + 1));
      EXPECT_THAT(spool().SeekTime(time - 999), IsOkAndHolds(lsn));
    }
  }
}

TEST_F(SpoolTest, SeekTimeTakesTheFirstOfEqualTimes) {
  Open();
  // 40 records over two segments, ten of each time; the clock falls back in between, which no commit time does.
  for (int i = 0; i < 40; ++i) {
    const std::string payload(2000, 'x');
    GroupBuilder builder(spool().end());
    builder.Add(RecordType::kBatch, 1, i % 10 == 0 ? (i / 10 + 1) * 500 : 3, payload, Crc32c(payload));
    ASSERT_THAT(spool().Append(builder.Finish()), IsOk());
  }
  EXPECT_EQ(spool().stats().segments, 2u);
  for (int time = 1; time <= 2000; time += 100) {
    EXPECT_THAT(spool().SeekTime(time), IsOkAndHolds(static_cast<Lsn>((time - 1) / 500 * 10 + 1))) << time;
  }
  EXPECT_THAT(spool().SeekTime(2001), IsOkAndHolds(41u));
}

TEST_F(SpoolTest, BytesBehindIsExactToOneIndexInterval) {
  Open();
  AppendTo(30);
  node_.RunLoops();
  for (const bool reopened : {false, true}) {
    if (reopened) Open();
    for (Lsn lsn = 0; lsn <= 30; ++lsn) {
      const uint64_t exact = (30 - lsn) * kFrame;
      EXPECT_GE(spool().BytesBehind(lsn), exact);
      EXPECT_LE(spool().BytesBehind(lsn), exact + (lsn == 30 ? 0 : SmallOptions().index_interval_bytes));
    }
    EXPECT_EQ(spool().BytesBehind(31), 0u);
  }
}

// --- Listeners and figures ---

TEST_F(SpoolTest, ListenersHearOfEveryPublish) {
  Open();
  std::vector<Lsn> heard;
  const uint64_t id = spool().AddDurableListener([&](Lsn lsn) {
    EXPECT_EQ(spool().end().lsn, lsn);
    heard.push_back(lsn);
  });
  std::vector<Lsn> second;
  spool().AddDurableListener([&](Lsn lsn) { second.push_back(lsn); });
  ASSERT_THAT(node_.Append({1, 2, 3}), IsOk());
  AppendTo(9);
  spool().RemoveListener(id);
  ASSERT_THAT(node_.Append({1}), IsOk());
  EXPECT_THAT(heard, ElementsAre(3, 4, 5, 6, 7, 8, 9));
  EXPECT_THAT(second, ElementsAre(3, 4, 5, 6, 7, 8, 9, 10));
  spool().RemoveListener(id);
}

TEST_F(SpoolTest, StatsCountWhatWasDone) {
  Open();
  SpoolStats stats = spool().stats();
  EXPECT_EQ(stats.first_lsn, 1u);
  EXPECT_EQ(stats.durable_lsn, 0u);
  EXPECT_EQ(stats.segments, 1u);
  ASSERT_THAT(node_.Append({8, 8}), IsOk());
  ASSERT_THAT(node_.Append({1}), IsOk());
  stats = spool().stats();
  EXPECT_EQ(stats.durable_lsn, 3u);
  EXPECT_EQ(stats.appended_records, 3u);
  EXPECT_EQ(stats.appended_bytes, 3 * 64u);
  EXPECT_EQ(stats.groups, 2u);
  EXPECT_EQ(stats.fsyncs, 2u);
  EXPECT_EQ(stats.fsync_recent_seconds.size(), 2u);
  EXPECT_EQ(stats.retained_bytes, 64u << 10);
  EXPECT_FALSE(stats.poisoned);
  EXPECT_FALSE(stats.disk_full);
}

TEST_F(SpoolTest, AnAppendIsOneWriteAndOneSync) {
  Open();
  AppendTo(1);
  fs_.ClearLog();
  ASSERT_THAT(node_.Append({100, 200, 300}), IsOk());
  EXPECT_THAT(fs_.log(), ElementsAre("write " + SegmentPath(1), "sync " + SegmentPath(1)));
}

// The order of DESIGN: footer, sync, header, sync, name, sync of the name, and only then frames.
TEST_F(SpoolTest, ARollIsInTheOrderThatMakesItSafe) {
  Open(WithSpares(1));
  AppendTo(1);
  node_.RunLoops();
  AppendTo(7);
  fs_.ClearLog();
  AppendTo(8);
  EXPECT_THAT(fs_.log(), ElementsAre("write " + SegmentPath(1), "sync " + SegmentPath(1),  // footer
                                     "write wal/spare-3.seg", "sync wal/spare-3.seg",      // header
                                     "rename wal/spare-3.seg " + SegmentPath(8), "syncdir wal",
                                     "write " + SegmentPath(8), "sync " + SegmentPath(8)));
}

}  // namespace
}  // namespace towline::wal::test
