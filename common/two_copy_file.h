// A small image kept in two copies, `<name>.a` and `<name>.b`, that are overwritten alternately, so that a crash in the
// middle of a save leaves the copy before it whole.
//
// Format: docs/formats/two_copy_v1.md. Each file is preallocated and zero-filled, so that a save works on a full disk
// as long as the image fits the capacity; an image that does not fit grows the file and may fail with
// RESOURCE_EXHAUSTED, leaving the other copy untouched.

#ifndef TOWLINE_COMMON_TWO_COPY_FILE_H_
#define TOWLINE_COMMON_TWO_COPY_FILE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "common/file_system.h"

namespace towline {

// Offsets of the copy header, little-endian:
//   0 u64 magic (per file kind) | 8 u32 format version | 12 u32 payload length | 16 u64 sequence (1 or more) |
//   24 u32 CRC32C of the payload | 28 u32 CRC32C of bytes 0..27 | 32 payload
inline constexpr size_t kTwoCopyHeaderSize = 32;

struct TwoCopyImage {
  std::string payload;
  uint32_t version = 0;
  uint64_t sequence = 0;
};

// What the two copies look like together.
enum class TwoCopyState {
  kAbsent,   // both files absent, empty or all zero
  kValid,    // at least one copy is whole
  kDamaged,  // neither is whole and at least one holds something
};

// Threads: external synchronization.
class TwoCopyFile {
 public:
  // `path` is without the suffix; `magic` marks the kind of file. Nothing is opened yet.
  TwoCopyFile(FileSystem& fs, std::string directory, std::string name, uint64_t magic, size_t capacity_bytes);

  // Reads both copies and picks the whole one with the highest sequence. Changes nothing on disk.
  // kValid fills *image. I/O errors are returned as they are.
  absl::StatusOr<TwoCopyState> Load(TwoCopyImage* image);

  // Writes and syncs the copy that is not the newest (after a Load or Save; the first save of all writes both).
  // Creates missing files (tmp, zero-fill, sync, rename, directory sync). After an error the older copy is still
  // whole; the next Save writes the same copy again.
  absl::Status Save(uint32_t version, absl::string_view payload);

  // Save to both copies, one after the other, so that no later crash or damage of one copy can undo it.
  absl::Status SaveBoth(uint32_t version, absl::string_view payload);

  // Makes what Load returned durable, by writing the same bytes to the same copy again; no-op if that is done or
  // nothing was loaded. Load may have seen pages that never reached the disk, left by a process that died between its
  // write and its sync: call this before acting on a loaded image. Save and SaveBoth do it first by themselves.
  absl::Status Settle();

  uint64_t sequence() const { return sequence_; }

 private:
  absl::Status SaveOne(uint32_t version, absl::string_view payload);
  absl::Status WriteCopy(int which, bool create, uint32_t version, uint64_t sequence, absl::string_view payload);
  absl::Status CreateCopy(int which, absl::string_view bytes);
  std::string PathOf(int which) const;

  FileSystem& fs_;
  const std::string directory_;
  const std::string name_;
  const uint64_t magic_;
  const size_t capacity_bytes_;
  std::unique_ptr<File> files_[2];
  uint64_t sequence_ = 0;                    // of the newest whole copy
  int next_ = 0;                             // copy that the next Save overwrites
  bool names_durable_ = false;               // whether the directory was synced since the last Load or creation
  std::unique_ptr<TwoCopyImage> unsettled_;  // what Load returned, until Settle
};

}  // namespace towline

#endif  // TOWLINE_COMMON_TWO_COPY_FILE_H_
