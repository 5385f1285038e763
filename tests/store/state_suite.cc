// The state model, run against each engine.

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "store/request_window.h"
#include "store/state_format.h"
#include "store/state_store.h"
#include "tests/store/state_test_util.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace towline::test {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Outcome = RequestLookup::Outcome;

class StateTest : public ::testing::Test {
 protected:
  void SetUp() override { Open("db"); }

  void Open(const std::string& name) {
    state_.reset();
    auto store = factory_->Open(dir_.Join(name));
    ASSERT_THAT(store, IsOk());
    auto state = StateStore::Open(*std::move(store));
    ASSERT_THAT(state, IsOk());
    state_ = *std::move(state);
  }

  void Apply(std::string payload) {
    log_.Append(std::move(payload));
    ASSERT_THAT(ApplyRest(*state_, log_), IsOk());
  }

  // Makes a store whose log begins behind `lsn`, for tests of what happens after very many records.
  void StartAt(Lsn lsn) {
    auto batch = state_->store().NewBatch();
    batch->Put(kPositionKey, EncodePosition({1, 42, lsn, 7}));
    ASSERT_THAT(state_->store().Write(std::move(batch)), IsOk());
    Open("db");
    next_ = lsn + 1;
  }

  // Applies `count` records that do nothing, the first being `payload` if it is not empty.
  void ApplyFrom(const std::string& payload, uint64_t count = 1) {
    const std::string nothing = MembersPayload();
    std::vector<ApplyRecord> records;
    for (uint64_t i = 0; i < count; ++i) {
      records.push_back({{1, 42, next_++, 7}, i == 0 && !payload.empty() ? payload : nothing});
      if (records.size() == 4096 || i + 1 == count) {
        ASSERT_THAT(state_->Apply(records), IsOk());
        records.clear();
      }
    }
  }

  Outcome Lookup(absl::string_view client, uint64_t sequence) {
    const auto found = state_->LookupRequest(client, sequence);
    EXPECT_THAT(found, IsOk());
    return found->outcome;
  }

  std::optional<StoredEntry> Get(absl::string_view key, uint64_t now_ms = 0) {
    auto entry = state_->Get(key, now_ms);
    EXPECT_THAT(entry, IsOk());
    return *std::move(entry);
  }

  std::vector<std::string> Due(uint64_t now_ms, size_t limit = 100) {
    const auto due = state_->DueExpiries(now_ms, limit);
    EXPECT_THAT(due, IsOk());
    std::vector<std::string> keys;
    for (const auto& entry : *due) keys.push_back(entry.key);
    return keys;
  }

  // Number of engine keys in a space.
  size_t CountSpace(char space) {
    const auto snapshot = state_->Snapshot();
    const auto it = (*snapshot)->raw().NewIterator(std::string(1, space), std::string(1, space + 1), false);
    size_t count = 0;
    for (; it->Valid(); it->Next()) ++count;
    return count;
  }

  TempDir dir_;
  std::unique_ptr<StoreFactory> factory_ = NewEngineUnderTest();
  std::unique_ptr<StateStore> state_;
  TestLog log_;
  Lsn next_ = 1;
};

TEST_F(StateTest, ANewStoreIsAtNoPosition) {
  EXPECT_EQ(state_->applied(), Position{});
  EXPECT_THAT(state_->PersistedLsn(), IsOkAndHolds(0u));
  EXPECT_EQ(DigestOf(*state_), "0:00000000000000000000000000000000");
}

// Any order of operations, in batches of any size, gives what applying them one by one to a map gives.
TEST_F(StateTest, RandomRecordsGiveWhatAMapGives) {
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    Open(absl::StrCat("db", seed));
    const TestLog log = RandomLog(seed, 1500);
    SeededRng rng(seed);
    while (state_->applied().lsn < log.last()) {
      const Lsn first = state_->applied().lsn + 1;
      const Lsn last = std::min<Lsn>(log.last(), first + rng.Below(rng.OneIn(3) ? 200 : 5));
      ASSERT_THAT(state_->Apply(log.Records(first, last)), IsOk());
      ASSERT_EQ(state_->applied(), log.PositionAt(last));
      if (rng.OneIn(10)) {
        ASSERT_THAT(state_->store().Flush(rng.OneIn(2)), IsOk());
      }
      if (rng.OneIn(5)) {
        TOWLINE_ASSERT_OK_AND_ASSIGN(const auto snapshot, state_->Snapshot());
        ASSERT_EQ(snapshot->position(), log.PositionAt(last));
        ASSERT_EQ(Contents(*snapshot), ModelAt(log, last));
      }
    }
    const Model model = ModelAt(log, log.last());
    TOWLINE_ASSERT_OK_AND_ASSIGN(const auto snapshot, state_->Snapshot());
    ASSERT_EQ(Contents(*snapshot), model);
    Sum128 sum;
    for (const auto& [key, entry] : model)
      sum.Add(EntryDigest(key, entry.value, entry.expire_at_ms, entry.modified_lsn));
    EXPECT_EQ(DigestOf(*state_), absl::StrCat(model.size(), ":", sum.Hex()));
  }
}

