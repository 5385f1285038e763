// Cuts and bit flips at every place of a log.
//
// Goal     A cut of what was never acknowledged is repaired without help, at whatever byte it is. Damage to what was
//          durable is noticed, and wrong records are never read.
// Method   Frame sizes and offsets come from the format. A flip changes the disk behind the spool's back.

#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/bytes.h"
#include "common/checksum.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"
#include "tests/wal/spool_fixture.h"
#include "wal/inspect.h"
#include "wal/local_frame.h"
#include "wal/segment_format.h"

namespace towline::wal::test {
namespace {

using ::testing::AnyOf;
using ::testing::IsEmpty;
using ::testing::Not;
using ::towline::test::IsOk;
using ::towline::test::ReasonIs;

constexpr uint64_t kSector = 512;
constexpr uint64_t kHeaders = 56;
constexpr uint64_t kSegment = 64 << 10;

// --- Cuts ---

// Alignment in all its forms, an empty payload, and one longer than a page.
const std::vector<size_t>& CutSizes() {
  static const std::vector<size_t>* const sizes = new std::vector<size_t>{0, 1, 7, 8, 9, 500, 4200};
  return *sizes;
}

struct FramePlace {
  uint64_t begin = 0;
  uint64_t end = 0;
};

std::vector<FramePlace> Places(const std::vector<size_t>& sizes) {
  std::vector<FramePlace> places;
  uint64_t offset = kSector;
  for (const size_t size : sizes) {
    const uint64_t end = offset + (kHeaders + size + 7) / 8 * 8;
    places.push_back({offset, end});
    offset = end;
  }
  return places;
}

// `fill` has the size of a segment; behind a cut the file is what `fill` is there.
void ExpectEveryCutIsRepaired(const std::string& fill) {
  SimFileSystem fs;
  Node node(fs);
  ASSERT_THAT(node.Open(), IsOk());
  // One group: nothing in it proves that any of it was durable.
  ASSERT_THAT(node.Append(CutSizes()), IsOk());
  node.Close();
  const std::string whole = fs.Contents(SegmentPath(1));
  const std::vector<FramePlace> places = Places(CutSizes());

  for (uint64_t cut = kSector; cut <= places.back().end; ++cut) {
    SCOPED_TRACE(absl::StrCat("cut at byte ", cut));
    ASSERT_THAT(RemoveAll(fs, kQuarantine), IsOk());
    const std::string left = whole.substr(0, cut) + fill.substr(cut);
    fs.SetContents(SegmentPath(1), left);
    // Fill may happen to be what was cut off.
    size_t expected = 0;
    while (expected < places.size() &&
           left.compare(places[expected].begin, places[expected].end - places[expected].begin, whole,
                        places[expected].begin, places[expected].end - places[expected].begin) == 0) {
      ++expected;
    }
    const bool header_left = expected < places.size() && left.compare(places[expected].begin, kHeaders, whole,
                                                                      places[expected].begin, kHeaders) == 0;
    ASSERT_THAT(node.Open(), IsOk());
    ASSERT_EQ(node.report.end.lsn, expected);
    ASSERT_EQ(node.report.row, header_left ? "newest_torn" : "newest_clean");
    TOWLINE_ASSERT_OK_AND_ASSIGN(const std::vector<ReadRecord> records, ReadAll(*node.spool, 1));
    for (const ReadRecord& record : records)
      ASSERT_EQ(record.payload, PayloadOf(record.lsn, CutSizes()[record.lsn - 1]));
    ASSERT_EQ(records.size(), expected);
    ASSERT_THAT(node.Append({100}), IsOk());
    ASSERT_THAT(node.Open(), IsOk());
    ASSERT_EQ(node.report.end.lsn, expected + 1);
  }
}

TEST(CutTest, EveryCutInFrontOfZerosIsRepaired) { ExpectEveryCutIsRepaired(std::string(kSegment, '\0')); }

TEST(CutTest, EveryCutInFrontOfFramesOfAFormerLifeIsRepaired) {
  SimFileSystem fs;
  Node node(fs, 2);  // another salt
  ASSERT_THAT(node.Open(), IsOk());
  ASSERT_THAT(node.Append(CutSizes()), IsOk());
  ASSERT_THAT(node.Append({30000, 20000}), IsOk());
  ExpectEveryCutIsRepaired(fs.Contents(SegmentPath(1)));
}

// --- Bit flips ---

// Three segments with records 1-6, 7-12 and 13-16 of 9000 bytes and more, all durable.
class FlipTest : public ::testing::Test {
 protected:
  FlipTest() : node_(fs_) {
    EXPECT_THAT(node_.Open(), IsOk());
    while (node_.spool->stats().segments < 3 || node_.spool->end().lsn % 4 != 0) {
      EXPECT_THAT(node_.Append({9000 + node_.spool->end().lsn}), IsOk());
    }
    inputs_ = Inputs(node_.spool->end().lsn);
    node_.RunLoops();
    absl::StatusOr<std::vector<ReadRecord>> records = ReadAll(*node_.spool, 1);
    EXPECT_THAT(records, IsOk());
    records_ = *records;
    const absl::StatusOr<SpoolInfo> info = InspectSpool(fs_, kDirectory);
    EXPECT_THAT(info, IsOk());
    for (const SegmentInfo& segment : info->segments) {
      segments_.push_back({segment.file, segment.used_bytes, segment.sealed, segment.first_lsn, segment.last_lsn});
    }
    EXPECT_EQ(segments_.size(), 3u);
    node_.Close();
  }

