// Snapshots that pinned scans read from page to page.

#ifndef TOWLINE_SERVER_SCAN_REGISTRY_H_
#define TOWLINE_SERVER_SCAN_REGISTRY_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/clock.h"
#include "common/mutex.h"
#include "common/rng.h"
#include "primary/node_view.h"
#include "store/state_store.h"

namespace towline {

// A snapshot together with the generation that it belongs to.
struct PinnedState {
  std::shared_ptr<LogAndState> live;  // declared first: goes last
  std::shared_ptr<const StateSnapshot> snapshot;
};

// Threads: all methods from any thread.
class ScanRegistry {
 public:
  static constexpr size_t kMax = 16;
  static constexpr int64_t kIdleMicros = 60'000'000;

  ScanRegistry(Clock& clock, Rng& rng) : clock_(clock), rng_(rng) {}

  // Keeps `state` and returns its id. RESOURCE_EXHAUSTED, reason scan_limit.
  absl::StatusOr<uint64_t> Add(PinnedState state);
  // NOT_FOUND, reason scan_expired.
  absl::StatusOr<PinnedState> Use(uint64_t id);
  void Remove(uint64_t id);

 private:
  struct Entry {
    PinnedState state;
    int64_t last_used_micros = 0;
  };
  void DropIdle() TOWLINE_REQUIRES(mutex_);

  Clock& clock_;
  Rng& rng_;
  Mutex mutex_;
  std::map<uint64_t, Entry> entries_ TOWLINE_GUARDED_BY(mutex_);
};

}  // namespace towline

#endif  // TOWLINE_SERVER_SCAN_REGISTRY_H_
