// What the sources of SlotTable share.

#ifndef TOWLINE_SLOTS_SLOT_LIVE_H_
#define TOWLINE_SLOTS_SLOT_LIVE_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

#include "slots/slot_table.h"

namespace towline::slots {

struct SlotTable::Live {
  Slot slot;

  // Of the newest image on the disk.
  bool saved_holds = false;
  uint64_t saved_data_generation = 0;
  Lsn saved_confirmed_lsn = 0;

  uint64_t session_id = 0;  // 0 = none
  SessionOwner owner;
  int64_t idle_since_micros = 0;  // monotonic; end of the last session or start of the process
};

// Whether a slot in this state keeps log.
inline bool HoldsLog(const Slot& slot) { return slot.state != SlotState::kInvalidated; }

absl::Status SlotNotFound(absl::string_view name);
absl::Status SlotInUse(absl::string_view name);  // by a session
absl::Status SlotIsCopy(const Slot& slot);       // so it is another node's to change

// Begins another life of `slot` at `confirmed_lsn`; its state is set before.
void StartGeneration(Slot& slot, uint64_t generation, uint64_t data_generation, Lsn confirmed_lsn);

}  // namespace towline::slots

#endif  // TOWLINE_SLOTS_SLOT_LIVE_H_
