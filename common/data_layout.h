// Where things stand in a data directory (docs/ARCHITECTURE.md).

#ifndef TOWLINE_COMMON_DATA_LAYOUT_H_
#define TOWLINE_COMMON_DATA_LAYOUT_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

#include "common/file_system.h"

namespace towline {

// Held with File::Lock by whoever uses the directory.
inline constexpr char kDataLockName[] = "LOCK";

std::string GenerationDirectory(const std::string& data_directory, uint64_t number);
std::string WalDirectory(const std::string& data_directory, uint64_t number);
std::string StoreDirectory(const std::string& data_directory, uint64_t number);
std::string CheckpointsDirectory(const std::string& data_directory, uint64_t number);
// Of file snapshots, while they are sent; of a generation that is live.
std::string SnapshotsDirectory(const std::string& data_directory, uint64_t number);
// Of files that arrive; of a generation that is being loaded.
std::string ArrivingFilesDirectory(const std::string& data_directory, uint64_t number);
std::string QuarantineDirectory(const std::string& data_directory);

// Creates the directory `name` in `parent`, unless it is there, and makes its name durable.
absl::Status MakeDirectoryDurably(FileSystem& fs, const std::string& parent, absl::string_view name);

}  // namespace towline

#endif  // TOWLINE_COMMON_DATA_LAYOUT_H_
