#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "common/checksum.h"
#include "common/error.h"
#include "common/names.h"
#include "store/modified_lsns.h"
#include "store/rdb_format.h"
#include "store/rdb_reader.h"
#include "store/request_window.h"
#include "store/snapshot_codec.h"
#include "store/snapshot_head.h"
#include "store/state_format.h"

namespace towline {
namespace {

// Memory of expiry entries from which on a commit makes them durable; less is read again when a load goes on.
constexpr uint64_t kIndexBytesMax = 4 << 20;

RdbReaderOptions ReaderOptions() {
  RdbReaderOptions options;
  options.key_bytes_max = kKeySizeMax;
  options.require_checksum = true;
  return options;
}

}  // namespace

struct SnapshotInstaller::Impl {
  explicit Impl(std::unique_ptr<StoreBulkLoader> l) : loader(std::move(l)) {}

  absl::Status CheckNext(const EncodedChunk& chunk) const;
  absl::Status AddChunk(const EncodedChunk& chunk);
  void GoTo(const SnapshotCursor& point);
  absl::Status IndexAgain();
  absl::StatusOr<InstallPoint> Commit();
  absl::Status CheckChunk(const EncodedChunk& chunk, uint64_t keys_before) const;
  absl::Status Take(const RdbEvent& event);
  absl::Status TakeAux(absl::string_view name, absl::string_view value);
  absl::Status TakeEntry(const RdbEvent& event);
  absl::Status TakeEnd();
  absl::Status Finish(uint64_t expected_keys, const std::string& expected_digest_hex);

  const std::unique_ptr<StoreBulkLoader> loader;
  RdbReader reader{ReaderOptions()};
  SnapshotMeta meta;
  bool has_version = false;
  bool ended = false;
  absl::Status failed;  // something of a chunk may have been taken; sticks

  ModifiedLsns lsns;      // of the present chunk
  std::string first_key;  // of the present chunk
  std::string last_key;   // of the stream
  std::string reserved;
  std::string announced_digest;  // in the stream

  uint64_t sequence = 0;
  uint64_t keys = 0;
  uint64_t bytes = 0;
  Sum128 digest;
  SnapshotCursor cursor;
  std::string indexed_key;  // see InstallPoint