// How records fall into batches must not show in anything but the hints of the expiry index.
TEST_F(StateTest, BatchSizesLeaveNoTrace) {
  const TestLog log = RandomLog(11, 800);
  std::vector<std::map<std::string, std::string>> contents;
  for (const size_t batch : {1, 3, 800}) {
    Open(absl::StrCat("db-", batch));
    ASSERT_THAT(ApplyRest(*state_, log, batch), IsOk());
    auto& content = contents.emplace_back();
    TOWLINE_ASSERT_OK_AND_ASSIGN(const auto snapshot, state_->Snapshot());
    const auto it = snapshot->raw().NewIterator("", kUserEnd, false);
    for (; it->Valid(); it->Next()) content[std::string(it->key())] = std::string(it->value());
  }
  EXPECT_EQ(contents[0], contents[1]);
  EXPECT_EQ(contents[0], contents[2]);
}

TEST_F(StateTest, ReopeningAppliesFromThePersistedPosition) {
  const TestLog log = RandomLog(5, 300);
  ASSERT_THAT(state_->Apply(log.Records(1, 200)), IsOk());
  ASSERT_THAT(state_->store().Flush(true), IsOk());
  EXPECT_THAT(state_->PersistedLsn(), IsOkAndHolds(200u));
  ASSERT_THAT(state_->Apply(log.Records(201, 300)), IsOk());
  EXPECT_THAT(state_->PersistedLsn(), IsOkAndHolds(200u));
  Open("db");
  EXPECT_EQ(state_->applied(), log.PositionAt(300));
}

TEST_F(StateTest, AGapIsRefused) {
  log_ = RandomLog(3, 10);
  ASSERT_THAT(state_->Apply(log_.Records(1, 3)), IsOk());
  const std::string before = DigestOf(*state_);
  EXPECT_THAT(state_->Apply(log_.Records(3, 4)), ReasonIs("apply_gap"));
  EXPECT_THAT(state_->Apply(log_.Records(5, 6)), ReasonIs("apply_gap"));
  std::vector<ApplyRecord> holey = log_.Records(4, 6);
  holey.erase(holey.begin() + 1);
  EXPECT_THAT(state_->Apply(holey), ReasonIs("apply_gap"));
  EXPECT_EQ(state_->applied().lsn, 3u);
  EXPECT_EQ(DigestOf(*state_), before);
  EXPECT_THAT(state_->Apply({}), IsOk());
}

TEST_F(StateTest, AMalformedRecordAppliesNothing) {
  Apply(ChangeBuilder().Put("a", "1").Encode());
  log_.Append(ChangeBuilder().Put("a", "2").Encode());
  log_.Append(ChangeBuilder().Put("b", "2").Encode().substr(0, 6));
  EXPECT_THAT(ApplyRest(*state_, log_), ReasonIs("record_malformed"));
  EXPECT_EQ(state_->applied().lsn, 1u);
  EXPECT_EQ(Get("a")->value, "1");
  EXPECT_THAT(state_->Apply(log_.Records(2, 2)), IsOk());
  EXPECT_EQ(Get("a")->value, "2");
}

TEST_F(StateTest, DeletingEverythingLeavesTheReservedKeys) {
  Apply(ChangeBuilder().Put("a", "1", 5000).Put(std::string(100, '\xff'), "2").Request("c1", 9).Encode());
  Apply(ChangeBuilder().DeleteRange("", "").Encode());
  EXPECT_EQ(DigestOf(*state_), "0:00000000000000000000000000000000");
  EXPECT_EQ(Lookup("c1", 9), Outcome::kSeen);
  EXPECT_EQ(CountSpace(kExpirySpace), 1u);
  Open("db");
  EXPECT_EQ(state_->applied().lsn, 2u);
}

