#include "store/expiry_index.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "common/error.h"
#include "store/state_format.h"

namespace towline {
namespace {

// A walk is worth its iterator from this credit on, and is bounded by the other.
constexpr uint64_t kSweepCreditMin = 512;
constexpr uint64_t kSweepEntriesMax = 8192;
// Every added entry earns the walk two; so does every 8th record, because deletes make entries stale as well.
constexpr uint64_t kCreditPerEntry = 2;
constexpr uint64_t kRecordsPerCredit = 8;

// The entry's user key if it is live, else nullopt.
absl::StatusOr<std::optional<StateStore::DueExpiry>> FindLive(const StoreSnapshot& snapshot,
                                                              absl::string_view engine_key) {
  uint64_t expire_at_ms = 0;
  absl::string_view key;
  if (!ParseExpiryKey(engine_key, &expire_at_ms, &key)) return StateMalformed("expiry entry is cut short", engine_key);
  const std::string user_key = UserKey(key);
  TOWLINE_ASSIGN_OR_RETURN(const std::optional<std::string> raw, snapshot.Get(user_key));
  if (!raw.has_value()) return std::optional<StateStore::DueExpiry>();
  Envelope envelope;
  TOWLINE_RETURN_IF_ERROR(ParseEnvelope(*raw, &envelope));
  if (envelope.expire_at_ms != expire_at_ms) return std::optional<StateStore::DueExpiry>();
  return std::optional<StateStore::DueExpiry>({std::string(key), expire_at_ms, envelope.modified_lsn});
}

}  // namespace

void ExpiryIndex::Add(uint64_t expire_at_ms, absl::string_view key, StoreBatch& batch) {
  scratch_.assign(1, kExpirySpace);
  AppendBe64(expire_at_ms, &scratch_);
  scratch_.append(key.data(), key.size());
  batch.Put(scratch_, "");
  if (lowest_added_.empty() || scratch_ < lowest_added_) lowest_added_ = scratch_;
  sweep_credit_ += kCreditPerEntry;
  maybe_entries_ = true;
}

absl::Status ExpiryIndex::Sweep(size_t records, StoreBatch& batch) {
  lowest_added_.clear();  // of a batch that failed
  if (!maybe_entries_) return absl::OkStatus();
  sweep_credit_ += (records + kRecordsPerCredit - 1) / kRecordsPerCredit;
  if (sweep_credit_ < kSweepCreditMin) return absl::OkStatus();

  TOWLINE_ASSIGN_OR_RETURN(const std::shared_ptr<const StoreSnapshot> snapshot, store_.Snapshot());
  const bool from_start = sweep_cursor_.empty();
  const std::string begin = from_start ? std::string(1, kExpirySpace) : sweep_cursor_;
  const auto it = snapshot->NewIterator(begin, kExpiryEnd, /*fill_cache=*/false);
  uint64_t looked_at = 0;
  for (; it->Valid() && looked_at < std::min(sweep_credit_, kSweepEntriesMax); it->Next(), ++looked_at) {
    TOWLINE_ASSIGN_OR_RETURN(const auto live, FindLive(*snapshot, it->key()));
    if (!live.has_value()) batch.Delete(it->key());
  }
  TOWLINE_RETURN_IF_ERROR(it->status());
  if (it->Valid()) {
    sweep_cursor_.assign(it->key().data(), it->key().size());
    sweep_credit_ -= looked_at;
  } else {
    sweep_cursor_.clear();
    sweep_credit_ = 0;
    if (from_start && looked_at == 0) maybe_entries_ = false;
  }
  return absl::OkStatus();
}

void ExpiryIndex::BatchWritten() {
  if (lowest_added_.empty()) return;
  MutexLock lock(&mutex_);
  if (lowest_added_ < due_floor_) due_floor_ = lowest_added_;
  if (lowest_since_scan_.empty() || lowest_added_ < lowest_since_scan_) lowest_since_scan_ = lowest_added_;
  lowest_added_.clear();
}

absl::StatusOr<std::vector<StateStore::DueExpiry>> ExpiryIndex::Due(uint64_t now_ms, size_t limit) {
  MutexLock due_lock(&due_mutex_);
  std::string begin;
  {
    MutexLock lock(&mutex_);
    lowest_since_scan_.clear();  // before the snapshot: what is written from here on lowers the floor again
    begin = due_floor_;
  }
  if (begin.empty()) begin.assign(1, kExpirySpace);
  const std::string end = now_ms == UINT64_MAX ? std::string(kExpiryEnd) : ExpiryKey(now_ms + 1, "");
  std::vector<StateStore::DueExpiry> due;
  if (begin >= end) return due;

  TOWLINE_ASSIGN_OR_RETURN(const std::shared_ptr<const StoreSnapshot> snapshot, store_.Snapshot());
  const auto it = snapshot->NewIterator(begin, end, /*fill_cache=*/true);
  std::string floor;
  for (; it->Valid() && due.size() < limit; it->Next()) {
    TOWLINE_ASSIGN_OR_RETURN(auto live, FindLive(*snapshot, it->key()));
    if (!live.has_value()) continue;
    if (due.empty()) floor.assign(it->key().data(), it->key().size());
    due.push_back(*std::move(live));
  }
  TOWLINE_RETURN_IF_ERROR(it->status());
  if (due.empty() && limit > 0) floor = end;

  MutexLock lock(&mutex_);
  if (!lowest_since_scan_.empty() && lowest_since_scan_ < floor) floor = lowest_since_scan_;
  if (floor > due_floor_) due_floor_ = floor;
  return due;
}

}  // namespace towline
