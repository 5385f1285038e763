// Snapshots of a log's state, as a source would send them.

#ifndef TOWLINE_TESTS_REPLICA_SNAPSHOT_MAKER_H_
#define TOWLINE_TESTS_REPLICA_SNAPSHOT_MAKER_H_

#include <cstdint>
#include <vector>

#include "store/state_store.h"
#include "tests/replica/log_maker.h"
#include "towline/v1/replication_service.pb.h"

namespace towline::test {

inline constexpr uint64_t kFirstSnapshotId = 77;

// Header, chunks of about `chunk_bytes` and end of a snapshot of `log` at `lsn`.
std::vector<v1::FetchSnapshotResponse> MakeSnapshot(const LogMaker& log, Lsn lsn, size_t chunk_bytes = 256,
                                                    uint64_t snapshot_id = kFirstSnapshotId);

// What follows behind `cursor` of such a stream of LSN `lsn`, from the state at `read_lsn`.
std::vector<v1::FetchSnapshotResponse> MakeSnapshotRest(const LogMaker& log, Lsn lsn, Lsn read_lsn,
                                                        const v1::SnapshotCursor& cursor, size_t chunk_bytes = 256,
                                                        uint64_t snapshot_id = kFirstSnapshotId);

// The same as files of a store (MEMSTORE and one that never changes), without what `request` says is held.
std::vector<v1::FetchSnapshotResponse> MakeFileSnapshot(const LogMaker& log, Lsn lsn,
                                                        const v1::FetchSnapshotRequest& request, size_t chunk_bytes,
                                                        uint64_t snapshot_id = kFirstSnapshotId);

// Digest of the state of `log` at `lsn`.
StateDigest DigestOf(const LogMaker& log, Lsn lsn);

}  // namespace towline::test

#endif  // TOWLINE_TESTS_REPLICA_SNAPSHOT_MAKER_H_
