// One Pull stream: start, records within credit, heartbeats; acks, lag, stall and timeout.

#ifndef TOWLINE_PRIMARY_PULL_SESSION_H_
#define TOWLINE_PRIMARY_PULL_SESSION_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"

#include "common/mutex.h"
#include "primary/outgoing_records.h"
#include "primary/replication_source.h"
#include "primary/source_core.h"
#include "primary/token_bucket.h"
#include "towline/v1/replication_service.pb.h"
#include "wal/spool.h"

namespace towline {

class PullSessionImpl final : public PullSession, public ServedSession {
 public:
  PullSessionImpl(SourceCore& core, std::function<void()> wake);
  ~PullSessionImpl() override;

  absl::Status OnRequest(const v1::PullRequest& request) override;
  NextResult Next(v1::PullResponse* out) override;
  absl::Status end_status() const override TOWLINE_EXCLUDES(mutex_);
  void Close() override TOWLINE_EXCLUDES(mutex_);

  void End(const absl::Status& status) override TOWLINE_EXCLUDES(mutex_);
  uint64_t slot_session() const override;
  void OnTick(const TickView& view) override;
  void OnNews() override;
  void OnRetention() override;
  void OnInvalidated(const std::string& slot) override;
  bool HoldAgain(const std::string& slot) override;
  bool Describe(PeerStatus* status) const override;
  bool DescribeSnapshot(SnapshotSend*) const override { return false; }

 private:
  enum class Phase { kNoStart, kStart, kStreaming, kOver };

  // --- Start: pull_session_start.cc ---
  absl::Status OnStart(const v1::PullStart& start);
  absl::Status Start(v1::PullStarted* started);
  absl::Status Decide(Resumption* resumption) TOWLINE_REQUIRES(core_.resume_mutex);
  absl::Status Attach(Resumption* resumption) TOWLINE_REQUIRES(core_.resume_mutex);
  absl::Status MoveSlot(const Resumption& resumption, slots::Session* session) TOWLINE_REQUIRES(core_.resume_mutex);
  absl::Status HoldForRewind(const Resumption& resumption) TOWLINE_REQUIRES(core_.resume_mutex);
  absl::Status OpenLog(Lsn from_lsn);
  void TellHost(const Resumption& resumption);

  // --- Stream ---
  bool ended() const TOWLINE_EXCLUDES(mutex_);
  absl::Status OnAck(const v1::PullAck& ack);
  absl::Status CheckAck(const v1::PullAck& ack);
  absl::Status TakeAck(const v1::PullAck& ack) TOWLINE_EXCLUDES(mutex_);
  void TellAck(Term term) TOWLINE_EXCLUDES(mutex_);
  absl::Status OnCredit(const v1::PullCredit& credit);
  bool TakePath(v1::PullResponse* out);
  bool TakeHeartbeat(v1::PullResponse* out);
  bool TakePrompt(v1::PullResponse* out);
  void FillHeartbeat(const HeartbeatInfo& from, v1::Heartbeat* out);
  absl::StatusOr<bool> TakeRecords(v1::PullResponse* out);
  bool WaitsForAck() TOWLINE_EXCLUDES(mutex_);
  bool GivesWay() TOWLINE_EXCLUDES(mutex_);
  NextResult EndNow(v1::PullResponse* out);
  NextResult EndNow(const absl::Status& status, v1::PullResponse* out);
  absl::Status Refused(const absl::Status& status);

  void DetectStall(const TickView& view) TOWLINE_REQUIRES(mutex_);
  void EndLocked(const absl::Status& status) TOWLINE_REQUIRES(mutex_);
  void WakeLocked() TOWLINE_REQUIRES(mutex_);
  const char* StateLocked() const TOWLINE_REQUIRES(mutex_);
  Lsn AppliedLocked() const TOWLINE_REQUIRES(mutex_);
  Lsn KeptLocked() const TOWLINE_REQUIRES(mutex_);

  SourceCore& core_;
  const std::function<void()> wake_;
  uint64_t key_ = 0;

  // Of the transport's calls, which do not overlap.
  Phase phase_ = Phase::kNoStart;
  std::optional<ResumeRequest> request_;
  std::shared_ptr<LogAndState> live_;
  Term term_ = 0;
  std::unique_ptr<wal::Cursor> cursor_;
  uint64_t listener_ = 0;
  std::optional<OutgoingRecords> outgoing_;
  uint64_t granted_bytes_ = 0;
  uint64_t heartbeat_sent_ = 0;                         // sequence
  bool waited_long_ = false;                            // a heartbeat has left since the last records
  uint64_t prompted_ = 0;                               // sequence of the heartbeat that was repeated last
  CommitStage prompted_stage_ = CommitStage::kFlushed;  // for which it was
  uint64_t path_told_ = 0;                              // version
  uint64_t slots_told_ = 0;                             // version
  Decision counts_as_ = Decision::kPartial;
  std::string counts_reason_;
  bool counted_ = false;
  bool revive_due_ = false;
  bool gives_way_ = false;  // to writers: it comes from a snapshot, and has not come to the end of the log yet
  TokenBucket pace_;        // then

  std::atomic<bool> at_tail_{false};  // the next durable record must wake us

  mutable Mutex mutex_;
  bool waits_for_ack_ TOWLINE_GUARDED_BY(mutex_) = false;
  bool waits_for_tick_ TOWLINE_GUARDED_BY(mutex_) = false;
  uint64_t record_bytes_ TOWLINE_GUARDED_BY(mutex_) = 0;  // mean of the last message
  bool ended_ TOWLINE_GUARDED_BY(mutex_) = false;
  bool closed_ TOWLINE_GUARDED_BY(mutex_) = false;
  absl::Status end_status_ TOWLINE_GUARDED_BY(mutex_);
  slots::Session session_ TOWLINE_GUARDED_BY(mutex_);  // id 0 until the decision is PARTIAL
  slots::SlotKind kind_ TOWLINE_GUARDED_BY(mutex_) = slots::SlotKind::kReplica;
  std::unique_ptr<wal::Pin> pin_ TOWLINE_GUARDED_BY(mutex_);
  wal::Spool* spool_ TOWLINE_GUARDED_BY(mutex_) = nullptr;  // of live_
  Lsn start_lsn_ TOWLINE_GUARDED_BY(mutex_) = 0;            // position that was asked for
  Lsn target_lsn_ TOWLINE_GUARDED_BY(mutex_) = 0;           // durable LSN at the start
  bool caught_up_ TOWLINE_GUARDED_BY(mutex_) = false;
  bool bootstrapping_ TOWLINE_GUARDED_BY(mutex_) = false;
  Lsn exact_from_lsn_ TOWLINE_GUARDED_BY(mutex_) =
      0;  // before it the owner's state is none, and it says what it received
  Lsn sent_lsn_ TOWLINE_GUARDED_BY(mutex_) = 0;
  Lsn received_lsn_ TOWLINE_GUARDED_BY(mutex_) = 0;
  Lsn flushed_lsn_ TOWLINE_GUARDED_BY(mutex_) = 0;
  Lsn applied_lsn_ TOWLINE_GUARDED_BY(mutex_) = 0;
  int64_t last_request_micros_ TOWLINE_GUARDED_BY(mutex_) = 0;
  int64_t last_progress_micros_ TOWLINE_GUARDED_BY(mutex_) = 0;
  bool stalled_ TOWLINE_GUARDED_BY(mutex_) = false;
  bool told_acks_ TOWLINE_GUARDED_BY(mutex_) = false;  // the host counts this session
};

}  // namespace towline

#endif  // TOWLINE_PRIMARY_PULL_SESSION_H_
