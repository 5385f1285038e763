#include "common/history.h"

#include <algorithm>

#include "gtest/gtest.h"
#include "tests/support/seeded_rng.h"

namespace towline {
namespace {

const History kThreeTerms = {{1, 1, 0xa1}, {2, 100, 0xa2}, {5, 250, 0xa5}};

TEST(HistoryTest, EntryAtIsTheTermOfTheRecord) {
  EXPECT_EQ(EntryAt(kThreeTerms, 0), nullptr);
  EXPECT_EQ(EntryAt(kThreeTerms, 1)->term, 1u);
  EXPECT_EQ(EntryAt(kThreeTerms, 99)->term, 1u);
  EXPECT_EQ(EntryAt(kThreeTerms, 100)->term, 2u);
  EXPECT_EQ(EntryAt(kThreeTerms, 250)->term, 5u);
  EXPECT_EQ(EntryAt(kThreeTerms, ~Lsn{0})->term, 5u);
  EXPECT_EQ(EntryAt({}, 7), nullptr);
  EXPECT_EQ(EntryAt({{3, 10, 1}}, 9), nullptr);
}

TEST(HistoryTest, CutAtDropsTermsThatStartAbove) {
  EXPECT_EQ(CutAt(kThreeTerms, 250), kThreeTerms);
  EXPECT_EQ(CutAt(kThreeTerms, 249), (History{{1, 1, 0xa1}, {2, 100, 0xa2}}));
  EXPECT_EQ(CutAt(kThreeTerms, 0), History{});
}

TEST(HistoryTest, CommonPartOfOneLineEndsWithTheShorterLog) {
  EXPECT_EQ(LastCommonLsn(kThreeTerms, 300, kThreeTerms, 280), 280u);
  EXPECT_EQ(LastCommonLsn(kThreeTerms, 300, CutAt(kThreeTerms, 200), 200), 200u);
  EXPECT_EQ(LastCommonLsn(kThreeTerms, 300, {}, 0), 0u);
}

TEST(HistoryTest, CommonPartEndsBeforeTheFirstTermThatOnlyOneNodeHas) {
  // The old primary wrote on in term 1 to 140, the new one began term 2 at 100.
  EXPECT_EQ(LastCommonLsn({{1, 1, 0xa1}}, 140, kThreeTerms, 300), 99u);
  // Two promotions of one term number.
  EXPECT_EQ(LastCommonLsn({{1, 1, 0xa1}, {2, 100, 0xbb}}, 140, kThreeTerms, 300), 99u);
  EXPECT_EQ(LastCommonLsn({{1, 1, 0xa1}, {3, 120, 0xa3}}, 140, kThreeTerms, 300), 99u);
  // Different clusters.
  EXPECT_EQ(LastCommonLsn({{1, 1, 0xb1}}, 140, kThreeTerms, 300), 0u);
}

// The log as a list: the term_id of every record, compared one by one.
Lsn LastCommonLsnByScan(const History& a, Lsn a_end, const History& b, Lsn b_end) {
  Lsn last = 0;
  for (Lsn lsn = 1; lsn <= std::min(a_end, b_end); ++lsn) {
    const HistoryEntry* in_a = EntryAt(a, lsn);
    const HistoryEntry* in_b = EntryAt(b, lsn);
    if (in_a == nullptr || in_b == nullptr || !(*in_a == *in_b)) break;
    last = lsn;
  }
  return last;
}

TEST(HistoryTest, LastCommonLsnAgreesWithComparingRecordByRecord) {
  for (uint64_t seed = 1; seed <= 2000; ++seed) {
    test::SeededRng rng(seed);
    History shared;
    Lsn start = 1;
    Term term = 1;
    for (uint64_t i = rng.Below(4); i > 0; --i) {
      shared.push_back({term, start, rng.Next() | 1});
      term += 1 + static_cast<Term>(rng.Below(3));
      start += 1 + rng.Below(10);
    }
    History a = shared;
    History b = shared;
    for (History* own : {&a, &b}) {
      if (own->empty() || rng.OneIn(2)) own->push_back({term, start + rng.Below(3), rng.Next() | 1});
    }
    const Lsn a_end = a.back().start_lsn + rng.Below(12);
    const Lsn b_end = b.back().start_lsn + rng.Below(12);
    ASSERT_EQ(LastCommonLsn(a, a_end, b, b_end), LastCommonLsnByScan(a, a_end, b, b_end))
        << "seed " << seed << ": " << FormatHistory(a) << " to " << a_end << ", " << FormatHistory(b) << " to "
        << b_end;
    ASSERT_EQ(LastCommonLsn(a, a_end, b, b_end), LastCommonLsn(b, b_end, a, a_end));
  }
}

TEST(HistoryTest, ValidHistoriesRiseStrictly) {
  EXPECT_TRUE(IsValidHistory({}));
  EXPECT_TRUE(IsValidHistory(kThreeTerms));
  EXPECT_FALSE(IsValidHistory({{0, 1, 1}}));
  EXPECT_FALSE(IsValidHistory({{1, 0, 1}}));
  EXPECT_FALSE(IsValidHistory({{1, 1, 0}}));
  EXPECT_FALSE(IsValidHistory({{2, 1, 1}, {2, 5, 2}}));
  EXPECT_FALSE(IsValidHistory({{1, 5, 1}, {2, 5, 2}}));
}

TEST(HistoryTest, FormatNamesTermStartAndIdentity) {
  EXPECT_EQ(FormatHistory({{1, 1, 0xa1}, {2, 100, 0xfedcba9876543210ull}}),
            "1@1:00000000000000a1,2@100:fedcba9876543210");
  EXPECT_EQ(FormatHistory({}), "");
}

}  // namespace
}  // namespace towline