TEST_F(StateTest, AnExpiredKeyDoesNotExistForReaders) {
  Apply(ChangeBuilder().Put("k", "v", 1000).Encode());
  EXPECT_TRUE(Get("k", 999).has_value());
  EXPECT_FALSE(Get("k", 1000).has_value());
  EXPECT_TRUE(Get("k", 0).has_value());
  TOWLINE_ASSERT_OK_AND_ASSIGN(const auto snapshot, state_->Snapshot());
  TOWLINE_ASSERT_OK_AND_ASSIGN(const auto shown, snapshot->Get("k", 0));
  EXPECT_EQ(shown->expire_at_ms, 1000u);
  EXPECT_EQ(shown->modified_lsn, 1u);
  TOWLINE_ASSERT_OK_AND_ASSIGN(const auto hidden, snapshot->Get("k", 1000));
  EXPECT_FALSE(hidden.has_value());
}

TEST_F(StateTest, DueExpiriesComeOldestFirstAndOnlyWhenLive) {
  Apply(ChangeBuilder().Put("late", "", 3000).Put("early", "", 1000).Put("mid", "", 2000).Put("never", "").Encode());
  Apply(ChangeBuilder().Put("moved", "", 500).Encode());
  Apply(ChangeBuilder().Put("moved", "", 2500).Put("gone", "", 600).Encode());
  Apply(ChangeBuilder().Delete("gone").Encode());
  EXPECT_THAT(Due(999), IsEmpty());
  EXPECT_THAT(Due(2500), ElementsAre("early", "mid", "moved"));
  EXPECT_THAT(Due(5000, 2), ElementsAre("early", "mid"));
  EXPECT_THAT(Due(UINT64_MAX), ElementsAre("early", "mid", "moved", "late"));
  // An entry below those looked at already must still be found.
  Apply(ChangeBuilder().Put("gone", "", 600).Encode());
  EXPECT_THAT(Due(1000), ElementsAre("gone", "early"));
  Apply(ChangeBuilder().Delete("gone").Delete("early").Encode());
  EXPECT_THAT(Due(2500), ElementsAre("mid", "moved"));
  TOWLINE_ASSERT_OK_AND_ASSIGN(const auto due, state_->DueExpiries(2000, 1));
  EXPECT_EQ(due[0].expire_at_ms, 2000u);
  EXPECT_EQ(due[0].modified_lsn, 1u);
}

// Whatever was written and swept, the index names every live key with an expiry: nothing else would remove it.
TEST_F(StateTest, TheExpiryIndexMissesNothing) {
  SeededRng rng(7);
  Model model;
  for (int round = 0; round < 40; ++round) {
    for (int i = 0; i < 200; ++i) {
      ChangeBuilder change;
      const std::string key = absl::StrCat("k", rng.Below(120));
      if (rng.OneIn(5)) {
        change.Delete(key);
      } else {
        change.Put(key, "v", rng.OneIn(6) ? 0 : 1 + rng.Below(50));
      }
      log_.Append(change.Encode());
      ApplyToModel(log_.PayloadAt(log_.last()), log_.last(), &model);
    }
    ASSERT_THAT(ApplyRest(*state_, log_, 1 + rng.Below(300)), IsOk());
    const uint64_t now = rng.Below(60);
    std::vector<std::pair<uint64_t, std::string>> expected;
    for (const auto& [key, entry] : model) {
      if (IsExpired(entry.expire_at_ms, now)) expected.emplace_back(entry.expire_at_ms, key);
    }
    std::sort(expected.begin(), expected.end());
    TOWLINE_ASSERT_OK_AND_ASSIGN(const auto due, state_->DueExpiries(now, 1000));
    std::vector<std::pair<uint64_t, std::string>> found;
    for (const auto& entry : due) found.emplace_back(entry.expire_at_ms, entry.key);
    ASSERT_EQ(found, expected) << "round " << round;
  }
}

