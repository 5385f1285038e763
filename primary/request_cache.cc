#include "primary/request_cache.h"

#include <algorithm>

namespace towline {

void RequestCache::Learn(absl::string_view client_id, uint64_t highest, Lsn applied) {
  if (clients_.size() >= clients_max_) Forget(applied);
  Client& client = clients_[std::string(client_id)];
  client = Client{};
  client.base = client.highest = highest;
}

bool RequestCache::IsNew(absl::string_view client_id, uint64_t sequence) const {
  const auto found = clients_.find(client_id);
  if (found == clients_.end()) return false;
  const Client& client = found->second;
  if (sequence <= client.base) return false;
  if (sequence > client.highest) return true;
  return client.highest - sequence < kWindow && !client.written[sequence % kWindow];
}

void RequestCache::Add(absl::string_view client_id, uint64_t sequence, Lsn lsn) {
  const auto found = clients_.find(client_id);
  if (found == clients_.end()) return;
  Client& client = found->second;
  client.lsn = lsn;
  if (sequence > client.highest) {
    if (sequence - client.highest >= kWindow) {
      client.written.reset();
    } else {
      for (uint64_t skipped = client.highest + 1; skipped < sequence; ++skipped)
        client.written.reset(skipped % kWindow);
    }
    client.highest = sequence;
  }
  if (client.highest - sequence < kWindow) client.written.set(sequence % kWindow);
}

// Those that have nothing in flight. Were that few, the next client would make us look through all of them again.
void RequestCache::Forget(Lsn applied) {
  std::erase_if(clients_, [applied](const auto& each) { return each.second.lsn <= applied; });
  clients_max_ = std::max(clients_max_, 2 * clients_.size());
}

}  // namespace towline
