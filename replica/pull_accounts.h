// Book-keeping of one pull stream: credit granted to the sender, and which heartbeats the state covers.

#ifndef TOWLINE_REPLICA_PULL_ACCOUNTS_H_
#define TOWLINE_REPLICA_PULL_ACCOUNTS_H_

#include <cstdint>
#include <deque>
#include <optional>

#include "common/types.h"

namespace towline {

// Credit: the sender may be `window` bytes ahead of what this node has made durable.
// Threads: external synchronization.
class CreditAccount {
 public:
  // The start message grants the first `window` bytes.
  explicit CreditAccount(uint64_t window) : window_(window), granted_(window) {}

  // Bytes of records that are durable now, or given up.
  void Consumed(uint64_t bytes) { consumed_ += bytes; }

  // The cumulative grant to send now, if it is worth a message: an eighth of the window or more.
  std::optional<uint64_t> Grant();

  // Whether Grant would give something out.
  bool due() const;

  uint64_t granted() const { return granted_; }

 private:
  const uint64_t window_;
  uint64_t granted_;
  uint64_t consumed_ = 0;
};

// Heartbeats of one stream, and the newest one whose durable LSN is applied here.
// Threads: external synchronization.
class HeartbeatAccount {
 public:
  void Received(uint64_t sequence, Lsn durable_lsn);

  // Everything up to `lsn` is applied.
  void Applied(Lsn lsn);

  bool any() const { return newest_ != 0; }
  uint64_t newest() const { return newest_; }
  uint64_t newest_applied() const { return newest_applied_; }
  Lsn newest_durable() const { return newest_durable_; }

 private:
  struct Heartbeat {
    uint64_t sequence = 0;
    Lsn durable_lsn = 0;
  };

  uint64_t newest_ = 0;
  Lsn newest_durable_ = 0;
  uint64_t newest_applied_ = 0;
  std::deque<Heartbeat> waiting_;
};

}  // namespace towline

#endif  // TOWLINE_REPLICA_PULL_ACCOUNTS_H_
