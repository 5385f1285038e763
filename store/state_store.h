// The state model: what records do to the state, and how it is read.
//
// Layout of keys and of the value envelope: docs/formats/state_v1.md. Everything but the position is derived from the
// log, so every node that has applied the same records holds the same bytes. The position (term, term_id, LSN, chain)
// is written in the same batch as the data.
//
// Expiry: a key with expire_at_ms <= now does not exist for readers; the primary logs a plain delete for it later.
// Requests: the last `kRequestWindow` LSNs of request ids are known; eviction goes by LSN distance, never by time.

#ifndef TOWLINE_STORE_STATE_STORE_H_
#define TOWLINE_STORE_STATE_STORE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

#include "common/checksum.h"
#include "common/mutex.h"
#include "common/types.h"
#include "store/store.h"

namespace towline {

// Request ids older than this many LSNs are forgotten.
inline constexpr uint64_t kRequestWindow = 1'000'000;

// A record as the store takes it. `payload` is an encoded towline.v1.Change.
struct ApplyRecord {
  Position position;  // of this record
  absl::string_view payload;
};

// A user key with its value.
struct StoredEntry {
  std::string key;
  std::string value;
  uint64_t expire_at_ms = 0;  // 0 = never
  Lsn modified_lsn = 0;
};

// Whether an entry with this expiry exists at `now_ms`.
inline bool IsExpired(uint64_t expire_at_ms, uint64_t now_ms) { return expire_at_ms != 0 && expire_at_ms <= now_ms; }

// What is known of a request id.
struct RequestLookup {
  enum class Outcome {
    kNew,     // not seen in the window
    kSeen,    // written at `lsn`
    kTooOld,  // at or below a sequence of this client that was evicted: unknown whether it was written
  };
  Outcome outcome = Outcome::kNew;
  Lsn lsn = 0;
};

// Walks user entries in key order, expired ones included.
// Threads: one thread. Must not outlive its snapshot.
class EntryIterator {
 public:
  explicit EntryIterator(std::unique_ptr<StoreIterator> it);
  bool Valid() const;
  void Next();
  absl::string_view key() const;
  absl::string_view value() const;
  uint64_t expire_at_ms() const;
  Lsn modified_lsn() const;
  absl::Status status() const;  // also DATA_LOSS for a malformed envelope

 private:
  void Decode();
  std::unique_ptr<StoreIterator> it_;
  absl::string_view value_;
  uint64_t expire_at_ms_ = 0;
  Lsn modified_lsn_ = 0;
  absl::Status status_;
};

struct StateDigest {
  Sum128 sum;
  uint64_t keys = 0;
};

// The state at one exact position.
// Threads: all methods from any thread. Must not outlive its StateStore.
class StateSnapshot {
 public:
  StateSnapshot(std::shared_ptr<const StoreSnapshot> snapshot, Position position);

  const Position& position() const { return position_; }
  absl::StatusOr<std::optional<StoredEntry>> Get(absl::string_view key, uint64_t now_ms) const;

  // Entries with begin <= key < end; empty end = to the last key.
  std::unique_ptr<EntryIterator> Scan(absl::string_view begin, absl::string_view end, bool fill_cache) const;

  // Order-independent digest over all entries, expired ones included (docs/formats/digest_v1.md).
  absl::StatusOr<StateDigest> Digest() const;

  // The reserved keys (request window) as one opaque byte string, and its estimated size limits nothing.
  absl::StatusOr<std::string> EncodeReserved() const;

  const StoreSnapshot& raw() const { return *snapshot_; }

 private:
  const std::shared_ptr<const StoreSnapshot> snapshot_;
  const Position position_;
};

// Digest of one entry, to be added up.
Sum128 EntryDigest(absl::string_view key, absl::string_view value, uint64_t expire_at_ms, Lsn modified_lsn);

// Threads: Apply from one thread at a time; the rest from any thread.
class StateStore {
 public:
  // Reads the position from `store`. A store that was never written is at position {} (LSN 0).
  static absl::StatusOr<std::unique_ptr<StateStore>> Open(std::unique_ptr<Store> store);
  ~StateStore();

  // Applies up to 65536 consecutive records in one batch. After an error nothing was applied. Errors besides the
  // engine's: FAILED_PRECONDITION, reason apply_gap, unless records[0].position.lsn == applied().lsn + 1; DATA_LOSS,
  // reason record_malformed.
  absl::Status Apply(absl::Span<const ApplyRecord> records);

  // Last applied position. Requires nothing.
  Position applied() const TOWLINE_EXCLUDES(mutex_);

  // With which the store alone would reopen after power loss.
  absl::StatusOr<Position> Persisted();
  absl::StatusOr<Lsn> PersistedLsn();

  // The entry, unless it does not exist or is expired at `now_ms` (0 = show expired ones too).
  absl::StatusOr<std::optional<StoredEntry>> Get(absl::string_view key, uint64_t now_ms);

  // The state at a position >= applied() as of the call.
  absl::StatusOr<std::shared_ptr<const StateSnapshot>> Snapshot();

  absl::StatusOr<RequestLookup> LookupRequest(absl::string_view client_id, uint64_t sequence);

  // A sequence from `from` on above which no request of the client is in the window or was evicted; nullopt: there are
  // too many above `from` to look through.
  absl::StatusOr<std::optional<uint64_t>> HighestRequest(absl::string_view client_id, uint64_t from);

  // Up to `limit` entries with expire_at_ms <= now_ms, oldest expiry first. Stale index entries are skipped, and
  // forgotten by a later Apply. `modified_lsn` tells which version of the key it is.
  struct DueExpiry {
    std::string key;
    uint64_t expire_at_ms = 0;
    Lsn modified_lsn = 0;
  };
  absl::StatusOr<std::vector<DueExpiry>> DueExpiries(uint64_t now_ms, size_t limit);

  Store& store() { return *store_; }

 private:
  struct Impl;
  explicit StateStore(std::unique_ptr<Store> store);

  const std::unique_ptr<Store> store_;
  const std::unique_ptr<Impl> impl_;
  mutable Mutex mutex_;
  Position applied_ TOWLINE_GUARDED_BY(mutex_);
};

}  // namespace towline

#endif  // TOWLINE_STORE_STATE_STORE_H_
