// Checksums that are put right pass the stage that checks them.
//
// Goal     After a mutation and a fix, a frame, a segment, an index and a copy get past their checksums to the checks
//          behind; without the fix they do not.
// Method   The golden bytes of the formats, changed in one place that only a checksum guards.

#include "tests/fuzz/checksums.h"

#include <string>

#include "common/two_copy_file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "store/rdb_reader.h"
#include "tests/support/format_doc.h"
#include "tests/support/sim_file_system.h"
#include "tests/support/status_matchers.h"
#include "wal/index.h"
#include "wal/local_frame.h"
#include "wal/segment_format.h"

namespace towline::fuzz {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::towline::test::IsOk;
using ::towline::test::ReadGolden;

constexpr uint64_t kSalt = 0xdeadbeefcafef00dull;  // of the golden frame and segment

std::string Flipped(const std::string& bytes, size_t offset) {
  std::string flipped = bytes;
  flipped.at(offset) = static_cast<char>(flipped.at(offset) ^ 1);
  return flipped;
}

TEST(FixChecksumsTest, AFixedFrameIsValidAgain) {
  std::string frame = Flipped(ReadGolden("tests/golden/frame_v1.hex"), 60);  // payload
  wal::LocalFrame decoded;
  ASSERT_EQ(wal::CheckFrame(frame, kSalt, &decoded), wal::FrameCheck::kBadPayload);
  frame = Flipped(frame, 41);  // commit time
  ASSERT_EQ(wal::CheckFrame(frame, kSalt, &decoded), wal::FrameCheck::kNoFrame);
  FixFrame(absl::MakeSpan(frame), kSalt);
  EXPECT_EQ(wal::CheckFrame(frame, kSalt, &decoded), wal::FrameCheck::kValid);
  EXPECT_EQ(wal::CheckFrame(frame, kSalt + 1, &decoded), wal::FrameCheck::kNoFrame);
}

TEST(FixChecksumsTest, AFixedShippedPartIsTakenAgain) {
  const std::string frame = ReadGolden("tests/golden/frame_v1.hex");
  std::string parts = frame.substr(wal::kLocalPartSize, wal::kShippedHeaderSize + 10);
  parts += Flipped(parts, 45);
  const auto count = [&] {
    size_t frames = 0;
    (void)wal::ForEachShipped(parts, [&](const wal::ShippedFrame&) {
      ++frames;
      return absl::OkStatus();
    });
    return frames;
  };
  ASSERT_EQ(count(), 1u);
  FixShippedParts(absl::MakeSpan(parts));
  EXPECT_EQ(count(), 2u);
}

TEST(FixChecksumsTest, ARelinkedFrameContinuesTheOneInFrontOfIt) {
  const std::string frame = ReadGolden("tests/golden/frame_v1.hex");
  std::string frames = frame + frame;
  FixFrames(absl::MakeSpan(frames), kSalt, true, 0x1122334455667788ull);
  EXPECT_EQ(frames.substr(0, frame.size()), frame);
  wal::LocalFrame first;
  wal::LocalFrame second;
  ASSERT_EQ(wal::CheckFrame(frames, kSalt, &first), wal::FrameCheck::kValid);
  ASSERT_EQ(wal::CheckFrame(absl::string_view(frames).substr(frame.size()), kSalt, &second), wal::FrameCheck::kValid);
  EXPECT_EQ(second.frame.header.prev_chain, first.end().chain);
}

TEST(FixChecksumsTest, AFixedSegmentHasHeaderFrameAndFooter) {
  std::string file = ReadGolden("tests/golden/segment_v1.hex");
  const std::string footer_before = file.substr(file.size() - wal::kSectorSize);
  file = Flipped(Flipped(Flipped(file, 40), file.size() - wal::kSectorSize + 24), wal::kSectorSize + 60);
  FixSegment(absl::MakeSpan(file), false);
  wal::SegmentHeader header;
  wal::SegmentFooter footer;
  wal::LocalFrame frame;
  const absl::string_view view = file;
  EXPECT_THAT(wal::DecodeSegmentHeader(view.substr(0, wal::kSectorSize), &header), IsOk());
  EXPECT_THAT(wal::DecodeSegmentFooter(view.substr(view.size() - wal::kSectorSize), &footer), IsOk());
  EXPECT_NE(view.substr(view.size() - wal::kSectorSize), footer_before);
  EXPECT_EQ(wal::CheckFrame(view.substr(wal::kSectorSize), kSalt, &frame), wal::FrameCheck::kValid);
}

TEST(FixChecksumsTest, AFixedIndexIsJudgedByItsEntries) {
  std::string index = Flipped(ReadGolden("tests/golden/index_v1.hex"), 64);  // offset of entry 0
  const wal::IndexOwner owner{42, 42, kSalt, 1000};
  wal::IndexEntries entries;
  std::string what;
  ASSERT_FALSE(wal::DecodeIndex(index, owner, &entries, &what));
  EXPECT_THAT(what, HasSubstr("checksum"));
  FixIndex(absl::MakeSpan(index));
  ASSERT_FALSE(wal::DecodeIndex(index, owner, &entries, &what));
  EXPECT_THAT(what, HasSubstr("contradict"));
}

TEST(FixChecksumsTest, AFixedCopyIsWhole) {
  std::string copy = Flipped(ReadGolden("tests/golden/two_copy_v1.hex"), 33);  // payload
  const auto state = [&] {
    test::SimFileSystem fs;
    fs.SetContents("d/x.a", copy);
    TwoCopyFile file(fs, "d", "x", 0x314c5443574f5400ull, 64);
    TwoCopyImage image;
    const absl::StatusOr<TwoCopyState> loaded = file.Load(&image);
    EXPECT_THAT(loaded, IsOk());
    return *loaded;
  };
  ASSERT_EQ(state(), TwoCopyState::kDamaged);
  FixTwoCopy(absl::MakeSpan(copy));
  EXPECT_EQ(state(), TwoCopyState::kValid);
}

TEST(FixChecksumsTest, AFixedRdbStreamIsReadToItsEnd) {
  std::string stream = ReadGolden("tests/golden/rdb_v9.hex");
  const size_t value = stream.find("one");
  ASSERT_NE(value, std::string::npos);
  stream = Flipped(stream, value);
  const auto last = [&]() -> absl::Status {
    RdbReaderOptions options;
    options.require_checksum = true;
    RdbReader reader(options);
    reader.Feed(stream);
    while (true) {
      const absl::StatusOr<RdbEvent> event = reader.Next();
      if (!event.ok()) return event.status();
      if (event->kind == RdbEvent::Kind::kEnd) return absl::OkStatus();
      if (event->kind == RdbEvent::Kind::kNeedMore) return absl::OutOfRangeError("cut");
    }
  };
  ASSERT_THAT(last(), Not(IsOk()));
  FixRdb(absl::MakeSpan(stream));
  EXPECT_THAT(last(), IsOk());
}

}  // namespace
}  // namespace towline::fuzz
