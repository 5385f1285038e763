// What the in-memory store adds to a Store: crashes, and a file system below it.

#include "store/memory_store.h"

#include <memory>
#include <string>
#include <utility>

#include "tests/store/state_test_util.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace towline::test {
namespace {

using ::testing::Optional;

void Put(Store& store, absl::string_view key, absl::string_view value) {
  auto batch = store.NewBatch();
  batch->Put(key, value);
  ASSERT_THAT(store.Write(std::move(batch)), IsOk());
}

TEST(MemoryStore, ACrashLeavesWhatWasFlushed) {
  MemoryStoreFactory factory;
  TOWLINE_ASSERT_OK_AND_ASSIGN(auto store, factory.Open("db"));
  Put(*store, "a", "1");
  ASSERT_THAT(store->Flush(true), IsOk());
  Put(*store, "a", "2");
  factory.Crash();
  EXPECT_FALSE(store->Flush(true).ok());
  TOWLINE_ASSERT_OK_AND_ASSIGN(const auto again, factory.Open("db"));
  store.reset();  // a store of before the crash changes nothing any more
  EXPECT_THAT(again->Get("a"), IsOkAndHolds(Optional(std::string("1"))));
  EXPECT_FALSE(factory.Open("db").ok()) << "it is still open";
}

TEST(MemoryStore, FlushesByItselfLikeAFullMemtable) {
  MemoryStoreOptions options;
  options.flush_every_batches = 3;
  MemoryStoreFactory factory(options);
  TOWLINE_ASSERT_OK_AND_ASSIGN(const auto store, factory.Open("db"));
  for (const char* value : {"1", "2", "3", "4"}) Put(*store, "a", value);
  EXPECT_THAT(store->GetPersisted("a"), IsOkAndHolds(Optional(std::string("3"))));
}

TEST(MemoryStore, WithAFileSystemAStoreIsAFileInItsDirectory) {
  const TempDir dir;
  MemoryStoreOptions options;
  options.file_system = PosixFileSystem();
  {
    MemoryStoreFactory factory(options);
    TOWLINE_ASSERT_OK_AND_ASSIGN(const auto store, factory.Open(dir.Join("db")));
    Put(*store, "a", "1");
    ASSERT_THAT(store->Flush(/*wait=*/true), IsOk());
    ASSERT_THAT(store->Checkpoint(dir.Join("copy")), IsOk());
    Put(*store, "a", "2");
  }
  MemoryStoreFactory factory(options);
  TOWLINE_ASSERT_OK_AND_ASSIGN(const auto store, factory.Open(dir.Join("db")));
  EXPECT_THAT(store->Get("a"), IsOkAndHolds(Optional(std::string("2"))));
  TOWLINE_ASSERT_OK_AND_ASSIGN(const auto copy, factory.Open(dir.Join("copy")));
  EXPECT_THAT(copy->Get("a"), IsOkAndHolds(Optional(std::string("1"))));
  EXPECT_THAT(factory.NewBulkLoader(dir.Join("db")), StatusIs(absl::StatusCode::kAlreadyExists));
}

TEST(MemoryStore, ADamagedFileIsReported) {
  const TempDir dir;
  MemoryStoreOptions options;
  options.file_system = PosixFileSystem();
  MemoryStoreFactory factory(options);
  {
    TOWLINE_ASSERT_OK_AND_ASSIGN(const auto store, factory.Open(dir.Join("db")));
    Put(*store, "a", "1");
  }
  TOWLINE_ASSERT_OK_AND_ASSIGN(std::string data, ReadFile(*PosixFileSystem(), dir.Join("db/MEMSTORE")));
  for (const size_t size : {size_t{0}, size_t{5}, data.size() - 1}) {
    ASSERT_THAT(WriteFileDurably(*PosixFileSystem(), dir.Join("db"), "MEMSTORE", data.substr(0, size)), IsOk());
    EXPECT_THAT(factory.Open(dir.Join("db")), ReasonIs("store_damaged"));
  }
  data[8] ^= 1;
  ASSERT_THAT(WriteFileDurably(*PosixFileSystem(), dir.Join("db"), "MEMSTORE", data), IsOk());
  EXPECT_THAT(factory.Open(dir.Join("db")), ReasonIs("store_damaged"));
}

// Whatever was flushed and whenever the machine stops: applying the log from the persisted position gives the state.
TEST(MemoryStore, ReplayAfterAnyCrashGivesTheSameState) {
  const TestLog log = RandomLog(4, 400);
  std::string expected;
  {
    MemoryStoreFactory factory;
    const auto state = *StateStore::Open(*factory.Open("db"));
    ASSERT_THAT(ApplyRest(*state, log), IsOk());
    expected = DigestOf(*state);
  }
  SeededRng rng(9);
  for (int round = 0; round < 30; ++round) {
    MemoryStoreOptions options;
    options.flush_every_batches = rng.Below(6);
    MemoryStoreFactory factory(options);
    for (;;) {
      const auto state = *StateStore::Open(*factory.Open("db"));
      const Lsn persisted = state->applied().lsn;
      const auto snapshot = *state->Snapshot();
      ASSERT_EQ(Contents(*snapshot), ModelAt(log, persisted)) << "not a prefix";
      const Lsn last = std::min<Lsn>(log.last(), persisted + rng.Below(150));
      while (state->applied().lsn < last) {
        const Lsn first = state->applied().lsn + 1;
        ASSERT_THAT(state->Apply(log.Records(first, std::min<Lsn>(last, first + rng.Below(20)))), IsOk());
        if (rng.OneIn(10)) {
          ASSERT_THAT(state->store().Flush(true), IsOk());
        }
      }
      if (last == log.last()) {
        EXPECT_EQ(DigestOf(*state), expected);
        break;
      }
      if (rng.OneIn(3)) {
        ASSERT_THAT(state->store().Flush(true), IsOk());
      }
      factory.Crash();
    }
  }
}

}  // namespace
}  // namespace towline::test
