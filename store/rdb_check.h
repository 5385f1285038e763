// Verifies a whole RDB file: one of our own snapshots, or a dump of a real Redis or Valkey.

#ifndef TOWLINE_STORE_RDB_CHECK_H_
#define TOWLINE_STORE_RDB_CHECK_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/file_system.h"
#include "store/rdb_walk.h"
#include "store/snapshot_codec.h"

namespace towline {

struct RdbDatabaseReport {
  uint64_t keys = 0;      // of any type
  uint64_t strings = 0;   // of them
  uint64_t expiring = 0;  // of `keys`: those with an expiry, past or not
};

// What a valid file holds.
struct RdbReport {
  RdbFileInfo file;
  uint64_t keys = 0;         // of any type
  uint64_t strings = 0;      // of them
  uint64_t expiring = 0;     // of `keys`
  uint64_t key_bytes = 0;    // of strings
  uint64_t value_bytes = 0;  // of strings, decompressed
  std::map<uint64_t, RdbDatabaseReport> databases;
  std::map<std::string, uint64_t> types;    // "string", "list", ..., "function": how many of each
  std::map<std::string, std::string> head;  // AUX fields of Redis: redis-ver, ctime, repl-id, ...
  std::optional<SnapshotMeta> towline;      // of a snapshot of Towline
  std::string digest;                       // of its entries (docs/formats/digest_v1.md); else empty
};

// Reads the file once. Structure, checksum and end; no key twice in a database; of a snapshot of Towline also order,
// modified LSNs, digest and reserved keys, and that it has a CRC-64. `also` sees each item behind the checks of that
// item. DATA_LOSS with the byte offset: reasons rdb_malformed, rdb_duplicate_key, snapshot_malformed. UNIMPLEMENTED:
// what cannot be read, or skipped. Memory: that of WalkRdb, and of other servers' files KeyHashSet's per key.
absl::StatusOr<RdbReport> CheckRdb(File& file, const RdbVisitor& also, const RdbProgress& progress);

// How CheckRdb reads, and how a second walk over a checked file has to.
RdbReaderOptions RdbCheckOptions();

}  // namespace towline

#endif  // TOWLINE_STORE_RDB_CHECK_H_
