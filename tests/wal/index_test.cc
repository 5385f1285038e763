// The seek index: its file, and that whatever is in that file the spool reads the same.

#include "wal/index.h"

#include <functional>
#include <string>
#include <vector>

#include "common/bytes.h"
#include "common/checksum.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"
#include "tests/wal/spool_fixture.h"
#include "wal/inspect.h"
#include "wal/segment_format.h"

namespace towline::wal::test {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::towline::test::IsOk;
using ::towline::test::IsOkAndHolds;

// --- The entries ---

TEST(IndexTest, EntriesAreAtLeastAnIntervalApart) {
  IndexEntries entries;
  ShippedHeader header;
  for (uint64_t offset = 512; offset < 512 + 100 * 64; offset += 64) {
    header.lsn = offset / 64 - 7;
    AddToIndex(header, offset, 1000, &entries);
  }
  ASSERT_EQ(entries.size(), 7u);
  EXPECT_EQ(entries[0].offset, 512u);
  for (size_t i = 1; i < entries.size(); ++i) EXPECT_EQ(entries[i].offset, entries[i - 1].offset + 1024);
}

TEST(IndexTest, FloorsAreTheLastEntriesInFront) {
  const IndexEntries entries = {{10, 100, 512, 0}, {20, 100, 1024, 0}, {30, 200, 2048, 0}};
  EXPECT_EQ(FloorOfLsn(entries, 10).lsn, 10u);
  EXPECT_EQ(FloorOfLsn(entries, 19).lsn, 10u);
  EXPECT_EQ(FloorOfLsn(entries, 20).lsn, 20u);
  EXPECT_EQ(FloorOfLsn(entries, 1000).lsn, 30u);
  EXPECT_EQ(FloorOfTime(entries, 50).lsn, 10u);
  EXPECT_EQ(FloorOfTime(entries, 100).lsn, 10u);
  EXPECT_EQ(FloorOfTime(entries, 101).lsn, 20u);
  EXPECT_EQ(FloorOfTime(entries, 201).lsn, 30u);
}

// --- The file ---

const IndexOwner kOwner{10, 40, 77, 4096};
const IndexEntries kEntries = {{10, 100, 512, 1}, {20, 100, 1024, 2}, {30, 200, 2048, 3}};

std::string WhyRefused(const std::string& bytes, const IndexOwner& owner = kOwner) {
  IndexEntries entries;
  std::string what;
  if (DecodeIndex(bytes, owner, &entries, &what)) return "";
  EXPECT_THAT(entries, IsEmpty());
  EXPECT_THAT(what, Not(IsEmpty()));
  return what;
}

TEST(IndexFileTest, RoundTrip) {
  IndexEntries entries;
  std::string what;
  ASSERT_TRUE(DecodeIndex(EncodeIndex(kOwner, kEntries), kOwner, &entries, &what)) << what;
  EXPECT_EQ(entries, kEntries);
}

TEST(IndexFileTest, EveryFlippedBitAndEveryCutIsRefused) {
  const std::string bytes = EncodeIndex(kOwner, kEntries);
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    std::string flipped = bytes;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
    EXPECT_THAT(WhyRefused(flipped), Not(IsEmpty())) << bit;
  }
  for (size_t size = 0; size < bytes.size(); ++size) EXPECT_THAT(WhyRefused(bytes.substr(0, size)), Not(IsEmpty()));
  EXPECT_THAT(WhyRefused(bytes + '\0'), Not(IsEmpty()));
}

TEST(IndexFileTest, AnotherSegmentsIndexIsRefused) {
  const std::string bytes = EncodeIndex(kOwner, kEntries);
  EXPECT_THAT(WhyRefused(bytes, {11, 40, 77, 4096}), HasSubstr("another segment"));
  EXPECT_THAT(WhyRefused(bytes, {10, 41, 77, 4096}), HasSubstr("another segment"));
  EXPECT_THAT(WhyRefused(bytes, {10, 40, 78, 4096}), HasSubstr("another segment"));
}

