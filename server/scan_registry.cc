#include "server/scan_registry.h"

#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"

namespace towline {

absl::StatusOr<uint64_t> ScanRegistry::Add(PinnedState state) {
  MutexLock lock(&mutex_);
  DropIdle();
  if (entries_.size() >= kMax) {
    return MakeError(absl::StatusCode::kResourceExhausted, "scan_limit",
                     absl::StrCat(entries_.size(), " pinned scans are open; the limit is ", kMax),
                     "finish one, or scan without pinning");
  }
  const uint64_t id = NewId(rng_);
  entries_[id] = Entry{std::move(state), clock_.MonotonicMicros()};
  return id;
}

absl::StatusOr<PinnedState> ScanRegistry::Use(uint64_t id) {
  MutexLock lock(&mutex_);
  DropIdle();
  const auto it = entries_.find(id);
  if (it == entries_.end()) {
    return MakeError(absl::StatusCode::kNotFound, "scan_expired",
                     absl::StrCat("the pinned scan stood still for more than ", kIdleMicros / 1'000'000,
                                  " s, or the node has restarted"),
                     "start the scan again");
  }
  it->second.last_used_micros = clock_.MonotonicMicros();
  return it->second.state;
}

void ScanRegistry::Remove(uint64_t id) {
  MutexLock lock(&mutex_);
  entries_.erase(id);
}

void ScanRegistry::DropIdle() {
  const int64_t now = clock_.MonotonicMicros();
  for (auto it = entries_.begin(); it != entries_.end();) {
    it = now - it->second.last_used_micros > kIdleMicros ? entries_.erase(it) : std::next(it);
  }
}

}  // namespace towline
