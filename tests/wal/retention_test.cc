// What the spool removes, keeps, recycles and makes ahead.
//
// Method   SimFileSystem, SimExecutor and FakeClock, one thread; the page cache is the machine's. Records of 9000
//          bytes: seven fill a segment.

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"

#include "common/error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/page_cache.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"
#include "tests/wal/known_log.h"
#include "wal/segment_format.h"

namespace towline::wal::test {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::towline::test::IsOk;
using ::towline::test::IsOkAndHolds;
using ::towline::test::ReasonIs;
using ::towline::test::ResidentBytes;
using ::towline::test::StatusIs;

// Prune without keep_bytes; the saved LSN goes to *saved if it is not nullptr.
absl::StatusOr<Lsn> Prune(Spool& spool, Lsn first_needed, Lsn* saved = nullptr, uint64_t keep_bytes = 0) {
  return spool.Prune(first_needed, keep_bytes, [saved](Lsn lsn) {
    if (saved != nullptr) *saved = lsn;
    return absl::OkStatus();
  });
}

std::vector<std::string> Names(FileSystem& fs, const std::string& part, const std::string& directory = kDirectory) {
  const absl::StatusOr<std::vector<std::string>> all = fs.List(directory);
  EXPECT_THAT(all, IsOk());
  std::vector<std::string> names;
  for (const std::string& name : *all) {
    if (absl::StrContains(name, part)) names.push_back(name);
  }
  return names;
}

bool GoesPastThePageCache(FileSystem& fs, const std::string& path) {
  const absl::StatusOr<std::unique_ptr<File>> file = fs.Open(path, OpenMode::kCreate);
  EXPECT_THAT(file, IsOk());
  (*file)->WriteDirectly(DirectWrites::kBehind);  // which aligns what it writes
  EXPECT_THAT((*file)->WriteAt(0, std::string(kDirectAlignment, 'x')), IsOk());
  EXPECT_THAT((*file)->SyncData(), IsOk());
  const absl::StatusOr<uint64_t> resident = ResidentBytes(path);
  EXPECT_THAT(resident, IsOk());
  return *resident == 0;
}

class RetentionTest : public OpenSpoolTest {
 protected:
  std::vector<uint64_t> SegmentSizes() {
    std::vector<uint64_t> sizes;
    for (const std::string& name : Names(fs_, "0")) {
      if (ParseFileName(name).kind == FileKind::kSegment) sizes.push_back(fs_.Contents("wal/" + name).size());
    }
    return sizes;
  }
};

// --- Retention ---

TEST_F(RetentionTest, PruneRemovesWholeSegmentsBelowWhatIsNeeded) {
  Open();
  AppendTo(30);  // 1-7, 8-14, 15-21, 22-28, 29-30
  Lsn saved = 0;
  EXPECT_THAT(Prune(spool(), 7, &saved), IsOkAndHolds(1u));
  EXPECT_EQ(saved, 0u);
  EXPECT_THAT(Prune(spool(), 8, &saved), IsOkAndHolds(8u));
  EXPECT_EQ(saved, 8u);
  EXPECT_FALSE(fs_.HasFile(SegmentPath(1)));
  EXPECT_THAT(spool().NewCursor(7), ReasonIs("wal_removed"));
  EXPECT_THAT(spool().NewCursor(8), IsOk());
  EXPECT_THAT(spool().EndAt(7), IsOk());  // known from the header of the segment behind it
  EXPECT_THAT(spool().EndAt(6), ReasonIs("wal_removed"));
  EXPECT_EQ(spool().stats().first_lsn, 8u);
  // The newest segment always stays.
  EXPECT_THAT(Prune(spool(), 1000, &saved), IsOkAndHolds(29u));
  EXPECT_EQ(saved, 29u);
  EXPECT_EQ(spool().stats().segments, 1u);
  RecoveryInputs inputs = Inputs(30);
  inputs.first_retained = saved;
  ASSERT_THAT(node_.Open(SmallOptions(), inputs), IsOk());
  EXPECT_THAT(ReadAll(spool(), 29), IsOk());
}

TEST_F(RetentionTest, PruneKeepsBytesBehindTheHead) {
  Open();
  AppendTo(30);
  EXPECT_THAT(Prune(spool(), 1000, nullptr, 30 * kFrame), IsOkAndHolds(1u));
  EXPECT_THAT(Prune(spool(), 1000, nullptr, 23 * kFrame + 1), IsOkAndHolds(1u));
  EXPECT_THAT(Prune(spool(), 1000, nullptr, 23 * kFrame), IsOkAndHolds(8u));
  EXPECT_THAT(Prune(spool(), 1000, nullptr, 9 * kFrame), IsOkAndHolds(22u));
}

TEST_F(RetentionTest, NothingIsRemovedUnlessTheNewFirstLsnIsSaved) {
  Open();
  AppendTo(30);
  const auto refuse = [this](Lsn) {
    EXPECT_TRUE(fs_.HasFile(SegmentPath(1)));
    return absl::UnavailableError("slots cannot be saved");
  };
  EXPECT_THAT(spool().Prune(1000, 0, refuse), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_EQ(spool().stats().segments, 5u);
  EXPECT_THAT(ReadAll(spool(), 1), IsOk());
}

TEST_F(RetentionTest, APinKeepsItsRecordsWhileItLives) {
  Open();
  AppendTo(30);
  std::unique_ptr<Pin> low = spool().NewPin(3);
  std::unique_ptr<Pin> high = spool().NewPin(20);
  EXPECT_THAT(Prune(spool(), 1000), IsOkAndHolds(1u));
  low->MoveTo(8);
  EXPECT_THAT(Prune(spool(), 1000), IsOkAndHolds(8u));
  low.reset();
  EXPECT_THAT(Prune(spool(), 1000), IsOkAndHolds(15u));
  high.reset();
  EXPECT_THAT(Prune(spool(), 1000), IsOkAndHolds(29u));
}

TEST_F(RetentionTest, APinThatComesDuringAPruneStillHolds) {
  Open();
  AppendTo(30);
  std::unique_ptr<Pin> pin;
  const absl::StatusOr<Lsn> first = spool().Prune(1000, 0, [&](Lsn) {
    pin = spool().NewPin(10);
    return absl::OkStatus();
  });
  EXPECT_THAT(first, IsOkAndHolds(8u));
  EXPECT_THAT(spool().NewCursor(10), IsOk());
}

TEST_F(RetentionTest, ACursorReadsItsSegmentToTheEndThoughItWasRemoved) {
  Open(WithSpares(2));
  AppendTo(30);
  // The tail is in memory; the first segments have to be read from disk.
  ASSERT_THAT(node_.Open(WithSpares(2), Inputs()), IsOk());
  TOWLINE_ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Cursor> cursor, spool().NewCursor(2));
  TOWLINE_ASSERT_OK_AND_ASSIGN(ShippedBatch batch, cursor->Next(1));
  EXPECT_EQ(batch.after.lsn, 2u);
  EXPECT_THAT(Prune(spool(), 1000), IsOkAndHolds(29u));
  EXPECT_FALSE(fs_.HasFile(SegmentPath(1)));
  // Two segments became spares, and are written to; the one that the cursor reads did not.
  AppendTo(60);
  for (Lsn lsn = 3; lsn <= 7; ++lsn) {
    TOWLINE_ASSERT_OK_AND_ASSIGN(batch, cursor->Next(1));
    ASSERT_EQ(batch.after.lsn, lsn);
    TOWLINE_ASSERT_OK_AND_ASSIGN(const ShippedFrame frame, DecodeShipped(batch.bytes));
    EXPECT_EQ(frame.payload, PayloadOf(lsn, kPayload));
  }
  const absl::StatusOr<ShippedBatch> removed = cursor->Next(1);
  EXPECT_THAT(removed, StatusIs(absl::StatusCode::kOutOfRange));
  EXPECT_THAT(removed, ReasonIs("wal_removed"));
  EXPECT_EQ(cursor->next_lsn(), 8u);
}

TEST_F(RetentionTest, ACursorThatHasReadNothingYetTellsThatItsRecordIsGone) {
  Open(WithSpares(2));
  AppendTo(30);
  ASSERT_THAT(node_.Open(WithSpares(2), Inputs()), IsOk());
  TOWLINE_ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Cursor> cursor, spool().NewCursor(2));
  EXPECT_THAT(Prune(spool(), 1000), IsOkAndHolds(29u));
  AppendTo(60);  // into the segments that became spares
  EXPECT_THAT(cursor->Next(1), ReasonIs("wal_removed"));
  EXPECT_EQ(cursor->next_lsn(), 2u);
}

