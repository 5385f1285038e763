// Writes a file on a thread of its own, behind the caller, in order.
//
// Someone who fills a large file waits for the disk and prepares what comes next by turns; this lets both happen at the
// same time.

#ifndef TOWLINE_COMMON_WRITE_BEHIND_H_
#define TOWLINE_COMMON_WRITE_BEHIND_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

#include "common/file_system.h"
#include "common/mutex.h"
#include "common/work_pool.h"

namespace towline {

// Threads: external synchronization.
class WriteBehind {
 public:
  // Gets pieces of at most kPieceBytes, in memory that is aligned to kDirectAlignment, one at a time, on its own
  // thread.
  using Write = std::function<absl::Status(uint64_t offset, absl::string_view data)>;

  static constexpr size_t kPieceBytes = 1 << 20;

  explicit WriteBehind(Write write);
  // Waits until all is written, or has failed.
  ~WriteBehind();
  WriteBehind(const WriteBehind&) = delete;
  WriteBehind& operator=(const WriteBehind&) = delete;

  // Copies `pieces`, which belong one behind the other; waits as long as too much is on its way. Errors: the first of
  // `write`, which is also the last call of it: nothing is written behind what is missing.
  absl::Status Add(uint64_t offset, absl::Span<const absl::string_view> pieces);

  // Waits until all is written. Errors: as of Add.
  absl::Status Drain();

 private:
  struct alignas(kDirectAlignment) Block {
    char bytes[kPieceBytes];
  };

  // Waits for one that is free. Errors: as of Add.
  absl::StatusOr<std::unique_ptr<Block>> TakeBlock();
  void WriteOne(std::unique_ptr<Block> block, uint64_t offset, size_t size);

  const Write write_;
  Mutex mutex_;
  CondVar written_;
  std::vector<std::unique_ptr<Block>> free_ TOWLINE_GUARDED_BY(mutex_);
  size_t blocks_ TOWLINE_GUARDED_BY(mutex_) = 0;  // free, and on their way
  absl::Status status_ TOWLINE_GUARDED_BY(mutex_);
  const std::unique_ptr<WorkPool> pool_;
};

}  // namespace towline

#endif  // TOWLINE_COMMON_WRITE_BEHIND_H_
