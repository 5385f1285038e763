// What a crash or damage leaves of a slot table.
//
// Goal     What a call returned as saved is there after every crash; Floor never goes above what is on the disk; damage
//          gives an earlier image or `unknown`, and never a table that has forgotten its slots.
// Method   A workload over SimFileSystem; after each call of its that changes the disk, every kind of crash state is
//          opened. What comes up must be the table before the running operation or the one after it.

#include <functional>
#include <string>
#include <vector>

#include "common/failpoint.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "slots/slot_format.h"
#include "slots/slot_table.h"
#include "tests/support/fake_clock.h"
#include "tests/support/seeded_rng.h"
#include "tests/support/sim_file_system.h"
#include "tests/support/status_matchers.h"

namespace towline::slots {
namespace {

using ::towline::test::FakeClock;
using ::towline::test::ForEachCrashState;
using ::towline::test::IsOk;
using ::towline::test::SeededRng;
using ::towline::test::SimFileSystem;

constexpr uint64_t kData = 1;

// What of a table survives a restart.
struct Saved {
  std::vector<Slot> slots;
  Lsn first_retained = 0;
  bool unknown = false;

  friend bool operator==(const Saved&, const Saved&) = default;
};

Saved SavedOf(const SlotTable& table) {
  Saved saved{table.List(), table.first_retained(kData), table.unknown()};
  for (Slot& slot : saved.slots) {
    if (slot.state == SlotState::kActive) slot.state = SlotState::kInactive;
    slot.received_lsn = slot.applied_lsn = 0;
  }
  return saved;
}

Lsn FloorOf(const Saved& saved) {
  Lsn floor = ~Lsn{0};
  for (const Slot& slot : saved.slots) {
    if (slot.state != SlotState::kInvalidated) floor = std::min(floor, slot.confirmed_lsn + 1);
  }
  return floor;
}

class SlotCrashTest : public ::testing::Test {
 protected:
  void SetUp() override { table_ = Open(fs_); }

  std::unique_ptr<SlotTable> Open(SimFileSystem& fs) {
    absl::StatusOr<std::unique_ptr<SlotTable>> table =
        SlotTable::Open(fs, "/", clock_, rng_, *NullLogger(), {.max_retained_bytes = 1000});
    EXPECT_THAT(table, IsOk());
    return table.ok() ? *std::move(table) : nullptr;
  }

  // Runs one operation and checks the crash states in it.
  void Run(const char* name, const std::function<absl::Status()>& operation) {
    SCOPED_TRACE(name);
    const Saved before = saved_;
    std::vector<Saved> found;
    fs_.SetAfterCall([&] {
      EXPECT_EQ(table_->Floor(kData), FloorOf(before)) << "the floor moved before the save was done";
      ForEachCrashState(fs_, 4, [&](SimFileSystem& crashed) {
        const std::unique_ptr<SlotTable> table = Open(crashed);
        ASSERT_NE(table, nullptr);
        found.push_back(SavedOf(*table));
        // What was acted upon stays, whatever happens next.
        ForEachCrashState(crashed, 1, [&](SimFileSystem& again) { EXPECT_EQ(SavedOf(*Open(again)), found.back()); });
      });
    });
    ASSERT_THAT(operation(), IsOk());
    fs_.SetAfterCall(nullptr);
    saved_ = SavedOf(*table_);
    crash_states_ += found.size();
    for (const Saved& each : found) {
      EXPECT_TRUE(each == before || each == saved_)
          << each.slots.size() << " slots, first retained " << each.first_retained;
    }
    EXPECT_EQ(table_->Floor(kData), FloorOf(saved_));
    ForEachCrashState(fs_, 4, [&](SimFileSystem& crashed) { EXPECT_EQ(SavedOf(*Open(crashed)), saved_); });
  }

  absl::Status Create(const char* name, Lsn lsn) {
    return table_->Create(name, SlotKind::kReplica, kData, lsn).status();
  }

  Session Begin(const char* name) {
    uint64_t superseded = 0;
    return *table_->BeginSession(name, {1, 2}, &superseded);
  }