TEST(IndexFileTest, EntriesThatCannotBeAreRefused) {
  const std::vector<IndexEntries> impossible = {
      {},                                       // a segment with records has a first entry
      {{11, 100, 512, 1}},                      // not the first record
      {{10, 100, 520, 1}},                      // not at the first place
      {{10, 100, 512, 1}, {10, 100, 1024, 2}},  // LSN does not rise
      {{10, 100, 512, 1}, {20, 99, 1024, 2}},   // time falls
      {{10, 100, 512, 1}, {20, 100, 512, 2}},   // offset does not rise
      {{10, 100, 512, 1}, {20, 100, 1025, 2}},  // no place for a frame
      {{10, 100, 512, 1}, {20, 100, 4096, 2}},  // behind the end
      {{10, 100, 512, 1}, {41, 100, 1024, 2}},  // above the last record
  };
  for (const IndexEntries& entries : impossible) {
    EXPECT_THAT(WhyRefused(EncodeIndex(kOwner, entries)), HasSubstr("contradict"));
  }
}

// --- In the spool ---

class SpoolIndexTest : public ::testing::Test {
 protected:
  SpoolIndexTest() : node_(fs_) {
    EXPECT_THAT(node_.Open(), IsOk());
    for (int i = 0; i < 200; ++i) EXPECT_THAT(node_.Append({static_cast<size_t>(i * 131 % 2500)}), IsOk());
    node_.RunLoops();
    last_ = node_.spool->end().lsn;
    for (Lsn lsn = 0; lsn <= last_; ++lsn) ends_.push_back(*node_.spool->EndAt(lsn));
    const absl::StatusOr<SpoolInfo> info = InspectSpool(fs_, kDirectory);
    EXPECT_THAT(info, IsOk());
    for (const SegmentInfo& segment : info->segments) {
      if (segment.sealed) sealed_.push_back(segment);
    }
    EXPECT_GE(sealed_.size(), 3u);
  }

  // Everything that uses an index gives the same answers as before.
  void ExpectReadsEqual(const SpoolOptions& options = SmallOptions()) {
    ASSERT_THAT(node_.Open(options, Inputs(last_)), IsOk());
    Spool& spool = *node_.spool;
    for (Lsn lsn = 0; lsn <= last_; ++lsn) {
      ASSERT_THAT(spool.EndAt(lsn), IsOkAndHolds(ends_[lsn]));
      ASSERT_THAT(spool.SeekTime(static_cast<int64_t>(lsn) * 1000), IsOkAndHolds(std::max<Lsn>(lsn, 1)));
    }
    for (Lsn from = 1; from <= last_; from += 17) {
      const absl::StatusOr<std::vector<ReadRecord>> records = ReadAll(spool, from);
      ASSERT_THAT(records, IsOk());
      ASSERT_EQ(records->size(), last_ - from + 1);
      ASSERT_EQ(records->front().lsn, from);
    }
    node_.RunLoops();
  }

  SimFileSystem fs_;
  Node node_;
  Lsn last_ = 0;
  std::vector<LogEnd> ends_;
  std::vector<SegmentInfo> sealed_;
};

TEST_F(SpoolIndexTest, SealedSegmentsGetTheirIndexInTheBackground) {
  for (const SegmentInfo& segment : sealed_) {
    EXPECT_TRUE(segment.index_present);
    // 64 KiB with an entry each 4 KiB, give or take the frames across the borders.
    const size_t entries = (fs_.Contents(IndexPath(segment.first_lsn)).size() - 48) / 32;
    EXPECT_GE(entries, 9u);
    EXPECT_LE(entries, 16u);
  }
  EXPECT_FALSE(fs_.HasFile(IndexPath(sealed_.back().last_lsn + 1)));
  ExpectReadsEqual();
}

TEST_F(SpoolIndexTest, AnAbsentIndexIsBuiltAnew) {
  std::vector<std::string> before;
  for (const SegmentInfo& segment : sealed_) {
    before.push_back(fs_.Contents(IndexPath(segment.first_lsn)));
    ASSERT_THAT(fs_.Remove(IndexPath(segment.first_lsn)), IsOk());
  }
  ExpectReadsEqual();
  for (size_t i = 0; i < sealed_.size(); ++i) {
    EXPECT_EQ(fs_.Contents(IndexPath(sealed_[i].first_lsn)), before[i]);
  }
}

