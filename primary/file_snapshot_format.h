// What a directory of a file snapshot holds, so that a restart finds it again: its file SNAPSHOT.
//
// Format: docs/formats/file_snapshot_v1.md.

#ifndef TOWLINE_PRIMARY_FILE_SNAPSHOT_FORMAT_H_
#define TOWLINE_PRIMARY_FILE_SNAPSHOT_FORMAT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "common/types.h"

namespace towline {

inline constexpr uint64_t kFileSnapshotMagic = 0x31504e5346574f54ull;  // docs/formats/file_snapshot_v1.md
inline constexpr uint32_t kFileSnapshotVersion = 1;
inline constexpr char kFileSnapshotName[] = "SNAPSHOT";

// A file of the store.
struct SnapshotFileEntry {
  std::string name;
  uint64_t size = 0;
  std::optional<uint32_t> crc32c;  // of the whole file, as the engine wrote it; nullopt = it does not know

  friend bool operator==(const SnapshotFileEntry&, const SnapshotFileEntry&) = default;
};

struct FileSnapshotRecord {
  Position position;
  uint64_t created_unix_s = 0;
  uint64_t estimated_keys = 0;
  std::vector<SnapshotFileEntry> files;  // by name

  friend bool operator==(const FileSnapshotRecord&, const FileSnapshotRecord&) = default;
};

std::string EncodeFileSnapshot(const FileSnapshotRecord& record);
// DATA_LOSS, reason snapshot_damaged: cut off, something follows, another version, a wrong checksum, names that do not
// rise.
absl::StatusOr<FileSnapshotRecord> DecodeFileSnapshot(absl::string_view bytes);

}  // namespace towline

#endif  // TOWLINE_PRIMARY_FILE_SNAPSHOT_FORMAT_H_