// --- Spares ---

// Filling a whole one while an append waits would hold up the disk's other users, too.
TEST_F(RetentionTest, ASegmentForWhichNoSpareIsReadyIsSmall) {
  constexpr uint64_t kMiB = 1 << 20;
  SpoolOptions options = WithSpares(1);
  options.segment_bytes = 10 * kMiB;
  Open(options);
  const auto append = [this](int records) {
    for (int i = 0; i < records; ++i) ASSERT_THAT(node_.Append({kMiB - 1000}), IsOk());
  };
  append(10);  // four, four, and two in the next one; the loop did not run
  EXPECT_THAT(SegmentSizes(), ElementsAre(4 * kMiB, 4 * kMiB, 4 * kMiB));
  node_.executor.AdvanceTime(10000000);
  append(13);  // two, ten, one
  EXPECT_THAT(SegmentSizes(), ElementsAre(4 * kMiB, 4 * kMiB, 4 * kMiB, 10 * kMiB, 4 * kMiB));
  // Without spares every roll would wait as often as that, so they are as large as was asked for.
  options.spare_segments = 0;
  Open(options);
  append(14);
  EXPECT_EQ(SegmentSizes().back(), 10 * kMiB);
}

// Their zeros are read by nobody: in the page cache they would only take the place of what is.
TEST_F(RetentionTest, SparesAreFilledPastThePageCache) {
  const ::towline::test::TempDir temp;
  FileSystem& fs = *PosixFileSystem();
  if (!GoesPastThePageCache(fs, temp.Join("probe"))) GTEST_SKIP() << temp.path() << " is on a file system without that";
  Node node(fs, temp.Join("wal"), temp.Join("quarantine"));
  ASSERT_THAT(fs.CreateDirectory(node.directory), IsOk());
  ASSERT_THAT(node.Open(WithSpares(1), Inputs()), IsOk());
  ASSERT_THAT(node.Append({100}), IsOk());
  node.executor.AdvanceTime(1000000);
  const std::vector<std::string> spares = Names(fs, "spare", node.directory);
  ASSERT_EQ(spares.size(), 1u);
  const std::string path = JoinPath(node.directory, spares[0]);
  EXPECT_THAT(ResidentBytes(path), IsOkAndHolds(0u));
  EXPECT_THAT(ReadFile(fs, path), IsOkAndHolds(std::string(SmallOptions().segment_bytes, '\0')));
}

