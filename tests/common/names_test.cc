#include "common/names.h"

#include <limits>
#include <string>

#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"

namespace towline {
namespace {

using test::IsOk;
using test::IsOkAndHolds;
using test::ReasonIs;
using ::testing::HasSubstr;

TEST(NamesTest, NamesAreLowerCaseDigitsUnderscoreAndDash) {
  for (const char* name : {"a", "0", "p1", "replica-eu_2", "0-_"}) EXPECT_THAT(ValidateName("node", name), IsOk());
  EXPECT_THAT(ValidateName("node", std::string(63, 'a')), IsOk());

  for (const char* name : {"", "-a", "_a", "A", "aB", "a.b", "a/b", "..", "a b", "\xc3\xa4", "a\n"}) {
    EXPECT_THAT(ValidateName("node", name), ReasonIs("invalid_name")) << name;
  }
  EXPECT_THAT(ValidateName("node", std::string(64, 'a')), ReasonIs("invalid_name"));
  EXPECT_THAT(ValidateName("node", absl::string_view("a\0", 2)), ReasonIs("invalid_name"));
}

TEST(NamesTest, RefusalNamesTheFieldAndTheValueWithoutControlBytes) {
  EXPECT_THAT(std::string(ValidateName("slot name", "a\x1b[2J").message()), HasSubstr("slot name \"a\\x1b[2J\""));
}

TEST(NamesTest, SizesNeedAUnit) {
  EXPECT_THAT(ParseBytes("0"), IsOkAndHolds(0u));
  EXPECT_THAT(ParseBytes("512B"), IsOkAndHolds(512u));
  EXPECT_THAT(ParseBytes("10GB"), IsOkAndHolds(10000000000u));
  EXPECT_THAT(ParseBytes("1KiB"), IsOkAndHolds(1024u));
  EXPECT_THAT(ParseBytes("64MiB"), IsOkAndHolds(uint64_t{64} << 20));
  EXPECT_THAT(ParseBytes("2TiB"), IsOkAndHolds(uint64_t{2} << 40));
  EXPECT_THAT(ParseBytes("0MiB"), IsOkAndHolds(0u));
  for (const char* text : {"", "64", "MiB", "-1B", "+1B", "1.5GiB", "64 MiB", "64mib", "64MiBs", " 1B", "0x1B"}) {
    EXPECT_THAT(ParseBytes(text), ReasonIs("invalid_size")) << text;
  }
}

TEST(NamesTest, SizesThatDoNotFitAreRefused) {
  EXPECT_THAT(ParseBytes("18446744073709551615B"), IsOkAndHolds(std::numeric_limits<uint64_t>::max()));
  EXPECT_THAT(ParseBytes("18446744073709551616B"), ReasonIs("invalid_size"));
  EXPECT_THAT(ParseBytes("16777215TiB"), IsOkAndHolds(uint64_t{16777215} << 40));
  EXPECT_THAT(ParseBytes("16777216TiB"), ReasonIs("invalid_size"));
}

TEST(NamesTest, DurationsNeedAUnit) {
  EXPECT_THAT(ParseDurationMicros("0"), IsOkAndHolds(0));
  EXPECT_THAT(ParseDurationMicros("500us"), IsOkAndHolds(500));
  EXPECT_THAT(ParseDurationMicros("250ms"), IsOkAndHolds(250000));
  EXPECT_THAT(ParseDurationMicros("10s"), IsOkAndHolds(10000000));
  EXPECT_THAT(ParseDurationMicros("5m"), IsOkAndHolds(300000000));
  EXPECT_THAT(ParseDurationMicros("24h"), IsOkAndHolds(86400000000));
  EXPECT_THAT(ParseDurationMicros("7d"), IsOkAndHolds(604800000000));
  for (const char* text : {"", "10", "s", "-1s", "1.5s", "1 s", "1S", "1min"}) {
    EXPECT_THAT(ParseDurationMicros(text), ReasonIs("invalid_duration")) << text;
  }
  EXPECT_THAT(ParseDurationMicros("106751991d"), IsOkAndHolds(int64_t{106751991} * 86400 * 1000000));
  EXPECT_THAT(ParseDurationMicros("106751992d"), ReasonIs("invalid_duration"));
}

TEST(NamesTest, BytesArePrintedInTheUnitThatFits) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(1024), "1 KiB");
  EXPECT_EQ(FormatBytes(1536), "1.5 KiB");
  EXPECT_EQ(FormatBytes(uint64_t{64} << 20), "64 MiB");
  EXPECT_EQ(FormatBytes((uint64_t{1} << 20) - 1), "1 MiB");
  EXPECT_EQ(FormatBytes(std::numeric_limits<uint64_t>::max()), "16 EiB");
}

TEST(NamesTest, PrintableShowsEveryByteAndCuts) {
  EXPECT_EQ(Printable("key 1~"), "key 1~");
  EXPECT_EQ(Printable(absl::string_view("\0\n\x7f\xff\\", 5)), "\\x00\\x0a\\x7f\\xff\\x5c");
  EXPECT_EQ(Printable("abcdef", 6), "abcdef");
  EXPECT_EQ(Printable("abcdefg", 6), "abcdef...");
}

}  // namespace
}  // namespace towline
