#include <algorithm>
#include <utility>

#include "common/checksum.h"
#include "common/error.h"
#include "store/rdb_format.h"
#include "store/rdb_writer.h"
#include "store/snapshot_codec.h"
#include "store/snapshot_head.h"
#include "store/state_format.h"

namespace towline {

struct SnapshotEncoder::Impl {
  absl::StatusOr<std::optional<EncodedChunk>> Next();
  void AddEntries(EncodedChunk* chunk);
  absl::Status AddEnd(EncodedChunk* chunk);

  std::shared_ptr<const StateSnapshot> snapshot;
  SnapshotMeta meta;
  size_t chunk_bytes = 0;
  std::unique_ptr<EntryIterator> it;

  std::string body;  // entries of the chunk in the making
  std::string lsns;  // their modified LSNs
  Lsn last_lsn = 0;  // the newest of them
  bool has_reserved = false;
  std::string reserved;  // request window; valid if has_reserved
  size_t reserved_sent = 0;
  bool done = false;

  SnapshotCursor at;  // totals; last_key is where the scan begins
};

// Adds about chunk_bytes of entries, behind the field that holds their modified LSNs.
void SnapshotEncoder::Impl::AddEntries(EncodedChunk* chunk) {
  body.clear();
  lsns.clear();
  last_lsn = 0;
  for (; it->Valid() && body.size() < chunk_bytes; it->Next()) {
    if (chunk->keys == 0) chunk->first_key.assign(it->key().data(), it->key().size());
    RdbAppendEntry(it->key(), it->value(), it->expire_at_ms(), &body);
    AppendVarint(ZigZag(static_cast<int64_t>(it->modified_lsn() - last_lsn)), &lsns);
    last_lsn = it->modified_lsn();
    at.digest.Add(EntryDigest(it->key(), it->value(), it->expire_at_ms(), it->modified_lsn()));
    ++chunk->keys;
    chunk->last_key.assign(it->key().data(), it->key().size());
  }
  if (chunk->keys == 0) return;
  chunk->data.reserve(chunk->data.size() + lsns.size() + body.size() + 64);
  RdbAppendAux(kAuxMeta, lsns, &chunk->data);
  chunk->data += body;
}

// Adds the next part of the request window and, behind the last part, the end of the stream.
absl::Status SnapshotEncoder::Impl::AddEnd(EncodedChunk* chunk) {
  if (!has_reserved) {
    TOWLINE_ASSIGN_OR_RETURN(reserved, snapshot->EncodeReserved());
    has_reserved = true;
  }
  const size_t part = std::min(chunk_bytes, reserved.size() - reserved_sent);
  RdbAppendAux(kAuxReserved, absl::string_view(reserved).substr(reserved_sent, part), &chunk->data);
  reserved_sent += part;
  if (reserved_sent < reserved.size()) return absl::OkStatus();
  RdbAppendAux(kAuxDigest, at.digest.Hex(), &chunk->data);
  RdbAppendEof(Crc64JonesExtend(at.crc64, chunk->data), &chunk->data);
  done = true;
  return absl::OkStatus();
}

absl::StatusOr<std::optional<EncodedChunk>> SnapshotEncoder::Impl::Next() {
  if (done) return std::optional<EncodedChunk>();
  EncodedChunk chunk;
  chunk.sequence = at.sequence + 1;
  if (chunk.sequence == 1) chunk.data = EncodeSnapshotHead(meta);
  // Keys rise in byte order, so the first one behind another is that with a zero byte behind it.
  if (it == nullptr) {
    const std::string begin = at.last_key.empty() ? "" : at.last_key + '\0';
    it = snapshot->Scan(begin, "", /*fill_cache=*/false);
  }
  AddEntries(&chunk);
  TOWLINE_RETURN_IF_ERROR(it->status());
  // A stream can go on behind entries only: what follows them is in chunks of its own.
  if (chunk.keys == 0) TOWLINE_RETURN_IF_ERROR(AddEnd(&chunk));
  if (!done) at.crc64 = Crc64JonesExtend(at.crc64, chunk.data);
  chunk.crc32c = Crc32c(chunk.data);
  at.sequence = chunk.sequence;
  at.keys += chunk.keys;
  at.bytes += chunk.data.size();
  return std::optional<EncodedChunk>(std::move(chunk));
}

SnapshotEncoder::SnapshotEncoder(std::shared_ptr<const StateSnapshot> snapshot, SnapshotMeta meta, size_t chunk_bytes,
                                 const SnapshotCursor& cursor)
    : impl_(std::make_unique<Impl>()) {
  impl_->snapshot = std::move(snapshot);
  impl_->meta = std::move(meta);
  if (cursor.sequence == 0) impl_->meta.position = impl_->snapshot->position();
  impl_->chunk_bytes = std::max<size_t>(chunk_bytes, 1);
  impl_->at = cursor;
}

SnapshotEncoder::~SnapshotEncoder() = default;

absl::StatusOr<std::optional<EncodedChunk>> SnapshotEncoder::Next() { return impl_->Next(); }
uint64_t SnapshotEncoder::keys() const { return impl_->at.keys; }
uint64_t SnapshotEncoder::bytes() const { return impl_->at.bytes; }
uint64_t SnapshotEncoder::chunks() const { return impl_->at.sequence; }
const Sum128& SnapshotEncoder::digest() const { return impl_->at.digest; }

}  // namespace towline
