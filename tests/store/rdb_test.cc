// Tests of the RDB writer and reader on byte strings; redis_test.cc holds them against a real Redis.

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

#include "common/checksum.h"
#include "store/rdb_cursor.h"
#include "store/rdb_format.h"
#include "store/rdb_reader.h"
#include "store/rdb_writer.h"
#include "tests/support/seeded_rng.h"
#include "tests/support/status_matchers.h"

namespace towline::test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Kind = RdbEvent::Kind;

// An event that owns its strings.
struct Item {
  Kind kind = Kind::kNeedMore;
  std::string key;
  std::string value;
  uint64_t expire_at_ms = 0;
  uint64_t number = 0;

  friend bool operator==(const Item&, const Item&) = default;
};

// Reads a stream that is fed in pieces of `piece` bytes.
absl::StatusOr<std::vector<Item>> ReadAll(absl::string_view stream, size_t piece = SIZE_MAX,
                                          RdbReaderOptions options = {}) {
  RdbReader reader(options);
  std::vector<Item> items;
  size_t fed = 0;
  for (;;) {
    const absl::StatusOr<RdbEvent> event = reader.Next();
    if (!event.ok()) return event.status();
    if (event->kind == Kind::kNeedMore) {
      if (fed == stream.size()) return absl::OutOfRangeError("cut short");
      // A copy that goes away: what the reader still needs it must have kept.
      const std::string next(stream.substr(fed, piece));
      fed += next.size();
      reader.Feed(next);
      for (;;) {
        const absl::StatusOr<RdbEvent> inner = reader.Next();
        if (!inner.ok()) return inner.status();
        if (inner->kind == Kind::kNeedMore) break;
        items.push_back(
            {inner->kind, std::string(inner->key), std::string(inner->value), inner->expire_at_ms, inner->number});
        if (inner->kind == Kind::kEnd) return items;
      }
    }
  }
}

std::string WithEof(std::string stream) {
  RdbAppendEof(Crc64JonesExtend(0, stream), &stream);
  return stream;
}

// A whole stream with one entry, whose key and value are given encoded.
std::string EncodedEntry(absl::string_view key, absl::string_view value) {
  return WithEof(absl::StrCat(kRdbMagic, std::string(1, '\0'), key, value));
}

std::string Hex(absl::string_view hex) { return absl::HexStringToBytes(hex); }

std::string SmallStream() {
  std::string stream(kRdbMagic);
  RdbAppendAux("name", "value", &stream);
  RdbAppendSelectDb(0, &stream);
  RdbAppendResizeDb(3, 1, &stream);
  RdbAppendEntry("a", "1", 0, &stream);
  RdbAppendEntry("b", std::string(70, 'x'), 1'700'000'000'123, &stream);
  RdbAppendEntry("", "", 0, &stream);
  return WithEof(stream);
}

std::vector<Item> SmallItems() {
  return {{Kind::kAux, "name", "value", 0, 0},
          {Kind::kSelectDb, "", "", 0, 0},
          {Kind::kResizeDb, "", "", 0, 3},
          {Kind::kEntry, "a", "1", 0, 0},
          {Kind::kEntry, "b", std::string(70, 'x'), 1'700'000'000'123, 0},
          {Kind::kEntry, "", "", 0, 0},
          {Kind::kEnd, "", "", 0, 0}};
}

TEST(RdbWriter, LengthsTakeTheShortestForm) {
  const std::vector<std::pair<uint64_t, std::string>> cases = {{0, "00"},
                                                               {1, "01"},
                                                               {63, "3f"},
                                                               {64, "4040"},
                                                               {255, "40ff"},
                                                               {16383, "7fff"},
                                                               {16384, "8000004000"},
                                                               {UINT32_MAX, "80ffffffff"},
                                                               {uint64_t{UINT32_MAX} + 1, "810000000100000000"}};
  for (const auto& [length, hex] : cases) {
    std::string out;
    RdbAppendLength(length, &out);
    EXPECT_EQ(absl::BytesToHexString(out), hex) << length;
  }
}

TEST(RdbWriter, AnEntryIsExpiryTypeKeyValue) {
  std::string out;
  RdbAppendEntry("k", "vv", 0, &out);
  RdbAppendEntry("k", "", 0x0102030405060708, &out);
  EXPECT_EQ(absl::BytesToHexString(out),
            "00016b027676"
            "fc0807060504030201"
            "00016b00");
}

TEST(RdbReader, ReadsWhatTheWriterWrote) { EXPECT_THAT(ReadAll(SmallStream()), IsOkAndHolds(SmallItems())); }

