// The bytes of a slot table: docs/formats/slots_v1.md. Inside a TwoCopyFile.

#ifndef TOWLINE_SLOTS_SLOT_FORMAT_H_
#define TOWLINE_SLOTS_SLOT_FORMAT_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "common/two_copy_file.h"
#include "common/types.h"
#include "slots/slot_table.h"

namespace towline::slots {

// Payload: header, first retained LSNs, slots. Little-endian, no padding.
//   header          0 u8 flags (bit 0: unknown) | 1 three zero bytes | 4 u32 first retained LSNs | 8 u32 slots
//   first retained  0 u64 data generation | 8 u64 LSN
//   slot            0 u8 kind | 1 u8 state | 2 u8 flags (bit 0: invalidation) | 3 zero byte | 4 u64 generation |
//                   12 u64 data generation | 20 u64 confirmed LSN | 28 u64 flushed LSN | 36 u64 owner incarnation |
//                   44 u64 created | 52 u64 last active | 60 name, bootstrap reason, origin: u32 length and bytes
//   invalidation    u64 at LSN | u64 at time | u64 needed LSN | u64 oldest LSN | cause: u32 length and bytes
inline constexpr uint8_t kTableFlagUnknown = 1;
inline constexpr uint8_t kSlotFlagInvalidation = 1;
inline constexpr size_t kTableHeaderSize = 12;
inline constexpr size_t kFirstRetainedSize = 16;
inline constexpr size_t kSlotFixedSize = 60;
inline constexpr size_t kInvalidationFixedSize = 32;
inline constexpr size_t kSlotTextSizeMax = 63;  // of name, bootstrap reason, origin and cause each
inline constexpr size_t kFirstRetainedMax = 8;

// A slot at its largest, so that a slot that was accepted fits in every state.
inline constexpr size_t kSlotSizeMax = kSlotFixedSize + kInvalidationFixedSize + 4 * (4 + kSlotTextSizeMax);
inline constexpr size_t kSlotsMax =
    (kSlotsCapacity - kTwoCopyHeaderSize - kTableHeaderSize - kFirstRetainedMax * kFirstRetainedSize) / kSlotSizeMax;

// What one save holds.
struct SlotImage {
  bool unknown = false;                    // an earlier table was lost, and nobody accepted that yet
  std::map<uint64_t, Lsn> first_retained;  // data generation -> LSN
  std::vector<Slot> slots;                 // ordered by name
};

// Leaves out what is never saved: temporary slots, received_lsn, applied_lsn, and kActive, which becomes kInactive.
std::string EncodeSlots(const SlotImage& image);

// DATA_LOSS, reason slots_damaged, if malformed; FAILED_PRECONDITION, reason slots_version, if of another version.
absl::StatusOr<SlotImage> DecodeSlots(uint32_t version, absl::string_view payload);

}  // namespace towline::slots

#endif  // TOWLINE_SLOTS_SLOT_FORMAT_H_
