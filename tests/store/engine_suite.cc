// What every Store must do, run against each engine.

#include <map>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/file_system.h"
#include "store/store.h"
#include "tests/store/state_test_util.h"
#include "tests/support/seeded_rng.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace towline::test {
namespace {

using ::testing::ElementsAre;
using ::testing::Optional;
using ::testing::Pair;

using Content = std::map<std::string, std::string>;

class EngineTest : public ::testing::Test {
 protected:
  void SetUp() override { Open(); }

  void Open() {
    auto store = factory_->Open(dir_.Join("db"));
    ASSERT_THAT(store, IsOk());
    store_ = *std::move(store);
  }

  void Put(absl::string_view key, absl::string_view value) {
    auto batch = store_->NewBatch();
    batch->Put(key, value);
    ASSERT_THAT(store_->Write(std::move(batch)), IsOk());
  }

  Content Scan(const StoreSnapshot& snapshot, absl::string_view lower, absl::string_view upper) {
    Content content;
    const auto it = snapshot.NewIterator(lower, upper, true);
    for (; it->Valid(); it->Next()) content[std::string(it->key())] = std::string(it->value());
    EXPECT_THAT(it->status(), IsOk());
    return content;
  }

  Content Scan(absl::string_view lower = "", absl::string_view upper = "") {
    auto snapshot = store_->Snapshot();
    EXPECT_THAT(snapshot, IsOk());
    return Scan(**snapshot, lower, upper);
  }

