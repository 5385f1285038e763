#include "common/checksum.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

#include "gtest/gtest.h"
#include "tests/support/seeded_rng.h"

namespace towline {
namespace {

constexpr char kCheck[] = "123456789";

TEST(ChecksumTest, Crc32cHasTheCheckValuesOfRfc3720) {
  EXPECT_EQ(Crc32c(kCheck), 0xe3069283u);
  EXPECT_EQ(Crc32c(""), 0u);
  EXPECT_EQ(Crc32c(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(Crc32c(std::string(32, '\xff')), 0x62a8ab43u);
}

TEST(ChecksumTest, Crc64HasTheCheckValueOfRedis) {
  EXPECT_EQ(Crc64JonesExtend(0, kCheck), 0xe9c6d914c4b8d9caull);
  EXPECT_EQ(Crc64JonesExtend(0, ""), 0u);
  EXPECT_EQ(Crc64JonesExtend(0x123456789abcdef0ull, ""), 0x123456789abcdef0ull);
}

// One bit at a time, as the definitions say.
uint32_t Crc32cByBits(absl::string_view data) {
  uint32_t crc = ~uint32_t{0};
  for (const char c : data) {
    crc ^= static_cast<uint8_t>(c);
    for (int i = 0; i < 8; ++i) crc = (crc >> 1) ^ (crc & 1 ? 0x82f63b78u : 0);
  }
  return ~crc;
}

uint64_t Crc64ByBits(absl::string_view data) {
  uint64_t crc = 0;
  for (const char c : data) {
    crc ^= static_cast<uint8_t>(c);
    for (int i = 0; i < 8; ++i) crc = (crc >> 1) ^ (crc & 1 ? 0x95ac9329ac4bc9b5ull : 0);
  }
  return crc;
}

TEST(ChecksumTest, EveryLengthAlignmentAndSplitAgreesWithTheDefinition) {
  test::SeededRng rng(1);
  std::string data(700, '\0');
  for (char& byte : data) byte = static_cast<char>(rng.Next());
  for (size_t offset = 0; offset < 8; ++offset) {
    for (size_t size = 0; size + offset <= data.size(); size += 1 + size / 16) {
      const absl::string_view part = absl::string_view(data).substr(offset, size);
      const size_t split = rng.Below(size + 1);
      ASSERT_EQ(Crc32c(part), Crc32cByBits(part)) << offset << " " << size;
      ASSERT_EQ(Crc64JonesExtend(0, part), Crc64ByBits(part)) << offset << " " << size;
      ASSERT_EQ(Crc32cExtend(Crc32c(part.substr(0, split)), part.substr(split)), Crc32c(part));
      ASSERT_EQ(Crc32cExtendU64(Crc32c(part), 0x0102030405060708),
                Crc32c(absl::StrCat(part, "\x08\x07\x06\x05\x04\x03\x02\x01")));
      ASSERT_EQ(Crc64JonesExtend(Crc64JonesExtend(0, part.substr(0, split)), part.substr(split)),
                Crc64JonesExtend(0, part));
    }
  }
}

TEST(ChecksumTest, Xxh3HasItsPublishedValues) {
  EXPECT_EQ(Xxh3(""), 0x2d06800538d394c2ull);
  const Sum128 empty = Xxh3_128("");
  EXPECT_EQ(empty.Hex(), "99aa06d3014798d86001c324468d497f");
  EXPECT_EQ(empty.high, 0x99aa06d3014798d8ull);
}

TEST(ChecksumTest, SumCarriesAndBorrowsBetweenItsHalves) {
  Sum128 sum{~uint64_t{0}, 5};
  sum.Add({1, 0});
  EXPECT_EQ(sum, (Sum128{0, 6}));
  sum.Subtract({1, 0});
  EXPECT_EQ(sum, (Sum128{~uint64_t{0}, 5}));

  Sum128 zero;
  zero.Subtract({1, 0});
  EXPECT_EQ(zero, (Sum128{~uint64_t{0}, ~uint64_t{0}}));
  zero.Add({1, 0});
  EXPECT_EQ(zero, Sum128{});
}

TEST(ChecksumTest, SumDoesNotDependOnOrder) {
  std::vector<std::string> entries;
  for (int i = 0; i < 50; ++i) entries.push_back("entry" + std::to_string(i));
  Sum128 forward;
  Sum128 backward;
  for (size_t i = 0; i < entries.size(); ++i) forward.Add(Xxh3_128(entries[i]));
  for (size_t i = entries.size(); i > 0; --i) backward.Add(Xxh3_128(entries[i - 1]));
  EXPECT_EQ(forward, backward);
  for (const std::string& entry : entries) forward.Subtract(Xxh3_128(entry));
  EXPECT_EQ(forward, Sum128{});
}

}  // namespace
}  // namespace towline
