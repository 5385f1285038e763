// The scrub: what the disk damages in sealed segments is found, reported by LSN, and never served.
//
// Goal     A pass finds every damage and nothing else, goes on behind it, repairs indexes, and keeps to its rate; what
// it
//          found shows in the statistics until it is gone.
// Method   Three segments with records of 9000 bytes and more on a simulated disk; a bit flips behind the spool's back.
//          Which records a flip hits follows from the frame sizes.

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"
#include "tests/wal/spool_fixture.h"

namespace towline::wal::test {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::towline::test::IsOk;
using ::towline::test::ReasonIs;

constexpr int64_t kSecond = 1000000;
constexpr int64_t kHour = 3600 * kSecond;
constexpr uint64_t kSector = 512;
constexpr uint64_t kSegment = 64 << 10;
constexpr size_t kPayload = 8968;  // frames of 9024 bytes: seven to a segment

class ScrubTest : public ::testing::Test {
 protected:
  ScrubTest() {
    options_ = SmallOptions();
    options_.index_interval_bytes = 2 * 9024;  // an entry for every other record: 1, 3, 5, 7
    options_.scrub_bytes_per_second = 1 << 20;
    options_.scrub_interval_micros = kHour;
  }

  // Records 1 to 7 and 8 to 14 in sealed segments, 15 to 18 in the newest one.
  void Open() {
    ASSERT_THAT(node_.Open(options_, Inputs()), IsOk());
    while (node_.spool->end().lsn < 18) ASSERT_THAT(node_.Append({kPayload}), IsOk());
    ASSERT_EQ(node_.spool->stats().segments, 3u);
  }

  // With the first pass behind it, and every index written.
  void OpenAndScrub() {
    Open();
    node_.RunLoops();
    RunPass();
    ASSERT_THAT(Damaged(), IsEmpty());
  }

  void FlipIn(Lsn segment, Lsn record, uint64_t byte_of_frame) {
    fs_.FlipBit(SegmentPath(segment), (kSector + (record - segment) * 9024 + byte_of_frame) * 8);
  }

  // Until one more pass has ended.
  void RunPass() {
    const uint64_t passes = Scrub().passes;
    for (int i = 0; i < 4000 && Scrub().passes == passes; ++i) node_.executor.AdvanceTime(kSecond);
    ASSERT_EQ(Scrub().passes, passes + 1);
  }

  ScrubStats Scrub() { return node_.spool->stats().scrub; }
  std::vector<DamagedRange> Damaged() { return node_.spool->stats().damaged; }

