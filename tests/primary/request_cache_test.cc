// Goal     What the cache calls new was never written.
// Setup    The cache alone, beside a model that remembers every request.
// Scenarios  sequences in and out of order, jumps, duplicates, clients known from the state, eviction.

#include "primary/request_cache.h"

#include <cstdint>
#include <map>
#include <random>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"

#include "gtest/gtest.h"

namespace towline {
namespace {

TEST(RequestCacheTest, AnUnknownClientIsNotNew) {
  const RequestCache cache;
  EXPECT_FALSE(cache.Knows("a"));
  EXPECT_FALSE(cache.IsNew("a", 1));
}

TEST(RequestCacheTest, OnlyWhatLiesAboveTheStateIsNew) {
  RequestCache cache;
  cache.Learn("a", 10, 0);
  EXPECT_FALSE(cache.IsNew("a", 10));
  EXPECT_TRUE(cache.IsNew("a", 11));
  cache.Learn("b", RequestCache::kNothing, 0);
  EXPECT_FALSE(cache.IsNew("b", RequestCache::kNothing));
}

TEST(RequestCacheTest, WritesMayOvertakeEachOtherWithinTheWindow) {
  RequestCache cache;
  cache.Learn("a", 0, 0);
  cache.Add("a", 5, 1);
  EXPECT_TRUE(cache.IsNew("a", 4));
  EXPECT_FALSE(cache.IsNew("a", 5));
  cache.Add("a", 4, 2);
  EXPECT_FALSE(cache.IsNew("a", 4));
  cache.Add("a", 3 + RequestCache::kWindow, 3);
  EXPECT_FALSE(cache.IsNew("a", 3)) << "behind the window nothing is known";
  EXPECT_FALSE(cache.IsNew("a", 4));
  EXPECT_FALSE(cache.IsNew("a", 5));
  EXPECT_TRUE(cache.IsNew("a", 6));
}

TEST(RequestCacheTest, ARandomOrderNeverLooksNewTwice) {
  std::mt19937_64 random(20261122);
  for (int round = 0; round < 50; ++round) {
    RequestCache cache;
    std::set<uint64_t> written;
    const uint64_t base = random() % 3000;
    for (uint64_t old = 0; old < base; old += 1 + random() % 3) written.insert(old);
    cache.Learn("a", base, 0);
    uint64_t at = base;
    uint64_t found_new = 0;
    for (Lsn lsn = 1; lsn < 4000; ++lsn) {
      if (random() % 500 == 0) at += random() % 3000;  // a jump
      const uint64_t sequence = at + random() % 40 - (random() % 20 == 0 ? std::min<uint64_t>(at, 1500) : 0);
      at += random() % 3;
      if (cache.IsNew("a", sequence)) {
        ASSERT_EQ(written.count(sequence), 0u) << "round " << round << ", sequence " << sequence;
        ++found_new;
      }
      if (written.insert(sequence).second) cache.Add("a", sequence, lsn);
    }
    EXPECT_GT(found_new, 1000u) << "of no use";
  }
}

TEST(RequestCacheTest, ClientsWithRecordsInFlightStay) {
  RequestCache cache(/*clients_max=*/4);
  for (Lsn lsn = 1; lsn <= 4; ++lsn) {
    cache.Learn(absl::StrCat("c", lsn), 0, 0);
    cache.Add(absl::StrCat("c", lsn), 1, lsn);
  }
  cache.Learn("late", 0, /*applied=*/2);
  EXPECT_FALSE(cache.Knows("c1"));
  EXPECT_FALSE(cache.Knows("c2"));
  EXPECT_TRUE(cache.Knows("c3"));
  EXPECT_TRUE(cache.Knows("c4"));
  for (int i = 0; i < 1000; ++i) cache.Learn(absl::StrCat("d", i), 0, /*applied=*/4);
  EXPECT_LE(cache.size(), 8u);
}

}  // namespace
}  // namespace towline
