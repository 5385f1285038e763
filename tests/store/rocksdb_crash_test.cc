// A process with a RocksDB store is killed at any point: the store reopens with exactly the persisted prefix, and the
// log from there gives the same state as without the crash.
//
// The child is this program again, run by exec: a process that used RocksDB is never forked.

#include <algorithm>
#include <signal.h>
#include <stdlib.h>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

#include "common/file_system.h"
#include "store/state_store.h"
#include "tests/store/child_process.h"
#include "tests/store/state_test_util.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace towline::test {
namespace {

constexpr uint64_t kSeed = 77;
constexpr Lsn kRecords = 6000;
constexpr char kDirectoryVariable[] = "TOWLINE_TEST_CRASH_DIRECTORY";
constexpr char kRoundVariable[] = "TOWLINE_TEST_CRASH_ROUND";

absl::StatusOr<std::unique_ptr<StateStore>> OpenState(StoreFactory& factory, const std::string& directory) {
  auto store = factory.Open(JoinPath(directory, "db"));
  if (!store.ok()) return store.status();
  return StateStore::Open(*std::move(store));
}

// Run in the child: applies, flushes now and then, and is killed in the middle. What a flush that was waited for made
// persistent stands in the file "promised".
TEST(RocksDbCrashChild, DISABLED_Run) {
  const char* directory = getenv(kDirectoryVariable);
  const char* round = getenv(kRoundVariable);
  uint64_t round_number = 0;
  ASSERT_TRUE(directory != nullptr && round != nullptr && absl::SimpleAtoi(round, &round_number));
  const TestLog log = RandomLog(kSeed, kRecords);
  const std::unique_ptr<StoreFactory> factory = NewEngineUnderTest();
  TOWLINE_ASSERT_OK_AND_ASSIGN(const auto state, OpenState(*factory, directory));
  SeededRng rng(round_number);
  const Lsn killed_at = std::min<Lsn>(log.last(), state->applied().lsn + 1 + rng.Below(2000));
  while (state->applied().lsn < killed_at) {
    const Lsn first = state->applied().lsn + 1;
    ASSERT_THAT(state->Apply(log.Records(first, std::min<Lsn>(killed_at, first + rng.Below(30)))), IsOk());
    if (rng.OneIn(25)) {
      const bool wait = rng.OneIn(2);
      ASSERT_THAT(state->store().Flush(wait), IsOk());
      if (wait) {
        const std::string promised = absl::StrCat(state->applied().lsn);
        ASSERT_THAT(WriteFileDurably(*PosixFileSystem(), directory, "promised", promised), IsOk());
      }
    }
  }
  raise(SIGKILL);
}

TEST(RocksDbCrash, AKilledProcessLeavesThePersistedPrefix) {
  const TempDir dir;
  const TestLog log = RandomLog(kSeed, kRecords);
  setenv(kDirectoryVariable, dir.path().c_str(), 1);
  const std::unique_ptr<StoreFactory> factory = NewEngineUnderTest();
  std::string expected;
  {
    TOWLINE_ASSERT_OK_AND_ASSIGN(auto store, factory->Open(dir.Join("expected")));
    TOWLINE_ASSERT_OK_AND_ASSIGN(const auto state, StateStore::Open(std::move(store)));
    ASSERT_THAT(ApplyRest(*state, log, 100), IsOk());
    expected = DigestOf(*state);
  }

  Lsn persisted = 0;
  int rounds = 0;
  for (; persisted < kRecords && rounds < 100; ++rounds) {
    setenv(kRoundVariable, absl::StrCat(rounds).c_str(), 1);
    ChildProcess child(
        {"/proc/self/exe", "--gtest_also_run_disabled_tests", "--gtest_filter=RocksDbCrashChild.DISABLED_Run"},
        dir.Join("child.out"));
    ASSERT_TRUE(child.started());
    ASSERT_EQ(child.Wait(60), 128 + SIGKILL) << *ReadFile(*PosixFileSystem(), dir.Join("child.out"));

    TOWLINE_ASSERT_OK_AND_ASSIGN(const auto state, OpenState(*factory, dir.path()));
    const Lsn reopened_at = state->applied().lsn;
    EXPECT_THAT(state->PersistedLsn(), IsOkAndHolds(reopened_at));
    ASSERT_EQ(state->applied(), log.PositionAt(reopened_at));
    Lsn promised = 0;
    if (Exists(*PosixFileSystem(), dir.Join("promised"))) {
      ASSERT_TRUE(absl::SimpleAtoi(*ReadFile(*PosixFileSystem(), dir.Join("promised")), &promised));
    }
    ASSERT_GE(reopened_at, promised);
    TOWLINE_ASSERT_OK_AND_ASSIGN(const auto snapshot, state->Snapshot());
    ASSERT_EQ(Contents(*snapshot), ModelAt(log, reopened_at)) << "not a prefix";
    persisted = std::max(persisted, reopened_at);
    if (persisted < kRecords && rounds > 12) {
      ASSERT_THAT(ApplyRest(*state, log, 64), IsOk());  // enough crashes: go to the end
      persisted = kRecords;
    }
    if (persisted == kRecords) {
      EXPECT_EQ(DigestOf(*state), expected);
    }
  }
  EXPECT_EQ(persisted, kRecords);
  EXPECT_GE(rounds, 3);
}

}  // namespace
}  // namespace towline::test
