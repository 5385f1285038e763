// Tests of the spool as its users see it: append, read, seek, roll, prune, and what a reopen brings back.
//
// Method   SimFileSystem, SimExecutor and FakeClock; threads only where a test says so. Crashes are in crash_test.cc,
//          recovery in recovery_test.cc.

#include "wal/spool.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"
#include "tests/wal/spool_fixture.h"

namespace towline::wal::test {
namespace {

using ::towline::test::IsOk;

TEST(SpoolTest, ReadsBackWhatWasAppendedAcrossSegmentsAndReopen) {
  SimFileSystem fs;
  Node node(fs);
  ASSERT_THAT(node.Open(), IsOk());
  std::vector<ReadRecord> expected;
  for (int i = 0; i < 100; ++i) {
    std::vector<size_t> sizes = {static_cast<size_t>(i * 37 % 3000), 0, 9};
    for (size_t size : sizes) {
      const Lsn lsn = expected.size() + 1;
      expected.push_back({lsn, 1, RecordType::kBatch, PayloadOf(lsn, size)});
    }
    ASSERT_THAT(node.Append(sizes), IsOk());
  }
  EXPECT_GT(node.spool->stats().segments, 2u);
  TOWLINE_ASSERT_OK_AND_ASSIGN(std::vector<ReadRecord> read, ReadAll(*node.spool, 1));
  EXPECT_EQ(read, expected);
  ASSERT_THAT(node.Open(), IsOk());
  EXPECT_EQ(node.report.row, "newest_clean");
  for (const size_t max_bytes : {1, 5000, 1 << 20}) {
    TOWLINE_ASSERT_OK_AND_ASSIGN(read, ReadAll(*node.spool, 1, max_bytes));
    EXPECT_EQ(read, expected);
  }
  for (Lsn from = 1; from <= expected.size() + 1; ++from) {
    TOWLINE_ASSERT_OK_AND_ASSIGN(read, ReadAll(*node.spool, from, 3000));
    ASSERT_EQ(read, std::vector<ReadRecord>(expected.begin() + static_cast<ptrdiff_t>(from) - 1, expected.end()));
  }
}

}  // namespace
}  // namespace towline::wal::test
