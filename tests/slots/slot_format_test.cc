// The bytes of the slot table against docs/formats/slots_v1.md and its golden file.

#include "slots/slot_format.h"

#include <string>

#include "common/bytes.h"
#include "common/checksum.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/format_doc.h"
#include "tests/support/seeded_rng.h"
#include "tests/support/status_matchers.h"

namespace towline::slots {
namespace {

using ::towline::test::FormatConstants;
using ::towline::test::FormatExample;
using ::towline::test::FormatField;
using ::towline::test::FormatFields;
using ::towline::test::IsOk;
using ::towline::test::ReadGolden;
using ::towline::test::ReasonIs;
using ::towline::test::SeededRng;

constexpr char kDocument[] = "docs/formats/slots_v1.md";

SlotImage Example() {
  SlotImage image;
  image.first_retained[3] = 1000;
  Slot slot;
  slot.name = "c1";
  slot.kind = SlotKind::kConsumer;
  slot.state = SlotState::kInvalidated;
  slot.generation = 0x1122334455667788;
  slot.data_generation = 3;
  slot.confirmed_lsn = slot.flushed_lsn = 900;
  slot.created_time_ms = 1700000000000;
  slot.last_active_time_ms = 1700000001000;
  slot.invalidation = Invalidation{"retained_bytes", 5000, 1700000002000, 901, 1000};
  image.slots.push_back(slot);

  slot = {};
  slot.name = "r1";
  slot.state = SlotState::kBootstrapping;
  slot.generation = 0xa1b2;
  slot.data_generation = 3;
  slot.confirmed_lsn = 4000;
  slot.owner_incarnation = 0x99;
  slot.bootstrap_reason = "wal_removed";
  slot.created_time_ms = 1700000000000;
  slot.last_active_time_ms = 1700000003000;
  image.slots.push_back(slot);

  slot = {};
  slot.name = "r2";
  slot.generation = 0xc3d4;
  slot.data_generation = 3;
  slot.confirmed_lsn = slot.flushed_lsn = 4500;
  slot.owner_incarnation = 0x77;
  slot.origin = "p1";
  slot.created_time_ms = 1700000000000;
  slot.last_active_time_ms = 1700000004000;
  image.slots.push_back(slot);
  return image;
}

TEST(SlotFormatTest, ConstantsAreThoseOfTheDocument) {
  const std::map<std::string, uint64_t> expected = {{"magic", kSlotsMagic},
                                                    {"format version", kSlotsVersion},
                                                    {"capacity", kSlotsCapacity},
                                                    {"header", kTableHeaderSize},
                                                    {"first retained entry", kFirstRetainedSize},
                                                    {"fixed part of a slot", kSlotFixedSize},
                                                    {"fixed part of an invalidation", kInvalidationFixedSize},
                                                    {"longest text", kSlotTextSizeMax},
                                                    {"most first retained entries", kFirstRetainedMax},
                                                    {"largest slot", kSlotSizeMax},
                                                    {"most slots", kSlotsMax}};
  EXPECT_EQ(FormatConstants(kDocument), expected);
}

// Where the document says that a field is, changing it changes those bytes.
TEST(SlotFormatTest, FieldsAreWhereTheDocumentSays) {
  const std::map<std::string, FormatField> fields = FormatFields(kDocument);
  const auto u64_at = [](const std::string& bytes, size_t offset) { return LoadLe<uint64_t>(bytes.data() + offset); };
  const SlotImage image = Example();
  const std::string bytes = EncodeSlots(image);
  const auto expect = [&](size_t base, const char* name, uint64_t value) {
    ASSERT_EQ(fields.count(name), 1u) << name;
    const FormatField& field = fields.at(name);
    const uint64_t mask = field.size == 8 ? ~0ull : (1ull << (8 * field.size)) - 1;
    EXPECT_EQ(u64_at(bytes, base + field.offset) & mask, value) << name;
  };
  expect(0, "table flags", 0);
  expect(0, "first retained count", 1);
  expect(0, "slot count", 3);
  expect(kTableHeaderSize, "retained: data generation", 3);
  expect(kTableHeaderSize, "retained: LSN", 1000);
  const size_t slot = kTableHeaderSize + kFirstRetainedSize;
  expect(slot, "kind", 2);
  expect(slot, "state", 5);
  expect(slot, "slot flags", 1);
  expect(slot, "generation", 0x1122334455667788);
  expect(slot, "data generation", 3);
  expect(slot, "confirmed LSN", 900);
  expect(slot, "flushed LSN", 900);
  expect(slot, "owner incarnation", 0);
  expect(slot, "created", 1700000000000);
  expect(slot, "last active", 1700000001000);
  const size_t invalidation = slot + kSlotFixedSize + 3 * 4 + 2;
  expect(invalidation, "invalid: at LSN", 5000);
  expect(invalidation, "invalid: at time", 1700000002000);
  expect(invalidation, "invalid: needed LSN", 901);
  expect(invalidation, "invalid: oldest LSN", 1000);
}

TEST(SlotFormatTest, TheExampleIsTheGoldenFileAndWhatWeWrite) {
  const std::string golden = ReadGolden("tests/golden/slots_v1.hex");
  EXPECT_EQ(FormatExample(kDocument), golden);
  ASSERT_GT(golden.size(), kTwoCopyHeaderSize);
  const std::string payload = golden.substr(kTwoCopyHeaderSize);
  EXPECT_EQ(EncodeSlots(Example()), payload);
  EXPECT_EQ(LoadLe<uint64_t>(golden.data()), kSlotsMagic);
  EXPECT_EQ(LoadLe<uint32_t>(golden.data() + 8), kSlotsVersion);
  EXPECT_EQ(LoadLe<uint32_t>(golden.data() + 12), payload.size());
  EXPECT_EQ(LoadLe<uint32_t>(golden.data() + 24), Crc32c(payload));

  absl::StatusOr<SlotImage> image = DecodeSlots(kSlotsVersion, payload);
  ASSERT_THAT(image, IsOk());
  EXPECT_EQ(image->slots, Example().slots);
  EXPECT_EQ(image->first_retained, Example().first_retained);
  EXPECT_FALSE(image->unknown);
}

TEST(SlotFormatTest, WhatIsNeverSavedIsLeftOut) {
  SlotImage image = Example();
  image.unknown = true;
  image.slots[2].state = SlotState::kActive;
  image.slots[2].received_lsn = image.slots[2].applied_lsn = 9000;
  absl::StatusOr<SlotImage> decoded = DecodeSlots(kSlotsVersion, EncodeSlots(image));
  ASSERT_THAT(decoded, IsOk());
  EXPECT_TRUE(decoded->unknown);
  EXPECT_EQ(decoded->slots, Example().slots);
}

TEST(SlotFormatTest, EveryTruncationAndEveryExtraByteIsDamage) {
  const std::string payload = EncodeSlots(Example());
  for (size_t size = 0; size < payload.size(); ++size) {
    EXPECT_THAT(DecodeSlots(kSlotsVersion, payload.substr(0, size)), ReasonIs("slots_damaged")) << size;
  }
  EXPECT_THAT(DecodeSlots(kSlotsVersion, payload + '\0'), ReasonIs("slots_damaged"));
  EXPECT_THAT(DecodeSlots(kSlotsVersion + 1, payload), ReasonIs("slots_version"));
}

// Whatever the bytes: damage, or a table that encodes to the same bytes again.
TEST(SlotFormatTest, EveryFlipAndRandomChangesAreDamageOrAnotherTable) {
  const std::string payload = EncodeSlots(Example());
  const auto check = [](const std::string& bytes) {
    absl::StatusOr<SlotImage> image = DecodeSlots(kSlotsVersion, bytes);
    if (image.ok()) {
      EXPECT_EQ(EncodeSlots(*image), bytes);
    } else {
      EXPECT_THAT(image, ReasonIs("slots_damaged"));
    }
  };
  for (size_t bit = 0; bit < 8 * payload.size(); ++bit) {
    std::string bytes = payload;
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << (bit % 8)));
    check(bytes);
  }
  SeededRng rng(1);
  for (int i = 0; i < 20'000; ++i) {
    std::string bytes = payload.substr(0, rng.OneIn(2) ? payload.size() : rng.Below(payload.size()));
    for (uint64_t changes = rng.Below(6); changes > 0 && !bytes.empty(); --changes) {
      bytes[rng.Below(bytes.size())] = static_cast<char>(rng.Next());
    }
    check(bytes);
  }
}

}  // namespace
}  // namespace towline::slots