TEST_F(RetentionTest, SparesAreMadeAheadAndUsed) {
  Open(WithSpares(2));
  node_.executor.AdvanceTime(1000000);
  EXPECT_THAT(Names(fs_, "spare"), IsEmpty());  // a log without records leaves the disk to others
  AppendTo(1);
  node_.executor.AdvanceTime(1000000);
  EXPECT_EQ(Names(fs_, "spare").size(), 2u);
  EXPECT_THAT(Names(fs_, "tmp"), IsEmpty());
  fs_.ClearLog();
  AppendTo(8);
  // The roll made no file.
  for (const std::string& call : fs_.log()) EXPECT_FALSE(absl::StartsWith(call, "create"));
  EXPECT_EQ(Names(fs_, "spare").size(), 1u);
  node_.executor.AdvanceTime(1000000);
  EXPECT_EQ(Names(fs_, "spare").size(), 2u);
  // A reopen finds them again.
  Open(WithSpares(2));
  node_.executor.AdvanceTime(1000000);
  EXPECT_EQ(Names(fs_, "spare").size(), 2u);
}

TEST_F(RetentionTest, ASpareIsSyncedInPieces) {
  SpoolOptions options = WithSpares(1);
  options.segment_bytes = 12 << 20;
  Open(options);
  AppendTo(1);
  fs_.ClearLog();
  node_.executor.AdvanceTime(1000000);
  ASSERT_EQ(Names(fs_, "spare").size(), 1u);
  int writes = 0;
  std::vector<int> writes_before_sync;
  for (const std::string& call : fs_.log()) {
    if (absl::StartsWith(call, "write wal/tmp-")) ++writes;
    if (absl::StartsWith(call, "sync wal/tmp-")) writes_before_sync.push_back(std::exchange(writes, 0));
  }
  EXPECT_THAT(writes_before_sync, ::testing::ElementsAre(4, 4, 4));  // of 1 MiB
}

