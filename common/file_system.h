// Files, directories and locks: the only door to the disk.
//
// Errors: absl::Status with path and errno text. NOT_FOUND = ENOENT, ALREADY_EXISTS = EEXIST, RESOURCE_EXHAUSTED =
// ENOSPC or EDQUOT, UNAVAILABLE = lock held by another process, anything else DATA_LOSS (EIO) or INTERNAL.
// EINTR and short transfers are handled inside. Paths are as the operating system takes them.

#ifndef TOWLINE_COMMON_FILE_SYSTEM_H_
#define TOWLINE_COMMON_FILE_SYSTEM_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace towline {

inline constexpr size_t kDirectAlignment = 4096;

enum class DirectWrites {
  // WriteAt returns when all is written; `data` must lie on a multiple of kDirectAlignment to go past the cache.
  kAtOnce,
  // Behind the caller: `data` of WriteAt is copied, and an error of it may come with a later call. It is final then,
  // and nothing behind it is written.
  kBehind,
};

// An open file; closed by the destructor. Position-less.
// Threads: calls on one file may overlap, as pread and pwrite do.
class File {
 public:
  virtual ~File() = default;

  // Reads up to `size` bytes at `offset` into `buffer`; fewer only at the end of the file. Returns the count.
  virtual absl::StatusOr<size_t> ReadAt(uint64_t offset, size_t size, char* buffer) = 0;

  // Writes all of `data` at `offset`, growing the file when needed. After an error any part may have been written.
  absl::Status WriteAt(uint64_t offset, absl::string_view data) { return WritePieces(offset, {&data, 1}); }
  // The same for what stands in several places, one after the other.
  virtual absl::Status WritePieces(uint64_t offset, absl::Span<const absl::string_view> pieces) = 0;

  // Makes content and size durable (fdatasync). Never retry a failed sync: the kernel may have dropped the pages.
  virtual absl::Status SyncData() = 0;

  virtual absl::StatusOr<uint64_t> Size() = 0;

  virtual absl::Status Truncate(uint64_t size) = 0;

  // Takes the exclusive advisory lock (flock) without waiting; it is held until the file is closed.
  virtual absl::Status Lock() = 0;

  // Lets the kernel forget what it has cached of the file and need not write back, so that the next read comes from the
  // disk. A hint.
  virtual void DropCache() = 0;

  // From now on writes go past what the kernel caches, as far as offset and size are multiples of kDirectAlignment. For
  // large files that are filled from the beginning to the end, and that must not push out what is read. Before other
  // calls may overlap; afterwards there may be one at a time.
  virtual void WriteDirectly(DirectWrites /*how*/) {}
};

enum class OpenMode {
  kRead,          // must exist
  kReadWrite,     // must exist
  kCreate,        // must not exist; read and write
  kCreateOrOpen,  // read and write
};

struct SpaceInfo {
  uint64_t total_bytes = 0;
  uint64_t available_bytes = 0;

  // 0 to 1; what is reserved for root counts as used.
  double used_ratio() const {
    return total_bytes == 0 ? 0 : 1 - static_cast<double>(available_bytes) / static_cast<double>(total_bytes);
  }
};

// Threads: all methods from any thread.
class FileSystem {
 public:
  virtual ~FileSystem() = default;

  virtual absl::StatusOr<std::unique_ptr<File>> Open(const std::string& path, OpenMode mode) = 0;

  // Names, not paths, of the entries of a directory, sorted, without "." and "..".
  virtual absl::StatusOr<std::vector<std::string>> List(const std::string& directory) = 0;

  // Creates one directory; OK if it exists already. Not durable until the parent is synced.
  virtual absl::Status CreateDirectory(const std::string& path) = 0;

  // Replaces `to` if it exists. Not durable until SyncDirectory of the parent(s).
  virtual absl::Status Rename(const std::string& from, const std::string& to) = 0;

  // Removes a file or an empty directory; NOT_FOUND if absent. Not durable until the parent is synced.
  virtual absl::Status Remove(const std::string& path) = 0;

  // Makes the names in a directory durable.
  virtual absl::Status SyncDirectory(const std::string& path) = 0;

  // A second name for a file. Not durable until the parent is synced.
  virtual absl::Status Link(const std::string& from, const std::string& to) = 0;

  // Number of names that a file has.
  virtual absl::StatusOr<uint64_t> LinkCount(const std::string& path) = 0;

  virtual absl::StatusOr<SpaceInfo> Space(const std::string& path) = 0;
};

// The machine's files. Lives for ever.
FileSystem* PosixFileSystem();

// The error that every implementation returns for errno `error`, with the code that the comment above gives.
// Reasons: file_not_found, file_exists, disk_full, file_locked, io_error, file_error.
absl::Status FileError(int error, absl::string_view operation, absl::string_view path);

// Reads a whole file.
absl::StatusOr<std::string> ReadFile(FileSystem& fs, const std::string& path);

// Creates (or replaces) a file with `data` and makes content and name durable: tmp, sync, rename, directory sync.
absl::Status WriteFileDurably(FileSystem& fs, const std::string& directory, const std::string& name,
                              absl::string_view data);

// Removes a file, or a directory with all that is in it; OK if absent. Not durable.
absl::Status RemoveAll(FileSystem& fs, const std::string& path);

bool Exists(FileSystem& fs, const std::string& path);

// "a/b" from "a" and "b".
std::string JoinPath(absl::string_view a, absl::string_view b);

// "a" from "a/b" and "a/b/", "/" from "/b", "." from "b".
std::string ParentDirectory(absl::string_view path);

}  // namespace towline

#endif  // TOWLINE_COMMON_FILE_SYSTEM_H_
