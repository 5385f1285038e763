// What the sources of `towctl slot` share.

#ifndef TOWLINE_CTL_SLOT_VERBS_H_
#define TOWLINE_CTL_SLOT_VERBS_H_

#include <string>

#include "absl/status/status.h"

#include "ctl/app.h"
#include "towline/v1/slot_service.pb.h"

namespace towline::ctl {

// A usage error unless `name` can be a slot's.
absl::Status CheckSlotName(const std::string& name);

// Prints one slot; returns kExitOk.
int PrintSlot(Context& context, const v1::Slot& slot);

// drop, copy, advance, accept-loss.
void AddSlotEdits(CLI::App& slot, Selection& selection);

}  // namespace towline::ctl

#endif  // TOWLINE_CTL_SLOT_VERBS_H_