TEST_F(RetentionTest, PrunedSegmentsAreRecycledUpToTwoMoreThanAreWanted) {
  Open(WithSpares(1));
  AppendTo(30);
  EXPECT_THAT(Names(fs_, "spare"), IsEmpty());  // the loop did not run yet
  EXPECT_THAT(Prune(spool(), 1000), IsOkAndHolds(29u));
  EXPECT_EQ(Names(fs_, "spare").size(), 3u);
  EXPECT_EQ(Names(fs_, ".seg").size(), 4u);
  // They still hold frames of their former life.
  EXPECT_TRUE(absl::StrContains(fs_.Contents("wal/" + Names(fs_, "spare")[0]), PayloadOf(1, kPayload)));
  AppendTo(50);
  EXPECT_THAT(ReadAll(spool(), 29), IsOk());
  for (int i = 0; i < 2; ++i) {
    RecoveryInputs inputs = Inputs(50);
    inputs.first_retained = 29;
    ASSERT_THAT(node_.Open(WithSpares(2), inputs), IsOk());
    EXPECT_EQ(node_.report.row, "newest_clean");
    EXPECT_EQ(spool().end().lsn, 50u);
    TOWLINE_ASSERT_OK_AND_ASSIGN(const std::vector<ReadRecord> records, ReadAll(spool(), 29));
    for (const ReadRecord& record : records) EXPECT_EQ(record.payload, PayloadOf(record.lsn, kPayload));
  }
}

TEST_F(RetentionTest, WhereSegmentsGoAsFastAsTheyComeNoneIsFilled) {
  Open(WithSpares(2));
  AppendTo(8);
  node_.executor.AdvanceTime(1000000);
  Lsn last = 8;
  const auto roll_then_prune = [&] {
    const Lsn first = spool().stats().first_lsn;
    AppendTo(last += 7);                  // one segment
    node_.executor.AdvanceTime(1000000);  // the loop is faster than retention
    ASSERT_THAT(Prune(spool(), last - 6), IsOk());
    ASSERT_GT(spool().stats().first_lsn, first);
  };
  for (int i = 0; i < 3; ++i) roll_then_prune();
  fs_.ClearLog();
  for (int i = 0; i < 5; ++i) roll_then_prune();
  for (const std::string& call : fs_.log()) {
    EXPECT_FALSE(absl::StartsWith(call, "create") && absl::EndsWith(call, ".seg")) << call;
  }
}

TEST_F(RetentionTest, NoSparesWantedMeansNoneKept) {
  Open(WithSpares(0));
  AppendTo(30);
  EXPECT_THAT(Prune(spool(), 1000), IsOk());
  EXPECT_THAT(Names(fs_, "spare"), IsEmpty());
}

TEST_F(RetentionTest, ASegmentWithASecondNameIsUnlinkedNotRecycled) {
  Open(WithSpares(2));
  AppendTo(15);
  ASSERT_THAT(fs_.CreateDirectory("gen2"), IsOk());
  ASSERT_THAT(fs_.Link(SegmentPath(1), "gen2/kept.seg"), IsOk());
  const std::string before = fs_.Contents("gen2/kept.seg");
  EXPECT_THAT(Prune(spool(), 1000), IsOkAndHolds(15u));
  EXPECT_EQ(Names(fs_, "spare").size(), 1u);  // the other one
  AppendTo(60);
  EXPECT_EQ(fs_.Contents("gen2/kept.seg"), before);
}

TEST_F(RetentionTest, AnotherSegmentSizeIsTakenUpWithTheNextSegment) {
  Open(WithSpares(1));
  AppendTo(10);
  node_.executor.AdvanceTime(1000000);
  SpoolOptions larger = WithSpares(1);
  larger.segment_bytes = 128 << 10;
  Open(larger);
  EXPECT_THAT(Names(fs_, "spare"), IsEmpty());
  AppendTo(40);
  EXPECT_EQ(fs_.Contents(SegmentPath(15)).size(), 128u << 10);
  EXPECT_THAT(Prune(spool(), 1000), IsOk());
  for (const std::string& name : Names(fs_, "spare")) EXPECT_EQ(fs_.Contents("wal/" + name).size(), 128u << 10);
}

}  // namespace
}  // namespace towline::wal::test
