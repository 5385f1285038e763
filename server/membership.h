// The Members record of a primary's log: who joins, who is taken out.

#ifndef TOWLINE_SERVER_MEMBERSHIP_H_
#define TOWLINE_SERVER_MEMBERSHIP_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/clock.h"
#include "common/control.h"
#include "common/mutex.h"
#include "primary/sequencer.h"

namespace towline {

// Collects changes; Submit turns what has gathered into one record, and control follows once that is durable.
// Threads: all methods from any thread. It must outlive the sequencers that it submits to.
class Membership {
 public:
  // `on_fatal` is called when control cannot be saved, `on_durable` with each list once control has it.
  Membership(ControlFile& control, Clock& clock, bool auto_join, std::function<void(absl::Status)> on_fatal,
             std::function<void(const MemberList& list, Lsn lsn)> on_durable)
      : control_(control),
        clock_(clock),
        auto_join_(auto_join),
        on_fatal_(std::move(on_fatal)),
        on_durable_(std::move(on_durable)) {}

  // A replica attached. It becomes a member, or its entry is brought up to date; one that is none stays out if
  // members.auto_join is off. Unless it knows the members from its log, the list is written again though it is the same.
  void OnAttached(const MemberInfo& member, bool knows_members) TOWLINE_EXCLUDES(mutex_);

  // Takes a member out; returns once the record is durable. NOT_FOUND, reason member_not_found; UNAVAILABLE, reason
  // members_busy, if that takes longer than `timeout_micros`.
  absl::Status Remove(const std::string& node_id, int64_t timeout_micros) TOWLINE_EXCLUDES(mutex_);

  // Makes it the least commit level; returns the LSN of the record once it is durable. UNAVAILABLE as Remove.
  absl::StatusOr<Lsn> SetMinReplicas(uint32_t min_replicas, int64_t timeout_micros) TOWLINE_EXCLUDES(mutex_);

  // Writes what has gathered, if the record before is done. `self`: the primary's own entry. Call it now and then.
  void Submit(const MemberInfo& self, Sequencer& sequencer) TOWLINE_EXCLUDES(mutex_);

 private:
  class Job;

  // `lsn` 0: it was not written.
  void OnWritten(const MemberList& list, Lsn lsn) TOWLINE_EXCLUDES(mutex_);

  ControlFile& control_;
  Clock& clock_;
  const bool auto_join_;
  const std::function<void(absl::Status)> on_fatal_;
  const std::function<void(const MemberList&, Lsn)> on_durable_;

  Mutex mutex_;
  CondVar written_cv_;
  std::map<std::string, MemberInfo> attached_ TOWLINE_GUARDED_BY(mutex_);
  std::set<std::string> removed_ TOWLINE_GUARDED_BY(mutex_);         // until the list is written without them
  bool repeat_ TOWLINE_GUARDED_BY(mutex_) = false;                   // write the list though it seems to be the same
  std::optional<uint32_t> min_replicas_ TOWLINE_GUARDED_BY(mutex_);  // likewise
  Lsn written_lsn_ TOWLINE_GUARDED_BY(mutex_) = 0;                   // of the last record
  bool in_flight_ TOWLINE_GUARDED_BY(mutex_) = false;
};

}  // namespace towline

#endif  // TOWLINE_SERVER_MEMBERSHIP_H_