  SimFileSystem fs_;
  Node node_{fs_};
  SpoolOptions options_;
};

TEST_F(ScrubTest, APassOverAWholeLogFindsNothing) {
  const int64_t start = node_.clock.WallMicros();
  OpenAndScrub();
  const ScrubStats stats = Scrub();
  EXPECT_EQ(stats.last_pass_segments, 2u);
  EXPECT_EQ(stats.last_pass_bytes, 14u * 9024);
  EXPECT_EQ(stats.bytes, 14u * 9024);
  EXPECT_EQ(stats.last_pass_damages, 0u);
  EXPECT_EQ(stats.indexes_rebuilt, 0u);
  EXPECT_GT(stats.last_pass_end_us, start);
  EXPECT_LT(stats.last_pass_end_us, node_.clock.WallMicros());
  EXPECT_THAT(Damaged(), IsEmpty());
}

TEST_F(ScrubTest, ItKeepsToItsRateAndInterval) {
  options_.scrub_bytes_per_second = 9024;  // fourteen seconds of reading
  Open();
  node_.executor.AdvanceTime(13 * kSecond);
  EXPECT_EQ(Scrub().passes, 0u);
  node_.executor.AdvanceTime(2 * kSecond);
  EXPECT_EQ(Scrub().passes, 1u);
  EXPECT_EQ(Scrub().last_pass_micros, 14 * kSecond);
  // From start to start.
  node_.executor.AdvanceTime(kHour - 16 * kSecond);
  EXPECT_EQ(Scrub().bytes, 14u * 9024);
  node_.executor.AdvanceTime(30 * kSecond);
  EXPECT_EQ(Scrub().passes, 2u);
}

TEST_F(ScrubTest, OffMeansOff) {
  options_.scrub_bytes_per_second = 0;
  Open();
  node_.executor.AdvanceTime(48 * kHour);
  EXPECT_EQ(Scrub().passes, 0u);
  EXPECT_EQ(Scrub().bytes, 0u);
}

TEST_F(ScrubTest, ADamagedRecordIsReportedToTheNextIndexEntry) {
  OpenAndScrub();
  FlipIn(8, 11, 5000);  // index entries of the segment: 8, 10, 12, 14
  RunPass();
  const std::vector<DamagedRange> damaged = Damaged();
  ASSERT_THAT(damaged, SizeIs(1));
  EXPECT_EQ(damaged[0].first_lsn, 11u);
  EXPECT_EQ(damaged[0].last_lsn, 11u);
  EXPECT_FALSE(damaged[0].readable);
  EXPECT_EQ(damaged[0].file, SegmentPath(8));
  EXPECT_EQ(damaged[0].offset, kSector + 3 * 9024);
  EXPECT_EQ(Scrub().last_pass_damages, 1u);
  EXPECT_EQ(Scrub().last_pass_bytes, 13u * 9024);

  // Not served, and what is around it is, from the very next record on.
  ASSERT_THAT(node_.Open(options_, Inputs()), IsOk());  // nothing is in memory
  EXPECT_THAT(ReadAll(*node_.spool, 1), ReasonIs("wal_damaged"));
  EXPECT_THAT(ReadAll(*node_.spool, 11), ReasonIs("wal_damaged"));
  for (const Lsn from : {12, 13}) {
    TOWLINE_ASSERT_OK_AND_ASSIGN(const std::vector<ReadRecord> behind, ReadAll(*node_.spool, from));
    EXPECT_THAT(behind, SizeIs(19 - from));
  }
  EXPECT_THAT(node_.spool->EndAt(11), ReasonIs("wal_damaged"));  // nobody knows its term
}

// Whoever asks next must hear the same from the list as from the log.
TEST_F(ScrubTest, WhatAReaderReportsIsExactlyWhatCannotBeRead) {
  options_.scrub_bytes_per_second = 0;
  Open();
  node_.RunLoops();
  ASSERT_THAT(node_.Open(options_, Inputs()), IsOk());  // nothing is in memory
  FlipIn(8, 10, 5000);  // index entries of the segment: 8, 10, 12, 14
  const std::unique_ptr<Cursor> cursor = *node_.spool->NewCursor(9);
  EXPECT_THAT(cursor->Next(1), IsOk());
  EXPECT_THAT(cursor->Next(1), ReasonIs("wal_damaged"));
  ASSERT_THAT(Damaged(), SizeIs(1));
  EXPECT_EQ(Damaged()[0].first_lsn, 10u);
  EXPECT_EQ(Damaged()[0].last_lsn, 11u);
  for (Lsn lsn = 1; lsn <= 19; ++lsn) {
    const auto start = node_.spool->NewCursor(lsn);
    const absl::Status read = start.ok() ? (*start)->Next(1).status() : start.status();
    EXPECT_EQ(absl::IsDataLoss(read), lsn == 10 || lsn == 11) << lsn;
  }
  EXPECT_THAT(Damaged(), SizeIs(1));

  FlipIn(1, 7, 5000);  // behind the last entry: to the end of the segment, and the next one can be read
  EXPECT_THAT(node_.spool->EndAt(6), IsOk());
  EXPECT_THAT((*node_.spool->NewCursor(7))->Next(1), ReasonIs("wal_damaged"));
  ASSERT_THAT(Damaged(), SizeIs(2));
  EXPECT_EQ(Damaged()[0].first_lsn, 7u);
  EXPECT_EQ(Damaged()[0].last_lsn, 7u);
  EXPECT_THAT((*node_.spool->NewCursor(8))->Next(1), IsOk());
}

TEST_F(ScrubTest, DamageSideBySideIsOneRange) {
  OpenAndScrub();
  FlipIn(1, 2, 100);
  FlipIn(1, 3, 100);
  FlipIn(1, 6, 100);
  RunPass();
  const std::vector<DamagedRange> damaged = Damaged();
  ASSERT_THAT(damaged, SizeIs(2));
  EXPECT_EQ(damaged[0].first_lsn, 2u);
  EXPECT_EQ(damaged[0].last_lsn, 4u);
  EXPECT_EQ(damaged[1].first_lsn, 6u);
  EXPECT_EQ(damaged[1].last_lsn, 6u);
}

TEST_F(ScrubTest, WithoutAnIndexTheRestOfTheSegmentCounts) {
  Open();
  node_.RunLoops();
  ASSERT_THAT(node_.Open(options_, Inputs()), IsOk());  // the cache of indexes is empty
  ASSERT_THAT(fs_.Remove(IndexPath(1)), IsOk());
  FlipIn(1, 3, 100);
  RunPass();
  const std::vector<DamagedRange> damaged = Damaged();
  ASSERT_THAT(damaged, SizeIs(1));
  EXPECT_EQ(damaged[0].first_lsn, 3u);
  EXPECT_EQ(damaged[0].last_lsn, 7u);
  EXPECT_EQ(Scrub().last_pass_segments, 2u);
}

TEST_F(ScrubTest, ADamagedHeaderOrFooterIsReportedThoughItsRecordsCanBeRead) {
  OpenAndScrub();
  fs_.FlipBit(SegmentPath(1), 40 * 8);
  fs_.FlipBit(SegmentPath(8), (kSegment - kSector + 20) * 8);
  RunPass();
  const std::vector<DamagedRange> damaged = Damaged();
  ASSERT_THAT(damaged, SizeIs(2));
  EXPECT_EQ(damaged[0].first_lsn, 1u);
  EXPECT_EQ(damaged[0].last_lsn, 7u);
  EXPECT_TRUE(damaged[0].readable);
  EXPECT_EQ(damaged[1].first_lsn, 8u);
  EXPECT_EQ(damaged[1].last_lsn, 14u);
  EXPECT_TRUE(damaged[1].readable);
  TOWLINE_ASSERT_OK_AND_ASSIGN(const std::vector<ReadRecord> records, ReadAll(*node_.spool, 1));
  EXPECT_THAT(records, SizeIs(18));
}

TEST_F(ScrubTest, EveryBitOfASealedSegmentIsGuarded) {
  options_.scrub_bytes_per_second = 1ull << 40;
  OpenAndScrub();
  const uint64_t used = kSector + 7 * 9024;
  int undetected = 0;
  for (uint64_t byte = 0; byte < used; byte += byte < kSector + 56 ? 1 : 509) {
    fs_.FlipBit(SegmentPath(8), byte * 8 + byte % 8);
    node_.executor.AdvanceTime(2 * kHour);
    undetected += Damaged().empty() ? 1 : 0;
    fs_.FlipBit(SegmentPath(8), byte * 8 + byte % 8);
  }
  EXPECT_EQ(undetected, 0);
  node_.executor.AdvanceTime(2 * kHour);
  EXPECT_THAT(Damaged(), IsEmpty());
}

TEST_F(ScrubTest, WhatIsWholeAgainIsForgotten) {
  OpenAndScrub();
  FlipIn(8, 11, 5000);
  RunPass();
  ASSERT_THAT(Damaged(), SizeIs(1));
  FlipIn(8, 11, 5000);
  RunPass();
  EXPECT_THAT(Damaged(), IsEmpty());
  EXPECT_EQ(Scrub().last_pass_damages, 0u);
}

TEST_F(ScrubTest, WhatIsPrunedIsForgotten) {
  OpenAndScrub();
  FlipIn(1, 3, 100);
  FlipIn(8, 11, 5000);
  RunPass();
  ASSERT_THAT(Damaged(), SizeIs(2));
  ASSERT_THAT(node_.spool->Prune(8, 0, [](Lsn) { return absl::OkStatus(); }), IsOk());
  const std::vector<DamagedRange> damaged = Damaged();
  ASSERT_THAT(damaged, SizeIs(1));
  EXPECT_EQ(damaged[0].first_lsn, 11u);
}

TEST_F(ScrubTest, AReaderReportsWhatItMeets) {
  options_.scrub_bytes_per_second = 0;
  Open();
  node_.RunLoops();
  ASSERT_THAT(node_.Open(options_, Inputs()), IsOk());
  FlipIn(1, 3, 100);
  EXPECT_THAT(ReadAll(*node_.spool, 1), ReasonIs("wal_damaged"));
  EXPECT_THAT(ReadAll(*node_.spool, 1), ReasonIs("wal_damaged"));
  const std::vector<DamagedRange> damaged = Damaged();
  ASSERT_THAT(damaged, SizeIs(1));
  EXPECT_EQ(damaged[0].first_lsn, 3u);
  EXPECT_EQ(damaged[0].last_lsn, 4u);  // index entries of the segment: 1, 3, 5, 7
  EXPECT_EQ(damaged[0].offset, kSector + 2 * 9024);
}

TEST_F(ScrubTest, AMissingOrBadIndexIsMadeAgain) {
  OpenAndScrub();
  const std::string good = fs_.Contents(IndexPath(8));
  fs_.FlipBit(IndexPath(8), 70 * 8);
  ASSERT_THAT(fs_.Remove(IndexPath(1)), IsOk());
  RunPass();
  node_.RunLoops();
  EXPECT_EQ(fs_.Contents(IndexPath(8)), good);
  EXPECT_TRUE(fs_.HasFile(IndexPath(1)));
  EXPECT_EQ(Scrub().indexes_rebuilt, 2u);
  EXPECT_THAT(Damaged(), IsEmpty());
  RunPass();
  EXPECT_EQ(Scrub().indexes_rebuilt, 2u);
}

TEST_F(ScrubTest, PruningUnderAPassIsNoDamage) {
  options_.scrub_bytes_per_second = 9024;
  Open();
  node_.executor.AdvanceTime(kSecond);
  ASSERT_THAT(node_.spool->Prune(15, 0, [](Lsn) { return absl::OkStatus(); }), IsOk());
  node_.executor.AdvanceTime(60 * kSecond);
  EXPECT_EQ(Scrub().passes, 1u);
  EXPECT_THAT(Damaged(), IsEmpty());
}

}  // namespace
}  // namespace towline::wal::test