  SimFileSystem fs_;
  FakeClock clock_;
  SeededRng rng_{1};
  std::unique_ptr<SlotTable> table_;
  Saved saved_;
  size_t crash_states_ = 0;
};

TEST_F(SlotCrashTest, EveryCrashLeavesTheTableBeforeOrAfter) {
  Run("create the first", [&] { return Create("a", 10); });
  Run("create another", [&] { return Create("b", 20); });
  const Session a = Begin("a");
  Begin("b");
  ASSERT_THAT(table_->Advance({a.id, a.generation, 15, 12, 11}, 15), IsOk());
  Run("progress", [&] { return table_->SaveIfDirty(); });
  ASSERT_THAT(table_->Advance({a.id, a.generation, 40, 40, 40}, 40), IsOk());
  Run("first retained, with progress", [&] { return table_->SaveFirstRetained(kData, 9); });
  ASSERT_THAT(table_->Advance({a.id, a.generation, 50, 50, 50}, 50), IsOk());
  Run("progress", [&] { return table_->SaveIfDirty(); });
  Run("down", [&] { return table_->NewGeneration("a", kData, 3, SlotState::kInactive, "", true).status(); });
  Run("bootstrap",
      [&] { return table_->NewGeneration("b", kData, 30, SlotState::kBootstrapping, "diverged", true).status(); });
  Run("raise", [&] { return table_->RaiseConfirmed("b", table_->Get("b")->generation, 35); });
  Run("revive", [&] { return table_->Revive("b"); });
  Run("invalidate", [&] {
    return table_->EnforceLimits({2, 60, [](Lsn lsn) { return (60 - lsn) * 20; }}, kData).status();
  });
  EXPECT_EQ(saved_.slots[0].state, SlotState::kInvalidated);
  Run("revive an invalidated one", [&] { return table_->Revive("a"); });
  Run("switch", [&] { return table_->SwitchDataGeneration(kData, 20); });
  Run("drop", [&] { return table_->Drop("a", true).status(); });
  EXPECT_GT(crash_states_, 500u);
}

// Two images: sequence n in one copy, the one before it, with less progress, in the other.
class SlotDamageTest : public SlotCrashTest {
 protected:
  void SetUp() override {
    SlotCrashTest::SetUp();
    ASSERT_THAT(Create("a", 10), IsOk());
    ASSERT_THAT(Create("b", 20), IsOk());
    older_ = SavedOf(*table_);
    const Session a = Begin("a");
    ASSERT_THAT(table_->Advance({a.id, a.generation, 15, 15, 15}, 15), IsOk());
    ASSERT_THAT(table_->SaveIfDirty(), IsOk());
    newer_ = SavedOf(*table_);
    table_.reset();
    fs_.Reopen();
    newest_copy_ =
        fs_.Contents("slots.a").substr(16, 8) > fs_.Contents("slots.b").substr(16, 8) ? "slots.a" : "slots.b";
    older_copy_ = newest_copy_ == "slots.a" ? "slots.b" : "slots.a";
    used_bytes_ = kTwoCopyHeaderSize + EncodeSlots({false, {}, newer_.slots}).size();
  }

  Saved Reopened() {
    const std::unique_ptr<SimFileSystem> fs = fs_.Clone();
    return SavedOf(*Open(*fs));
  }

