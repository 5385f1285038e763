// The machine's files, by system calls.

#include <algorithm>
#include <cerrno>
#include <dirent.h>
#include <fcntl.h>
#include <memory>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <utility>

#include "common/error.h"
#include "common/file_system.h"
#include "common/write_behind.h"

namespace towline {
namespace {

constexpr mode_t kFileMode = 0640;
constexpr mode_t kDirectoryMode = 0750;

// Calls `call` again as long as a signal interrupts it.
template <typename F>
auto Uninterrupted(F call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

class PosixFile : public File {
 public:
  PosixFile(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  ~PosixFile() override {
    behind_.reset();
    if (direct_fd_ >= 0) ::close(direct_fd_);
    ::close(fd_);
  }
  PosixFile(const PosixFile&) = delete;
  PosixFile& operator=(const PosixFile&) = delete;

  absl::StatusOr<size_t> ReadAt(uint64_t offset, size_t size, char* buffer) override {
    TOWLINE_RETURN_IF_ERROR(WrittenBehind());
    size_t done = 0;
    while (done < size) {
      const ssize_t got =
          Uninterrupted([&] { return ::pread(fd_, buffer + done, size - done, static_cast<off_t>(offset + done)); });
      if (got < 0) return FileError(errno, "read", path_);
      if (got == 0) break;
      done += static_cast<size_t>(got);
    }
    return done;
  }

  absl::Status WritePieces(uint64_t offset, absl::Span<const absl::string_view> pieces) override {
    if (behind_ != nullptr) return behind_->Add(offset, pieces);
    for (const absl::string_view piece : pieces) {
      TOWLINE_RETURN_IF_ERROR(WriteNow(offset, piece));
      offset += piece.size();
    }
    return absl::OkStatus();
  }

  absl::Status SyncData() override {
    TOWLINE_RETURN_IF_ERROR(WrittenBehind());
    return Checked("fdatasync", [&] { return ::fdatasync(fd_); });
  }

  absl::StatusOr<uint64_t> Size() override {
    TOWLINE_RETURN_IF_ERROR(WrittenBehind());
    struct stat info;
    if (::fstat(fd_, &info) != 0) return FileError(errno, "fstat", path_);
    return static_cast<uint64_t>(info.st_size);
  }

  absl::Status Truncate(uint64_t size) override {
    TOWLINE_RETURN_IF_ERROR(WrittenBehind());
    return Checked("ftruncate", [&] { return ::ftruncate(fd_, static_cast<off_t>(size)); });
  }

  absl::Status Lock() override {
    return Checked("flock", [&] { return ::flock(fd_, LOCK_EX | LOCK_NB); });
  }

  void WriteDirectly(DirectWrites how) override {
    if (behind_ != nullptr) return;
    if (direct_fd_ < 0) direct_fd_ = ::open(path_.c_str(), O_WRONLY | O_DIRECT | O_CLOEXEC);
    if (how == DirectWrites::kAtOnce) return;
    behind_ = std::make_unique<WriteBehind>(
        [this](uint64_t offset, absl::string_view data) { return WriteNow(offset, data); });
  }

  void DropCache() override { (void)::posix_fadvise(fd_, 0, 0, POSIX_FADV_DONTNEED); }

 private:
  absl::Status WrittenBehind() { return behind_ == nullptr ? absl::OkStatus() : behind_->Drain(); }

  absl::Status WriteNow(uint64_t offset, absl::string_view data) {
    while (!data.empty()) {
      const size_t direct = DirectSize(offset, data);
      ssize_t put = Uninterrupted([&] {
        return ::pwrite(direct > 0 ? direct_fd_ : fd_, data.data(), direct > 0 ? direct : data.size(),
                        static_cast<off_t>(offset));
      });
      if (put < 0 && errno == EINVAL && direct > 0) {
        // Not on this file system, or not in such blocks.
        put = Uninterrupted([&] { return ::pwrite(fd_, data.data(), data.size(), static_cast<off_t>(offset)); });
      }
      if (put < 0) return FileError(errno, "write", path_);
      if (put == 0) return FileError(EIO, "write", path_);
      data.remove_prefix(static_cast<size_t>(put));
      offset += static_cast<uint64_t>(put);
    }
    return absl::OkStatus();
  }

  // So many bytes from the beginning of `data` can be written directly.
  size_t DirectSize(uint64_t offset, absl::string_view data) const {
    const bool aligned =
        offset % kDirectAlignment == 0 && reinterpret_cast<uintptr_t>(data.data()) % kDirectAlignment == 0;
    return direct_fd_ >= 0 && aligned ? data.size() / kDirectAlignment * kDirectAlignment : 0;
  }

  template <typename F>
  absl::Status Checked(absl::string_view operation, F call) {
    return Uninterrupted(call) == 0 ? absl::OkStatus() : FileError(errno, operation, path_);
  }

  const int fd_;
  const std::string path_;
  int direct_fd_ = -1;  // for WriteDirectly
  std::unique_ptr<WriteBehind> behind_;
};

int OpenFlags(OpenMode mode) {
  switch (mode) {
    case OpenMode::kRead:
      return O_RDONLY;
    case OpenMode::kReadWrite:
      return O_RDWR;
    case OpenMode::kCreate:
      return O_RDWR | O_CREAT | O_EXCL;
    case OpenMode::kCreateOrOpen:
      return O_RDWR | O_CREAT;
  }
  return O_RDONLY;
}

class MachineFileSystem : public FileSystem {
 public:
  absl::StatusOr<std::unique_ptr<File>> Open(const std::string& path, OpenMode mode) override {
    const int fd = Uninterrupted([&] { return ::open(path.c_str(), OpenFlags(mode) | O_CLOEXEC, kFileMode); });
    if (fd < 0) return FileError(errno, "open", path);
    return std::make_unique<PosixFile>(fd, path);
  }

  absl::StatusOr<std::vector<std::string>> List(const std::string& directory) override {
    DIR* dir = ::opendir(directory.c_str());
    while (dir == nullptr && errno == EINTR) dir = ::opendir(directory.c_str());
    if (dir == nullptr) return FileError(errno, "opendir", directory);
    std::vector<std::string> names;
    errno = 0;
    while (const dirent* entry = ::readdir(dir)) {
      const std::string name = entry->d_name;
      if (name != "." && name != "..") names.push_back(name);
      errno = 0;
    }
    const int error = errno;
    ::closedir(dir);
    if (error != 0) return FileError(error, "readdir", directory);
    std::sort(names.begin(), names.end());
    return names;
  }

  absl::Status CreateDirectory(const std::string& path) override {
    if (::mkdir(path.c_str(), kDirectoryMode) == 0) return absl::OkStatus();
    const int error = errno;
    struct stat info;
    if (error == EEXIST && ::stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode)) return absl::OkStatus();
    return FileError(error, "mkdir", path);
  }

  absl::Status Rename(const std::string& from, const std::string& to) override {
    if (::rename(from.c_str(), to.c_str()) == 0) return absl::OkStatus();
    return FileError(errno, "rename", from + " to " + to);
  }

  absl::Status Remove(const std::string& path) override {
    if (::unlink(path.c_str()) == 0) return absl::OkStatus();
    if (errno == EISDIR && ::rmdir(path.c_str()) == 0) return absl::OkStatus();
    return FileError(errno, "remove", path);
  }

  absl::Status SyncDirectory(const std::string& path) override {
    const int fd = Uninterrupted([&] { return ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); });
    if (fd < 0) return FileError(errno, "open", path);
    const int error = Uninterrupted([&] { return ::fsync(fd); }) == 0 ? 0 : errno;
    ::close(fd);
    return error == 0 ? absl::OkStatus() : FileError(error, "fsync", path);
  }

  absl::Status Link(const std::string& from, const std::string& to) override {
    if (::link(from.c_str(), to.c_str()) == 0) return absl::OkStatus();
    return FileError(errno, "link", from + " to " + to);
  }

  absl::StatusOr<uint64_t> LinkCount(const std::string& path) override {
    struct stat info;
    if (::stat(path.c_str(), &info) != 0) return FileError(errno, "stat", path);
    return uint64_t{info.st_nlink};
  }

  absl::StatusOr<SpaceInfo> Space(const std::string& path) override {
    struct statvfs info;
    if (Uninterrupted([&] { return ::statvfs(path.c_str(), &info); }) != 0) return FileError(errno, "statvfs", path);
    return SpaceInfo{uint64_t{info.f_blocks} * info.f_frsize, uint64_t{info.f_bavail} * info.f_frsize};
  }
};

}  // namespace

FileSystem* PosixFileSystem() {
  static MachineFileSystem* const fs = new MachineFileSystem;
  return fs;
}

}  // namespace towline
