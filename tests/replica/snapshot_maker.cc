#include "tests/replica/snapshot_maker.h"

#include <memory>
#include <optional>
#include <utility>

#include "common/check.h"
#include "common/history.h"
#include "replica/pull_messages.h"
#include "store/memory_store.h"
#include "store/snapshot_codec.h"
#include "tests/replica/file_stream_maker.h"
#include "tests/support/sim_file_system.h"

namespace towline::test {
namespace {

// A store that holds the state of a log at one LSN.
struct StateAt {
  StateAt(const LogMaker& log, Lsn lsn, FileSystem* fs = nullptr) : factory({.file_system = fs}) {
    auto store = factory.Open("db");
    TOWLINE_CHECK(store.ok());
    auto opened = StateStore::Open(*std::move(store));
    TOWLINE_CHECK(opened.ok());
    state = *std::move(opened);
    std::vector<ApplyRecord> records;
    for (Lsn l = 1; l <= lsn; ++l) {
      records.push_back({log.PositionAt(l), absl::string_view(log.shipped(l)).substr(wal::kShippedHeaderSize)});
    }
    if (!records.empty()) TOWLINE_CHECK(state->Apply(records).ok());
    auto taken = state->Snapshot();
    TOWLINE_CHECK(taken.ok());
    snapshot = *taken;
  }

  MemoryStoreFactory factory;
  std::unique_ptr<StateStore> state;
  std::shared_ptr<const StateSnapshot> snapshot;
};

v1::FetchSnapshotResponse MakeHeader(const LogMaker& log, Lsn lsn, Lsn read_lsn, uint64_t snapshot_id,
                                     uint64_t resumed_sequence) {
  v1::FetchSnapshotResponse response;
  v1::SnapshotHeader& header = *response.mutable_header();
  PositionToProto(log.cluster_id(), log.PositionAt(lsn), header.mutable_position());
  PositionToProto(log.cluster_id(), log.PositionAt(read_lsn), header.mutable_read_position());
  header.set_resumed_sequence(resumed_sequence);
  for (const HistoryEntry& entry : CutAt(log.history(), lsn)) {
    v1::HistoryEntry& added = *header.add_history();
    added.set_term(entry.term);
    added.set_start_lsn(entry.start_lsn);
    added.set_term_id(entry.term_id);
  }
  header.set_slot_generation(9);
  header.set_snapshot_id(snapshot_id);
  header.set_estimated_keys(lsn);
  header.set_estimated_bytes(lsn * 40);
  return response;
}

v1::FetchSnapshotResponse MakeChunk(const EncodedChunk& encoded, uint64_t snapshot_id) {
  v1::FetchSnapshotResponse response;
  v1::SnapshotChunk& chunk = *response.mutable_chunk();
  chunk.set_sequence(encoded.sequence);
  chunk.set_first_key(encoded.first_key);
  chunk.set_last_key(encoded.last_key);
  chunk.set_keys(encoded.keys);
  chunk.set_crc32c(encoded.crc32c);
  chunk.set_data(encoded.data);
  chunk.set_snapshot_id(snapshot_id);
  return response;
}

std::vector<v1::FetchSnapshotResponse> MakeStream(const LogMaker& log, Lsn lsn, Lsn read_lsn, uint64_t snapshot_id,
                                                  const SnapshotCursor& cursor, size_t chunk_bytes) {
  const StateAt at(log, read_lsn);
  SnapshotMeta meta;
  meta.cluster_id = log.cluster_id();
  meta.node_id = "p1";
  meta.position = log.PositionAt(lsn);
  meta.history = CutAt(log.history(), lsn);
  SnapshotEncoder encoder(at.snapshot, meta, chunk_bytes, cursor);

  std::vector<v1::FetchSnapshotResponse> stream = {MakeHeader(log, lsn, read_lsn, snapshot_id, cursor.sequence)};
  while (true) {
    absl::StatusOr<std::optional<EncodedChunk>> chunk = encoder.Next();
    TOWLINE_CHECK(chunk.ok());
    if (!chunk->has_value()) break;
    stream.push_back(MakeChunk(**chunk, snapshot_id));
  }
  v1::SnapshotEnd& end = *stream.emplace_back().mutable_end();
  end.set_keys(encoder.keys());
  end.set_bytes(encoder.bytes());
  end.set_chunks(encoder.chunks());
  end.set_digest(encoder.digest().Hex());
  return stream;
}

}  // namespace

std::vector<v1::FetchSnapshotResponse> MakeSnapshot(const LogMaker& log, Lsn lsn, size_t chunk_bytes,
                                                    uint64_t snapshot_id) {
  return MakeStream(log, lsn, lsn, snapshot_id, {}, chunk_bytes);
}

std::vector<v1::FetchSnapshotResponse> MakeSnapshotRest(const LogMaker& log, Lsn lsn, Lsn read_lsn,
                                                        const v1::SnapshotCursor& cursor, size_t chunk_bytes,
                                                        uint64_t snapshot_id) {
  SnapshotCursor at{cursor.sequence(), cursor.last_key(), cursor.keys(), cursor.bytes(), cursor.crc64(), {}};
  if (at.sequence != 0) TOWLINE_CHECK(Sum128::Parse(cursor.digest(), &at.digest));
  return MakeStream(log, lsn, read_lsn, snapshot_id, at, chunk_bytes);
}

std::vector<v1::FetchSnapshotResponse> MakeFileSnapshot(const LogMaker& log, Lsn lsn,
                                                        const v1::FetchSnapshotRequest& request, size_t chunk_bytes,
                                                        uint64_t snapshot_id) {
  SimFileSystem fs;
  {
    const StateAt at(log, lsn, &fs);
    TOWLINE_CHECK(at.state->store().Flush(/*wait=*/true).ok());
  }
  const Files files = {{"ALWAYS", std::string(3 * chunk_bytes + 100, 'x')}, {"MEMSTORE", fs.Contents("db/MEMSTORE")}};
  std::vector<v1::FetchSnapshotResponse> stream = MakeFileStream(files, request, chunk_bytes, snapshot_id);
  v1::FetchSnapshotResponse header = MakeHeader(log, lsn, lsn, snapshot_id, 0);
  *header.mutable_header()->mutable_files() = stream[0].header().files();
  header.mutable_header()->set_estimated_bytes(stream[0].header().estimated_bytes());
  stream[0] = std::move(header);
  return stream;
}

StateDigest DigestOf(const LogMaker& log, Lsn lsn) {
  const StateAt at(log, lsn);
  const absl::StatusOr<StateDigest> digest = at.snapshot->Digest();
  TOWLINE_CHECK(digest.ok());
  return *digest;
}

}  // namespace towline::test
