#include "common/write_behind.h"

#include <cstring>
#include <utility>

#include "common/check.h"
#include "common/error.h"

namespace towline {
namespace {

// One is written, one waits for that, one is filled.
constexpr size_t kBlocksMax = 3;

}  // namespace

// The disk has nothing to do until this thread runs.
WriteBehind::WriteBehind(Write write)
    : write_(std::move(write)), pool_(NewThreadWorkPool("file-writer", 1, kBlocksMax, LoopPriority::kPrompt)) {}

WriteBehind::~WriteBehind() { pool_->Stop(); }

absl::StatusOr<std::unique_ptr<WriteBehind::Block>> WriteBehind::TakeBlock() {
  {
    MutexLock lock(&mutex_);
    while (status_.ok() && free_.empty() && blocks_ == kBlocksMax) written_.Wait(&mutex_);
    if (!status_.ok()) return status_;
    if (!free_.empty()) {
      std::unique_ptr<Block> block = std::move(free_.back());
      free_.pop_back();
      return block;
    }
    ++blocks_;
  }
  return std::unique_ptr<Block>(new Block);  // not zeroed
}

absl::Status WriteBehind::Add(uint64_t offset, absl::Span<const absl::string_view> pieces) {
  size_t taken = 0;  // of the first piece
  while (!pieces.empty()) {
    TOWLINE_ASSIGN_OR_RETURN(std::unique_ptr<Block> block, TakeBlock());
    size_t size = 0;
    while (!pieces.empty() && size < kPieceBytes) {
      const absl::string_view part = pieces[0].substr(taken, kPieceBytes - size);
      std::memcpy(block->bytes + size, part.data(), part.size());
      size += part.size();
      taken += part.size();
      if (taken < pieces[0].size()) continue;
      pieces.remove_prefix(1);
      taken = 0;
    }
    // std::function copies what it holds.
    const bool submitted = pool_->Submit(
        [this, raw = block.release(), offset, size] { WriteOne(std::unique_ptr<Block>(raw), offset, size); });
    TOWLINE_CHECK(submitted);
    offset += size;
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
