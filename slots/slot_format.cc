#include "slots/slot_format.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/bytes.h"
#include "common/check.h"
#include "common/error.h"
#include "common/names.h"

namespace towline::slots {
namespace {

absl::Status Damaged(absl::string_view what) {
  return MakeError(absl::StatusCode::kDataLoss, "slots_damaged", absl::StrCat("slot table: ", what));
}

void PutSlot(ByteWriter& writer, const Slot& slot) {
  TOWLINE_CHECK(slot.name.size() <= kSlotTextSizeMax && slot.bootstrap_reason.size() <= kSlotTextSizeMax);
  TOWLINE_CHECK(slot.origin.size() <= kSlotTextSizeMax);
  TOWLINE_CHECK(slot.invalidation.has_value() == (slot.state == SlotState::kInvalidated));
  const SlotState state = slot.state == SlotState::kActive ? SlotState::kInactive : slot.state;
  writer.U8(static_cast<uint8_t>(slot.kind));
  writer.U8(static_cast<uint8_t>(state));
  writer.U8(slot.invalidation.has_value() ? kSlotFlagInvalidation : 0);
  writer.U8(0);
  writer.U64(slot.generation);
  writer.U64(slot.data_generation);
  writer.U64(slot.confirmed_lsn);
  writer.U64(slot.flushed_lsn);
  writer.U64(slot.owner_incarnation);
  writer.U64(slot.created_time_ms);
  writer.U64(slot.last_active_time_ms);
  writer.LengthPrefixed(slot.name);
  writer.LengthPrefixed(slot.bootstrap_reason);
  writer.LengthPrefixed(slot.origin);
  if (!slot.invalidation.has_value()) return;
  TOWLINE_CHECK(slot.invalidation->cause.size() <= kSlotTextSizeMax);
  writer.U64(slot.invalidation->at_lsn);
  writer.U64(slot.invalidation->at_time_ms);
  writer.U64(slot.invalidation->needed_lsn);
  writer.U64(slot.invalidation->oldest_lsn);
  writer.LengthPrefixed(slot.invalidation->cause);
}

bool IsSaved(const Slot& slot) { return !slot.temporary; }

bool IsText(absl::string_view text) { return text.size() <= kSlotTextSizeMax; }

absl::Status ValidateSlot(const Slot& slot, uint8_t flags) {
  if (!ValidateName("slot", slot.name).ok()) return Damaged("a slot's name is malformed");
  if (slot.kind != SlotKind::kReplica && slot.kind != SlotKind::kConsumer) {
    return Damaged(absl::StrCat("slot ", slot.name, " has an unknown kind"));
  }
  if (slot.state < SlotState::kInactive || slot.state > SlotState::kInvalidated) {
    return Damaged(absl::StrCat("slot ", slot.name, " has an unknown state"));
  }
  if (flags > kSlotFlagInvalidation || slot.invalidation.has_value() != (slot.state == SlotState::kInvalidated)) {
    return Damaged(absl::StrCat("slot ", slot.name, " has flags that its state does not allow"));
  }
  if (slot.generation == 0) return Damaged(absl::StrCat("slot ", slot.name, " has generation 0"));
  if (!IsText(slot.bootstrap_reason) || !IsText(slot.origin) ||
      (slot.invalidation.has_value() && !IsText(slot.invalidation->cause))) {
    return Damaged(absl::StrCat("slot ", slot.name, " holds a text that is too long"));
  }
  return absl::OkStatus();
}

absl::StatusOr<Slot> TakeSlot(ByteReader& reader) {
  Slot slot;
  slot.kind = static_cast<SlotKind>(reader.U8());
  slot.state = static_cast<SlotState>(reader.U8());
  const uint8_t flags = reader.U8();
  const uint8_t reserved = reader.U8();
  slot.generation = reader.U64();
  slot.data_generation = reader.U64();
  slot.confirmed_lsn = reader.U64();
  slot.flushed_lsn = reader.U64();
  slot.owner_incarnation = reader.U64();
  slot.created_time_ms = reader.U64();
  slot.last_active_time_ms = reader.U64();
  slot.name = std::string(reader.LengthPrefixed());
  slot.bootstrap_reason = std::string(reader.LengthPrefixed());
  slot.origin = std::string(reader.LengthPrefixed());
  if ((flags & kSlotFlagInvalidation) != 0) {
    Invalidation& invalidation = slot.invalidation.emplace();
    invalidation.at_lsn = reader.U64();
    invalidation.at_time_ms = reader.U64();
    invalidation.needed_lsn = reader.U64();
    invalidation.oldest_lsn = reader.U64();
    invalidation.cause = std::string(reader.LengthPrefixed());
  }
  if (!reader.ok()) return Damaged("it is cut off");
  if (reserved != 0) return Damaged("reserved bytes are not 0");
  TOWLINE_RETURN_IF_ERROR(ValidateSlot(slot, flags));
  return slot;
}

}  // namespace

std::string EncodeSlots(const SlotImage& image) {
  std::string out;
  ByteWriter writer(&out);
  writer.U8(image.unknown ? kTableFlagUnknown : 0);
  writer.U8(0);
  writer.U16(0);
  writer.U32(static_cast<uint32_t>(image.first_retained.size()));
  writer.U32(static_cast<uint32_t>(std::count_if(image.slots.begin(), image.slots.end(), IsSaved)));
  for (const auto& [data_generation, lsn] : image.first_retained) {
    writer.U64(data_generation);
    writer.U64(lsn);
  }
  for (const Slot& slot : image.slots) {
    if (IsSaved(slot)) PutSlot(writer, slot);
  }
  return out;
}

absl::StatusOr<SlotImage> DecodeSlots(uint32_t version, absl::string_view payload) {
  if (version != kSlotsVersion) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition, "slots_version",
        absl::StrCat("the slot table has format version ", version, ", this program reads version ", kSlotsVersion),
        "start the program that wrote this data directory");
  }
  SlotImage image;
  ByteReader reader(payload);
  const uint8_t flags = reader.U8();
  const uint8_t reserved_byte = reader.U8();
  const uint16_t reserved = reader.U16();
  const uint32_t first_retained_count = reader.U32();
  const uint32_t slot_count = reader.U32();
  if (flags > kTableFlagUnknown || reserved_byte != 0 || reserved != 0) return Damaged("reserved bytes are not 0");
  image.unknown = flags == kTableFlagUnknown;
  if (!reader.ok() || first_retained_count > reader.remaining() / kFirstRetainedSize) return Damaged("it is cut off");
  for (uint32_t i = 0; i < first_retained_count; ++i) {
    const uint64_t data_generation = reader.U64();
    if (!image.first_retained.empty() && image.first_retained.rbegin()->first >= data_generation) {
      return Damaged("first retained LSNs are out of order");
    }
    image.first_retained[data_generation] = reader.U64();
  }
  if (slot_count > reader.remaining() / kSlotFixedSize) return Damaged("it is cut off");
  for (uint32_t i = 0; i < slot_count; ++i) {
    TOWLINE_ASSIGN_OR_RETURN(Slot slot, TakeSlot(reader));
    if (!image.slots.empty() && image.slots.back().name >= slot.name) return Damaged("slots are out of order");
    image.slots.push_back(std::move(slot));
  }
  if (reader.remaining() != 0) return Damaged("bytes follow its end");
  return image;
}

}  // namespace towline::slots
