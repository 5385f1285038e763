// A state as an RDB stream in chunks, and back.
//
// Format: docs/formats/rdb_v9.md (REDIS0009 with AUX fields of our own; a concatenation of all chunks is a file that
// redis-check-rdb accepts and redis-server loads).

#ifndef TOWLINE_STORE_SNAPSHOT_CODEC_H_
#define TOWLINE_STORE_SNAPSHOT_CODEC_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/types.h"
#include "store/state_store.h"

namespace towline {

inline constexpr size_t kSnapshotChunkBytes = 1 << 20;

// What stands in the AUX fields at the head of the stream.
struct SnapshotMeta {
  ClusterId cluster_id;
  std::string node_id;
  Position position;
  History history;
  uint64_t created_unix_s = 0;
  uint64_t estimated_keys = 0;
};

// One piece of the stream: whole entries only.
struct EncodedChunk {
  uint64_t sequence = 0;  // 1, 2, 3, ...
  std::string first_key;  // empty if the chunk holds no key
  std::string last_key;
  uint64_t keys = 0;
  uint32_t crc32c = 0;  // of data
  std::string data;
};

// Walks a snapshot once and gives out chunks of about `chunk_bytes`.
// Threads: external synchronization.
class SnapshotEncoder {
 public:
  SnapshotEncoder(std::shared_ptr<const StateSnapshot> snapshot, SnapshotMeta meta,
                  size_t chunk_bytes = kSnapshotChunkBytes);
  ~SnapshotEncoder();

  // The next chunk; nullopt after the last one (which holds the reserved keys, EOF and the CRC64).
  absl::StatusOr<std::optional<EncodedChunk>> Next();

  // Totals so far; complete after Next() returned nullopt.
  uint64_t keys() const;
  uint64_t bytes() const;
  uint64_t chunks() const;
  const StateDigest& digest() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Builds a new store from a chunk stream. The result is complete only after Finish().
// Threads: external synchronization.
class SnapshotInstaller {
 public:
  // `loader` fills the new store's directory.
  explicit SnapshotInstaller(std::unique_ptr<StoreBulkLoader> loader);
  ~SnapshotInstaller();

  // Takes the next chunk. DATA_LOSS: wrong sequence, checksum, count, key order or malformed RDB; the install must be
  // started again. UNIMPLEMENTED: an RDB object that is not a string.
  absl::Status AddChunk(const EncodedChunk& chunk);

  // The head of the stream; complete after the first chunk.
  const SnapshotMeta& meta() const;

  // Checks totals and digest (as announced by the sender), writes expiry index, reserved keys and position, and makes
  // the store durable.
  absl::Status Finish(uint64_t expected_keys, const std::string& expected_digest_hex);

  uint64_t keys() const;
  uint64_t bytes() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace towline

#endif  // TOWLINE_STORE_SNAPSHOT_CODEC_H_
