// What a snapshot stream carries between its header and its end: chunks of an RDB stream, or pieces of files.

#ifndef TOWLINE_PRIMARY_SNAPSHOT_BODY_H_
#define TOWLINE_PRIMARY_SNAPSHOT_BODY_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "primary/file_snapshot.h"
#include "primary/snapshot_pool.h"
#include "store/snapshot_codec.h"
#include "towline/v1/replication_service.pb.h"

namespace towline {

// Threads: external synchronization. Keeps its snapshot.
class SnapshotBody {
 public:
  virtual ~SnapshotBody() = default;

  // First: what of the header is known here only. Errors: those of the disk.
  virtual absl::Status Begin(v1::SnapshotHeader* header) = 0;
  // The next chunk; false behind the last one. At most `most` bytes of files; the chunks of an RDB stream are what they
  // are.
  virtual absl::StatusOr<bool> Next(v1::FetchSnapshotResponse* out, size_t most) = 0;
  // Totals, once Next has returned false.
  virtual void FillEnd(v1::SnapshotEnd* end) const = 0;

  virtual uint64_t keys() const = 0;        // so far, from the beginning of the transfer; 0 = not known
  virtual uint64_t bytes() const = 0;       // so far, from the beginning of the transfer
  virtual uint64_t sent_bytes() const = 0;  // so far, by this stream
};

// An RDB stream that goes on behind `cursor`.
std::unique_ptr<SnapshotBody> NewRdbBody(SharedSnapshotPtr snapshot, const SnapshotCursor& cursor);
// The files of the snapshot, without what is held already.
std::unique_ptr<SnapshotBody> NewFileBody(SharedSnapshotPtr snapshot, std::vector<HeldFile> held);

}  // namespace towline

#endif  // TOWLINE_PRIMARY_SNAPSHOT_BODY_H_