TEST(RdbReader, PiecesOfAnySizeGiveTheSame) {
  for (size_t piece = 1; piece < 120; ++piece) {
    ASSERT_THAT(ReadAll(SmallStream(), piece), IsOkAndHolds(SmallItems())) << piece;
  }
}

// At every boundary between two items another reader takes over, and finds the same rest and the same end.
TEST(RdbReader, AnotherReaderContinuesBehindAnyItem) {
  const std::string stream = SmallStream();
  const std::vector<Item> all = SmallItems();
  RdbReaderOptions options;
  options.require_checksum = true;
  for (size_t taken = 0; taken < all.size(); ++taken) {
    RdbReader first(options);
    // Before the first item only the magic is fed, so that it alone is taken.
    first.Feed(absl::string_view(stream).substr(0, taken == 0 ? kRdbMagicSize : stream.size()));
    for (size_t i = 0; i < std::max<size_t>(taken, 1); ++i) ASSERT_THAT(first.Next(), IsOk());
    const uint64_t offset = first.offset();
    ASSERT_EQ(first.crc(), Crc64JonesExtend(0, stream.substr(0, offset))) << taken;

    RdbReader second = RdbReader::Continue(options, offset, first.crc());
    EXPECT_EQ(second.offset(), offset);
    EXPECT_EQ(second.crc(), first.crc());
    const std::string rest = stream.substr(offset);
    second.Feed(rest);
    for (size_t i = taken; i < all.size(); ++i) {
      TOWLINE_ASSERT_OK_AND_ASSIGN(const RdbEvent event, second.Next());
      EXPECT_EQ((Item{event.kind, std::string(event.key), std::string(event.value), event.expire_at_ms, event.number}),
                all[i]);
    }
    EXPECT_EQ(second.offset(), stream.size());
  }
}

TEST(RdbReader, AContinuedStreamWithAnotherBeginningIsNoticed) {
  const std::string stream = SmallStream();
  RdbReader reader = RdbReader::Continue({}, stream.size() - 9, 1);
  reader.Feed(absl::string_view(stream).substr(stream.size() - 9));
  EXPECT_THAT(reader.Next(), ReasonIs("rdb_malformed"));
}

TEST(RdbReader, StringsOfEdgeLengthsComeBack) {
  for (const size_t size : {0, 1, 62, 63, 64, 65, 16382, 16383, 16384, 16385, 65536}) {
    std::string stream(kRdbMagic);
    const std::string text(size, '\xfe');
    RdbAppendEntry(text, text, 0, &stream);
    for (const size_t piece : {size_t{1000}, size_t{1} << 20}) {
      const auto items = ReadAll(WithEof(stream), piece);
      ASSERT_THAT(items, IsOk()) << size;
      EXPECT_EQ(items->at(0).key, text);
      EXPECT_EQ(items->at(0).value, text);
    }
  }
}

TEST(RdbReader, ReadsIntegersAsText) {
  const std::vector<std::pair<std::string, std::string>> cases = {{"c000", "0"},
                                                                  {"c0ff", "-1"},
                                                                  {"c080", "-128"},
                                                                  {"c10080", "-32768"},
                                                                  {"c1ff7f", "32767"},
                                                                  {"c2ffffff7f", "2147483647"},
                                                                  {"c200000080", "-2147483648"}};
  for (const auto& [hex, text] : cases) {
    const auto items = ReadAll(EncodedEntry(Hex("016b"), Hex(hex)));
    ASSERT_THAT(items, IsOk()) << hex;
    EXPECT_EQ(items->at(0).value, text);
  }
  // An integer key beside an integer value: both are held at once.
  const auto items = ReadAll(EncodedEntry(Hex("c005"), Hex("c006")));
  ASSERT_THAT(items, IsOk());
  EXPECT_EQ(items->at(0).key, "5");
  EXPECT_EQ(items->at(0).value, "6");
}

TEST(RdbReader, DecompressesLzf) {
  // Three literals, then a reference of 20 bytes back to the first: "abc" seven times, and two more.
  const std::string lzf =
      Hex("02616263"
          "e00b02");
  std::string plain;
  ASSERT_TRUE(LzfDecompress(lzf, 23, &plain));
  EXPECT_EQ(plain, "abcabcabcabcabcabcabcab");
  const auto items = ReadAll(EncodedEntry(Hex("016b"), absl::StrCat(Hex("c30717"), lzf)));
  ASSERT_THAT(items, IsOk());
  EXPECT_EQ(items->at(0).value, plain);
}

