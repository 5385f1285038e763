#include "tests/replica/snapshot_maker.h"

#include <memory>
#include <optional>
#include <utility>

#include "common/check.h"
#include "common/history.h"
#include "store/memory_store.h"
#include "store/snapshot_codec.h"

namespace towline::test {
namespace {

constexpr uint64_t kSnapshotId = 77;

// A store that holds the state of a log at one LSN.
struct StateAt {
  StateAt(const LogMaker& log, Lsn lsn) {
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

void SetPosition(const LogMaker& log, Lsn lsn, v1::Position* out) {
  const Position position = log.PositionAt(lsn);
  out->set_cluster_id(log.cluster_id());
  out->set_term(position.term);
  out->set_term_id(position.term_id);
  out->set_lsn(position.lsn);
  out->set_chain(position.chain);
}

SnapshotCursor CursorFrom(const v1::SnapshotCursor& from) {
  SnapshotCursor cursor;
  cursor.sequence = from.sequence();
  cursor.last_key = from.last_key();
  cursor.keys = from.keys();
  cursor.bytes = from.bytes();
  cursor.crc64 = from.crc64();
  if (from.sequence() != 0) TOWLINE_CHECK(Sum128::Parse(from.digest(), &cursor.digest));
  return cursor;
}

v1::FetchSnapshotResponse MakeHeader(const LogMaker& log, Lsn lsn, Lsn read_lsn, uint64_t sequence) {
  v1::FetchSnapshotResponse response;
  v1::SnapshotHeader& header = *response.mutable_header();
  SetPosition(log, lsn, header.mutable_position());
  SetPosition(log, read_lsn, header.mutable_read_position());
  for (const HistoryEntry& entry : CutAt(log.history(), lsn)) {
    v1::HistoryEntry& added = *header.add_history();
    added.set_term(entry.term);
    added.set_start_lsn(entry.start_lsn);
    added.set_term_id(entry.term_id);
  }
  header.set_slot_generation(9);
  header.set_snapshot_id(kSnapshotId);
  header.set_resumed_sequence(sequence);
  header.set_estimated_keys(lsn);
  header.set_estimated_bytes(lsn * 40);
  return response;
}

v1::FetchSnapshotResponse MakeChunk(const EncodedChunk& encoded) {
  v1::FetchSnapshotResponse response;
  v1::SnapshotChunk& chunk = *response.mutable_chunk();
  chunk.set_sequence(encoded.sequence);
  chunk.set_first_key(encoded.first_key);
  chunk.set_last_key(encoded.last_key);
  chunk.set_keys(encoded.keys);
  chunk.set_crc32c(encoded.crc32c);
  chunk.set_data(encoded.data);
  chunk.set_snapshot_id(kSnapshotId);
  return response;
}

}  // namespace

std::vector<v1::FetchSnapshotResponse> MakeSnapshot(const LogMaker& log, Lsn lsn, size_t chunk_bytes) {
  return MakeSnapshotRest(log, lsn, lsn, {}, chunk_bytes);
}

std::vector<v1::FetchSnapshotResponse> MakeSnapshotRest(const LogMaker& log, Lsn lsn, Lsn read_lsn,
                                                        const v1::SnapshotCursor& cursor, size_t chunk_bytes) {
  const StateAt at(log, read_lsn);
  SnapshotMeta meta;
  meta.cluster_id = log.cluster_id();
  meta.node_id = "p1";
  meta.position = log.PositionAt(lsn);
  meta.history = CutAt(log.history(), lsn);
  SnapshotEncoder encoder(at.snapshot, meta, chunk_bytes, CursorFrom(cursor));

  std::vector<v1::FetchSnapshotResponse> stream = {MakeHeader(log, lsn, read_lsn, cursor.sequence())};
  while (true) {
    absl::StatusOr<std::optional<EncodedChunk>> chunk = encoder.Next();
    TOWLINE_CHECK(chunk.ok());
    if (!chunk->has_value()) break;
    stream.push_back(MakeChunk(**chunk));
  }
  v1::SnapshotEnd& end = *stream.emplace_back().mutable_end();
  end.set_keys(encoder.keys());
  end.set_bytes(encoder.bytes());
  end.set_chunks(encoder.chunks());
  end.set_digest(encoder.digest().Hex());
  return stream;
}

StateDigest DigestOf(const LogMaker& log, Lsn lsn) {
  const StateAt at(log, lsn);
  const absl::StatusOr<StateDigest> digest = at.snapshot->Digest();
  TOWLINE_CHECK(digest.ok());
  return *digest;
}

}  // namespace towline::test
