// A copy of a state's store whose position is known.

#ifndef TOWLINE_STORE_STATE_CHECKPOINT_H_
#define TOWLINE_STORE_STATE_CHECKPOINT_H_

#include <string>

#include "absl/status/statusor.h"

#include "common/file_system.h"
#include "common/types.h"
#include "store/state_store.h"

namespace towline {

struct StateCheckpoint {
  Position position;  // the state in the copy is that behind this record
  FileSums sums;      // of its files, as Store::Checkpoint says
};

// Copies what is persisted of `state` to `directory`, by hard links; what stands there before is removed. Does not
// flush. Durable as Store::Checkpoint says. ABORTED, reason store_flushing: the store was flushed meanwhile, several
// times over.
absl::StatusOr<StateCheckpoint> CheckpointState(StateStore& state, FileSystem& fs, const std::string& directory);

}  // namespace towline

#endif  // TOWLINE_STORE_STATE_CHECKPOINT_H_