TEST(RdbReader, RefusesLzfThatDoesNotFit) {
  std::string plain;
  EXPECT_FALSE(LzfDecompress(Hex("02616263e00b02"), 22, &plain)) << "too long";
  EXPECT_FALSE(LzfDecompress(Hex("02616263e00b02"), 24, &plain)) << "too short";
  EXPECT_FALSE(LzfDecompress(Hex("0261"), 3, &plain)) << "literals cut short";
  EXPECT_FALSE(LzfDecompress(Hex("006120"), 4, &plain)) << "reference cut short";
  EXPECT_FALSE(LzfDecompress(Hex("0061e0"), 12, &plain)) << "reference cut before its length";
  EXPECT_FALSE(LzfDecompress(Hex("00612001"), 4, &plain)) << "reference before the start";
  EXPECT_TRUE(LzfDecompress("", 0, &plain));
  // A claim that no input of that size can hold.
  EXPECT_THAT(ReadAll(EncodedEntry(Hex("016b"), Hex("c30381"
                                                    "0000000010000000"
                                                    "006120"))),
              ReasonIs("rdb_malformed"));
}

TEST(RdbReader, ReadsWhatRedisPutsBetweenEntries) {
  std::string stream("REDIS0011");
  stream +=
      Hex("fe03"
          "fb8000000001"
          "00");  // database 3, sizes in a longer form than needed
  stream +=
      Hex("fd01000000"
          "f840ff"
          "00"
          "016b"
          "0176");  // expiry in seconds, idle time
  stream +=
      Hex("f907"
          "fce803000000000000"
          "00"
          "016c"
          "0177");  // frequency, expiry in milliseconds
  stream +=
      Hex("fc0000000000000000"
          "00"
          "016d"
          "0178");  // expired in 1970
  const auto items = ReadAll(WithEof(stream));
  ASSERT_THAT(items, IsOk());
  ASSERT_EQ(items->size(), 6u);
  EXPECT_EQ(items->at(0).number, 3u);
  EXPECT_EQ(items->at(1).number, 1u);
  EXPECT_EQ(items->at(2), (Item{Kind::kEntry, "k", "v", 1000, 0}));
  EXPECT_EQ(items->at(3), (Item{Kind::kEntry, "l", "w", 1000, 0}));
  EXPECT_EQ(items->at(4), (Item{Kind::kEntry, "m", "x", 1, 0}));
}

TEST(RdbReader, NamesATypeThatIsNotAString) {
  for (const auto& [type, name] : std::vector<std::pair<int, std::string>>{{1, "list"},
                                                                           {4, "hash"},
                                                                           {15, "stream_listpacks"},
                                                                           {18, "list_quicklist_2"},
                                                                           {0xf5, "function"},
                                                                           {99, "unknown"}}) {
    const auto items = ReadAll(absl::StrCat(kRdbMagic, std::string(1, static_cast<char>(type)), "\x01k\x01v"));
    EXPECT_THAT(items, ReasonIs("rdb_type_unsupported"));
    EXPECT_THAT(items.status().message(), HasSubstr(name));
  }
}

TEST(RdbReader, KnowsTheVersionsOfRedisAndValkey) {
  for (const char* magic : {"REDIS0005", "REDIS0009", "REDIS0010", "REDIS0012", "VALKEY080"}) {
    EXPECT_THAT(ReadAll(WithEof(magic)), IsOk()) << magic;
  }
  EXPECT_THAT(ReadAll("REDIS0003\xff"), IsOk()) << "no checksum before version 5";
  for (const char* magic : {"REDIS0000", "REDIS0013", "REDIS9999", "VALKEY012", "VALKEY099"}) {
    EXPECT_THAT(ReadAll(WithEof(magic)), ReasonIs("rdb_version_unsupported")) << magic;
  }
  for (const char* magic : {"RADIS0009", "REDIS00x9", "VALKEYx80", "REDIS-009", "123456789"}) {
    EXPECT_THAT(ReadAll(WithEof(magic)), StatusIs(absl::StatusCode::kDataLoss)) << magic;
  }
}

TEST(RdbReader, AStreamWithoutChecksumIsAMatterOfTheOption) {
  std::string stream = SmallStream();
  std::fill(stream.end() - 8, stream.end(), '\0');
  EXPECT_THAT(ReadAll(stream), IsOk());
  RdbReaderOptions strict;
  strict.require_checksum = true;
  EXPECT_THAT(ReadAll(stream, SIZE_MAX, strict), ReasonIs("rdb_malformed"));
}

TEST(RdbReader, EveryTruncationIsNoticed) {
  const std::string stream = SmallStream();
  for (size_t size = 0; size < stream.size(); ++size) {
    EXPECT_THAT(ReadAll(stream.substr(0, size)), StatusIs(absl::StatusCode::kOutOfRange)) << size;
  }
}

