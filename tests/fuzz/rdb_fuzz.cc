// RDB streams from a peer or a file: they are read the same however they are cut into pieces, and no claim of theirs
// makes the reader allocate. With skipping, what is not a string is reported and the strings are the same.
//
// Input: flags, the number of the first pieces' bytes, then the stream.

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "store/rdb_reader.h"
#include "tests/fuzz/allocation_meter.h"
#include "tests/fuzz/checksums.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/support/format_doc.h"

namespace towline::fuzz {
namespace {

constexpr size_t kPrefix = 3;
constexpr uint8_t kRequireChecksum = 1;
constexpr uint8_t kSkipOtherTypes = 2;
// Low, so that short inputs are beyond them.
constexpr uint64_t kKeyMax = 32;
constexpr uint64_t kValueMax = 200;
constexpr size_t kAuxNameMax = 64 << 10;  // of the reader
constexpr size_t kOverhead = 4096;

// What a reader made of a stream, in words.
struct Outcome {
  std::vector<std::string> events;
  std::string end;
  size_t largest = 0;
};

std::string Describe(const RdbEvent& event) {
  return absl::StrCat(static_cast<int>(event.kind), " ", event.expire_at_ms, " ", event.number, " ", event.key, "=",
                      event.value);
}

// Bytes of `stream`, `piece_bytes` at a time.
Outcome ReadStream(absl::string_view stream, size_t piece_bytes, uint8_t flags) {
  RdbReaderOptions options;
  options.key_bytes_max = kKeyMax;
  options.value_bytes_max = kValueMax;
  options.require_checksum = (flags & kRequireChecksum) != 0;
  options.skip_other_types = (flags & kSkipOtherTypes) != 0;
  RdbReader reader(options);
  Outcome outcome;
  const size_t size = stream.size();
  while (true) {
    absl::StatusOr<RdbEvent> event = RdbEvent();
    {
      AllocationMeter meter;
      event = reader.Next();
      outcome.largest = std::max(outcome.largest, meter.largest());
    }
    FUZZ_EXPECT(reader.offset() <= size, absl::StrCat(reader.offset()));
    if (!event.ok()) {
      outcome.end = GetErrorInfo(event.status()).reason;
      FUZZ_EXPECT(outcome.end == "rdb_malformed" || outcome.end == "rdb_version_unsupported" ||
                      outcome.end == "rdb_type_unsupported",
                  event.status().ToString());
      return outcome;
    }
    if (event->kind == RdbEvent::Kind::kNeedMore) {
      if (stream.empty()) {
        outcome.end = "cut";
        return outcome;
      }
      const absl::string_view piece = stream.substr(0, piece_bytes);
      stream.remove_prefix(piece.size());
      reader.Feed(piece);
      continue;
    }
    outcome.events.push_back(Describe(*event));
    if (event->kind == RdbEvent::Kind::kEntry) {
      FUZZ_EXPECT(event->key.size() <= kKeyMax && event->value.size() <= kValueMax, "a string beyond the limit");
    }
    if (event->kind == RdbEvent::Kind::kOther) {
      FUZZ_EXPECT(options.skip_other_types, "something was skipped that should have been refused");
      FUZZ_EXPECT(event->key.size() <= kKeyMax, "a key beyond the limit");
    }
    if (event->kind == RdbEvent::Kind::kEnd) {
      outcome.end = "end";
      return outcome;
    }
  }
}

// A reader that does not skip finds the same up to the first thing that is not a string.
void CheckWithoutSkipping(const std::string& stream, uint8_t flags, const Outcome& skipping) {
  const Outcome strict = ReadStream(stream, std::max<size_t>(stream.size(), 1), flags & ~kSkipOtherTypes);
  const auto is_other = [](const std::string& event) {
    return absl::StartsWith(event, absl::StrCat(static_cast<int>(RdbEvent::Kind::kOther), " "));
  };
  const auto other = std::find_if(skipping.events.begin(), skipping.events.end(), is_other);
  FUZZ_EXPECT(strict.events == std::vector<std::string>(skipping.events.begin(), other), "other strings");
  const bool same_end = other == skipping.events.end() && strict.end == skipping.end;
  FUZZ_EXPECT(same_end || strict.end == "rdb_type_unsupported", absl::StrCat(strict.end, ", not ", skipping.end));
}

void Run(Input& input) {
  const uint8_t flags = input.U8();
  const size_t piece = 1 + input.U16() % 300;
  const std::string stream(input.Rest());
  const Outcome whole = ReadStream(stream, std::max<size_t>(stream.size(), 1), flags);
  // What was fed, doubled when it is kept for the next piece, and the largest string that is decompressed.
  const size_t most = 2 * stream.size() + 2 * kAuxNameMax + kOverhead;
  FUZZ_EXPECT(whole.largest <= most, absl::StrCat("an allocation of ", whole.largest));
  if ((flags & kSkipOtherTypes) != 0) CheckWithoutSkipping(stream, flags, whole);
  for (const size_t bytes : {piece, size_t{1}}) {
    const Outcome pieces = ReadStream(stream, bytes, flags);
    FUZZ_EXPECT(pieces.events == whole.events, absl::StrCat("pieces of ", bytes, " give other events"));
    FUZZ_EXPECT(pieces.end == whole.end, absl::StrCat("pieces of ", bytes, ": ", pieces.end, ", not ", whole.end));
    FUZZ_EXPECT(pieces.largest <= most, absl::StrCat("an allocation of ", pieces.largest));
  }
}

}  // namespace

void FixInput(absl::Span<char> input) {
  if (input.size() > kPrefix) FixRdb(input.subspan(kPrefix));
}

std::vector<Seed> Seeds() {
  const std::string golden = test::ReadGolden("tests/golden/rdb_v9.hex");
  const auto seed = [](uint8_t flags, const std::string& stream) {
    return std::string(1, static_cast<char>(flags)) + std::string("\x09\x00", 2) + stream;
  };
  const auto fixed = [](std::string stream) {
    stream += std::string("\xff", 1) + std::string(8, '\0');
    FixRdb(absl::MakeSpan(stream));
    return stream;
  };
  // Each encoding of a string, expiries in both units, the hints of a cache.
  const std::string entries = std::string("REDIS0009\xfe\x00\xfb\x03\x01", 14) +
                              std::string("\xfd\x01\x02\x03\x04", 5) + std::string("\x00\x01k\x01v", 5) +
                              std::string("\xfc\1\2\3\4\5\6\7\x08", 9) + std::string("\x00\xc0\x7b\xc1\x39\x30", 6) +
                              std::string("\xf8\x05\xf9\x07", 4) + std::string("\x00\x02kk\xc2\x15\xcd\x5b\x07", 9);
  const std::string lzf =
      std::string("REDIS0011\x00\x01z", 12) + std::string("\xc3\x04\x0a\x00x\xe0\x00", 7) + std::string("\x00", 1);
  const std::string lengths =
      std::string("VALKEY080\x00\x40\x01k\x80\0\0\0\x01v", 19) + std::string("\x00\x01m\x81\0\0\0\0\0\0\0\x01w", 13);
  const std::string long_strings =
      std::string("REDIS0009\x00\x20", 11) + std::string(32, 'k') + std::string("\x40\xc8", 2) + std::string(200, 'v');
  // One of each layout: a function, slots, a list, sets, hashes, a quicklist and a module; a stream with a group.
  const std::string others = "REDIS0012" + absl::HexStringToBytes(
                                               "f5036c6962f4010200"
                                               "01016c020178c005"
                                               "03017a0201780131"
                                               "0179fe"
                                               "05015a010178" +
                                               std::string(16, '3') +
                                               "040168010178"
                                               "0179"
                                               "12017101020178"
                                               "18016d" +
                                               std::string(16, '1') +
                                               "010201780179"
                                               "07014d090105050178"
                                               "03"
                                               "61626364"
                                               "00");
  const std::string stream_type = "REDIS0011" + absl::HexStringToBytes(
                                                    "1501730101"
                                                    "6b026162"
                                                    "0102030405060708"
                                                    "010167010203"
                                                    "01" +
                                                    std::string(48, '7') +
                                                    "070101"
                                                    "63" +
                                                    std::string(32, '5') + "01" + std::string(32, '7'));
  const std::string valkey = "VALKEY080" + absl::HexStringToBytes(
                                               "f3016a010102"
                                               "1601680101780179" +
                                               std::string(16, 'f'));
  return {{"golden", seed(kRequireChecksum, golden)},
          {"golden_skipping", seed(kRequireChecksum | kSkipOtherTypes, golden)},
          {"others", seed(kRequireChecksum | kSkipOtherTypes, fixed(others))},
          {"stream_type", seed(kRequireChecksum | kSkipOtherTypes, fixed(stream_type))},
          {"valkey", seed(kSkipOtherTypes, fixed(valkey))},
          {"others_refused", seed(0, fixed(others))},
          {"longest_strings", seed(0, fixed(long_strings))},
          {"entries", seed(0, fixed(entries))},
          {"lzf", seed(0, fixed(lzf))},
          {"lengths", seed(0, fixed(lengths))},
          {"cut", seed(0, golden.substr(0, golden.size() / 2))},
          {"no_checksum", seed(0, entries + std::string("\xff", 1) + std::string(8, '\0'))}};
}

}  // namespace towline::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  towline::fuzz::Input input(data, size);
  towline::fuzz::Run(input);
  return 0;
}
