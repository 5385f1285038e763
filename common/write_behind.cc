#include "common/write_behind.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/check.h"

namespace towline {
namespace {

// One is written, one waits for that, one is filled.
constexpr size_t kBlocksMax = 3;

}  // namespace

WriteBehind::WriteBehind(Write write)
    : write_(std::move(write)), pool_(NewThreadWorkPool("file-writer", 1, kBlocksMax)) {}

WriteBehind::~WriteBehind() { pool_->Stop(); }

absl::Status WriteBehind::Add(uint64_t offset, absl::string_view data) {
  while (!data.empty()) {
    std::unique_ptr<Block> block;
    {
      MutexLock lock(&mutex_);
      while (status_.ok() && free_.empty() && blocks_ == kBlocksMax) written_.Wait(&mutex_);
      if (!status_.ok()) return status_;
      if (!free_.empty()) {
        block = std::move(free_.back());
        free_.pop_back();
      } else {
        ++blocks_;
      }
    }
    if (block == nullptr) block.reset(new Block);  // not zeroed
    const size_t size = std::min(data.size(), kPieceBytes);
    std::memcpy(block->bytes, data.data(), size);
    // std::function copies what it holds.
    const bool taken = pool_->Submit(
        [this, raw = block.release(), offset, size] { WriteOne(std::unique_ptr<Block>(raw), offset, size); });
    TOWLINE_CHECK(taken);
    offset += size;
    data.remove_prefix(size);
  }
  return absl::OkStatus();
}

void WriteBehind::WriteOne(std::unique_ptr<Block> block, uint64_t offset, size_t size) {
  bool broken = false;
  {
    MutexLock lock(&mutex_);
    broken = !status_.ok();
  }
  const absl::Status written = broken ? absl::OkStatus() : write_(offset, absl::string_view(block->bytes, size));
  MutexLock lock(&mutex_);
  if (!written.ok()) status_ = written;
  free_.push_back(std::move(block));
  written_.NotifyOne();
}

absl::Status WriteBehind::Drain() {
  MutexLock lock(&mutex_);
  while (free_.size() < blocks_) written_.Wait(&mutex_);
  return status_;
}

}  // namespace towline
