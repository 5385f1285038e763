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

#include "common/checksum.h"
#include "common/types.h"
#include "store/state_store.h"

namespace towline {

// How a state travels. The numbers stand in install journals.
enum class SnapshotForm : uint8_t {
  kRdb = 0,    // as an RDB stream, which any node reads
  kFiles = 1,  // as the files of its store, between engines of the same form
};

inline constexpr size_t kSnapshotChunkBytes = 1 << 20;

// What stands in the AUX fields at the head of the stream.
struct SnapshotMeta {
  ClusterId cluster_id;
  std::string node_id;
  Position position;
  History history;
  uint64_t created_unix_s = 0;
  uint64_t estimated_keys = 0;

  friend bool operator==(const SnapshotMeta&, const SnapshotMeta&) = default;
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

// How far a stream went: behind a chunk of entries. Sums are over everything from its beginning.
struct SnapshotCursor {
  uint64_t sequence = 0;  // of that chunk; 0 = nothing yet
  std::string last_key;   // in it
  uint64_t keys = 0;
  uint64_t bytes = 0;
  uint64_t crc64 = 0;
  Sum128 digest;

  friend bool operator==(const SnapshotCursor&, const SnapshotCursor&) = default;
};

// Walks a snapshot once and gives out chunks of about `chunk_bytes`: first those with entries, then those with the
// rest. Threads: external synchronization.
class SnapshotEncoder {
 public:
  // With a cursor it goes on behind it. If `snapshot` is the one that the stream began with, what follows is byte for
  // byte what would have followed then; else the entries behind the cursor are those of `snapshot`.
  SnapshotEncoder(std::shared_ptr<const StateSnapshot> snapshot, SnapshotMeta meta,
                  size_t chunk_bytes = kSnapshotChunkBytes, const SnapshotCursor& cursor = {});
  ~SnapshotEncoder();

  // The next chunk; nullopt after the last one (which holds the reserved keys, EOF and the CRC64).
  absl::StatusOr<std::optional<EncodedChunk>> Next();

  // Totals so far, from the beginning of the stream; complete after Next() returned nullopt.
  uint64_t keys() const;
  uint64_t bytes() const;
  uint64_t chunks() const;
  const Sum128& digest() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// From where a load that was broken off goes on. Saved by whoever runs the load.
struct InstallPoint {
  SnapshotMeta meta;
  SnapshotCursor cursor;    // all of it is durable in the store that is being built
  std::string indexed_key;  // user keys up to here have their expiry entries durable too; empty = none

  friend bool operator==(const InstallPoint&, const InstallPoint&) = default;
};

// Builds a new store from a chunk stream. The result is complete only after Finish().
// Threads: external synchronization.
class SnapshotInstaller {
 public:
  // `loader` fills the new store's directory.
  explicit SnapshotInstaller(std::unique_ptr<StoreBulkLoader> loader);

  // Goes on behind `point`, with a loader of the same directory. Reads the keys whose expiry entries are missing.
  static absl::StatusOr<std::unique_ptr<SnapshotInstaller>> Resume(std::unique_ptr<StoreBulkLoader> loader,
                                                                   const InstallPoint& point);
  ~SnapshotInstaller();

  // Takes the next chunk. DATA_LOSS: wrong sequence, checksum, count, key order or malformed RDB. UNIMPLEMENTED: an RDB
  // object that is not a string. RESOURCE_EXHAUSTED, reason disk_full. After an error the installer may be usable() or
  // not; if it is, nothing of the chunk was taken.
  absl::Status AddChunk(const EncodedChunk& chunk);
  bool usable() const;

  // The head of the stream; complete after the first chunk.
  const SnapshotMeta& meta() const;

  // From where another stream can go on. Drops what came behind the last chunk of entries.
  const SnapshotCursor& RewindToCursor();
  const SnapshotCursor& cursor() const;

  // Bytes of entries that are not durable yet.
  uint64_t pending_bytes() const;

  // Makes what was added up to the cursor durable.
  absl::StatusOr<InstallPoint> Commit();

  // Checks totals and digest (as announced by the sender), writes expiry index, reserved keys and position, and makes
  // the store durable.
  absl::Status Finish(uint64_t expected_keys, const std::string& expected_digest_hex);

  uint64_t keys() const;
  uint64_t bytes() const;
  uint64_t chunks() const;

 private:
  struct Impl;
  explicit SnapshotInstaller(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace towline

#endif  // TOWLINE_STORE_SNAPSHOT_CODEC_H_
