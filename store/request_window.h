// The request ids of the last kRequestWindow LSNs, so that a retried write is recognised.
//
// Three spaces of the engine hold it (docs/formats/state_v1.md): by client and sequence, by LSN for eviction, and per
// client a floor below which sequences were forgotten. Eviction happens when a record whose LSN is a multiple of
// kRequestEvictionInterval is applied, so it depends on the log only.

#ifndef TOWLINE_STORE_REQUEST_WINDOW_H_
#define TOWLINE_STORE_REQUEST_WINDOW_H_

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "store/state_store.h"
#include "store/store.h"

namespace towline {

inline constexpr uint64_t kRequestEvictionInterval = 4096;
// Floors are looked through when this LSN multiple is applied ...
inline constexpr uint64_t kFloorSweepInterval = 1 << 20;
// ... and forgotten when their last eviction lies this far behind.
inline constexpr uint64_t kFloorDistance = 16 * kRequestWindow;

// Highest sequence of a client that was evicted, and the highest LSN among the evicted.
struct RequestFloor {
  uint64_t sequence = 0;
  Lsn lsn = 0;

  friend bool operator==(const RequestFloor&, const RequestFloor&) = default;
};

// Takes the engine's keys and values.
using PutFunction = std::function<absl::Status(absl::string_view key, absl::string_view value)>;

// Adds the request changes of one store batch. Made anew for every batch, because it reads the store as it is before
// the batch.
// Threads: external synchronization.
class RequestUpdates {
 public:
  RequestUpdates(Store& store, StoreBatch& batch) : store_(store), batch_(batch) {}

  // The record at `lsn` carries this id.
  void Add(absl::string_view client_id, uint64_t sequence, Lsn lsn);

  // To be called behind the last change of every record.
  absl::Status AfterRecord(Lsn lsn);

  // Writes the changed floors; to be called once, last.
  void Finish();

 private:
  absl::Status Evict(Lsn first, Lsn last);
  absl::Status SweepFloors(Lsn lsn);
  absl::StatusOr<std::optional<RequestFloor>*> FloorOf(absl::string_view client_id);

  Store& store_;
  StoreBatch& batch_;
  std::map<std::string, std::optional<RequestFloor>, std::less<>> floors_;  // changed in this batch; nullopt = removed
};

// What is known of a request id at `applied`.
absl::StatusOr<RequestLookup> FindRequest(Store& store, absl::string_view client_id, uint64_t sequence, Lsn applied);

// As StateStore::HighestRequest.
absl::StatusOr<std::optional<uint64_t>> HighestRequest(Store& store, absl::string_view client_id, uint64_t from);

// The whole window as one byte string (docs/formats/state_v1.md, section "Reserved keys").
absl::StatusOr<std::string> EncodeRequestWindow(const StoreSnapshot& snapshot);

// Gives the engine keys of an encoded window to `put`. DATA_LOSS, reason reserved_malformed.
absl::Status DecodeRequestWindow(absl::string_view encoded, const PutFunction& put);

}  // namespace towline

#endif  // TOWLINE_STORE_REQUEST_WINDOW_H_
