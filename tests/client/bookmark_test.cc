#include "towline/bookmark.h"

#include <string>

#include "common/error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace towline {
namespace {

using ::testing::HasSubstr;

const Bookmark kBookmark{"0123456789abcdef01234567", 3, 0x1122334455667788, 4711, 0xfedcba9876543210};
constexpr char kToken[] = "t1.ASNFZ4mrze8BI0VnAwAAAAAAAACId2ZVRDMiEWcSAAAAAAAAEDJUdpi63P5X0KOX";

TEST(Bookmark, TheTokenIsTheOneThatIsWrittenDown) {
  EXPECT_EQ(ToToken(kBookmark), kToken);
  const auto parsed = ParseToken(kToken);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(*parsed, kBookmark);
}

TEST(Bookmark, TheLargestValuesComeBack) {
  const Bookmark largest{"ffffffffffffffffffffffff", UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX};
  EXPECT_EQ(*ParseToken(ToToken(largest)), largest);
}

TEST(Bookmark, NoPositionHasNoToken) {
  EXPECT_EQ(ToToken(Bookmark()), "");
  EXPECT_EQ(ToToken({"not a cluster id", 1, 2, 3, 4}), "");
  EXPECT_EQ(GetErrorInfo(ParseToken("").status()).reason, "invalid_token");
}

TEST(Bookmark, EveryChangedCharacterIsNoticed) {
  const std::string token = kToken;
  for (size_t i = 0; i < token.size(); ++i) {
    for (const char c : {'A', 'B', '_', '=', ' ', '.', '\0', '\xff'}) {
      std::string changed = token;
      if (changed[i] == c) continue;
      changed[i] = c;
      EXPECT_FALSE(ParseToken(changed).ok()) << changed;
    }
    EXPECT_FALSE(ParseToken(token.substr(0, i)).ok());
  }
  EXPECT_FALSE(ParseToken(token + "A").ok());
}

TEST(Bookmark, ErrorsSayWhatIsWrong) {
  const auto why = [](const std::string& token) { return GetErrorInfo(ParseToken(token).status()).message; };
  EXPECT_THAT(why("t2.AAAA"), HasSubstr("version is not known"));
  EXPECT_THAT(why("hello"), HasSubstr("does not begin with t1."));
  EXPECT_THAT(why("t1.AAAA"), HasSubstr("7 characters"));
  EXPECT_THAT(why("t1." + std::string(64, '!')), HasSubstr("no token has"));
  EXPECT_THAT(why("t1." + std::string(64, 'A')), HasSubstr("check value"));
}

}  // namespace
}  // namespace towline
