// Goes over a whole RDB file.

#ifndef TOWLINE_STORE_RDB_WALK_H_
#define TOWLINE_STORE_RDB_WALK_H_

#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/file_system.h"
#include "store/rdb_reader.h"

namespace towline {

// Where an item stands.
struct RdbPlace {
  uint64_t db = 0;      // of entries
  uint64_t offset = 0;  // of its first byte in the file
};

// Takes one item; never kNeedMore. The views hold during the call. An error ends the walk and is what it returns.
using RdbVisitor = std::function<absl::Status(const RdbEvent& event, const RdbPlace& place)>;

// Called about once per MiB with the bytes taken so far. An error ends the walk and is what it returns.
using RdbProgress = std::function<absl::Status(uint64_t bytes)>;

struct RdbFileInfo {
  uint32_t version = 0;
  bool valkey = false;        // magic VALKEY instead of REDIS
  bool had_checksum = false;  // false: its writer computed none
  uint64_t bytes = 0;
};

// Reads `file` once from its beginning to its end. Memory: 1 MiB and the largest string.
// DATA_LOSS, reason rdb_malformed, with the offset: structure, checksum, a file that is cut short or goes on behind its
// end. UNIMPLEMENTED as of RdbReader. Errors of the file, of `visit` and of `progress`.
absl::StatusOr<RdbFileInfo> WalkRdb(File& file, const RdbReaderOptions& options, const RdbVisitor& visit,
                                    const RdbProgress& progress);

}  // namespace towline

#endif  // TOWLINE_STORE_RDB_WALK_H_