  TempDir dir_;
  std::unique_ptr<StoreFactory> factory_ = NewEngineUnderTest();
  std::unique_ptr<Store> store_;
};

TEST_F(EngineTest, ABatchTakesEffectInItsOwnOrder) {
  Put("b", "0");
  auto batch = store_->NewBatch();
  batch->Put("a", "1");
  batch->DeleteRange("a", "c");
  batch->Put("c", "2");
  batch->Put("a", "3");
  batch->Delete("c");
  EXPECT_THAT(Scan(), ElementsAre(Pair("b", "0")));
  ASSERT_THAT(store_->Write(std::move(batch)), IsOk());
  EXPECT_THAT(Scan(), ElementsAre(Pair("a", "3")));
}

TEST_F(EngineTest, ASnapshotDoesNotMove) {
  Put("a", "1");
  Put("b", "1");
  TOWLINE_ASSERT_OK_AND_ASSIGN(const auto snapshot, store_->Snapshot());
  const auto it = snapshot->NewIterator("", "", false);
  auto batch = store_->NewBatch();
  batch->Put("a", "2");
  batch->DeleteRange("b", "z");
  batch->Put("c", "2");
  ASSERT_THAT(store_->Write(std::move(batch)), IsOk());
  ASSERT_THAT(store_->Flush(true), IsOk());

  EXPECT_THAT(Scan(*snapshot, "", ""), ElementsAre(Pair("a", "1"), Pair("b", "1")));
  EXPECT_THAT(snapshot->Get("b"), IsOkAndHolds(Optional(std::string("1"))));
  ASSERT_TRUE(it->Valid());
  it->Next();
  EXPECT_EQ(it->value(), "1");
  EXPECT_THAT(Scan(), ElementsAre(Pair("a", "2"), Pair("c", "2")));
}

TEST_F(EngineTest, BoundsOfAnIteratorAreHalfOpen) {
  for (const char* key : {"a", "b", "c"}) Put(key, "");
  EXPECT_THAT(Scan("a", "c"), ElementsAre(Pair("a", ""), Pair("b", "")));
  EXPECT_THAT(Scan("b", ""), ElementsAre(Pair("b", ""), Pair("c", "")));
  EXPECT_THAT(Scan("b", "b"), ElementsAre());
  EXPECT_THAT(Scan("c", "a"), ElementsAre());
}

TEST_F(EngineTest, AnEmptyRangeDeletesNothing) {
  Put("a", "1");
  auto batch = store_->NewBatch();
  batch->DeleteRange("a", "a");
  batch->DeleteRange("b", "a");
  ASSERT_THAT(store_->Write(std::move(batch)), IsOk());
  EXPECT_THAT(Scan(), ElementsAre(Pair("a", "1")));
}

TEST_F(EngineTest, OnlyWhatWasFlushedIsPersisted) {
  Put("p", "1");
  EXPECT_THAT(store_->GetPersisted("p"), IsOkAndHolds(std::nullopt));
  ASSERT_THAT(store_->Flush(true), IsOk());
  EXPECT_THAT(store_->GetPersisted("p"), IsOkAndHolds(Optional(std::string("1"))));
  Put("p", "2");
  EXPECT_THAT(store_->GetPersisted("p"), IsOkAndHolds(Optional(std::string("1"))));
  EXPECT_THAT(store_->Get("p"), IsOkAndHolds(Optional(std::string("2"))));
}

TEST_F(EngineTest, ACleanCloseKeepsEverything) {
  Put("a", "1");
  store_.reset();
  Open();
  EXPECT_THAT(Scan(), ElementsAre(Pair("a", "1")));
  EXPECT_THAT(store_->GetPersisted("a"), IsOkAndHolds(Optional(std::string("1"))));
}

TEST_F(EngineTest, AStoreIsOpenOnlyOnce) { EXPECT_FALSE(factory_->Open(dir_.Join("db")).ok()); }

TEST_F(EngineTest, ACheckpointIsAStoreOfItsOwn) {
  Put("a", "1");
  ASSERT_THAT(store_->Flush(/*wait=*/true), IsOk());
  Put("a", "2");  // persisted is what a checkpoint holds
  ASSERT_THAT(store_->Checkpoint(dir_.Join("checkpoint")), IsOk());
  store_.reset();
  TOWLINE_ASSERT_OK_AND_ASSIGN(const auto copy, factory_->Open(dir_.Join("checkpoint")));
  EXPECT_THAT(copy->GetPersisted("a"), IsOkAndHolds(Optional(std::string("1"))));
  auto batch = copy->NewBatch();
  batch->Put("a", "3");
  ASSERT_THAT(copy->Write(std::move(batch)), IsOk());
  Open();
  EXPECT_THAT(Scan(), ElementsAre(Pair("a", "2")));
}

// A store never changes a file in place, so that the files of a checkpoint may have second names.
TEST_F(EngineTest, LinksToACheckpointAreAnotherStore) {
  FileSystem& fs = *PosixFileSystem();
  Put("a", "1");
  ASSERT_THAT(store_->Flush(/*wait=*/true), IsOk());
  ASSERT_THAT(store_->Checkpoint(dir_.Join("checkpoint")), IsOk());
  if (!Exists(fs, dir_.Join("checkpoint"))) GTEST_SKIP() << "this engine keeps no files here";
  TOWLINE_ASSERT_OK_AND_ASSIGN(const std::vector<std::string> names, fs.List(dir_.Join("checkpoint")));
  std::map<std::string, std::string> before;
  ASSERT_THAT(fs.CreateDirectory(dir_.Join("linked")), IsOk());
  for (const std::string& name : names) {
    TOWLINE_ASSERT_OK_AND_ASSIGN(before[name], ReadFile(fs, JoinPath(dir_.Join("checkpoint"), name)));
    ASSERT_THAT(fs.Link(JoinPath(dir_.Join("checkpoint"), name), JoinPath(dir_.Join("linked"), name)), IsOk());
  }
  for (int life = 0; life < 2; ++life) {
    TOWLINE_ASSERT_OK_AND_ASSIGN(const auto linked, factory_->Open(dir_.Join("linked")));
    auto batch = linked->NewBatch();
    batch->Put("a", "3");
    ASSERT_THAT(linked->Write(std::move(batch)), IsOk());
    ASSERT_THAT(linked->Flush(/*wait=*/true), IsOk());
  }
  EXPECT_THAT(fs.List(dir_.Join("checkpoint")), IsOkAndHolds(names));
  for (const auto& [name, bytes] : before) {
    EXPECT_THAT(ReadFile(fs, JoinPath(dir_.Join("checkpoint"), name)), IsOkAndHolds(bytes)) << name;
  }
  TOWLINE_ASSERT_OK_AND_ASSIGN(const auto copy, factory_->Open(dir_.Join("checkpoint")));
  EXPECT_THAT(copy->Get("a"), IsOkAndHolds(Optional(std::string("1"))));
}

TEST_F(EngineTest, ABulkLoadBecomesAStore) {
  TOWLINE_ASSERT_OK_AND_ASSIGN(auto loader, factory_->NewBulkLoader(dir_.Join("loaded")));
  Content expected;
  for (int i = 0; i < 2000; ++i) {
    const std::string key = absl::StrCat("u", 100000 + i);
    ASSERT_THAT(loader->Add(key, std::string(100, 'v')), IsOk());
    expected[key] = std::string(100, 'v');
    const std::string other = absl::StrCat("x", 999999 - i);
    ASSERT_THAT(loader->AddUnordered(other, "hint"), IsOk());
    expected[other] = "hint";
  }
  EXPECT_GT(loader->pending_bytes(), 0u);
  ASSERT_THAT(loader->AddUnordered("p", "position"), IsOk());
  expected["p"] = "position";
  ASSERT_THAT(loader->Finish(), IsOk());
  EXPECT_EQ(loader->pending_bytes(), 0u);

  store_.reset();
  TOWLINE_ASSERT_OK_AND_ASSIGN(store_, factory_->Open(dir_.Join("loaded")));
  EXPECT_EQ(Scan(), expected);
  EXPECT_THAT(store_->GetPersisted("p"), IsOkAndHolds(Optional(std::string("position"))));
  EXPECT_THAT(store_->GetPersisted("u100000"), IsOkAndHolds(Optional(std::string(100, 'v'))));
}

TEST_F(EngineTest, ABulkLoadRefusesKeysThatDoNotRise) {
  TOWLINE_ASSERT_OK_AND_ASSIGN(auto loader, factory_->NewBulkLoader(dir_.Join("loaded")));
  ASSERT_THAT(loader->Add("b", ""), IsOk());
  EXPECT_THAT(loader->Add("b", ""), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(loader->Add("a", ""), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(loader->Add("c", ""), IsOk());
}

TEST_F(EngineTest, ABulkLoadRefusesADirectoryWithAStore) {
  Put("a", "1");
  ASSERT_THAT(store_->Flush(true), IsOk());
  store_.reset();
  EXPECT_THAT(factory_->NewBulkLoader(dir_.Join("db")), StatusIs(absl::StatusCode::kAlreadyExists));
}

TEST_F(EngineTest, AnEmptyBulkLoadIsAnEmptyStore) {
  TOWLINE_ASSERT_OK_AND_ASSIGN(auto loader, factory_->NewBulkLoader(dir_.Join("loaded")));
  ASSERT_THAT(loader->Finish(), IsOk());
  store_.reset();
  TOWLINE_ASSERT_OK_AND_ASSIGN(store_, factory_->Open(dir_.Join("loaded")));
  EXPECT_EQ(Scan(), Content());
}

// Random batches with many range deletes of all sizes, against a map, with flushes and reopenings between.
TEST_F(EngineTest, RandomBatchesGiveWhatAMapGives) {
  for (const uint64_t seed : {1, 2, 3}) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    SeededRng rng(seed);
    Content model = Scan();
    const auto key = [&rng] { return absl::StrCat(rng.Below(4), "/", 1000 + rng.Below(900)); };
    for (int step = 0; step < 300; ++step) {
      auto batch = store_->NewBatch();
      for (uint64_t i = rng.Below(60); i > 0; --i) {
        const std::string k = key();
        if (rng.OneIn(12)) {
          const std::string end = rng.OneIn(2) ? absl::StrCat(k, "~") : key();
          batch->DeleteRange(k, end);
          std::erase_if(model, [&](const auto& e) { return e.first >= k && e.first < end; });
        } else if (rng.OneIn(4)) {
          batch->Delete(k);
          model.erase(k);
        } else {
          const std::string value(rng.Below(200), static_cast<char>('a' + rng.Below(26)));
          batch->Put(k, value);
          model[k] = value;
        }
      }
      ASSERT_THAT(store_->Write(std::move(batch)), IsOk());
      if (rng.OneIn(20)) {
        ASSERT_THAT(store_->Flush(rng.OneIn(2)), IsOk());
      }
      if (rng.OneIn(100)) {
        store_.reset();
        Open();
      }
      if (step % 10 == 0) {
        ASSERT_EQ(Scan(), model);
      }
      const std::string k = key();
      const auto it = model.find(k);
      ASSERT_THAT(store_->Get(k), IsOkAndHolds(it == model.end() ? std::optional<std::string>()
                                                                 : std::optional<std::string>(it->second)));
    }
    ASSERT_EQ(Scan(), model);
  }
}

}  // namespace
}  // namespace towline::test
