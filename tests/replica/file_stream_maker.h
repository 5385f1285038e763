// Snapshots of files, as a source would send them: a model of the sending side, apart from the real one.

#ifndef TOWLINE_TESTS_REPLICA_FILE_STREAM_MAKER_H_
#define TOWLINE_TESTS_REPLICA_FILE_STREAM_MAKER_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "towline/v1/replication_service.pb.h"

namespace towline::test {

using Files = std::map<std::string, std::string>;  // name -> content

// What a source that has `files` answers to `request`: header (files and id only), pieces of `chunk_bytes`, end.
std::vector<v1::FetchSnapshotResponse> MakeFileStream(const Files& files, const v1::FetchSnapshotRequest& request,
                                                      size_t chunk_bytes, uint64_t snapshot_id);

}  // namespace towline::test

#endif  // TOWLINE_TESTS_REPLICA_FILE_STREAM_MAKER_H_
