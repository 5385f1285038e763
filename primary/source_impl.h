// The ReplicationSource: timer work, retention and what status shows.

#ifndef TOWLINE_PRIMARY_SOURCE_IMPL_H_
#define TOWLINE_PRIMARY_SOURCE_IMPL_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/mutex.h"
#include "primary/rates.h"
#include "primary/replication_source.h"
#include "primary/slot_forecast.h"
#include "primary/source_core.h"

namespace towline {

class ReplicationSourceImpl final : public ReplicationSource {
 public:
  ReplicationSourceImpl(SourceHost& host, slots::SlotTable& slots, Clock& clock, Rng& rng, Logger& logger,
                        SourceOptions options);

  std::unique_ptr<PullSession> NewPullSession(std::function<void()> wake) override;
  absl::StatusOr<std::unique_ptr<SnapshotSession>> NewSnapshotSession(const v1::FetchSnapshotRequest& request,
                                                                      std::function<void()> wake) override;
  absl::StatusOr<std::unique_ptr<SnapshotSession>> NewSaveSession(const v1::SaveSnapshotRequest& request,
                                                                  std::function<void()> wake) override;
  absl::StatusOr<v1::PullStarted> Explain(const v1::PullStart& start, uint64_t* bytes_to_ship) override;
  absl::StatusOr<v1::PullStart> StartOfSlotOwner(const std::string& name) override;
  absl::StatusOr<slots::Slot> DropSlot(const std::string& name, bool force) override;
  absl::Status Tick() override;
  int64_t TickMicros() const override;
  void ForwardHeartbeat(const HeartbeatInfo& heartbeat) override;
  void ForwardSlots(const slots::SlotCopies& news) override { core_.TellSlots(news); }
  absl::StatusOr<std::vector<slots::Slot>> TakeOverSlots(Term term) override;
  void OnPathChanged() override;
  std::vector<PeerStatus> Peers() const override;
  std::vector<SlotStatus> Slots() const override;
  Forecast ForecastSlots(const ForecastWhatIf& what_if) const override;
  Forecast ForecastNode() const override;
  ResyncCounters Counters() const override;
  SnapshotsStatus Snapshots() const override;
  void EndSessions(const absl::Status& status) override;

 private:
  // --- Tick: source_tick.cc ---
  void MakeHeartbeat(const NodeView& node, LogAndState* live, int64_t now);
  absl::Status Retain(LogAndState& live, const NodeView& node, int64_t now);
  absl::Status ExchangeCopies(LogAndState& live, const NodeView& node) TOWLINE_REQUIRES(core_.resume_mutex);
  absl::Status LimitGrowth(LogAndState& live);
  // True if a slot was invalidated. `disk_used_ratio` 0 = without the disk guard.
  absl::StatusOr<bool> ApplyLimits(LogAndState& live, double disk_used_ratio) TOWLINE_REQUIRES(core_.resume_mutex);
  absl::Status HoldAgain(LogAndState& live) TOWLINE_REQUIRES(core_.resume_mutex);
  absl::Status Prune(LogAndState& live) TOWLINE_REQUIRES(core_.resume_mutex);
  void LookAtWriters(LogAndState& live, int64_t now);
  void MeasureDisk() TOWLINE_EXCLUDES(mutex_);
  void MeasureRates(LogAndState& live, int64_t now) TOWLINE_EXCLUDES(mutex_);

  // --- Status ---
  ForecastInput LookAtSlots(const std::vector<slots::Slot>& slots, LogAndState* live) const TOWLINE_EXCLUDES(mutex_);

  SourceCore core_;

  // Of Tick, which one thread calls.
  bool was_primary_ = false;
  int64_t next_heartbeat_micros_ = 0;
  int64_t next_retention_micros_ = 0;
  double disk_used_ratio_ = 0;
  bool disk_warned_ = false;
  uint64_t limits_generation_ = 0;  // of the last look at the limits
  uint64_t limits_bytes_ = 0;       // appended by then
  int64_t writers_micros_ = 0;      // of the last look at the writers
  uint64_t writers_generation_ = 0;
  uint64_t writers_bytes_ = 0;

  mutable Mutex mutex_;
  LogRates rates_ TOWLINE_GUARDED_BY(mutex_);
  std::optional<SpaceInfo> disk_ TOWLINE_GUARDED_BY(mutex_);
};

}  // namespace towline

#endif  // TOWLINE_PRIMARY_SOURCE_IMPL_H_