TEST(RdbReader, EveryFlippedBitIsNoticed) {
  RdbReaderOptions strict;
  strict.require_checksum = true;
  const std::string stream = SmallStream();
  for (size_t bit = 0; bit < stream.size() * 8; ++bit) {
    std::string damaged = stream;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
    EXPECT_FALSE(ReadAll(damaged, SIZE_MAX, strict).ok()) << bit;
  }
}

TEST(RdbReader, ClaimsBeyondTheLimitsAreRefusedBeforeTheirBytesCome) {
  RdbReaderOptions options;
  options.key_bytes_max = 100;
  options.value_bytes_max = 1000;
  const std::string head(kRdbMagic);
  EXPECT_THAT(ReadAll(absl::StrCat(head, Hex("00"
                                             "4065"))),
              StatusIs(absl::StatusCode::kOutOfRange))
      << "default limits";
  EXPECT_THAT(ReadAll(absl::StrCat(head, Hex("00"
                                             "4065")),
                      SIZE_MAX, options),
              ReasonIs("rdb_malformed"));
  EXPECT_THAT(ReadAll(absl::StrCat(head, Hex("00"
                                             "016b"
                                             "43e9")),
                      SIZE_MAX, options),
              ReasonIs("rdb_malformed"));
  EXPECT_THAT(ReadAll(absl::StrCat(head, Hex("00"
                                             "016b"
                                             "81ffffffffffffffff"))),
              ReasonIs("rdb_malformed"));
  EXPECT_THAT(ReadAll(absl::StrCat(head, Hex("fa"
                                             "81ffffffffffffffff"))),
              ReasonIs("rdb_malformed"));
  EXPECT_THAT(ReadAll(absl::StrCat(head, Hex("00"
                                             "016b"
                                             "c3"
                                             "81ffffffffffffffff"
                                             "01"))),
              ReasonIs("rdb_malformed"));
}

TEST(RdbReader, RepeatedModifiersAreRefused) {
  const std::string head(kRdbMagic);
  EXPECT_THAT(ReadAll(absl::StrCat(head, Hex("fc0100000000000000"
                                             "fc0100000000000000"))),
              ReasonIs("rdb_malformed"));
  EXPECT_THAT(ReadAll(absl::StrCat(head, Hex("fc0100000000000000"
                                             "fd01000000"))),
              ReasonIs("rdb_malformed"));
  EXPECT_THAT(ReadAll(absl::StrCat(head, Hex("f801"
                                             "f902"))),
              ReasonIs("rdb_malformed"));
}

TEST(RdbReader, UnknownEncodingsAreRefused) {
  EXPECT_THAT(ReadAll(EncodedEntry(Hex("016b"), Hex("c4"))), ReasonIs("rdb_malformed"));
  EXPECT_THAT(ReadAll(EncodedEntry(Hex("016b"), Hex("82"))), ReasonIs("rdb_malformed"));
  EXPECT_THAT(ReadAll(absl::StrCat(kRdbMagic, Hex("fec0"))), ReasonIs("rdb_malformed"))
      << "an encoded number as length";
}

// Random bytes behind a valid head: whatever they are, the reader ends with an error or the end, and memory stays
// small.
TEST(RdbReader, GarbageNeverCrashes) {
  SeededRng rng(1);
  for (int i = 0; i < 20000; ++i) {
    std::string stream(kRdbMagic);
    for (uint64_t size = rng.Below(60); size > 0; --size) {
      static constexpr uint8_t kLikely[] = {0x00, 0x01, 0x40, 0x80, 0x81, 0xc0, 0xc3, 0xfa, 0xfb, 0xfc, 0xfe, 0xff};
      stream.push_back(static_cast<char>(rng.OneIn(2) ? kLikely[rng.Below(std::size(kLikely))] : rng.Below(256)));
    }
    ReadAll(stream, 1 + rng.Below(30)).status().IgnoreError();
  }
}

TEST(RdbReader, ReadingBeyondTheEndIsAnError) {
  RdbReader reader({});
  const std::string stream = WithEof(std::string(kRdbMagic));
  reader.Feed(stream);
  TOWLINE_ASSERT_OK_AND_ASSIGN(const RdbEvent end, reader.Next());
  EXPECT_EQ(end.kind, Kind::kEnd);
  EXPECT_EQ(reader.offset(), stream.size());
  EXPECT_EQ(reader.version(), 9u);
  EXPECT_THAT(reader.Next(), ReasonIs("rdb_malformed"));
}

}  // namespace
}  // namespace towline::test
