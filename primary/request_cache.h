// Request ids that are known to be new, so that most writes of a client need no look at the state.

#ifndef TOWLINE_PRIMARY_REQUEST_CACHE_H_
#define TOWLINE_PRIMARY_REQUEST_CACHE_H_

#include <bitset>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <unordered_map>

#include "absl/strings/string_view.h"

#include "common/checksum.h"
#include "common/types.h"

namespace towline {

// Per client a sequence above which nothing was written before the cache learned of the client, and which of the
// newest sequences were written since. "Not new" only means that the records in flight and the state must be asked.
//
// A client that is not known has no record in flight: it is learned before its first one, and forgotten only when its
// last one is applied.
//
// Threads: external synchronization.
class RequestCache {
 public:
  // A client's writes may overtake each other by so many sequences.
  static constexpr size_t kWindow = 1024;
  // Of Learn: nothing of the client is known to be new.
  static constexpr uint64_t kNothing = std::numeric_limits<uint64_t>::max();

  explicit RequestCache(size_t clients_max = 16384) : clients_max_(clients_max) {}

  bool Knows(absl::string_view client_id) const { return clients_.find(client_id) != clients_.end(); }

  // The state holds and remembers no request of the client above `highest`. `applied`: what it covers.
  void Learn(absl::string_view client_id, uint64_t highest, Lsn applied);

  // Whether no record with this id was ever written.
  bool IsNew(absl::string_view client_id, uint64_t sequence) const;

  // The record at `lsn` has this id. The client is known.
  void Add(absl::string_view client_id, uint64_t sequence, Lsn lsn);

  size_t size() const { return clients_.size(); }

 private:
  struct NameHash {
    using is_transparent = void;
    size_t operator()(absl::string_view name) const { return static_cast<size_t>(Xxh3(name)); }
  };
  struct Client {
    uint64_t base = 0;             // of what is not above it, nothing is known
    uint64_t highest = 0;          // at least base
    Lsn lsn = 0;                   // of the last record
    std::bitset<kWindow> written;  // of (highest - kWindow, highest], by sequence % kWindow
  };

  void Forget(Lsn applied);

  size_t clients_max_;
  std::unordered_map<std::string, Client, NameHash, std::equal_to<>> clients_;
};

}  // namespace towline

#endif  // TOWLINE_PRIMARY_REQUEST_CACHE_H_