  struct Segment {
    std::string path;
    uint64_t used = 0;
    bool sealed = false;
    Lsn first_lsn = 0;
    Lsn last_lsn = 0;
  };

  static bool InSegment(Lsn lsn, const Segment& segment) { return segment.first_lsn <= lsn && lsn <= segment.last_lsn; }

  // Whether the damaged spool refuses to open.
  bool Refuses() {
    const absl::Status opened = node_.Open(SmallOptions(), inputs_);
    if (opened.ok()) return false;
    EXPECT_THAT(opened, ReasonIs("wal_corrupt"));
    return true;
  }

  bool VerifyFindsIt() {
    const absl::StatusOr<VerifyReport> report = VerifySpool(fs_, kDirectory);
    EXPECT_THAT(report, IsOk());
    return !report->damages.empty();
  }

  SimFileSystem fs_;
  Node node_;
  RecoveryInputs inputs_;
  std::vector<ReadRecord> records_;
  std::vector<Segment> segments_;
};

TEST_F(FlipTest, EveryBitOfHeadersAndFootersIsGuarded) {
  for (const Segment& segment : segments_) {
    std::vector<uint64_t> sectors = {0};
    if (segment.sealed) sectors.push_back(kSegment - kSector);
    for (const uint64_t sector : sectors) {
      for (uint64_t bit = sector * 8; bit < (sector + kSector) * 8; ++bit) {
        fs_.FlipBit(segment.path, bit);
        ASSERT_TRUE(Refuses()) << segment.path << " bit " << bit;
        if (bit % 64 == 0) {
          ASSERT_TRUE(VerifyFindsIt()) << segment.path << " bit " << bit;
        }
        fs_.FlipBit(segment.path, bit);
      }
    }
  }
  EXPECT_FALSE(Refuses());
}

TEST_F(FlipTest, AFlippedFrameOfTheNewestSegmentIsNotTakenForATornOne) {
  const Segment& newest = segments_.back();
  ASSERT_FALSE(newest.sealed);
  for (uint64_t byte = kSector; byte < newest.used; byte += byte % 64 < 56 ? 1 : 9) {
    fs_.FlipBit(newest.path, byte * 8 + byte % 8);
    ASSERT_TRUE(Refuses()) << newest.path << " byte " << byte;
    fs_.FlipBit(newest.path, byte * 8 + byte % 8);
  }
  EXPECT_FALSE(Refuses());
}

TEST_F(FlipTest, EveryBitOfEveryFrameHeaderIsGuarded) {
  for (const Segment& segment : segments_) {
    uint64_t offset = kSector;
    for (const ReadRecord& record : records_) {
      if (!InSegment(record.lsn, segment)) continue;
      for (uint64_t bit = offset * 8; bit < (offset + kHeaders) * 8; ++bit) {
        fs_.FlipBit(segment.path, bit);
        // A sealed segment's records are not read at the start; the tools and every reader see it.
        ASSERT_TRUE(segment.sealed ? VerifyFindsIt() : Refuses()) << segment.path << " bit " << bit;
        fs_.FlipBit(segment.path, bit);
      }
      offset += (kHeaders + record.payload.size() + 7) / 8 * 8;
    }
    EXPECT_EQ(offset, segment.used);
  }
  EXPECT_FALSE(Refuses());
}

TEST_F(FlipTest, AFlippedFrameOfASealedSegmentIsNeverRead) {
  for (const Segment& segment : segments_) {
    if (!segment.sealed) continue;
    for (uint64_t byte = kSector; byte < segment.used; byte += 61) {
      fs_.FlipBit(segment.path, byte * 8 + byte % 8);
      SCOPED_TRACE(absl::StrCat(segment.path, " byte ", byte));
      ASSERT_FALSE(Refuses());  // records of sealed segments are not read at the start
      ASSERT_TRUE(VerifyFindsIt());
      // From the start the damage is met; what is behind it can be read on its own.
      ASSERT_THAT(ReadAll(*node_.spool, 1), ReasonIs("wal_damaged"));
      for (const Lsn from : {3, 9, 14}) {
        const absl::StatusOr<std::vector<ReadRecord>> read = ReadAll(*node_.spool, from);
        if (!read.ok()) {
          ASSERT_THAT(read, ReasonIs("wal_damaged"));
        } else {
          ASSERT_EQ(*read,
                    std::vector<ReadRecord>(records_.begin() + static_cast<ptrdiff_t>(from) - 1, records_.end()));
        }
      }
      node_.Close();
      fs_.FlipBit(segment.path, byte * 8 + byte % 8);
    }
  }
  EXPECT_FALSE(VerifyFindsIt());
}

TEST_F(FlipTest, RecordsInFrontOfTheDamageAreStillServed) {
  const Segment& first = segments_.front();
  fs_.FlipBit(first.path, (kSector + 3 * 9060) * 8);  // in the third record
  ASSERT_FALSE(Refuses());
  TOWLINE_ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Cursor> cursor, node_.spool->NewCursor(1));
  TOWLINE_ASSERT_OK_AND_ASSIGN(const ShippedBatch batch, cursor->Next(1 << 20));
  EXPECT_EQ(batch.after.lsn, 2u);
  EXPECT_EQ(cursor->next_lsn(), 3u);
  EXPECT_THAT(cursor->Next(1 << 20), ReasonIs("wal_damaged"));
  EXPECT_THAT(cursor->Next(1 << 20), ReasonIs("wal_damaged"));
}

TEST_F(FlipTest, TheUnusedRestOfASegmentDoesNotMatter) {
  for (const Segment& segment : segments_) {
    fs_.FlipBit(segment.path, (segment.used + 100) * 8);
  }
  ASSERT_FALSE(Refuses());
  EXPECT_FALSE(VerifyFindsIt());
  TOWLINE_ASSERT_OK_AND_ASSIGN(const std::vector<ReadRecord> read, ReadAll(*node_.spool, 1));
  EXPECT_EQ(read, records_);
}

// --- A footer that is whole and wrong ---

TEST_F(FlipTest, AFooterThatEndsItsSegmentEarlyIsNotTheEndOfTheLog) {
  const std::string path = segments_.front().path;
  const std::string whole = fs_.Contents(path);
  SegmentFooter footer;
  ASSERT_THAT(DecodeSegmentFooter(absl::string_view(whole).substr(kSegment - kSector), &footer), IsOk());
  const Lsn last = footer.end.lsn;
  for (const Lsn missing : {1, 2}) {
    SCOPED_TRACE(absl::StrCat(missing, " records"));
    // Record n is 9000 + n - 1 bytes long.
    footer.end_offset -= (kHeaders + 9000 + (last - missing) + 7) / 8 * 8;
    fs_.SetContents(path, whole.substr(0, kSegment - kSector) + EncodeSegmentFooter(footer));
    ASSERT_FALSE(Refuses());  // records of sealed segments are not read at the start
    EXPECT_TRUE(VerifyFindsIt());
    EXPECT_THAT(ReadAll(*node_.spool, 1), ReasonIs("wal_damaged"));
    EXPECT_THAT(ReadAll(*node_.spool, last), ReasonIs("wal_damaged"));
    EXPECT_THAT(node_.spool->EndAt(last - 1), AnyOf(ReasonIs("wal_damaged"), IsOk()));
    node_.Close();
  }
}

TEST_F(FlipTest, ALastRecordThatIsNotTheOneThatTheFooterNamesIsDamage) {
  const std::string path = segments_.front().path;
  std::string file = fs_.Contents(path);
  SegmentHeader header;
  SegmentFooter footer;
  ASSERT_THAT(DecodeSegmentHeader(absl::string_view(file).substr(0, kSector), &header), IsOk());
  ASSERT_THAT(DecodeSegmentFooter(absl::string_view(file).substr(kSegment - kSector), &footer), IsOk());
  // Another payload, with checksums that hold: only the chain in the footer can tell.
  const Lsn last = footer.end.lsn;
  const size_t size = 9000 + last - 1;
  char* const frame = file.data() + footer.end_offset - (kHeaders + size + 7) / 8 * 8;
  frame[kHeaders] = static_cast<char>(frame[kHeaders] ^ 1);
  StoreLe<uint32_t>(frame + 28, Crc32c(absl::string_view(frame + kHeaders, size)));
  FillLocalPart(LoadLe<uint64_t>(frame + 8), header.salt, frame);
  fs_.SetContents(path, file);

  ASSERT_FALSE(Refuses());
  EXPECT_TRUE(VerifyFindsIt());
  EXPECT_THAT(ReadAll(*node_.spool, last), ReasonIs("wal_damaged"));
  TOWLINE_ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Cursor> cursor, node_.spool->NewCursor(1));
  TOWLINE_ASSERT_OK_AND_ASSIGN(const ShippedBatch batch, cursor->Next(1 << 20));
  EXPECT_EQ(batch.after.lsn, last - 1);
  EXPECT_THAT(cursor->Next(1 << 20), ReasonIs("wal_damaged"));
}

TEST_F(FlipTest, AFooterThatIsNewerThanItsRecordsIsDamage) {
  const std::string path = segments_.front().path;
  const std::string next_path = segments_[1].path;
  std::string whole = fs_.Contents(path);
  std::string next = fs_.Contents(next_path);
  SegmentFooter footer;
  SegmentHeader next_header;
  ASSERT_THAT(DecodeSegmentFooter(absl::string_view(whole).substr(kSegment - kSector), &footer), IsOk());
  ASSERT_THAT(DecodeSegmentHeader(absl::string_view(next).substr(0, kSector), &next_header), IsOk());
  const int64_t time_us = footer.end.commit_time_us;
  footer.end.commit_time_us += 1;
  next_header.before = footer.end;
  fs_.SetContents(path, whole.replace(kSegment - kSector, kSector, EncodeSegmentFooter(footer)));
  fs_.SetContents(next_path, next.replace(0, kSector, EncodeSegmentHeader(next_header)));
  ASSERT_THAT(fs_.Remove(IndexPath(1)), IsOk());
  ASSERT_FALSE(Refuses());
  EXPECT_THAT(node_.spool->SeekTime(time_us + 1), ReasonIs("wal_damaged"));
}

}  // namespace
}  // namespace towline::wal::test