// A key whose expiry moves with every write must not fill the disk with the entries of its past.
TEST_F(StateTest, StaleExpiryEntriesAreRemoved) {
  constexpr uint64_t kKeys = 100;
  for (uint64_t i = 0; i < 100 * kKeys; ++i) {
    log_.Append(ChangeBuilder().Put(absl::StrCat("session", i % kKeys), "v", 1'000'000 + i * 10).Encode());
  }
  ASSERT_THAT(ApplyRest(*state_, log_, 100), IsOk());
  EXPECT_LT(CountSpace(kExpirySpace), 20 * kKeys);
  EXPECT_EQ(Due(UINT64_MAX, 10 * kKeys).size(), kKeys);

  // Without further entries, deletes alone get rid of the rest.
  Apply(ChangeBuilder().DeleteRange("", "").Encode());
  ApplyFrom("", 0);
  for (int i = 0; i < 30'000; ++i) log_.Append(ChangeBuilder().Delete("other").Encode());
  ASSERT_THAT(ApplyRest(*state_, log_, 4096), IsOk());
  EXPECT_EQ(CountSpace(kExpirySpace), 0u);
}

TEST_F(StateTest, ARequestIsKnownByClientAndSequence) {
  Apply(ChangeBuilder().Put("k", "v").Request("a", 5).Encode());
  Apply(ChangeBuilder().Message("t", "p").Request("a-b", 5).Encode());
  TOWLINE_ASSERT_OK_AND_ASSIGN(const RequestLookup seen, state_->LookupRequest("a-b", 5));
  EXPECT_EQ(seen.outcome, Outcome::kSeen);
  EXPECT_EQ(seen.lsn, 2u);
  EXPECT_EQ(Lookup("a", 4), Outcome::kNew);
  EXPECT_EQ(Lookup("a", 6), Outcome::kNew);
  EXPECT_EQ(Lookup("b", 5), Outcome::kNew);
}

TEST_F(StateTest, TheHighestRequestIsThatOfTheClientAlone) {
  for (const uint64_t sequence : {7, 300, 65536}) {
    ApplyFrom(ChangeBuilder().Put("k", "v").Request("a", sequence).Encode());
    ApplyFrom(ChangeBuilder().Put("k", "v").Request("a-b", sequence + 1'000'000).Encode());
  }
  EXPECT_THAT(state_->HighestRequest("a", 1), IsOkAndHolds(std::optional<uint64_t>(65536)));
  EXPECT_THAT(state_->HighestRequest("a", 65536), IsOkAndHolds(std::optional<uint64_t>(65536)));
  EXPECT_THAT(state_->HighestRequest("a", 65537), IsOkAndHolds(std::optional<uint64_t>(65537)));
  EXPECT_THAT(state_->HighestRequest("b", 5), IsOkAndHolds(std::optional<uint64_t>(5)));
  for (uint64_t i = 0; i < 1024; ++i) ApplyFrom(ChangeBuilder().Put("k", "v").Request("many", 10 + i).Encode());
  EXPECT_THAT(state_->HighestRequest("many", 10), IsOkAndHolds(std::optional<uint64_t>(1033)));
  ApplyFrom(ChangeBuilder().Put("k", "v").Request("many", 9).Encode());
  EXPECT_THAT(state_->HighestRequest("many", 9), IsOkAndHolds(std::optional<uint64_t>()));

  // What was evicted counts.
  ApplyFrom("", kRequestWindow + kRequestEvictionInterval);
  EXPECT_THAT(state_->HighestRequest("a", 1), IsOkAndHolds(std::optional<uint64_t>(65536)));
}

TEST_F(StateTest, ARequestIsTooOldExactlyBehindTheWindow) {
  ApplyFrom(ChangeBuilder().Put("k", "v").Request("a", 5).Encode());
  ApplyFrom("", kRequestWindow);
  EXPECT_EQ(state_->applied().lsn, 1 + kRequestWindow);
  EXPECT_EQ(Lookup("a", 5), Outcome::kSeen);
  ApplyFrom("");
  EXPECT_EQ(Lookup("a", 5), Outcome::kTooOld);

  // The entry goes with the next multiple of the interval, and the floor stays in its place.
  EXPECT_EQ(CountSpace(kRequestSpace), 1u);
  ApplyFrom("", kRequestEvictionInterval);
  EXPECT_EQ(CountSpace(kRequestSpace), 0u);
  EXPECT_EQ(CountSpace(kRequestLsnSpace), 0u);
  EXPECT_EQ(CountSpace(kFloorSpace), 1u);
  EXPECT_EQ(Lookup("a", 5), Outcome::kTooOld);
  EXPECT_EQ(Lookup("a", 4), Outcome::kTooOld);
  EXPECT_EQ(Lookup("a", 6), Outcome::kNew);
}

TEST_F(StateTest, AFloorIsForgottenSixteenWindowsLater) {
  const Lsn sweep = (kFloorDistance / kFloorSweepInterval + 2) * kFloorSweepInterval;
  auto batch = state_->store().NewBatch();
  const auto floor_value = [](Lsn lsn) {
    std::string value(16, '\0');
    value[0] = 9;
    for (int i = 0; i < 8; ++i) value[static_cast<size_t>(8 + i)] = static_cast<char>(lsn >> (8 * i));
    return value;
  };
  batch->Put(FloorKey("old"), floor_value(sweep - kFloorDistance - 1));
  batch->Put(FloorKey("young"), floor_value(sweep - kFloorDistance));
  ASSERT_THAT(state_->store().Write(std::move(batch)), IsOk());
  StartAt(sweep - 3);
  ApplyFrom("", 2);
  EXPECT_EQ(Lookup("old", 9), Outcome::kTooOld);
  ApplyFrom("");
  EXPECT_EQ(Lookup("old", 9), Outcome::kNew);
  EXPECT_EQ(Lookup("young", 9), Outcome::kTooOld);
}

// Evictions depend on LSNs only: whatever the batches and restarts, the reserved keys are the same.
TEST_F(StateTest, EvictionDoesNotDependOnBatches) {
  std::vector<std::string> reserved;
  for (const size_t batch : {1000, 4096, 65536}) {
    Open(absl::StrCat("db-", batch));
    TestLog log;
    for (Lsn lsn = 1; lsn <= 6000; ++lsn) log.Append(ChangeBuilder().Request(absl::StrCat("c", lsn % 7), lsn).Encode());
    ASSERT_THAT(ApplyRest(*state_, log, batch), IsOk());
    std::vector<ApplyRecord> records;
    const std::string nothing = MembersPayload();
    for (Lsn lsn = log.last() + 1; lsn <= kRequestWindow + 5000; ++lsn) {
      records.push_back({{1, 42, lsn, 7}, nothing});
      if (records.size() == batch || lsn == kRequestWindow + 5000) {
        ASSERT_THAT(state_->Apply(records), IsOk());
        records.clear();
      }
    }
    TOWLINE_ASSERT_OK_AND_ASSIGN(const auto snapshot, state_->Snapshot());
    TOWLINE_ASSERT_OK_AND_ASSIGN(reserved.emplace_back(), snapshot->EncodeReserved());
  }
  EXPECT_EQ(reserved[0], reserved[1]);
  EXPECT_EQ(reserved[0], reserved[2]);
  EXPECT_EQ(Lookup("c1", 1), Outcome::kTooOld);
  EXPECT_EQ(Lookup(absl::StrCat("c", 5999 % 7), 5999), Outcome::kSeen);
}

TEST_F(StateTest, DamageInTheStoreIsReported) {
  Apply(ChangeBuilder().Put("k", "v").Encode());
  auto batch = state_->store().NewBatch();
  batch->Put(UserKey("k"), "\x20garbage..........");
  ASSERT_THAT(state_->store().Write(std::move(batch)), IsOk());
  EXPECT_THAT(state_->Get("k", 0), ReasonIs("state_malformed"));
  {
    TOWLINE_ASSERT_OK_AND_ASSIGN(const auto snapshot, state_->Snapshot());
    const auto it = snapshot->Scan("", "", true);
    EXPECT_FALSE(it->Valid());
    EXPECT_THAT(it->status(), ReasonIs("state_malformed"));
    EXPECT_THAT(snapshot->Digest(), ReasonIs("state_malformed"));
  }

  batch = state_->store().NewBatch();
  batch->Put(kPositionKey, "short");
  ASSERT_THAT(state_->store().Write(std::move(batch)), IsOk());
  EXPECT_THAT(state_->PersistedLsn(), IsOk());  // what was flushed, which is nothing
  state_.reset();
  TOWLINE_ASSERT_OK_AND_ASSIGN(auto store, factory_->Open(dir_.Join("db")));
  EXPECT_THAT(StateStore::Open(std::move(store)), ReasonIs("state_malformed"));
}

}  // namespace
}  // namespace towline::test
