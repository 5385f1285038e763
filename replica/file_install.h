// Store files as they arrive from an upstream: gen/<n>/files/, until all are there and become the store's directory.
//
//   <name>.part        being received; may end with what a crash has left
//   <name>.<crc32c>    whole and durable; the CRC-32C of its bytes, 8 lower-case hex digits
//
// No journal says how far a file came: the owner of the stream tells its source the CRC of what is there, and the
// source compares that with its own file. What a crash has damaged differs, and is sent again.

#ifndef TOWLINE_REPLICA_FILE_INSTALL_H_
#define TOWLINE_REPLICA_FILE_INSTALL_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "absl/strings/string_view.h"

#include "common/file_system.h"

namespace towline {
namespace v1 {
class FetchSnapshotRequest;
class SnapshotFileChunk;
class SnapshotHeader;
}  // namespace v1

// Threads: external synchronization.
class FileInstall {
 public:
  FileInstall(FileSystem& fs, std::string directory);

  // Looks at what an earlier process left; reads the files that are not whole. Before anything else.
  absl::Status Load();

  // Names what is there.
  void FillHeld(v1::FetchSnapshotRequest* request) const;

  // A stream will bring what `header` names. What it leaves out must be here; what is here and of no use to it is
  // removed. DATA_LOSS, reason bad_snapshot: it makes no sense.
  absl::Status Begin(const v1::SnapshotHeader& header);

  // `data` is the piece; `chunk`, whose own data is not looked at, says which one.
  // DATA_LOSS, reason bad_snapshot: not the next piece, or damaged; nothing of it was taken. RESOURCE_EXHAUSTED, reason
  // disk_full: this piece or one before it does not fit; what is in its file is held.
  absl::Status Add(const v1::SnapshotFileChunk& chunk, const absl::Cord& data);

  // All files that the header named are whole. They get their names in `store_directory`, which is made anew, durably.
  // DATA_LOSS, reason bad_snapshot: one is missing.
  absl::Status Finish(const std::string& store_directory);
  // Behind Finish, once it is known that the store is there.
  void RemoveOwnNames();

  // Makes durable what is held. Errors: those of the disk; the file is then not held any more.
  absl::Status Commit();

  uint64_t bytes() const { return bytes_; }  // that are held of the files that are named
  uint64_t durable_bytes() const;            // of them

 private:
  struct Held {
    uint64_t bytes = 0;
    uint32_t crc32c = 0;
    bool whole = false;
    uint64_t durable = 0;  // of bytes
  };
  struct Named {
    std::string name;
    uint64_t size = 0;
  };

  std::string PartPath(absl::string_view name) const;
  std::string WholePath(absl::string_view name, uint32_t crc32c) const;
  std::string PathOf(const std::string& name, const Held& held) const;
  absl::Status LoadFile(const std::string& entry);
  absl::Status LoadPart(const std::string& name);
  absl::Status CheckHeader(const v1::SnapshotHeader& header) const;
  absl::Status Drop(const std::string& name);
  absl::Status OpenPart(const Named& file);
  absl::Status CheckNext(const v1::SnapshotFileChunk& chunk, const absl::Cord& data) const;
  void Recount(const std::string& name);
  absl::Status Sync(const Named& file);
  absl::Status MakeWhole(const Named& file);
  absl::Status SkipWhole();

  FileSystem& fs_;
  const std::string directory_;
  std::map<std::string, Held> held_;  // by name
  std::vector<Named> files_;          // of the header, by name
  size_t next_ = 0;                   // first of them that is not whole
  std::unique_ptr<File> open_;        // its part
  uint64_t bytes_ = 0;
};

}  // namespace towline

#endif  // TOWLINE_REPLICA_FILE_INSTALL_H_
