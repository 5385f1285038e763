// Encoding, decoding and grouping of frames. Golden bytes are in format_test.cc.

#include "wal/frame.h"

#include <functional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/bytes.h"
#include "common/checksum.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/seeded_rng.h"
#include "tests/support/status_matchers.h"
#include "wal/local_frame.h"

namespace towline::wal {
namespace {

using ::testing::ElementsAre;
using ::towline::test::IsOk;
using ::towline::test::IsOkAndHolds;
using ::towline::test::ReasonIs;
using ::towline::test::SeededRng;
using ::towline::test::StatusIs;

const LogEnd kStart{100, 2, 0xabcdef, 5000};

std::string Payload(size_t size) { return std::string(size, 'p'); }

// One shipped part that follows kStart.
std::string Shipped(absl::string_view payload, Term term = 2, int64_t now_us = 6000) {
  GroupBuilder builder(kStart);
  builder.Add(RecordType::kBatch, term, now_us, payload, Crc32c(payload));
  return std::string(builder.Finish()->shipped(0));
}

// Offsets within the shipped part.
constexpr size_t kType = 0;
constexpr size_t kFlags = 1;
constexpr size_t kReserved = 2;
constexpr size_t kLength = 4;

TEST(GroupBuilderTest, NumbersAndChainsRecords) {
  GroupBuilder builder(kStart);
  EXPECT_TRUE(builder.empty());
  EXPECT_EQ(builder.end(), kStart);
  EXPECT_EQ(builder.Add(RecordType::kTermStart, 3, 7000, "a", Crc32c("a")), 101u);
  EXPECT_EQ(builder.Add(RecordType::kBatch, 3, 6000, "", 0), 102u);  // the clock fell back
  EXPECT_EQ(builder.Add(RecordType::kMembers, 3, 8000, Payload(20), Crc32c(Payload(20))), 103u);
  EXPECT_EQ(builder.bytes(), 64u + 56u + 80u);
  const std::shared_ptr<FrameGroup> group = builder.Finish();
  EXPECT_EQ(group->before, kStart);
  EXPECT_EQ(group->first_lsn(), 101u);
  EXPECT_EQ(group->last_lsn(), 103u);
  ASSERT_EQ(group->frames.size(), 3u);
  EXPECT_EQ(group->payload(0), "a");
  EXPECT_EQ(group->payload(1), "");
  EXPECT_EQ(group->payload(2), Payload(20));

  uint64_t chain = kStart.chain;
  std::vector<int64_t> times;
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(group->frames[i].offset % 8, 0u);
    TOWLINE_ASSERT_OK_AND_ASSIGN(const ShippedFrame frame, DecodeShipped(group->shipped(i)));
    EXPECT_EQ(frame.header.lsn, 101 + i);
    EXPECT_EQ(frame.header.term, 3u);
    EXPECT_EQ(frame.header.prev_chain, chain);
    times.push_back(frame.header.commit_time_us);
    chain = frame.chain();
    EXPECT_EQ(chain, Xxh3(group->shipped(i)));
  }
  EXPECT_THAT(times, ElementsAre(7000, 7000, 8000));
  EXPECT_EQ(group->after, (LogEnd{103, 3, chain, 8000}));

