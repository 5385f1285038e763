#include "replica/pull_accounts.h"

namespace towline {
namespace {

// Behind by so many heartbeats, the newest ones are treated as one: it is covered when the last of them is.
constexpr size_t kWaitingMax = 4096;

}  // namespace

std::optional<uint64_t> CreditAccount::Grant() {
  if (!due()) return std::nullopt;
  granted_ = consumed_ + window_;
  return granted_;
}

bool CreditAccount::due() const {
  const uint64_t worth = consumed_ + window_ - granted_;
  return worth != 0 && worth >= window_ / 8;
}

void HeartbeatAccount::Received(uint64_t sequence, Lsn durable_lsn) {
  if (sequence <= newest_) return;
  newest_ = sequence;
  newest_durable_ = durable_lsn;
  if (waiting_.size() >= kWaitingMax) waiting_.pop_back();
  waiting_.push_back({sequence, durable_lsn});
}

void HeartbeatAccount::Applied(Lsn lsn) {
  while (!waiting_.empty() && waiting_.front().durable_lsn <= lsn) {
    newest_applied_ = waiting_.front().sequence;
    waiting_.pop_front();
  }
}

}  // namespace towline
