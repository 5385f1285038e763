#include "store/rocksdb/sorted_run.h"

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/seeded_rng.h"
#include "tests/support/status_matchers.h"

namespace towline::test {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;
using Entries = std::vector<std::pair<std::string, std::string>>;

Entries EntriesOf(SortedRun& run) {
  Entries entries;
  EXPECT_THAT(run.ForEach([&](absl::string_view key, absl::string_view value) {
    entries.emplace_back(std::string(key), std::string(value));
    return absl::OkStatus();
  }),
              IsOk());
  return entries;
}

TEST(SortedRunTest, GivesEachKeyOnceInByteOrderWithItsLastValue) {
  SortedRun run;
  EXPECT_TRUE(run.empty());
  EXPECT_THAT(EntriesOf(run), IsEmpty());
  run.Add("b", "1");
  run.Add("\xff", "high");
  run.Add("", "none");
  run.Add("b", "");
  run.Add("a", "2");
  run.Add("b", "3");
  run.Add(absl::string_view("a\0", 2), "nul");
  EXPECT_FALSE(run.empty());
  EXPECT_THAT(EntriesOf(run), ElementsAre(Pair("", "none"), Pair("a", "2"), Pair(std::string("a\0", 2), "nul"),
                                          Pair("b", "3"), Pair("\xff", "high")));
  run.Add("aa", "4");  // it can go on behind a walk
  EXPECT_EQ(EntriesOf(run).size(), 6u);
}

TEST(SortedRunTest, EqualsAMap) {
  for (int seed = 1; seed <= 50; ++seed) {
    SeededRng rng(seed);
    SortedRun run;
    std::map<std::string, std::string> expected;
    for (uint64_t i = rng.Below(500); i > 0; --i) {
      const std::string key(rng.Below(4), static_cast<char>(rng.Below(3) * 127));
      const std::string value(rng.Below(20), static_cast<char>(rng.Next()));
      run.Add(key, value);
      expected[key] = value;
    }
    ASSERT_EQ(EntriesOf(run), Entries(expected.begin(), expected.end())) << seed;
  }
}

TEST(SortedRunTest, StopsAtTheFirstErrorAndKeepsWhatItHolds) {
  SortedRun run;
  for (const char* key : {"c", "a", "b"}) run.Add(key, "v");
  int calls = 0;
  EXPECT_THAT(run.ForEach([&](absl::string_view, absl::string_view) {
    return ++calls == 2 ? absl::DataLossError("injected") : absl::OkStatus();
  }),
              StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_EQ(calls, 2);
  EXPECT_EQ(EntriesOf(run).size(), 3u);
}

TEST(SortedRunTest, TellsItsMemory) {
  SortedRun run;
  EXPECT_EQ(run.bytes(), 0u);
  run.Add(std::string(1000, 'k'), std::string(2000, 'v'));
  const uint64_t bytes = run.bytes();
  EXPECT_GT(bytes, 3000u);
  EXPECT_LT(bytes, 3100u);
  run.Add("k", "v");
  EXPECT_GT(run.bytes(), bytes);
  run.Clear();
  EXPECT_TRUE(run.empty());
  EXPECT_EQ(run.bytes(), 0u);
  EXPECT_THAT(EntriesOf(run), IsEmpty());
}

}  // namespace
}  // namespace towline::test
