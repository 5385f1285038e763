// Tests of skipping what is not a string. The values are put together by hand from the layouts of Redis and Valkey
// (docs/formats/rdb_v9.md); tests/e2e/redis_dump_test.py holds the reader against files of a real server.

#include "store/rdb_skip.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

#include "common/checksum.h"
#include "store/rdb_format.h"
#include "store/rdb_reader.h"
#include "store/rdb_writer.h"
#include "tests/support/seeded_rng.h"
#include "tests/support/status_matchers.h"

namespace towline::test {
namespace {

using ::testing::HasSubstr;
using Kind = RdbEvent::Kind;

std::string Len(uint64_t length) {
  std::string out;
  RdbAppendLength(length, &out);
  return out;
}

std::string Str(absl::string_view text) { return absl::StrCat(Len(text.size()), text); }

// A string in each form that a server writes: plain, the three integers, LZF ("aaa...", 100 bytes).
std::vector<std::string> AnyStrings() {
  return {Str(""),
          Str("x"),
          Str(std::string(63, 'a')),
          Str(std::string(64, 'b')),
          Str(std::string(16383, 'c')),
          Str(std::string(16384, 'd')),
          absl::HexStringToBytes("c0ff"),
          absl::HexStringToBytes("c10080"),
          absl::HexStringToBytes("c2ffffff7f"),
          absl::HexStringToBytes("c305406401616161e0"),
          absl::StrCat("\xc3", Len(70), Len(4000), std::string(70, '\xff'))};
}

std::string Repeat(uint64_t count, const std::string& element) {
  std::string out = Len(count);
  for (uint64_t i = 0; i < count; ++i) out += element;
  return out;
}

struct Case {
  uint8_t type;
  std::string kind;
  std::string value;
  bool has_key = true;
  bool valkey = false;
};

// version 1, 2 or 3 of streams.
std::string Stream(int version, uint64_t listpacks, uint64_t groups, uint64_t pending) {
  const std::string id(16, '\xfe');
  const std::string time(8, '\xfd');
  std::string out = Repeat(listpacks, Str(id) + Str(std::string(300, 'p')));
  out += Len(70'000) + Len(1'700'000'000'000) + Len(3);
  if (version >= 2) out += Len(1'600'000'000'000) + Len(0) + Len(5) + Len(6) + Len(1'000'000);
  std::string group = Str("group") + Len(1'700'000'000'000) + Len(2);
  if (version >= 2) group += Len(12345);
  group += Repeat(pending, id + time + Len(20'000));
  group += Repeat(2, Str("consumer") + time + (version >= 3 ? time : "") + Repeat(pending, id));
  return out + Repeat(groups, group);
}

std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (const std::string& string : AnyStrings()) {
    cases.push_back({1, "list", Repeat(3, string)});
    cases.push_back({2, "set", Repeat(1, string)});
    cases.push_back(
        {3, "zset", Len(4) + string + "\x03" + "1.5" + string + "\xfd" + string + "\xfe" + string + "\xff"});
    cases.push_back({4, "hash", Repeat(2, string + string)});
    cases.push_back({5, "zset", Repeat(2, string + "\xff\xfe\xfd\xfc\xfb\xfa\xf9\xf8")});
    for (const uint8_t type : {9, 13, 16, 23}) cases.push_back({type, "hash", string});
    for (const uint8_t type : {10}) cases.push_back({type, "list", string});
    for (const uint8_t type : {11, 20}) cases.push_back({type, "set", string});
    for (const uint8_t type : {12, 17}) cases.push_back({type, "zset", string});
    cases.push_back({14, "list", Repeat(3, string)});
    cases.push_back({18, "list", Len(2) + Len(1) + string + Len(2) + string});
    cases.push_back({22, "hash", Repeat(2, Len(1 << 20) + string + string)});
    cases.push_back({22, "hash", Repeat(2, string + string + std::string(8, '\xff')), true, true});
    cases.push_back({24, "hash", std::string(8, '\x01') + Repeat(2, Len(0) + string + string)});
    cases.push_back({25, "hash", std::string(8, '\xff') + string});
    cases.push_back({7, "module",
                     Len(uint64_t{1} << 60) + Len(5) + string + Len(1) + Len(7) + Len(2) + Len(1 << 30) + Len(3) +
                         "\xff\xff\xff\xff" + Len(4) + std::string(8, '\xff') + Len(0)});
    cases.push_back({0xf7, "module_aux", Len(uint64_t{1} << 60) + Len(2) + Len(1) + Len(5) + string + Len(0), false});
    cases.push_back({0xf5, "function", string, false});
    cases.push_back({0xf3, "slot_import", string + Repeat(2, Len(5) + Len(16383)), false, true});
  }
  cases.push_back({1, "list", Len(0)});
  cases.push_back({4, "hash", Len(0)});
  cases.push_back({7, "module", Len(1) + Len(0)});
  cases.push_back({0xf4, "slot_info", Len(16383) + Len(100'000) + Len(0), false});
  for (const auto& [type, version] : std::vector<std::pair<uint8_t, int>>{{15, 1}, {19, 2}, {21, 3}}) {
    cases.push_back({type, "stream", Stream(version, 0, 0, 0)});
    cases.push_back({type, "stream", Stream(version, 2, 0, 0)});
    cases.push_back({type, "stream", Stream(version, 1, 1, 0)});
    cases.push_back({type, "stream", Stream(version, 3, 2, 70)});
  }
  return cases;
}

// A stream with `value` between two strings.
std::string StreamWith(const Case& c) {
  std::string stream = c.valkey ? "VALKEY080" : "REDIS0012";
  RdbAppendEntry("before", "1", 0, &stream);
  if (c.has_key) stream += absl::HexStringToBytes("fc0807060504030201");
  stream.push_back(static_cast<char>(c.type));
  if (c.has_key) stream += Str("the key");
  stream += c.value;
  RdbAppendEntry("behind", "2", 0, &stream);
  RdbAppendEof(Crc64JonesExtend(0, stream), &stream);
  return stream;
}

std::string Describe(const RdbEvent& event) {
  return absl::StrCat(static_cast<int>(event.kind), " ", event.key, "=", event.value, " ", event.expire_at_ms, " ",
                      event.number);
}

std::vector<std::string> Expected(const Case& c) {
  RdbEvent other;
  other.kind = Kind::kOther;
  if (c.has_key) other.key = "the key";
  other.value = c.kind;
  other.expire_at_ms = c.has_key ? 0x0102030405060708 : 0;
  other.number = c.has_key ? 1 : 0;
  RdbEvent before{Kind::kEntry, "before", "1", 0, 0};
  RdbEvent behind{Kind::kEntry, "behind", "2", 0, 0};
  RdbEvent end{Kind::kEnd, "", "", 0, 0};
  return {Describe(before), Describe(other), Describe(behind), Describe(end)};
}

RdbReaderOptions Skipping() {
  RdbReaderOptions options;
  options.skip_other_types = true;
  options.require_checksum = true;
  return options;
}

// Reads `stream` in pieces of the sizes that `next_size` gives.
template <typename NextSize>
absl::StatusOr<std::vector<std::string>> ReadPieces(const std::string& stream, NextSize next_size) {
  RdbReader reader(Skipping());
  std::vector<std::string> events;
  std::string piece;
  size_t fed = 0;
  for (;;) {
    TOWLINE_ASSIGN_OR_RETURN(const RdbEvent event, reader.Next());
    if (event.kind != Kind::kNeedMore) {
      events.push_back(Describe(event));
      if (event.kind == Kind::kEnd) return events;
      continue;
    }
    if (fed == stream.size()) return absl::OutOfRangeError("cut short");
    piece = stream.substr(fed, next_size());
    fed += piece.size();
    reader.Feed(piece);
  }
}

TEST(RdbSkip, EveryTypeIsSkippedWhole) {
  for (const Case& c : Cases()) {
    EXPECT_THAT(ReadPieces(StreamWith(c), [] { return SIZE_MAX; }), IsOkAndHolds(Expected(c)))
        << int{c.type} << " " << absl::BytesToHexString(c.value.substr(0, 40));
  }
}

TEST(RdbSkip, CutAtEveryByteItIsTheSame) {
  for (const Case& c : Cases()) {
    const std::string stream = StreamWith(c);
    ASSERT_THAT(ReadPieces(stream, [] { return size_t{1}; }), IsOkAndHolds(Expected(c))) << int{c.type};
    if (stream.size() > 1000) continue;
    for (size_t cut = 1; cut < stream.size(); ++cut) {
      size_t next = cut;
      ASSERT_THAT(ReadPieces(stream, [&] { return std::exchange(next, SIZE_MAX); }), IsOkAndHolds(Expected(c)))
          << int{c.type} << " cut at " << cut;
      ASSERT_THAT(ReadPieces(stream.substr(0, cut), [] { return SIZE_MAX; }), StatusIs(absl::StatusCode::kOutOfRange))
          << int{c.type} << " ends at " << cut;
    }
  }
}

TEST(RdbSkip, CutAtRandomItIsTheSame) {
  SeededRng rng(7);
  for (const Case& c : Cases()) {
    const std::string stream = StreamWith(c);
    for (int i = 0; i < 10; ++i) {
      const uint64_t most = 1 + rng.Below(rng.OneIn(2) ? 20 : 20'000);
      ASSERT_THAT(ReadPieces(stream, [&] { return 1 + rng.Below(most); }), IsOkAndHolds(Expected(c))) << int{c.type};
    }
  }
}

// A list of 4 GiB goes by in pieces of 1 MiB.
TEST(RdbSkip, AHugeValueIsNotHeld) {
  RdbReader reader(Skipping());
  std::string head(kRdbMagic);
  head.push_back(1);
  head += Str("k") + Len(4);
  reader.Feed(head);
  EXPECT_EQ(reader.Next()->kind, Kind::kNeedMore);
  const std::string piece(1 << 20, '\x5a');
  uint64_t fed = head.size();
  for (int element = 0; element < 4; ++element) {
    const std::string length = Len(uint64_t{1} << 30);
    reader.Feed(length);
    fed += length.size();
    ASSERT_EQ(reader.Next()->kind, Kind::kNeedMore);
    for (int i = 0; i < 1024; ++i) {
      reader.Feed(piece);
      fed += piece.size();
      ASSERT_THAT(reader.Next(), IsOk());
      ASSERT_EQ(reader.offset(), fed) << "all of it was taken, so that nothing is kept";
    }
  }
}

TEST(RdbSkip, WhatCannotBeSkippedIsNamed) {
  for (const auto& [type, name] : std::vector<std::pair<int, std::string>>{
           {6, "module"}, {8, "unknown"}, {26, "unknown"}, {0xf6, "function_pre_release"}, {0xf3, "unknown"}}) {
    const std::string stream = absl::StrCat("REDIS0012", std::string(1, static_cast<char>(type)), "\x01k\x01v");
    const auto events = ReadPieces(stream, [] { return SIZE_MAX; });
    EXPECT_THAT(events, ReasonIs("rdb_type_unsupported"));
    EXPECT_THAT(events.status().message(), HasSubstr(absl::StrCat(name, " (type ", type, ") at byte 9")));
  }
}

TEST(RdbSkip, FaultsInASkippedValueAreFound) {
  const std::string head("REDIS0012");
  for (const absl::string_view hex : {
           "01016b"
           "c0",  // a list whose count is an integer
           "01016b"
           "01c4",  // an element in an encoding that nobody knows
           "01016b"
           "82",  // a length likewise
           "07016b"
           "0106",  // an item of a module likewise
           "12016b"
           "01c0",  // a container that is a string
       }) {
    EXPECT_THAT(ReadPieces(absl::StrCat(head, absl::HexStringToBytes(hex)), [] { return SIZE_MAX; }),
                ReasonIs("rdb_malformed"))
        << hex;
    EXPECT_THAT(ReadPieces(absl::StrCat(head, absl::HexStringToBytes(hex)), [] { return size_t{1}; }),
                ReasonIs("rdb_malformed"))
        << hex;
  }
}

TEST(RdbSkip, EveryFlippedBitIsNoticed) {
  const Case c{21, "stream", Stream(3, 1, 1, 1)};
  const std::string stream = StreamWith(c);
  for (size_t bit = 0; bit < stream.size() * 8; ++bit) {
    std::string damaged = stream;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
    EXPECT_FALSE(ReadPieces(damaged, [] { return SIZE_MAX; }).ok()) << bit;
  }
}

// Counts of 2^64 - 1 of the smallest elements: the input ends first, and nothing is allocated for them.
TEST(RdbSkip, AClaimedCountAllocatesNothing) {
  for (const uint8_t type : {1, 4, 5, 14, 15, 18, 21, 22, 24}) {
    std::string stream = "REDIS0012";
    stream.push_back(static_cast<char>(type));
    stream += Str("k");
    if (type == 24) stream += std::string(8, '\0');
    stream += Len(UINT64_MAX) + std::string(1000, '\0');
    EXPECT_THAT(ReadPieces(stream, [] { return SIZE_MAX; }), StatusIs(absl::StatusCode::kOutOfRange)) << int{type};
  }
}

// Strings of every edge length and form, in random order, between skipped values, cut at random.
TEST(RdbSkip, StringsBetweenSkippedValuesComeBack) {
  SeededRng rng(11);
  const std::vector<Case> cases = Cases();
  const std::vector<size_t> edges = {0, 1, 62, 63, 64, 65, 255, 256, 16382, 16383, 16384, 16385, 65535, 65536, 65537};
  for (int round = 0; round < 20; ++round) {
    std::string stream = "REDIS0012";
    std::vector<std::string> expected;
    for (int i = 0; i < 60; ++i) {
      if (rng.OneIn(2)) {
        const Case& c = cases[rng.Below(cases.size())];
        if (c.valkey) continue;
        stream.push_back(static_cast<char>(c.type));
        if (c.has_key) stream += Str("the key");
        stream += c.value;
        RdbEvent other{Kind::kOther, c.has_key ? "the key" : "", c.kind, 0, c.has_key ? 1u : 0u};
        expected.push_back(Describe(other));
        continue;
      }
      const std::string key(edges[rng.Below(edges.size() - 1)], static_cast<char>('a' + rng.Below(26)));
      const std::string value(edges[rng.Below(edges.size())], static_cast<char>(rng.Below(256)));
      const uint64_t expire_at_ms = rng.OneIn(2) ? 0 : 1 + rng.Below(UINT64_MAX);
      RdbAppendEntry(key, value, expire_at_ms, &stream);
      expected.push_back(Describe({Kind::kEntry, key, value, expire_at_ms, 0}));
    }
    RdbAppendEof(Crc64JonesExtend(0, stream), &stream);
    expected.push_back(Describe({Kind::kEnd, "", "", 0, 0}));
    const uint64_t most = 1 + rng.Below(rng.OneIn(2) ? 30 : 100'000);
    ASSERT_THAT(ReadPieces(stream, [&] { return 1 + rng.Below(most); }), IsOkAndHolds(expected)) << round;
  }
}

}  // namespace
}  // namespace towline::test
