// The slot table: any two copies give the slots of a whole copy, or a table that is unknown and removes nothing; empty
// only if there is no file.

#include <algorithm>
#include <map>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "slots/slot_format.h"
#include "slots/slot_table.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/two_copy_input.h"
#include "tests/support/fake_clock.h"
#include "tests/support/format_doc.h"
#include "tests/support/seeded_rng.h"
#include "tests/support/sim_file_system.h"

namespace towline::fuzz {
namespace {

using slots::Slot;
using slots::SlotImage;
using slots::SlotTable;
using test::SimFileSystem;

constexpr char kDirectory[] = "node";
constexpr Lsn kNothingHeld = UINT64_MAX;

struct World {
  test::FakeClock clock;
  test::SeededRng rng{1};

  absl::StatusOr<std::unique_ptr<SlotTable>> Open(FileSystem& fs) {
    return SlotTable::Open(fs, kDirectory, clock, rng, *NullLogger(), slots::SlotLimits());
  }
};

// First LSN that has to stay, as slots_v1.md and slot_table.h say it.
Lsn ExpectedFloor(const std::vector<Slot>& list, uint64_t data_generation) {
  Lsn floor = kNothingHeld;
  for (const Slot& slot : list) {
    if (slot.data_generation != data_generation || slot.state == slots::SlotState::kInvalidated) continue;
    floor = std::min(floor, slot.confirmed_lsn == UINT64_MAX ? UINT64_MAX : slot.confirmed_lsn + 1);
  }
  return floor;
}

void CheckFloors(const SlotTable& table) {
  for (const Slot& slot : table.List()) {
    const Lsn floor = table.Floor(slot.data_generation);
    const Lsn expected = table.unknown() ? 0 : ExpectedFloor(table.List(), slot.data_generation);
    FUZZ_EXPECT(floor == expected, absl::StrCat(floor, ", not ", expected));
  }
  FUZZ_EXPECT(!table.unknown() || table.Floor(1) == 0, "an unknown table lets log be removed");
}

// A table that was read goes on working, and what it saves is there after a power loss.
void CheckUse(World& world, SimFileSystem& fs, SlotTable& table) {
  const bool unknown = table.unknown();
  const size_t slots_before = table.List().size();
  const absl::StatusOr<Slot> created = table.Create("new-slot", slots::SlotKind::kReplica, 3, 77);
  FUZZ_EXPECT(created.ok() || GetErrorInfo(created.status()).reason == "slot_exists" ||
                  GetErrorInfo(created.status()).reason == "slot_limit",
              created.status().ToString());
  FUZZ_EXPECT(table.List().size() == slots_before + (created.ok() ? 1 : 0), "");
  const absl::Status retained = table.SaveFirstRetained(3, 70);
  FUZZ_EXPECT(retained.ok(), retained.ToString());
  FUZZ_EXPECT(table.unknown() == unknown, "a save made a lost table known");
  const std::unique_ptr<SimFileSystem> crashed = fs.CloneAfterCrash(test::CrashProfile::kStrict, 1);
  const absl::StatusOr<std::unique_ptr<SlotTable>> again = world.Open(*crashed);
  FUZZ_EXPECT(again.ok(), again.status().ToString());
  FUZZ_EXPECT((*again)->List() == table.List(), "");
  FUZZ_EXPECT((*again)->unknown() == unknown, "the loss was forgotten");
  FUZZ_EXPECT((*again)->first_retained(3) == table.first_retained(3), "");
  FUZZ_EXPECT(table.AcceptLoss().ok() && !table.unknown(), "");
  CheckFloors(table);
}

// Whether the table is what `image` holds.
bool Holds(const SlotTable& table, const TwoCopyImage& image) {
  const absl::StatusOr<SlotImage> decoded = slots::DecodeSlots(image.version, image.payload);
  if (!decoded.ok()) return table.unknown() && table.List().empty() && absl::IsDataLoss(decoded.status());
  FUZZ_EXPECT(slots::EncodeSlots(*decoded) == image.payload, "decode and encode disagree");
  return table.unknown() == decoded->unknown && table.List() == decoded->slots;
}

void Run(Input& input) {
  World world;
  SimFileSystem fs;
  FUZZ_EXPECT(fs.CreateDirectory(kDirectory).ok(), "");
  FUZZ_EXPECT(fs.SyncDirectory("/").ok(), "");
  const TwoCopyInput copies = ReadTwoCopyInput(input, kDirectory, "slots", slots::kSlotsMagic, &fs);
  const std::map<std::string, std::string> before = fs.AllContents();
  const absl::StatusOr<std::unique_ptr<SlotTable>> table = world.Open(fs);
  if (!table.ok()) {
    bool other_version = false;
    for (const TwoCopyImage& image : copies.newest) {
      other_version = other_version || image.version != slots::kSlotsVersion;
    }
    FUZZ_EXPECT(GetErrorInfo(table.status()).reason == "slots_version" && other_version, table.status().ToString());
    FUZZ_EXPECT(fs.AllContents() == before, "a refusal changed something");
    return;
  }
  switch (copies.state) {
    case TwoCopyState::kAbsent:
      FUZZ_EXPECT((*table)->unknown() == !before.empty() && (*table)->List().empty(),
                  "a table is empty if there is no file, and lost if there is one that holds nothing");
      break;
    case TwoCopyState::kDamaged:
      FUZZ_EXPECT((*table)->unknown() && (*table)->List().empty(), "damage looks like an empty table");
      break;
    case TwoCopyState::kValid: {
      bool held = false;
      for (const TwoCopyImage& image : copies.newest) held = held || Holds(**table, image);
      FUZZ_EXPECT(held, "slots that no newest copy holds");
      break;
    }
  }
  CheckFloors(**table);
  if (copies.use) CheckUse(world, fs, **table);
}

}  // namespace

void FixInput(absl::Span<char> input) { FixTwoCopyInput(input, slots::kSlotsMagic, slots::kSlotsVersion); }

std::vector<Seed> Seeds() { return TwoCopySeeds(test::ReadGolden("tests/golden/slots_v1.hex")); }

}  // namespace towline::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  towline::fuzz::Input input(data, size);
  towline::fuzz::Run(input);
  return 0;
}