  // The builder goes on behind it.
  EXPECT_TRUE(builder.empty());
  EXPECT_EQ(builder.end(), group->after);
  EXPECT_EQ(builder.Add(RecordType::kBatch, 3, 1, "b", Crc32c("b")), 104u);
}

TEST(GroupBuilderTest, TakesWhatAnotherBuilderMade) {
  GroupBuilder primary(kStart);
  for (size_t size = 0; size < 100; ++size) {
    primary.Add(RecordType::kBatch, 2, static_cast<int64_t>(size), Payload(size), Crc32c(Payload(size)));
  }
  const std::shared_ptr<FrameGroup> group = primary.Finish();
  std::string wire;
  for (size_t i = 0; i < group->frames.size(); ++i) wire += std::string(group->shipped(i));

  GroupBuilder replica(kStart);
  for (absl::string_view rest = wire; !rest.empty();) {
    TOWLINE_ASSERT_OK_AND_ASSIGN(const size_t taken, replica.AddShipped(rest));
    rest.remove_prefix(taken);
  }
  const std::shared_ptr<FrameGroup> copy = replica.Finish();
  EXPECT_EQ(copy->bytes, group->bytes);
  EXPECT_EQ(copy->after, group->after);
}

TEST(GroupBuilderTest, RefusesWhatDoesNotFollowAndAddsNothing) {
  const std::string good = Shipped("payload");
  const auto refused = [](const LogEnd& end, const std::string& bytes, const char* reason) {
    GroupBuilder builder(end);
    const absl::StatusOr<size_t> taken = builder.AddShipped(bytes);
    EXPECT_THAT(taken, StatusIs(absl::StatusCode::kDataLoss));
    EXPECT_THAT(taken, ReasonIs(reason));
    EXPECT_TRUE(builder.empty());
    EXPECT_EQ(builder.bytes(), 0u);
    EXPECT_EQ(builder.end(), end);
  };
  const auto changed = [](LogEnd end, const std::function<void(LogEnd&)>& change) {
    change(end);
    return end;
  };
  refused(changed(kStart, [](LogEnd& end) { end.lsn = 99; }), good, "lsn_gap");
  refused(changed(kStart, [](LogEnd& end) { end.lsn = 101; }), good, "lsn_gap");
  refused(changed(kStart, [](LogEnd& end) { end.chain ^= 1; }), good, "chain_mismatch");
  refused(changed(kStart, [](LogEnd& end) { end.term = 3; }), good, "bad_frame");
  refused(changed(kStart, [](LogEnd& end) { end.commit_time_us = 6001; }), good, "bad_frame");
  refused(kStart, good.substr(0, good.size() - 1), "bad_frame");
  refused(kStart, good.substr(0, 39), "bad_frame");
  refused(kStart, "", "bad_frame");
  std::string flipped = good;
  flipped.back() ^= 1;
  refused(kStart, flipped, "bad_frame");
}

// Whatever bit of a received frame is wrong, the frame is refused or, if the header alone differs in a way that no
// checksum on the wire covers, its chain gives it away.
TEST(GroupBuilderTest, EveryFlippedBitIsNoticedAtOnceOrByTheChain) {
  const std::string good = Shipped("payload");
  const uint64_t chain = Xxh3(good);
  for (size_t bit = 0; bit < good.size() * 8; ++bit) {
    std::string flipped = good;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
    GroupBuilder builder(kStart);
    const bool taken = builder.AddShipped(flipped).ok();
    EXPECT_TRUE(!taken || builder.end().chain != chain) << bit;
  }
}

TEST(GroupBuilderDeathTest, ATermNeverFalls) {
  GroupBuilder builder(kStart);
  EXPECT_DEATH(builder.Add(RecordType::kBatch, 1, 0, "", 0), "term");
  EXPECT_DEATH(builder.Finish(), "empty");
}

TEST(DecodeShippedTest, TellsCutFromBad) {
  const std::string good = Shipped(Payload(100));
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_THAT(DecodeShipped(good.substr(0, size)), StatusIs(absl::StatusCode::kOutOfRange));
  }
  const std::string more = good + "more";
  TOWLINE_ASSERT_OK_AND_ASSIGN(const ShippedFrame frame, DecodeShipped(more));
  EXPECT_EQ(frame.shipped, good);
}

TEST(DecodeShippedTest, ReservedBitsAndUnknownTypesAreRefused) {
  const std::string good = Shipped("x");
  const auto with = [&](size_t offset, char value) {
    std::string bytes = good;
    bytes[offset] = value;
    return DecodeShipped(bytes);
  };
  EXPECT_THAT(with(kFlags, 1), IsOk());
  EXPECT_THAT(with(kFlags, 2), ReasonIs("bad_frame"));
  EXPECT_THAT(with(kReserved, 1), ReasonIs("bad_frame"));
  EXPECT_THAT(with(kReserved + 1, 1), ReasonIs("bad_frame"));
  EXPECT_THAT(with(kType, 0), ReasonIs("bad_frame"));
  EXPECT_THAT(with(kType, 4), ReasonIs("bad_frame"));
  EXPECT_THAT(with(kType, 3), IsOk());
  std::string unknown = good;
  unknown[kType] = 77;
  unknown[kFlags] = 1;
  TOWLINE_ASSERT_OK_AND_ASSIGN(const ShippedFrame frame, DecodeShipped(unknown));
  EXPECT_EQ(static_cast<int>(frame.header.type), 77);
}

