// Decides in LSN order which writes may be logged: by their conditions, request ids and expiry.
//
// What counts is the state plus the records in flight: those that have an LSN, but are not applied yet.

#ifndef TOWLINE_PRIMARY_WRITE_RULES_H_
#define TOWLINE_PRIMARY_WRITE_RULES_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "common/mutex.h"
#include "common/types.h"
#include "primary/overlay.h"
#include "primary/request_cache.h"
#include "primary/write_job.h"
#include "store/state_store.h"

namespace towline {

// Threads: all methods from any thread; Admit, Assigned and Discard in LSN order. `state` is used by Admit only.
class WriteRules {
 public:
  // `state` shows all records of the log that carry a request id: what it does not know of a client now is taken for
  // never written.
  explicit WriteRules(StateStore& state) : state_(state) {}

  // The outcome of *record as far as it is decided before it is logged: an error, or a duplicate, if it must not be;
  // else nothing is filled in. Times are in milliseconds since the epoch.
  WriteOutcome Admit(const WriteRecord& record, uint64_t now_ms) TOWLINE_EXCLUDES(mutex_);

  // *record was admitted and has its LSN now. Takes its payload.
  void Assigned(WriteRecord* record) TOWLINE_EXCLUDES(mutex_);

  // The state shows records up to `applied`.
  void Applied(Lsn applied) TOWLINE_EXCLUDES(mutex_);

  // Records behind `last` were not written after all.
  void Discard(Lsn last) TOWLINE_EXCLUDES(mutex_);

 private:
  absl::Status CheckRequest(const RequestKey& request, WriteOutcome* outcome) TOWLINE_REQUIRES(mutex_);
  absl::Status LearnClient(const RequestKey& request) TOWLINE_REQUIRES(mutex_);
  absl::Status CheckConditions(const WriteRecord& record, uint64_t now_ms) TOWLINE_REQUIRES(mutex_);
  absl::Status CheckExpiry(absl::string_view key, uint64_t now_ms) TOWLINE_REQUIRES(mutex_);
  absl::StatusOr<Overlay::KeyState> LookUp(absl::string_view key) TOWLINE_REQUIRES(mutex_);

  StateStore& state_;
  Mutex mutex_;
  Overlay overlay_ TOWLINE_GUARDED_BY(mutex_);
  RequestCache requests_ TOWLINE_GUARDED_BY(mutex_);
  Lsn applied_lsn_ TOWLINE_GUARDED_BY(mutex_) = 0;
};

}  // namespace towline

#endif  // TOWLINE_PRIMARY_WRITE_RULES_H_