  std::string engine_key;  // scratch
  std::string envelope;
};

absl::Status SnapshotInstaller::Impl::TakeAux(absl::string_view name, absl::string_view value) {
  if (name == kAuxMeta) {
    if (!lsns.empty()) return SnapshotMalformed("modified LSNs are left over");
    lsns.Begin(value);
    return absl::OkStatus();
  }
  if (name == kAuxReserved) {
    reserved.append(value.data(), value.size());
    return absl::OkStatus();
  }
  if (name == kAuxDigest) {
    announced_digest.assign(value.data(), value.size());
    return absl::OkStatus();
  }
  if (name == kAuxVersion) has_version = true;
  if (sequence != 1 && absl::StartsWith(name, "towline-")) {
    return SnapshotMalformed(absl::StrCat("AUX field ", Printable(name), " outside the head"));
  }
  return ReadSnapshotHeadField(name, value, &meta);
}

absl::Status SnapshotInstaller::Impl::TakeEntry(const RdbEvent& event) {
  if (!has_version) return SnapshotMalformed("it was not made by Towline: no towline-version before the first key");
  if (event.key.empty()) return SnapshotMalformed("a key is empty");
  if (keys > 0 && event.key <= last_key) {
    return SnapshotMalformed(absl::StrCat("key ", Printable(event.key), " comes after ", Printable(last_key)));
  }
  Lsn modified_lsn = 0;
  if (!lsns.Take(&modified_lsn)) return SnapshotMalformed("an entry has no modified LSN");

  engine_key.assign(1, kUserSpace);
  engine_key.append(event.key.data(), event.key.size());
  envelope.clear();
  AppendEnvelope(modified_lsn, event.expire_at_ms, event.value, &envelope);
  TOWLINE_RETURN_IF_ERROR(loader->Add(engine_key, envelope));
  if (event.expire_at_ms != 0) {
    TOWLINE_RETURN_IF_ERROR(loader->AddUnordered(ExpiryKey(event.expire_at_ms, event.key), ""));
  }
  digest.Add(EntryDigest(event.key, event.value, event.expire_at_ms, modified_lsn));
  if (first_key.empty()) first_key.assign(event.key.data(), event.key.size());
  last_key.assign(event.key.data(), event.key.size());
  ++keys;
  return absl::OkStatus();
}

absl::Status SnapshotInstaller::Impl::TakeEnd() {
  ended = true;
  if (announced_digest == digest.Hex()) return absl::OkStatus();
  return SnapshotMalformed(
      absl::StrCat("its entries have digest ", digest.Hex(), ", and it says ", Printable(announced_digest)));
}

absl::Status SnapshotInstaller::Impl::Take(const RdbEvent& event) {
  switch (event.kind) {
    case RdbEvent::Kind::kAux:
      return TakeAux(event.key, event.value);
    case RdbEvent::Kind::kEntry:
      return TakeEntry(event);
    case RdbEvent::Kind::kEnd:
      return TakeEnd();
    case RdbEvent::Kind::kSelectDb:
      return event.number == 0 ? absl::OkStatus() : SnapshotMalformed(absl::StrCat("database ", event.number));
    case RdbEvent::Kind::kResizeDb:
    case RdbEvent::Kind::kOther:  // refused by the reader
    case RdbEvent::Kind::kNeedMore:
      return absl::OkStatus();
  }
  return absl::OkStatus();
}

// What the chunk says of itself, against what it held.
absl::Status SnapshotInstaller::Impl::CheckChunk(const EncodedChunk& chunk, uint64_t keys_before) const {
  if (reader.offset() != bytes) return SnapshotMalformed("a chunk does not end with a whole entry");
  if (!lsns.empty()) return SnapshotMalformed("modified LSNs are left over");
  if (keys - keys_before != chunk.keys) {
    return SnapshotMalformed(absl::StrCat("a chunk holds ", keys - keys_before, " keys and says ", chunk.keys));
  }
  const bool same_range = chunk.first_key == first_key && chunk.last_key == (first_key.empty() ? "" : last_key);
  if (!same_range) return SnapshotMalformed("a chunk holds other keys than it says");
  if (chunk.sequence == 1 && !has_version) return SnapshotMalformed("it has no towline-version");
  return absl::OkStatus();
}

// What can be told without reading the entries.
absl::Status SnapshotInstaller::Impl::CheckNext(const EncodedChunk& chunk) const {
  if (ended) return SnapshotMalformed("a chunk follows the last one");
  if (chunk.sequence != sequence + 1) {
    return SnapshotMalformed(absl::StrCat("chunk ", chunk.sequence, " came where ", sequence + 1, " is next"));
  }
  if (const uint32_t crc = Crc32c(chunk.data); crc != chunk.crc32c) {
    return SnapshotMalformed(absl::StrCat("chunk ", chunk.sequence, " has CRC-32C ", absl::Hex(crc, absl::kZeroPad8),
                                          " and says ", absl::Hex(chunk.crc32c, absl::kZeroPad8)));
  }
  return absl::OkStatus();
}

absl::Status SnapshotInstaller::Impl::AddChunk(const EncodedChunk& chunk) {
  ++sequence;
  bytes += chunk.data.size();
  const uint64_t keys_before = keys;
  first_key.clear();
  reader.Feed(chunk.data);
  while (!ended) {
    TOWLINE_ASSIGN_OR_RETURN(const RdbEvent event, reader.Next());
    if (event.kind == RdbEvent::Kind::kNeedMore) break;
    TOWLINE_RETURN_IF_ERROR(Take(event));
  }
  TOWLINE_RETURN_IF_ERROR(CheckChunk(chunk, keys_before));
  // A stream can go on behind entries only.
  if (keys == keys_before || ended || !reserved.empty()) return absl::OkStatus();
  cursor = {sequence, last_key, keys, bytes, reader.crc(), digest};
  return absl::OkStatus();
}

void SnapshotInstaller::Impl::GoTo(const SnapshotCursor& point) {
  cursor = point;
  sequence = point.sequence;
  keys = point.keys;
  bytes = point.bytes;
  digest = point.digest;
  last_key = point.last_key;
  reader = RdbReader::Continue(ReaderOptions(), point.bytes, point.crc64);
  reserved.clear();
  announced_digest.clear();
  ended = false;
}

// Entries of the expiry index that were in memory when the load was broken off.
absl::Status SnapshotInstaller::Impl::IndexAgain() {
  const auto it = loader->NewIterator(UserKey(indexed_key), UserKey(cursor.last_key + '\0'));
  for (; it->Valid(); it->Next()) {
    Envelope entry;
    TOWLINE_RETURN_IF_ERROR(ParseEnvelope(it->value(), &entry));
    if (entry.expire_at_ms == 0) continue;
    TOWLINE_RETURN_IF_ERROR(loader->AddUnordered(ExpiryKey(entry.expire_at_ms, it->key().substr(1)), ""));
  }
  return it->status();
}

absl::StatusOr<InstallPoint> SnapshotInstaller::Impl::Commit() {
  const bool unordered = loader->unordered_pending_bytes() >= kIndexBytesMax;
  TOWLINE_RETURN_IF_ERROR(loader->Commit(unordered));
  if (loader->unordered_pending_bytes() == 0) indexed_key = cursor.last_key;
  return InstallPoint{meta, cursor, indexed_key};
}

absl::Status SnapshotInstaller::Impl::Finish(uint64_t expected_keys, const std::string& expected_digest_hex) {
  if (!ended) return SnapshotMalformed(absl::StrCat("it ends after chunk ", sequence, " without an end"));
  if (keys != expected_keys || digest.Hex() != expected_digest_hex) {
    return SnapshotMalformed(absl::StrCat("it holds ", keys, " keys with digest ", digest.Hex(), ", and ",
                                          expected_keys, " with ", expected_digest_hex, " were sent"));
  }
  TOWLINE_RETURN_IF_ERROR(DecodeRequestWindow(
      reserved, [this](absl::string_view key, absl::string_view value) { return loader->AddUnordered(key, value); }));
  TOWLINE_RETURN_IF_ERROR(loader->AddUnordered(kPositionKey, EncodePosition(meta.position)));
  return loader->Finish();
}

SnapshotInstaller::SnapshotInstaller(std::unique_ptr<StoreBulkLoader> loader)
    : impl_(std::make_unique<Impl>(std::move(loader))) {}

SnapshotInstaller::SnapshotInstaller(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

SnapshotInstaller::~SnapshotInstaller() = default;

absl::StatusOr<std::unique_ptr<SnapshotInstaller>> SnapshotInstaller::Resume(std::unique_ptr<StoreBulkLoader> loader,
                                                                             const InstallPoint& point) {
  auto impl = std::make_unique<Impl>(std::move(loader));
  if (point.cursor.sequence != 0) {
    impl->meta = point.meta;
    impl->has_version = true;
    impl->indexed_key = point.indexed_key;
    impl->GoTo(point.cursor);
    TOWLINE_RETURN_IF_ERROR(impl->IndexAgain());
  }
  return std::unique_ptr<SnapshotInstaller>(new SnapshotInstaller(std::move(impl)));
}

absl::Status SnapshotInstaller::AddChunk(const EncodedChunk& chunk) {
  TOWLINE_RETURN_IF_ERROR(impl_->failed);
  TOWLINE_RETURN_IF_ERROR(impl_->CheckNext(chunk));
  impl_->failed = impl_->AddChunk(chunk);
  return impl_->failed;
}

bool SnapshotInstaller::usable() const { return impl_->failed.ok(); }

const SnapshotMeta& SnapshotInstaller::meta() const { return impl_->meta; }

const SnapshotCursor& SnapshotInstaller::RewindToCursor() {
  if (impl_->sequence != impl_->cursor.sequence) impl_->GoTo(SnapshotCursor(impl_->cursor));
  return impl_->cursor;
}

const SnapshotCursor& SnapshotInstaller::cursor() const { return impl_->cursor; }

uint64_t SnapshotInstaller::pending_bytes() const { return impl_->loader->pending_bytes(); }

absl::StatusOr<InstallPoint> SnapshotInstaller::Commit() {
  TOWLINE_RETURN_IF_ERROR(impl_->failed);
  absl::StatusOr<InstallPoint> point = impl_->Commit();
  if (!point.ok()) impl_->failed = point.status();
  return point;
}

absl::Status SnapshotInstaller::Finish(uint64_t expected_keys, const std::string& expected_digest_hex) {
  TOWLINE_RETURN_IF_ERROR(impl_->failed);
  impl_->failed = impl_->Finish(expected_keys, expected_digest_hex);
  return impl_->failed;
}

uint64_t SnapshotInstaller::keys() const { return impl_->keys; }
uint64_t SnapshotInstaller::bytes() const { return impl_->bytes; }
uint64_t SnapshotInstaller::chunks() const { return impl_->sequence; }

}  // namespace towline