TEST(DecodeShippedTest, ALengthAboveTheLimitIsBadNotCut) {
  std::string bytes = Shipped("x");
  StoreLe<uint32_t>(bytes.data() + kLength, kPayloadSizeMax + 1);
  EXPECT_THAT(DecodeShipped(bytes), ReasonIs("bad_frame"));
  StoreLe<uint32_t>(bytes.data() + kLength, kPayloadSizeMax);
  EXPECT_THAT(DecodeShipped(bytes), StatusIs(absl::StatusCode::kOutOfRange));
}

TEST(DecodeShippedTest, NoiseIsNeverTakenForAFrame) {
  SeededRng rng(3);
  for (int i = 0; i < 20000; ++i) {
    std::string noise;
    for (uint64_t size = rng.Below(200); size > 0; --size) noise.push_back(static_cast<char>(rng.Next()));
    // Half of them with a header that is plausible up to its checksum.
    if (noise.size() > 40 && i % 2 == 0) {
      noise.replace(0, 4, std::string("\x01\0\0\0", 4));
      StoreLe<uint32_t>(noise.data() + kLength, static_cast<uint32_t>(rng.Below(noise.size())));
    }
    EXPECT_FALSE(DecodeShipped(noise).ok());
    GroupBuilder builder(kStart);
    EXPECT_FALSE(builder.AddShipped(noise).ok());
  }
}

TEST(ForEachShippedTest, StopsAtTheFirstError) {
  GroupBuilder builder(kStart);
  for (int i = 0; i < 3; ++i) builder.Add(RecordType::kBatch, 2, 0, "abc", Crc32c("abc"));
  const std::shared_ptr<FrameGroup> group = builder.Finish();
  std::string wire;
  for (size_t i = 0; i < 3; ++i) wire += std::string(group->shipped(i));
  std::vector<Lsn> seen;
  const auto note = [&](const ShippedFrame& frame) {
    seen.push_back(frame.header.lsn);
    return frame.header.lsn == 102 ? absl::AbortedError("enough") : absl::OkStatus();
  };
  EXPECT_THAT(ForEachShipped(wire, note), StatusIs(absl::StatusCode::kAborted));
  EXPECT_THAT(seen, ElementsAre(101, 102));
  seen.clear();
  EXPECT_THAT(ForEachShipped(wire.substr(0, 50), note), StatusIs(absl::StatusCode::kOutOfRange));
  EXPECT_THAT(seen, ElementsAre(101));
  EXPECT_THAT(ForEachShipped("", note), IsOk());
}

TEST(LocalFrameTest, EveryFlippedBitOfAFrameIsNoticed) {
  GroupBuilder builder(kStart);
  builder.Add(RecordType::kBatch, 2, 6000, "13 bytes long", Crc32c("13 bytes long"));
  std::string bytes = builder.Finish()->bytes;
  FillLocalPart(99, 7, bytes.data());
  LocalFrame frame;
  ASSERT_EQ(CheckFrame(bytes, 7, &frame), FrameCheck::kValid);
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    std::string flipped = bytes;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
    const FrameCheck expected = bit < 56 * 8 ? FrameCheck::kNoFrame : FrameCheck::kBadPayload;
    EXPECT_EQ(CheckFrame(flipped, 7, &frame), expected) << bit;
  }
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_EQ(CheckFrame(bytes.substr(0, size), 7, &frame), size < 56 ? FrameCheck::kNoFrame : FrameCheck::kCut);
  }
}

TEST(LocalFrameTest, OverheadIsAtMost63Bytes) {
  for (uint64_t size = 0; size < 100; ++size) {
    EXPECT_EQ(FrameSize(size) % 8, 0u);
    EXPECT_LE(FrameSize(size), size + 63);
    EXPECT_GE(FrameSize(size), size + 56);
  }
}

}  // namespace
}  // namespace towline::wal
