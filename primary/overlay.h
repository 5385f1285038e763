// What assigned records that are not applied yet will do to keys and request ids.
//
// Conditions must see the state as of the record before them, and the store lags behind it by the records in flight.
// Most loads have no conditions, so the index by key is built at the first question and dropped after a while without
// one; until then adding a record costs a deque entry.

#ifndef TOWLINE_PRIMARY_OVERLAY_H_
#define TOWLINE_PRIMARY_OVERLAY_H_

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/strings/string_view.h"

#include "common/checksum.h"
#include "common/types.h"
#include "store/change_reader.h"

namespace towline {

// Threads: external synchronization.
class Overlay {
 public:
  // What is known of a key from the records in flight.
  struct KeyState {
    bool exists = false;
    uint64_t expire_at_ms = 0;
    Lsn modified_lsn = 0;  // meaningful if it exists
  };

  // Adds an assigned record, LSNs rising. `payload` is an encoded towline.v1.Change.
  void Add(Lsn lsn, std::string payload);

  // Forgets records up to and including `applied`: the store shows them.
  void Retire(Lsn applied);

  // Forgets records behind `last`: they were not written after all.
  void Discard(Lsn last);

  // nullopt: no record in flight touches the key, ask the store.
  std::optional<KeyState> Find(absl::string_view key);

  // LSN of the record in flight with this request id, or 0.
  Lsn FindRequest(absl::string_view client_id, uint64_t sequence);

  size_t size() const { return in_flight_.size(); }

 private:
  struct Entry {
    Lsn lsn = 0;
    std::string payload;
  };
  struct ViewHash {
    size_t operator()(absl::string_view v) const { return static_cast<size_t>(Xxh3(v)); }
  };
  struct Range {
    Lsn lsn = 0;
    absl::string_view begin;
    absl::string_view end;
  };

  void BuildIndex();
  void Index(const Entry& entry);
  void Unindex(const Entry& entry, Lsn applied);
  void DropIndex();

  std::deque<Entry> in_flight_;  // views of the index point into it
  bool indexed_ = false;
  uint64_t adds_since_question_ = 0;
  std::unordered_map<absl::string_view, KeyState, ViewHash> keys_;  // newest effect per key
  std::deque<Range> ranges_;                                        // LSN order
  std::unordered_map<std::string, Lsn> requests_;                   // "client\0sequence"
  std::vector<ChangeOperation> scratch_;                            // of the entry that is looked at
};

}  // namespace towline

#endif  // TOWLINE_PRIMARY_OVERLAY_H_
