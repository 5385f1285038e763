// What a simulated disk holds: for every file and directory the durable state and the changes since its last sync.
//
// Values, copied in time proportional to the number of files: contents are pages that copies share until one of them
// writes. SimFileSystem puts the FileSystem interface on top.

#ifndef TOWLINE_TESTS_SUPPORT_SIM_DISK_H_
#define TOWLINE_TESTS_SUPPORT_SIM_DISK_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

#include "common/rng.h"

namespace towline::test {

// A disk writes a sector whole or not at all.
inline constexpr uint64_t kSectorSize = 512;

// What a power loss does to changes that were not synced.
enum class CrashProfile {
  kStrict,     // all of them are gone
  kExt4Like,   // per file and directory a prefix stays; a file's sync also kept the name it was created with
  kAdversary,  // per file any sector may be at any of its versions, and sectors that held nothing durable may be zero,
               // garbage or stale; per directory a prefix of the name changes stays
};

const char* CrashProfileName(CrashProfile profile);

// The contents of a file.
class SimImage {
 public:
  uint64_t size() const { return size_; }
  uint64_t allocated_bytes() const { return allocated_pages_ * kPageSize; }

  // Reads what there is of [offset, offset + size). Returns the count.
  size_t Read(uint64_t offset, size_t size, char* buffer) const;
  std::string ToString() const;

  void Write(uint64_t offset, absl::string_view data);
  void Truncate(uint64_t size);

  // Bytes that a write to this range would allocate.
  uint64_t BytesToAllocate(uint64_t offset, size_t size) const;

 private:
  static constexpr uint64_t kPageSize = 4096;
  struct Page {
    char bytes[kPageSize] = {};
  };

  Page& MutablePage(uint64_t index);

  std::vector<std::shared_ptr<Page>> pages_;  // nullptr = a hole; bytes behind size_ are 0
  uint64_t size_ = 0;
  uint64_t allocated_pages_ = 0;
};

using Ino = uint64_t;  // 0 = none

// A change of a file that was not synced.
struct SimWrite {
  bool truncate = false;
  uint64_t offset = 0;                      // of a truncate: the size
  std::shared_ptr<const std::string> data;  // nullptr for a truncate
};

// A change of a directory that was not synced. All of it stays, or nothing.
struct SimNameChange {
  std::vector<std::pair<std::string, Ino>> entries;  // 0 = the name goes
  Ino created = 0;                                   // the file that this change made
  bool file_synced = false;                          // that file was synced since
};

struct SimInode {
  bool directory = false;
  int links = 0;    // names in directories as they look now
  int handles = 0;  // open files

  SimImage visible;
  SimImage durable;
  std::vector<SimWrite> writes;
  bool lost_writes = false;  // a failed sync dropped some: durable plus writes is not visible

  std::map<std::string, Ino> names;
  std::map<std::string, Ino> durable_names;
  std::vector<SimNameChange> changes;
};

class SimDisk {
 public:
  SimDisk();

  // The inode of a path, or 0. Paths are relative to the root, with or without a leading slash.
  Ino Find(absl::string_view path) const;
  // The inode of the directory that a path lies in, or 0; *name is the last part.
  Ino FindParent(absl::string_view path, std::string* name) const;

  const SimInode& Get(Ino ino) const;
  SimInode& Mutable(Ino ino);

  // Makes a file or directory under a name that is free.
  Ino Create(Ino parent, const std::string& name, bool directory);

  // Applies a change of names to a directory as it looks now, and remembers it until Sync.
  void ChangeNames(Ino directory, SimNameChange change);

  void Write(Ino ino, uint64_t offset, absl::string_view data);
  void Truncate(Ino ino, uint64_t size);

  void SyncFile(Ino ino);
  void SyncDirectory(Ino ino);

  // The unsynced changes can no longer become durable, though they stay visible.
  void LoseWrites(Ino ino);

  // Changes a file's contents at once in every state, as bit rot does.
  void Overwrite(Ino ino, const SimImage& image);
  // Makes all names durable as they look now.
  void SyncAllNames();

  // Allocated bytes of all files that have a name or are open.
  uint64_t UsedBytes() const;

  // The disk after a power loss, without open files.
  SimDisk AfterCrash(CrashProfile profile, Rng& rng) const;

  // Forgets that files were open.
  void CloseAll();

 private:
  void RemoveUnreachable();

  std::map<Ino, std::shared_ptr<SimInode>> inodes_;  // shared by copies until written
  Ino next_ino_ = 1;
  size_t sweep_at_ = 256;  // number of inodes at which unreachable ones are looked for
};

}  // namespace towline::test

#endif  // TOWLINE_TESTS_SUPPORT_SIM_DISK_H_
