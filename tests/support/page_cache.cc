#include "tests/support/page_cache.h"

#include <cerrno>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

#include "common/file_system.h"

namespace towline::test {
namespace {

class Descriptor {
 public:
  explicit Descriptor(const std::string& path) : fd_(open(path.c_str(), O_RDONLY | O_CLOEXEC)) {}
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  const int fd_;
};

}  // namespace

absl::Status DropPages(const std::string& path) {
  const Descriptor file(path);
  if (file.get() < 0) return FileError(errno, "open", path);
  if (fdatasync(file.get()) != 0) return FileError(errno, "fdatasync", path);
  const int error = posix_fadvise(file.get(), 0, 0, POSIX_FADV_DONTNEED);
  return error == 0 ? absl::OkStatus() : FileError(error, "posix_fadvise", path);
}

absl::StatusOr<uint64_t> ResidentBytes(const std::string& path) {
  const Descriptor file(path);
  struct stat info;
  if (file.get() < 0 || fstat(file.get(), &info) != 0) return FileError(errno, "open", path);
  const size_t size = static_cast<size_t>(info.st_size);
  if (size == 0) return uint64_t{0};
  void* const map = mmap(nullptr, size, PROT_READ, MAP_SHARED, file.get(), 0);
  if (map == MAP_FAILED) return FileError(errno, "mmap", path);
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  std::vector<unsigned char> pages((size + page - 1) / page);
  const int failed = mincore(map, size, pages.data());
  munmap(map, size);
  if (failed != 0) return FileError(errno, "mincore", path);
  uint64_t resident = 0;
  for (const unsigned char state : pages) resident += (state & 1) * page;
  return resident;
}

}  // namespace towline::test
