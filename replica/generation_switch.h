// Making a new generation the live one. Control is the switch: until it is written the old generation is live, with the
// write the new one is.

#ifndef TOWLINE_REPLICA_GENERATION_SWITCH_H_
#define TOWLINE_REPLICA_GENERATION_SWITCH_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "common/types.h"
#include "replica/replica_controller.h"
#include "replica/stage_result.h"

namespace towline {

struct NewGeneration {
  uint64_t number = 0;
  ClusterId cluster_id;
  History history;                     // up to base
  Position base;                       // the log begins behind it
  Position exact_from;                 // base or later; its state is exact
  std::shared_ptr<Generation> opened;  // null: it is opened here, its store may be filled already, its log is new
  std::optional<MemberList> members = std::nullopt;  // absent: they stay
};

// Writes generation `next` to both copies of control and hands it to the host. kDone; kReconnect if it cannot be opened
// (the old one stays live), kHalt if the disk is full; kFatal if control cannot be written: which one is live is then
// known only after a restart.
StageResult SwitchToGeneration(ReplicaHost& host, const NewGeneration& next);

}  // namespace towline

#endif  // TOWLINE_REPLICA_GENERATION_SWITCH_H_
