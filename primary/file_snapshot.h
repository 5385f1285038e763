// The files of a store at one moment, and the sending of them.
//
// A receiver whose engine reads the same form of files takes them over as they are: nothing is decoded, sorted or
// compressed a second time (docs/adr/0017). The files stand in a directory of their own, by hard links, so that
// the store may drop its names for them meanwhile.

#ifndef TOWLINE_PRIMARY_FILE_SNAPSHOT_H_
#define TOWLINE_PRIMARY_FILE_SNAPSHOT_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

#include "common/file_system.h"
#include "common/types.h"
#include "primary/file_snapshot_format.h"
#include "store/state_store.h"

namespace towline {
namespace v1 {
class SnapshotFileChunk;
}  // namespace v1

inline constexpr size_t kFileChunkBytes = 1 << 20;
// A receiver holds a part of one file, and whole files whose sums the engine knows: those are not read.
inline constexpr uint64_t kCompareBytesMax = 512ull << 20;

// Threads: all methods from any thread.
class FileSnapshot {
 public:
  using Entry = SnapshotFileEntry;

  // Copies what is persisted of `state` to `parent`/<id in hex>. `parent` is made if need be. One at a time for each
  // parent. Errors as CheckpointState, and those of the disk.
  static absl::StatusOr<std::unique_ptr<FileSnapshot>> Make(FileSystem& fs, StateStore& state,
                                                            const std::string& parent, uint64_t id,
                                                            uint64_t created_unix_s);
  // One that an earlier process made. DATA_LOSS, reason snapshot_damaged, if it is not whole; those of the disk.
  static absl::StatusOr<std::unique_ptr<FileSnapshot>> Load(FileSystem& fs, const std::string& parent, uint64_t id);
  // Removes the directory, unless Leave was called.
  ~FileSnapshot();
  FileSnapshot(const FileSnapshot&) = delete;
  FileSnapshot& operator=(const FileSnapshot&) = delete;

  // A later process may go on with it.
  void Leave() const { leave_.store(true); }

  const FileSnapshotRecord& record() const { return record_; }
  const std::vector<Entry>& files() const { return record_.files; }
  uint64_t bytes() const { return bytes_; }  // of all files
  // Of files that the store has dropped.
  uint64_t PinnedBytes() const;
  absl::StatusOr<std::unique_ptr<File>> Open(const Entry& file) const;

 private:
  FileSnapshot(FileSystem& fs, std::string directory) : fs_(fs), directory_(std::move(directory)) {}
  absl::Status Fill(StateStore& state, uint64_t created_unix_s);
  absl::Status Check();

  FileSystem& fs_;
  std::string directory_;
  FileSnapshotRecord record_;
  uint64_t bytes_ = 0;
  mutable std::atomic<bool> leave_{false};
};

// What a receiver holds of a file: its first `bytes` bytes.
struct HeldFile {
  std::string name;
  uint64_t bytes = 0;
  uint32_t crc32c = 0;  // of them
};

// What a receiver can take besides an RDB stream, and what it has.
struct FileOffer {
  std::string form;  // of store files (StoreFactory::file_form); empty = none
  std::vector<HeldFile> held;
  uint64_t snapshot_id = 0;  // that they were read from; 0 = none
};

// One walk over the files, in order, leaving out what the receiver holds.
// Threads: external synchronization. Must not outlive the snapshot.
class FileSender {
 public:
  explicit FileSender(const FileSnapshot& snapshot);

  // Before the first Next. Believes nothing: what is held is compared with the sum that the engine knows of the file,
  // or with the file itself. At most kCompareBytesMax are read for that; what is beyond is sent.
  absl::Status LeaveOut(absl::Span<const HeldFile> held);
  // Bytes of file `index` that are left out.
  uint64_t held_bytes(size_t index) const { return starts_[index].offset; }

  // The next piece of at most `most` bytes, but for the id of the snapshot; false behind the last one. Sets all other
  // fields of `out`, whose memory it uses again. DATA_LOSS, reason store_file_damaged: a file is not what the engine
  // wrote, or not as long.
  absl::StatusOr<bool> Next(v1::SnapshotFileChunk* out, size_t most = kFileChunkBytes);

  uint64_t left_out_bytes() const { return left_out_; }
  uint64_t sent_bytes() const { return sent_; }
  uint64_t chunks() const { return chunks_; }

 private:
  struct Point {
    uint64_t offset = 0;
    uint32_t crc32c = 0;  // of what is before it
  };

  absl::StatusOr<bool> Holds(const FileSnapshot::Entry& file, const HeldFile& held);

  const FileSnapshot& snapshot_;
  std::vector<Point> starts_;  // as many as files
  size_t index_ = 0;
  Point at_;                    // in file index_, if it is open
  std::unique_ptr<File> open_;  // file index_
  uint64_t compared_ = 0;       // bytes that were read for LeaveOut
  uint64_t left_out_ = 0;
  uint64_t sent_ = 0;
  uint64_t chunks_ = 0;
};

}  // namespace towline

#endif  // TOWLINE_PRIMARY_FILE_SNAPSHOT_H_