  Saved older_;
  Saved newer_;
  std::string newest_copy_;
  std::string older_copy_;
  size_t used_bytes_ = 0;
};

TEST_F(SlotDamageTest, EveryBitFlipOfOneCopyLeavesTheOther) {
  ASSERT_EQ(Reopened(), newer_);
  for (uint64_t bit = 0; bit < 8 * used_bytes_; ++bit) {
    SCOPED_TRACE(bit);
    fs_.FlipBit(newest_copy_, bit);
    EXPECT_EQ(Reopened(), older_);
    fs_.FlipBit(newest_copy_, bit);
    fs_.FlipBit(older_copy_, bit);
    EXPECT_EQ(Reopened(), newer_);
    fs_.FlipBit(older_copy_, bit);
  }
}

TEST_F(SlotDamageTest, EveryTruncationOfOneCopyLeavesTheOther) {
  const std::string newest = fs_.Contents(newest_copy_);
  const std::string older = fs_.Contents(older_copy_);
  for (size_t size = 0; size < used_bytes_; ++size) {
    SCOPED_TRACE(size);
    fs_.SetContents(newest_copy_, newest.substr(0, size));
    EXPECT_EQ(Reopened(), older_);
    fs_.SetContents(newest_copy_, newest);
    fs_.SetContents(older_copy_, older.substr(0, size));
    EXPECT_EQ(Reopened(), newer_);
    fs_.SetContents(older_copy_, older);
  }
}

TEST_F(SlotDamageTest, DamageToBothCopiesIsUnknownAndHoldsEverything) {
  const std::string newest = fs_.Contents(newest_copy_);
  const std::string older = fs_.Contents(older_copy_);
  for (size_t size = 1; size < used_bytes_; size += 7) {
    fs_.SetContents(newest_copy_, newest.substr(0, size));
    fs_.SetContents(older_copy_, older.substr(0, size));
    EXPECT_TRUE(Reopened().unknown) << size;
  }
  fs_.SetContents(newest_copy_, newest);
  fs_.SetContents(older_copy_, older);
  for (uint64_t bit = 0; bit < 8 * used_bytes_; bit += 3) {
    fs_.FlipBit(newest_copy_, bit);
    fs_.FlipBit(older_copy_, bit);
    EXPECT_TRUE(Reopened().unknown) << bit;
    fs_.FlipBit(newest_copy_, bit);
    fs_.FlipBit(older_copy_, bit);
  }
}

TEST_F(SlotDamageTest, UnknownStaysUntilSomebodyAcceptsTheLoss) {
  fs_.FlipBit("slots.a", 100);
  fs_.FlipBit("slots.b", 100);
  table_ = Open(fs_);
  EXPECT_EQ(table_->Floor(kData), 0u);
  ASSERT_THAT(Create("a", 30), IsOk());  // an owner is back
  EXPECT_EQ(table_->Floor(kData), 0u);
  fs_.Reopen();
  table_ = Open(fs_);
  EXPECT_TRUE(table_->unknown());
  EXPECT_EQ(table_->List().size(), 1u);
  EXPECT_EQ(table_->Floor(kData), 0u);
  ASSERT_THAT(table_->AcceptLoss(), IsOk());
  EXPECT_EQ(table_->Floor(kData), 31u);
  fs_.Reopen();
  table_ = Open(fs_);
  EXPECT_FALSE(table_->unknown());
}

TEST_F(SlotDamageTest, AWholeImageThatIsNoTableIsUnknownAndOneOfAnotherVersionIsRefused) {
  TwoCopyFile file(fs_, "/", "slots", kSlotsMagic, kSlotsCapacity);
  ASSERT_THAT(file.SaveBoth(kSlotsVersion, "rubbish"), IsOk());
  EXPECT_TRUE(Reopened().unknown);
  ASSERT_THAT(file.SaveBoth(kSlotsVersion + 1, "rubbish"), IsOk());
  EXPECT_THAT(SlotTable::Open(fs_, "/", clock_, rng_, *NullLogger(), {}), test::ReasonIs("slots_version"));
}

// Faults on purpose: the checks above must see them.
TEST_F(SlotCrashTest, AFloorFromLiveValuesWouldBeSeen) {
  ASSERT_THAT(Create("a", 10), IsOk());
  const Session a = Begin("a");
  ASSERT_THAT(table_->Advance({a.id, a.generation, 15, 15, 15}, 15), IsOk());
  EXPECT_EQ(table_->Floor(kData), 11u);
  const FailpointScope fault("slots_floor_from_live");
  EXPECT_EQ(table_->Floor(kData), 16u);
}

TEST(ProvingSlotsTest, OnlySlotsServedHereProveThatTheLogWasDurable) {
  Slot here;
  here.name = "here";
  here.data_generation = 3;
  Slot copy = here;
  copy.name = "copy";
  copy.origin = "p2";
  Slot former = here;
  former.name = "former";
  former.data_generation = 2;
  EXPECT_THAT(ProvingSlots({copy, former, here}, 3), ::testing::ElementsAre(here));
  const FailpointScope fault("slots_count_copies");
  EXPECT_THAT(ProvingSlots({copy, former, here}, 3), ::testing::ElementsAre(copy, here));
}

TEST_F(SlotCrashTest, AnIgnoredGenerationWouldBeSeen) {
  ASSERT_THAT(Create("a", 10), IsOk());
  const Session a = Begin("a");
  EXPECT_THAT(table_->Advance({a.id, a.generation + 1, 15, 15, 15}, 15), test::ReasonIs("stale_generation"));
  const FailpointScope fault("slots_ignore_generation");
  EXPECT_THAT(table_->Advance({a.id, a.generation + 1, 15, 15, 15}, 15), IsOk());
}

}  // namespace
}  // namespace towline::slots
