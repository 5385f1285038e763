// What a crash leaves of a slot table. Damage: slot_damage_test.cc.
//
// Goal     What a call returned as saved is there after every crash; Floor never goes above what is on the disk.
// Method   A workload over SimFileSystem; after each call of its that changes the disk, every kind of crash state is
//          opened. What comes up must be the table before the running operation or the one after it.

#include <functional>
#include <string>
#include <vector>

#include "common/failpoint.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "slots/slot_copies.h"
#include "slots/slot_table.h"
#include "tests/slots/slot_table_fixture.h"
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
        found.push_back(SavedOf(*table, kData));
        // What was acted upon stays, whatever happens next.
        ForEachCrashState(crashed, 1,
                          [&](SimFileSystem& again) { EXPECT_EQ(SavedOf(*Open(again), kData), found.back()); });
      });
    });
    ASSERT_THAT(operation(), IsOk());
    fs_.SetAfterCall(nullptr);
    saved_ = SavedOf(*table_, kData);
    crash_states_ += found.size();
    for (const Saved& each : found) {
      EXPECT_TRUE(each == before || each == saved_)
          << each.slots.size() << " slots, first retained " << each.first_retained;
    }
    EXPECT_EQ(table_->Floor(kData), FloorOf(saved_));
    ForEachCrashState(fs_, 4, [&](SimFileSystem& crashed) { EXPECT_EQ(SavedOf(*Open(crashed), kData), saved_); });
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
  Run("copy", [&] { return table_->Copy("a", "c", kData, 1).status(); });
  Run("a consumer", [&] { return table_->Create("d", SlotKind::kConsumer, kData, 10).status(); });
  Run("advance", [&] { return table_->AdvanceTo("d", 12, kData, 60).status(); });
  Run("invalidate for another cause", [&] {
    uint64_t superseded = 0;
    const LogView log = {2, 60, [](Lsn lsn) { return 60 - lsn; }};
    return table_->Invalidate("c", {1, 2}, "diverged", log, kData, &superseded).status();
  });
  Run("switch", [&] { return table_->SwitchDataGeneration(kData, 15, 20); });
  Run("drop", [&] { return table_->Drop("a", true).status(); });
  EXPECT_GT(crash_states_, 500u);
}

TEST_F(SlotCrashTest, CopiesAndAPromotionAreThereOrNot) {
  const LogView log = {5, 60, [](Lsn) { return uint64_t{0}; }};
  const auto told = [](std::vector<SlotCopy> slots, Term term) {
    return SlotCopies{term, "p1", true, std::move(slots), {}};
  };
  const SlotCopy a = {"a", SlotKind::kConsumer, 1, 10, false, 1, 2};
  const SlotCopy b = {"b", SlotKind::kReplica, 2, 20, false, 1, 2};
  const SlotCopy c = {"c", SlotKind::kReplica, 3, 2, false, 1, 2};  // its log is gone
  const SlotCopy further = {"b", SlotKind::kReplica, 2, 500, false, 1, 2};
  Run("an own one", [&] { return Create("own", 30); });
  Run("the first copies", [&] { return table_->SaveCopies(told({a, b}, 1), "r1", log, kData); });
  ASSERT_THAT(table_->SaveCopies(told({a, further}, 1), "r1", log, kData), IsOk());
  Run("progress of a copy", [&] { return table_->SaveIfDirty(); });
  Run("one more", [&] { return table_->SaveCopies(told({a, further, c}, 1), "r1", log, kData); });
  Run("promotion", [&] { return table_->TakeOver(2, "own", log, kData).status(); });
  EXPECT_EQ(saved_.slots.size(), 3u);
  Run("stepping down", [&] { return table_->HandOver("p2"); });
  Run("one less", [&] { return table_->SaveCopies(told({a}, 2), "r1", log, kData); });
  EXPECT_EQ(saved_.slots.size(), 1u);
  EXPECT_GT(crash_states_, 200u);
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
