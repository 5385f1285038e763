// How far the load of a snapshot into a new generation came: gen/<n>/install.a and .b.
//
// Format: docs/formats/install_v2.md, inside a TwoCopyFile. It is written before the first chunk is taken, whenever
// chunks have become durable, and when all of them are; what it says is therefore in the store, and the store may hold
// more. Without it a generation that is not live is of no use and is removed.

#ifndef TOWLINE_REPLICA_INSTALL_JOURNAL_H_
#define TOWLINE_REPLICA_INSTALL_JOURNAL_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "common/file_system.h"
#include "common/two_copy_file.h"
#include "common/types.h"
#include "store/snapshot_codec.h"

namespace towline {

inline constexpr uint64_t kInstallMagic = 0x314c534e49574f54ull;  // docs/formats/install_v2.md
inline constexpr uint32_t kInstallVersion = 2;
inline constexpr size_t kInstallCapacity = 16 << 10;

enum class InstallPhase : uint8_t {
  kLoading = 1,    // chunks are being taken
  kReplaying = 2,  // the store holds the whole snapshot; the log behind it is being replayed, or nothing is left to do
};

struct InstallRecord {
  InstallPhase phase = InstallPhase::kLoading;
  SnapshotForm form = SnapshotForm::kRdb;
  uint64_t incarnation = 0;  // of the data directory
  uint64_t snapshot_id = 0;  // that the newest chunks were read from
  std::string reason;        // of the full resync
  Position read;             // newest position that chunks were read at
  Lsn common_lsn = 0;        // the old log and the source's are the same up to here, as the source said; 0 = it did not
  uint64_t estimated_bytes = 0;
  uint64_t started_unix_ms = 0;
  uint64_t resumes = 0;
  uint64_t received_bytes = 0;  // of chunks of all streams
  InstallPoint point;           // its meta.position is that of the stream

  friend bool operator==(const InstallRecord&, const InstallRecord&) = default;
};

std::string EncodeInstall(const InstallRecord& record);
// DATA_LOSS, reason install_damaged; FAILED_PRECONDITION, reason install_version.
absl::StatusOr<InstallRecord> DecodeInstall(uint32_t version, absl::string_view payload);

// Threads: external synchronization.
class InstallJournal {
 public:
  InstallJournal(FileSystem& fs, const std::string& generation_directory);

  // NOT_FOUND if there is none; else errors as DecodeInstall, and those of the disk. Makes durable what it read.
  absl::StatusOr<InstallRecord> Load();
  absl::Status Save(const InstallRecord& record);

 private:
  TwoCopyFile file_;
};

}  // namespace towline

#endif  // TOWLINE_REPLICA_INSTALL_JOURNAL_H_
