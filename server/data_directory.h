// Taking possession of a data directory: lock, identity, first start, generations.

#ifndef TOWLINE_SERVER_DATA_DIRECTORY_H_
#define TOWLINE_SERVER_DATA_DIRECTORY_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/control.h"
#include "common/file_system.h"
#include "common/logger.h"
#include "common/rng.h"
#include "replica/generation.h"
#include "server/config.h"
#include "slots/slot_table.h"

namespace towline {

// An opened data directory. The lock is held for its life.
struct DataDirectory {
  std::unique_ptr<File> lock;
  std::unique_ptr<ControlFile> control;
  std::unique_ptr<slots::SlotTable> slots;
  std::shared_ptr<Generation> live;  // nullptr: a replica before its first attach
};

// Locks the directory, reads or (for an empty one) creates its identity, opens the slots and recovers the live
// generation. Reasons: data_dir_unusable, locked, foreign_directory, wrong_node_id, control_damaged, wal_corrupt,
// store_ahead, state_mismatch. Files of a foreign directory are not touched.
absl::StatusOr<DataDirectory> OpenDataDirectory(const NodeConfig& config, const GenerationEnvironment& env);

// Removes directories under gen/ that are not generation `live`.
void RemoveOtherGenerations(FileSystem& fs, const std::string& data_directory, uint64_t live, Logger& logger);

// Exit code of towlined for a failed start or a fatal error, by reason and code.
int ExitCodeFor(const absl::Status& status);

}  // namespace towline

#endif  // TOWLINE_SERVER_DATA_DIRECTORY_H_
