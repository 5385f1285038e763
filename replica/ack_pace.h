// When the acks of one pull stream may leave.

#ifndef TOWLINE_REPLICA_ACK_PACE_H_
#define TOWLINE_REPLICA_ACK_PACE_H_

#include <atomic>
#include <cstdint>

namespace towline {

// Which acks writers at the primary wait for; kApplied includes the others.
enum class AckPrompt : uint8_t { kNone, kFlushed, kApplied };

// Acks that nobody waits for leave at most every 2 ms, but for one that may follow another at once: that of the apply
// after that of the sync. The upstream sends what has gathered when an ack comes, so this also makes the groups that
// are synced here larger. Those that writers wait for leave at once. Times are of the monotonic clock, in microseconds.
// Threads: external synchronization, but for applied_at.
class AckPace {
 public:
  // False: it was so before.
  bool Prompt(AckPrompt prompt);
  AckPrompt prompt() const { return prompt_; }

  // An ack has left.
  void Sent(int64_t now);

  // From when on one may leave that tells of flushed records.
  int64_t flushed_at() const { return flushed_at_; }
  // From when on one may leave that only tells of applied records.
  int64_t applied_at() const { return applied_at_.load(std::memory_order_relaxed); }

 private:
  AckPrompt prompt_ = AckPrompt::kNone;
  int64_t paced_at_ = 0;  // what both are without a prompt
  int64_t flushed_at_ = 0;
  std::atomic<int64_t> applied_at_{0};
};

}  // namespace towline

#endif  // TOWLINE_REPLICA_ACK_PACE_H_
