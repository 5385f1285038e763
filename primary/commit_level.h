// How many nodes must hold a record before its write is answered, and what was achieved.

#ifndef TOWLINE_PRIMARY_COMMIT_LEVEL_H_
#define TOWLINE_PRIMARY_COMMIT_LEVEL_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"

namespace towline {

// Which stage of a replica counts.
enum class CommitStage : uint8_t { kFlushed, kApplied };

// What happens when the replicas do not confirm in time; the record stays in the log either way.
enum class OnCommitTimeout : uint8_t { kFail, kAccept };

// What a write asks for.
struct CommitLevel {
  uint32_t replicas = 0;  // counting members besides the primary; 0 = local
  CommitStage stage = CommitStage::kFlushed;
  int64_t timeout_micros = 5'000'000;
  OnCommitTimeout on_timeout = OnCommitTimeout::kFail;
};

// Counting members that hold a record.
struct AchievedLevel {
  uint32_t flushed = 0;
  uint32_t applied = 0;
  bool reached = false;  // the level that was asked for
};

// How a wait ended. The record is durable here in any case.
struct CommitResult {
  enum class End : uint8_t { kReached, kTimedOut, kClosed };
  End end = End::kReached;
  absl::Status closed;  // kClosed: why this primary answers nothing any more
  AchievedLevel achieved;
};

// Somebody who waits for a level.
class CommitWaiter {
 public:
  virtual ~CommitWaiter() = default;
  // Exactly once, from any thread, without locks held.
  virtual void OnCommit(std::unique_ptr<CommitWaiter> self, const CommitResult& result) = 0;
};

}  // namespace towline

#endif  // TOWLINE_PRIMARY_COMMIT_LEVEL_H_
