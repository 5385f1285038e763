#include "store/state_store.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/bytes.h"
#include "common/error.h"
#include "store/apply_builder.h"
#include "store/expiry_index.h"
#include "store/request_window.h"
#include "store/state_format.h"

namespace towline {
namespace {

// More records than this in one batch could meet their own eviction.
constexpr size_t kApplyRecordsMax = 65536;
static_assert(kApplyRecordsMax < kRequestWindow);

// Turns the engine's value of a user key into an entry, unless it is expired.
absl::StatusOr<std::optional<StoredEntry>> ToEntry(absl::string_view key, std::optional<std::string> raw,
                                                   uint64_t now_ms) {
  if (!raw.has_value()) return std::optional<StoredEntry>();
  Envelope envelope;
  const absl::Status status = ParseEnvelope(*raw, &envelope);
  if (!status.ok()) return StateMalformed(GetErrorInfo(status).message, UserKey(key));
  if (IsExpired(envelope.expire_at_ms, now_ms)) return std::optional<StoredEntry>();
  StoredEntry entry;
  entry.key.assign(key.data(), key.size());
  entry.expire_at_ms = envelope.expire_at_ms;
  entry.modified_lsn = envelope.modified_lsn;
  raw->erase(0, raw->size() - envelope.value.size());
  entry.value = *std::move(raw);
  return std::optional<StoredEntry>(std::move(entry));
}

absl::StatusOr<Position> ToPosition(const std::optional<std::string>& raw) {
  Position position;
  if (raw.has_value()) TOWLINE_RETURN_IF_ERROR(ParsePosition(*raw, &position));
  return position;
}

}  // namespace

EntryIterator::EntryIterator(std::unique_ptr<StoreIterator> it) : it_(std::move(it)) { Decode(); }

bool EntryIterator::Valid() const { return status_.ok() && it_->Valid(); }

void EntryIterator::Next() {
  it_->Next();
  Decode();
}

absl::string_view EntryIterator::key() const { return it_->key().substr(1); }
absl::string_view EntryIterator::value() const { return value_; }
uint64_t EntryIterator::expire_at_ms() const { return expire_at_ms_; }
Lsn EntryIterator::modified_lsn() const { return modified_lsn_; }

absl::Status EntryIterator::status() const { return status_.ok() ? it_->status() : status_; }

void EntryIterator::Decode() {
  if (!it_->Valid()) return;
  Envelope envelope;
  status_ = ParseEnvelope(it_->value(), &envelope);
  if (!status_.ok()) {
    status_ = StateMalformed(GetErrorInfo(status_).message, it_->key());
    return;
  }
  value_ = envelope.value;
  expire_at_ms_ = envelope.expire_at_ms;
  modified_lsn_ = envelope.modified_lsn;
}

Sum128 EntryDigest(absl::string_view key, absl::string_view value, uint64_t expire_at_ms, Lsn modified_lsn) {
  constexpr size_t kHeaderSize = 20;
  constexpr size_t kStackSize = 1024;
  const size_t size = kHeaderSize + key.size() + value.size();
  char stack[kStackSize];
  std::string heap;
  char* bytes = stack;
  if (size > kStackSize) {
    heap.resize(size);
    bytes = heap.data();
  }
  StoreLe(bytes, static_cast<uint32_t>(key.size()));
  StoreLe(bytes + 4, expire_at_ms);
  StoreLe(bytes + 12, modified_lsn);
  std::copy(key.begin(), key.end(), bytes + kHeaderSize);
  std::copy(value.begin(), value.end(), bytes + kHeaderSize + key.size());
  return Xxh3_128(absl::string_view(bytes, size));
}

StateSnapshot::StateSnapshot(std::shared_ptr<const StoreSnapshot> snapshot, Position position)
    : snapshot_(std::move(snapshot)), position_(position) {}

absl::StatusOr<std::optional<StoredEntry>> StateSnapshot::Get(absl::string_view key, uint64_t now_ms) const {
  TOWLINE_ASSIGN_OR_RETURN(std::optional<std::string> raw, snapshot_->Get(UserKey(key)));
  return ToEntry(key, std::move(raw), now_ms);
}

std::unique_ptr<EntryIterator> StateSnapshot::Scan(absl::string_view begin, absl::string_view end,
                                                   bool fill_cache) const {
  return std::make_unique<EntryIterator>(snapshot_->NewIterator(UserKey(begin), UserUpperBound(end), fill_cache));
}

absl::StatusOr<StateDigest> StateSnapshot::Digest() const {
  StateDigest digest;
  const std::unique_ptr<EntryIterator> it = Scan("", "", /*fill_cache=*/false);
  for (; it->Valid(); it->Next()) {
    digest.sum.Add(EntryDigest(it->key(), it->value(), it->expire_at_ms(), it->modified_lsn()));
    ++digest.keys;
  }
  TOWLINE_RETURN_IF_ERROR(it->status());
  return digest;
}

absl::StatusOr<std::string> StateSnapshot::EncodeReserved() const { return EncodeRequestWindow(*snapshot_); }

// What Apply needs besides the engine.
struct StateStore::Impl {
  explicit Impl(Store& store) : expiry(store), builder(store, expiry) {}
  ExpiryIndex expiry;
  ApplyBuilder builder;
};

StateStore::StateStore(std::unique_ptr<Store> store)
    : store_(std::move(store)), impl_(std::make_unique<Impl>(*store_)) {}

StateStore::~StateStore() = default;

absl::StatusOr<std::unique_ptr<StateStore>> StateStore::Open(std::unique_ptr<Store> store) {
  std::unique_ptr<StateStore> state(new StateStore(std::move(store)));
  TOWLINE_ASSIGN_OR_RETURN(const std::optional<std::string> raw, state->store_->Get(kPositionKey));
  TOWLINE_ASSIGN_OR_RETURN(const Position position, ToPosition(raw));
  MutexLock lock(&state->mutex_);
  state->applied_ = position;
  return state;
}

absl::Status StateStore::Apply(absl::Span<const ApplyRecord> records) {
  if (records.empty()) return absl::OkStatus();
  if (records.size() > kApplyRecordsMax) {
    return absl::InvalidArgumentError(absl::StrCat("more than ", kApplyRecordsMax, " records in one batch"));
  }
  Lsn expected = applied().lsn + 1;
  for (const ApplyRecord& record : records) {
    if (record.position.lsn != expected) {
      return MakeError(absl::StatusCode::kFailedPrecondition, "apply_gap",
                       absl::StrCat("record ", record.position.lsn, " was to be applied where ", expected, " is next"));
    }
    ++expected;
  }

  std::unique_ptr<StoreBatch> batch = store_->NewBatch();
  TOWLINE_RETURN_IF_ERROR(impl_->builder.Build(records, *batch));
  TOWLINE_RETURN_IF_ERROR(store_->Write(std::move(batch)));
  impl_->expiry.BatchWritten();
  MutexLock lock(&mutex_);
  applied_ = records.back().position;
  return absl::OkStatus();
}

Position StateStore::applied() const {
  MutexLock lock(&mutex_);
  return applied_;
}

absl::StatusOr<Position> StateStore::Persisted() {
  TOWLINE_ASSIGN_OR_RETURN(const std::optional<std::string> raw, store_->GetPersisted(kPositionKey));
  return ToPosition(raw);
}

absl::StatusOr<Lsn> StateStore::PersistedLsn() {
  TOWLINE_ASSIGN_OR_RETURN(const Position position, Persisted());
  return position.lsn;
}

absl::StatusOr<std::optional<StoredEntry>> StateStore::Get(absl::string_view key, uint64_t now_ms) {
  TOWLINE_ASSIGN_OR_RETURN(std::optional<std::string> raw, store_->Get(UserKey(key)));
  return ToEntry(key, std::move(raw), now_ms);
}

absl::StatusOr<std::shared_ptr<const StateSnapshot>> StateStore::Snapshot() {
  TOWLINE_ASSIGN_OR_RETURN(std::shared_ptr<const StoreSnapshot> snapshot, store_->Snapshot());
  TOWLINE_ASSIGN_OR_RETURN(const std::optional<std::string> raw, snapshot->Get(kPositionKey));
  TOWLINE_ASSIGN_OR_RETURN(const Position position, ToPosition(raw));
  return std::make_shared<const StateSnapshot>(std::move(snapshot), position);
}

absl::StatusOr<RequestLookup> StateStore::LookupRequest(absl::string_view client_id, uint64_t sequence) {
  return FindRequest(*store_, client_id, sequence, applied().lsn);
}

absl::StatusOr<std::optional<uint64_t>> StateStore::HighestRequest(absl::string_view client_id, uint64_t from) {
  return towline::HighestRequest(*store_, client_id, from);
}

absl::StatusOr<std::vector<StateStore::DueExpiry>> StateStore::DueExpiries(uint64_t now_ms, size_t limit) {
  return impl_->expiry.Due(now_ms, limit);
}

}  // namespace towline
