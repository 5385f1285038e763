#include "wal/spare_pool.h"

#include <algorithm>
#include <new>
#include <utility>

#include "common/error.h"
#include "wal/segment_format.h"

namespace towline::wal {
namespace {

constexpr uint64_t kFillBytes = 1 << 20;  // larger pieces are not faster
// What is written back at once: the disk's other users, the log's own syncs first of all, wait for no more than that.
constexpr uint64_t kSyncBytes = 4 << 20;
// Between two pieces, so that filling does not crowd out the log's own syncs: some 100 MiB/s while a spare is ready,
// 400 while none is.
constexpr int64_t kPauseMicros = 8000;
constexpr int64_t kHurryMicros = 2000;
constexpr int64_t kRetryMicros = 1000000;
// Of removed segments more are kept than are filled: the next ones are taken before the next are removed.
constexpr size_t kRecycledMore = 2;

// Files are filled past the page cache: there the zeros would take room and time, and the log overwrites whole pages,
// so it needs none of them.
absl::string_view Zeros(uint64_t size) {
  // Written by whoever asks first: of memory that was never written the kernel would send one page again and again.
  static const char* const zeros = new (std::align_val_t{kDirectAlignment}) char[kFillBytes]();
  return {zeros, static_cast<size_t>(std::min(size, kFillBytes))};
}

}  // namespace

SparePool::SparePool(FileSystem& fs, std::string directory, uint64_t segment_bytes, int wanted, Logger& logger)
    : fs_(fs),
      directory_(std::move(directory)),
      segment_bytes_(segment_bytes),
      wanted_(static_cast<size_t>(std::max(wanted, 0))),
      logger_(logger) {}

void SparePool::ReserveNumbers(uint64_t number) {
  MutexLock lock(&mutex_);
  last_number_ = std::max(last_number_, number);
}

uint64_t SparePool::NextNumber() {
  MutexLock lock(&mutex_);
  return ++last_number_;
}

std::optional<std::string> SparePool::Take() {
  MutexLock lock(&mutex_);
  if (ready_.empty()) return std::nullopt;
  std::string path = std::move(ready_.front());
  ready_.pop_front();
  return path;
}

void SparePool::Add(std::string path) {
  MutexLock lock(&mutex_);
  ready_.push_back(std::move(path));
}

uint64_t SparePool::ready() const {
  MutexLock lock(&mutex_);
  return ready_.size();
}

bool SparePool::NeedsMore() const {
  MutexLock lock(&mutex_);
  return ready_.size() < wanted_;
}

bool SparePool::TakesRecycled(size_t more) const {
  MutexLock lock(&mutex_);
  return wanted_ != 0 && ready_.size() + more < wanted_ + kRecycledMore;
}

absl::StatusOr<std::string> SparePool::CreateFilled(uint64_t size) {
  std::string path = JoinPath(directory_, TmpFileName(NextNumber()));
  TOWLINE_ASSIGN_OR_RETURN(std::unique_ptr<File> file, fs_.Open(path, OpenMode::kCreate));
  file->WriteDirectly(DirectWrites::kAtOnce);
  for (uint64_t filled = 0; filled < size;) {
    const absl::string_view piece = Zeros(size - filled);
    const absl::Status written = file->WriteAt(filled, piece);
    if (!written.ok()) {
      file.reset();
      fs_.Remove(path).IgnoreError();  // else the next start removes it
      return written;
    }
    filled += piece.size();
  }
  return path;
}

StepResult SparePool::Step() {
  if (!filling_.has_value() && !NeedsMore()) return StepResult::WaitForWake();
  const absl::Status done = FillPiece();
  if (!done.ok()) {
    GiveUp(done);
    return StepResult::WaitFor(kRetryMicros);
  }
  return StepResult::WaitFor(ready() > 0 ? kPauseMicros : kHurryMicros);
}

absl::Status SparePool::FillPiece() {
  if (!filling_.has_value()) {
    Filling filling;
    filling.path = JoinPath(directory_, TmpFileName(NextNumber()));
    TOWLINE_ASSIGN_OR_RETURN(filling.file, fs_.Open(filling.path, OpenMode::kCreate));
    filling.file->WriteDirectly(DirectWrites::kAtOnce);
    filling_ = std::move(filling);
  }
  const absl::string_view piece = Zeros(segment_bytes_ - filling_->filled);
  TOWLINE_RETURN_IF_ERROR(filling_->file->WriteAt(filling_->filled, piece));
  filling_->filled += piece.size();
  if (filling_->filled >= segment_bytes_) return FinishFilling();
  return filling_->filled % kSyncBytes == 0 ? filling_->file->SyncData() : absl::OkStatus();
}

absl::Status SparePool::FinishFilling() {
  TOWLINE_RETURN_IF_ERROR(filling_->file->SyncData());
  const std::string path = JoinPath(directory_, SpareFileName(NextNumber()));
  TOWLINE_RETURN_IF_ERROR(fs_.Rename(filling_->path, path));
  filling_->path = path;
  TOWLINE_RETURN_IF_ERROR(fs_.SyncDirectory(directory_));
  filling_.reset();
  failing_ = false;
  Add(path);
  return absl::OkStatus();
}

void SparePool::GiveUp(const absl::Status& status) {
  if (!failing_) logger_.Log(LogLevel::kWarning, "wal_spare_not_made", {{"error", status.message()}});
  failing_ = true;
  if (!filling_.has_value()) return;
  fs_.Remove(filling_->path).IgnoreError();  // else the next start removes it
  filling_.reset();
}

}  // namespace towline::wal