TEST_F(SpoolIndexTest, GarbageIsBuiltAnew) {
  const std::string before = fs_.Contents(IndexPath(1));
  for (const std::string& garbage :
       {std::string(), std::string("garbage"), std::string(before.size(), '\0'), before.substr(0, before.size() / 2),
        fs_.Contents(IndexPath(sealed_[1].first_lsn))}) {
    fs_.SetContents(IndexPath(1), garbage);
    ExpectReadsEqual();
    EXPECT_EQ(fs_.Contents(IndexPath(1)), before);
  }
}

// Whole files with valid checksums, made by someone who wants wrong records to be read.
TEST_F(SpoolIndexTest, NoIndexMakesTheSpoolReadOtherRecords) {
  const SegmentInfo& segment = sealed_[1];
  const std::string path = IndexPath(segment.first_lsn);
  const std::string before = fs_.Contents(path);
  IndexOwner owner{segment.first_lsn, segment.last_lsn, LoadLe<uint64_t>(before.data() + 32), segment.used_bytes};
  IndexEntries honest;
  std::string what;
  ASSERT_TRUE(DecodeIndex(before, owner, &honest, &what)) << what;
  SeededRng rng(5);
  for (int i = 0; i < 300; ++i) {
    IndexEntries entries = honest;
    for (uint64_t changes = 1 + rng.Below(4); changes > 0; --changes) {
      IndexEntry& entry = entries[rng.Below(entries.size())];
      switch (rng.Below(5)) {
        case 0:
          entry.lsn += rng.Below(3) - 1;
          break;
        case 1:
          entry.commit_time_us += static_cast<int64_t>(rng.Below(5000)) - 2500;
          break;
        case 2:
          entry.offset += 8 * (rng.Below(200) - 100);
          break;
        case 3:
          entry.prev_chain ^= rng.Next();
          break;
        default:
          entry = honest[rng.Below(honest.size())];
          break;
      }
    }
    fs_.SetContents(path, EncodeIndex(owner, entries));
    ASSERT_NO_FATAL_FAILURE(ExpectReadsEqual());
  }
}

TEST_F(SpoolIndexTest, ATinyCacheReadsTheSame) {
  SpoolOptions options = SmallOptions();
  options.index_cache_bytes = 1;
  ExpectReadsEqual(options);
  options.index_interval_bytes = 1;  // an entry per frame
  ExpectReadsEqual(options);
  options.index_interval_bytes = 1 << 30;  // one per segment
  ExpectReadsEqual(options);
}

TEST_F(SpoolIndexTest, AnIndexThatCannotBeWrittenIsDoneWithout) {
  for (const SegmentInfo& segment : sealed_) ASSERT_THAT(fs_.Remove(IndexPath(segment.first_lsn)), IsOk());
  for (int i = 0; i < 20; ++i) {
    fs_.FailNext(towline::test::SimCall::kCreate, absl::DataLossError("injected"), ".idx");
  }
  ExpectReadsEqual();
  EXPECT_FALSE(fs_.HasFile(IndexPath(1)));
}

TEST_F(SpoolIndexTest, PruningRemovesTheIndexToo) {
  const auto save = [](Lsn) { return absl::OkStatus(); };
  ASSERT_THAT(node_.spool->Prune(last_, 0, save), IsOk());
  for (const SegmentInfo& segment : sealed_) EXPECT_FALSE(fs_.HasFile(IndexPath(segment.first_lsn)));
  // Also one that was not written yet.
  while (node_.spool->stats().segments < 3) ASSERT_THAT(node_.Append({3000}), IsOk());
  ASSERT_THAT(node_.spool->Prune(last_ * 2, 0, save), IsOk());
  node_.RunLoops();
  for (const auto& [path, contents] : fs_.AllContents()) EXPECT_THAT(path, Not(HasSubstr(".idx")));
}

}  // namespace
}  // namespace towline::wal::test
