#include "primary/snapshot_pool.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/history.h"

namespace towline {
namespace {

// Who is sent away comes again between half of this and one and a half times as late, so that a crowd spreads.
constexpr uint64_t kRetryMs = 1000;
// Weight of the newest stream in the measured rate.
constexpr double kRateWeight = 0.3;

}  // namespace

absl::Status SnapshotPool::TooMany(const std::string& what) const {
  const uint64_t retry_ms = kRetryMs / 2 + rng_.Next() % kRetryMs;
  ErrorInfo info{"snapshot_limit",
                 what,
                 "ask again later; the limits are bootstrap.max_sessions and max_snapshots",
                 {{"retry_after_ms", absl::StrCat(retry_ms)}}};
  return MakeError(absl::StatusCode::kResourceExhausted, std::move(info));
}

absl::Status SnapshotPool::Enter() {
  MutexLock lock(&mutex_);
  if (sessions_ >= options_.sessions_max) return TooMany(absl::StrCat(sessions_, " snapshots are being sent already"));
  ++sessions_;
  return absl::OkStatus();
}

void SnapshotPool::Leave() {
  MutexLock lock(&mutex_);
  --sessions_;
}

void SnapshotPool::Finished(uint64_t bytes, int64_t micros) {
  MutexLock lock(&mutex_);
  if (bytes == 0 || micros <= 0) return;
  const double rate = static_cast<double>(bytes) * 1e6 / static_cast<double>(micros);
  rate_ = rate_ == 0 ? rate : rate_ + kRateWeight * (rate - rate_);
}

SharedSnapshotPtr SnapshotPool::Find(uint64_t id) {
  MutexLock lock(&mutex_);
  for (const Entry& entry : entries_) {
    if (entry.snapshot->id == id && !IsExpired(*entry.snapshot)) return entry.snapshot;
  }
  return nullptr;
}

SharedSnapshotPtr SnapshotPool::Newest(SnapshotForm form, uint64_t data_generation, Lsn lsn, bool young) {
  MutexLock lock(&mutex_);
  for (auto it = entries_.rbegin(); it != entries_.rend(); ++it) {
    const SharedSnapshot& snapshot = *it->snapshot;
    if (snapshot.form() != form || snapshot.live->number() != data_generation || snapshot.meta.position.lsn < lsn)
      continue;
    if (IsExpired(snapshot)) continue;
    if (young && clock_.MonotonicMicros() - snapshot.made_micros > options_.join_micros) continue;
    return it->snapshot;
  }
  return nullptr;
}

bool SnapshotPool::HasRoom() {
  std::list<Entry> dropped;  // their end takes the store's lock: not under ours
  MutexLock lock(&mutex_);
  const auto full = [this]() TOWLINE_REQUIRES(mutex_) {
    return entries_.size() >= static_cast<size_t>(options_.snapshots_max);
  };
  if (full()) DropUnusedLocked(clock_.MonotonicMicros(), &dropped);
  return !full();
}

absl::Status SnapshotPool::Full() const {
  return TooMany(absl::StrCat(options_.snapshots_max, " snapshots are live, and none of them may be joined any more"));
}

absl::Status SnapshotPool::Fill(SnapshotForm form, LogAndState& live, SharedSnapshot* snapshot) const {
  const StoreStats stats = live.state().store().Stats();
  snapshot->meta.estimated_keys = stats.estimated_keys;
  snapshot->meta.created_unix_s = static_cast<uint64_t>(clock_.WallMicros()) / 1'000'000;
  if (form == SnapshotForm::kRdb) {
    TOWLINE_ASSIGN_OR_RETURN(snapshot->state, live.state().Snapshot());
    snapshot->meta.position = snapshot->state->position();
    snapshot->estimated_bytes = stats.disk_bytes;
    return absl::OkStatus();
  }
  const std::optional<FileSnapshotPlace> place = live.file_snapshots();
  if (!place.has_value()) return absl::FailedPreconditionError("the files of this store are not sent");
  TOWLINE_ASSIGN_OR_RETURN(snapshot->files, FileSnapshot::Make(place->fs, live.state(), place->directory, snapshot->id,
                                                               snapshot->meta.created_unix_s));
  snapshot->meta.position = snapshot->files->record().position;
  snapshot->estimated_bytes = snapshot->files->bytes();
  return absl::OkStatus();
}

absl::StatusOr<SharedSnapshotPtr> SnapshotPool::Make(SnapshotForm form, std::shared_ptr<LogAndState> live,
                                                     SnapshotMeta meta, const History& history) {
  auto snapshot = std::make_shared<SharedSnapshot>();
  snapshot->id = NewId(rng_);
  snapshot->meta = std::move(meta);
  TOWLINE_RETURN_IF_ERROR(Fill(form, *live, snapshot.get()));
  snapshot->live = std::move(live);
  snapshot->meta.history = CutAt(history, snapshot->meta.position.lsn);
  snapshot->made_micros = clock_.MonotonicMicros();
  MutexLock lock(&mutex_);
  entries_.push_back({snapshot, snapshot->made_micros});
  return SharedSnapshotPtr(std::move(snapshot));
}

SharedSnapshotPtr SnapshotPool::AdoptOne(const FileSnapshotPlace& place, const std::string& name,
                                         const std::shared_ptr<LogAndState>& live, const SnapshotMeta& meta,
                                         const History& history) const {
  auto snapshot = std::make_shared<SharedSnapshot>();
  if (!absl::SimpleHexAtoi(name, &snapshot->id) || absl::StrCat(absl::Hex(snapshot->id)) != name) return nullptr;
  absl::StatusOr<std::unique_ptr<FileSnapshot>> files = FileSnapshot::Load(place.fs, place.directory, snapshot->id);
  if (!files.ok()) return nullptr;
  const FileSnapshotRecord& record = (*files)->record();
  const Position& position = record.position;
  const HistoryEntry* entry = EntryAt(history, position.lsn);
  if (position.lsn > live->state().applied().lsn) return nullptr;
  if (position.lsn != 0 && (entry == nullptr || entry->term_id != position.term_id)) return nullptr;
  snapshot->meta = meta;
  snapshot->meta.position = position;
  snapshot->meta.history = CutAt(history, position.lsn);
  snapshot->meta.created_unix_s = record.created_unix_s;
  snapshot->meta.estimated_keys = record.estimated_keys;
  snapshot->estimated_bytes = (*files)->bytes();
  const int64_t age = clock_.WallMicros() - static_cast<int64_t>(record.created_unix_s) * 1'000'000;
  snapshot->made_micros = clock_.MonotonicMicros() - std::max<int64_t>(age, 0);
  snapshot->live = live;
  snapshot->files = *std::move(files);
  return snapshot;
}

void SnapshotPool::Adopt(const std::shared_ptr<LogAndState>& live, const SnapshotMeta& meta, const History& history) {
  MutexLock adopt_lock(&adopt_mutex_);
  if (std::exchange(adopted_, live->number()) == live->number()) return;
  const std::optional<FileSnapshotPlace> place = live->file_snapshots();
  if (!place.has_value()) return;
  const absl::StatusOr<std::vector<std::string>> names = place->fs.List(place->directory);
  if (!names.ok()) return;  // as a rule there are none
  for (const std::string& name : *names) {
    SharedSnapshotPtr adopted = AdoptOne(*place, name, live, meta, history);
    if (adopted == nullptr) {
      RemoveAll(place->fs, JoinPath(place->directory, name)).IgnoreError();
      continue;
    }
    MutexLock lock(&mutex_);
    entries_.push_front({std::move(adopted), clock_.MonotonicMicros()});
  }
}

bool SnapshotPool::IsExpired(const SharedSnapshot& snapshot) const {
  return clock_.MonotonicMicros() - snapshot.made_micros > options_.age_max_micros;
}

uint64_t SnapshotPool::Limit() const {
  const uint64_t always = options_.bytes_per_second;
  const uint64_t busy = busy_.load(std::memory_order_relaxed) ? options_.busy_bytes_per_second : 0;
  if (always == 0 || busy == 0) return std::max(always, busy);
  return std::min(always, busy);
}

bool SnapshotPool::MaySend() {
  const double rate = static_cast<double>(Limit());
  if (rate == 0) return true;
  MutexLock lock(&mutex_);
  return tokens_.MaySend(rate, clock_.MonotonicMicros());
}

void SnapshotPool::Sent(uint64_t bytes) {
  if (Limit() == 0) return;
  MutexLock lock(&mutex_);
  tokens_.Sent(bytes);
}

std::optional<double> SnapshotPool::StreamRate() const {
  MutexLock lock(&mutex_);
  return rate_ == 0 ? std::nullopt : std::optional<double>(rate_);
}

void SnapshotPool::DropUnusedLocked(int64_t used_before_micros, std::list<Entry>* dropped) {
  for (auto it = entries_.begin(); it != entries_.end();) {
    const auto next = std::next(it);
    const bool in_use = it->snapshot.use_count() > 1;
    if (!in_use && (it->used_micros <= used_before_micros || IsExpired(*it->snapshot))) {
      dropped->splice(dropped->end(), entries_, it);
    }
    it = next;
  }
}

void SnapshotPool::Tick() {
  std::list<Entry> dropped;
  MutexLock lock(&mutex_);
  const int64_t now = clock_.MonotonicMicros();
  for (Entry& entry : entries_) {
    if (entry.snapshot.use_count() > 1) entry.used_micros = now;
  }
  DropUnusedLocked(now - options_.linger_micros, &dropped);
}

void SnapshotPool::Clear() {
  std::list<Entry> dropped;
  MutexLock adopt_lock(&adopt_mutex_);
  MutexLock lock(&mutex_);
  dropped.swap(entries_);
  adopted_ = 0;  // what stays may be wanted again
  for (const Entry& entry : dropped) {
    if (entry.snapshot->files != nullptr) entry.snapshot->files->Leave();
  }
}

SnapshotPoolStatus SnapshotPool::Status() const {
  MutexLock lock(&mutex_);
  SnapshotPoolStatus status;
  status.live = entries_.size();
  status.sessions = static_cast<uint64_t>(sessions_);
  if (entries_.empty()) return status;
  const SharedSnapshot& oldest = *entries_.front().snapshot;
  status.oldest_seconds = static_cast<double>(clock_.MonotonicMicros() - oldest.made_micros) / 1e6;
  status.oldest_lsn = oldest.meta.position.lsn;
  status.pinned_bytes = entries_.back().snapshot->live->state().store().Stats().pinned_bytes;
  for (const Entry& entry : entries_) {
    if (entry.snapshot->files != nullptr) status.pinned_bytes += entry.snapshot->files->PinnedBytes();
  }
  return status;
}

}  // namespace towline
