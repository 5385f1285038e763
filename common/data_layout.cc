#include "common/data_layout.h"

#include "absl/strings/str_cat.h"

#include "common/error.h"

namespace towline {

std::string GenerationDirectory(const std::string& data_directory, uint64_t number) {
  return JoinPath(JoinPath(data_directory, "gen"), absl::StrCat(number));
}
std::string WalDirectory(const std::string& data_directory, uint64_t number) {
  return JoinPath(GenerationDirectory(data_directory, number), "wal");
}
std::string StoreDirectory(const std::string& data_directory, uint64_t number) {
  return JoinPath(GenerationDirectory(data_directory, number), "db");
}
std::string CheckpointsDirectory(const std::string& data_directory, uint64_t number) {
  return JoinPath(GenerationDirectory(data_directory, number), "checkpoints");
}
std::string SnapshotsDirectory(const std::string& data_directory, uint64_t number) {
  return JoinPath(GenerationDirectory(data_directory, number), "snapshots");
}
std::string ArrivingFilesDirectory(const std::string& data_directory, uint64_t number) {
  return JoinPath(GenerationDirectory(data_directory, number), "files");
}
std::string QuarantineDirectory(const std::string& data_directory) { return JoinPath(data_directory, "quarantine"); }

absl::Status MakeDirectoryDurably(FileSystem& fs, const std::string& parent, absl::string_view name) {
  TOWLINE_RETURN_IF_ERROR(fs.CreateDirectory(JoinPath(parent, name)));
  return fs.SyncDirectory(parent);
}

}  // namespace towline
