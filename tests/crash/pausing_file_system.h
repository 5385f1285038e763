// A file system that stops before a chosen call, so that a test can do something to the disk at exactly that point.

#ifndef TOWLINE_TESTS_CRASH_PAUSING_FILE_SYSTEM_H_
#define TOWLINE_TESTS_CRASH_PAUSING_FILE_SYSTEM_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/file_system.h"

namespace towline::test {

// Where to stop, counted from 1; 0 = never.
struct PausePoint {
  uint64_t call = 0;  // before this one of the calls that change or sync something
  uint64_t sync = 0;  // before this one of the calls of SyncData and SyncDirectory
};

// Passes every call on, and calls `pause` at the point.
// Threads: one.
class PausingFileSystem : public FileSystem {
 public:
  // `base` is not owned and must outlive this and its files; so must this its files.
  PausingFileSystem(FileSystem& base, PausePoint point, std::function<void()> pause);

  absl::StatusOr<std::unique_ptr<File>> Open(const std::string& path, OpenMode mode) override;
  absl::StatusOr<std::vector<std::string>> List(const std::string& directory) override;
  absl::Status CreateDirectory(const std::string& path) override;
  absl::Status Rename(const std::string& from, const std::string& to) override;
  absl::Status Remove(const std::string& path) override;
  absl::Status SyncDirectory(const std::string& path) override;
  absl::Status Link(const std::string& from, const std::string& to) override;
  absl::StatusOr<uint64_t> LinkCount(const std::string& path) override;
  absl::StatusOr<SpaceInfo> Space(const std::string& path) override;

 private:
  class PausingFile;

  void Count();
  void CountSync();

  FileSystem& base_;
  const PausePoint point_;
  const std::function<void()> pause_;
  uint64_t calls_ = 0;
  uint64_t syncs_ = 0;
};

}  // namespace towline::test

#endif  // TOWLINE_TESTS_CRASH_PAUSING_FILE_SYSTEM_H_
