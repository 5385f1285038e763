#include "replica/ack_pace.h"

#include <algorithm>

namespace towline {
namespace {

constexpr int64_t kPaceMicros = 2'000;

}  // namespace

bool AckPace::Prompt(AckPrompt prompt) {
  if (prompt_ == prompt) return false;
  prompt_ = prompt;
  if (prompt != AckPrompt::kNone) flushed_at_ = 0;
  if (prompt == AckPrompt::kApplied) applied_at_.store(0, std::memory_order_relaxed);
  return true;
}

void AckPace::Sent(int64_t now) {
  paced_at_ = std::max(paced_at_, now - kPaceMicros) + kPaceMicros;
  flushed_at_ = prompt_ == AckPrompt::kNone ? paced_at_ : 0;
  int64_t applied_at = paced_at_;
  if (prompt_ == AckPrompt::kFlushed) applied_at = now + kPaceMicros;  // the next one tells of them too
  if (prompt_ == AckPrompt::kApplied) applied_at = 0;
  applied_at_.store(applied_at, std::memory_order_relaxed);
}

}  // namespace towline
