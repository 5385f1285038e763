// One Pull stream after the decision to resume from the log: frames in, acks and credit out.

#ifndef TOWLINE_REPLICA_PULL_STAGE_H_
#define TOWLINE_REPLICA_PULL_STAGE_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"

#include "common/clock.h"
#include "replica/ack_pace.h"
#include "replica/frame_intake.h"
#include "replica/generation.h"
#include "replica/pull_accounts.h"
#include "replica/replica_controller.h"
#include "replica/stage_result.h"
#include "replica/upstream.h"
#include "towline/v1/replication_service.pb.h"

namespace towline {

// What one stream has seen so far.
struct PullProgress {
  Lsn flushed_lsn = 0;
  Lsn applied_lsn = 0;
  Lsn upstream_durable_lsn = 0;
  Lsn upstream_committed_lsn = 0;
  uint64_t heartbeat_sequence = 0;
  bool acked = false;      // an ack has left: the resync counts
  bool appended = false;   // records of this stream are in our log
  bool complete = false;   // the log held all that a heartbeat of this stream told of
  bool caught_up = false;  // the state held all that a heartbeat of this stream told of
  bool stalled = false;    // behind, and nothing moved for the stall timeout
};

// The log that takes the records.
struct PullTarget {
  std::shared_ptr<Generation> generation;
  History history;   // of its log
  bool live = true;  // false: acks say received only, and terms are not this node's yet
};

// Threads: one thread.
class PullStage {
 public:
  // `stream` has answered `started` with decision PARTIAL from the end of the target's log on. The references, and
  // `stream`, must outlive it.
  PullStage(ReplicaHost& host, const ReplicaOptions& options, PullStream& stream, PullTarget target,
            const v1::PullStarted& started);
  ~PullStage();

  // Reads what has arrived (waits for at most a quarter of a second if nothing has), appends it at once, answers.
  StageResult Step();

  const PullProgress& progress() const { return progress_; }
  // Terms up to the end of the log.
  const History& history() const { return appended_history_; }

 private:
  // Reads until the group is full, nothing is there or the stream is over.
  StageResult Drain();
  StageResult Take(const v1::PullResponse& message);
  void Prompt(AckPrompt prompt);
  StageResult Append();
  StageResult CheckFence(const Control& control) const;
  absl::Status SaveControlRecords(const IntakeGroup& group);
  StageResult Answer();
  bool AckIsDue(const v1::PullAck& ack, int64_t now) const;
  void Observe();
  bool MayGrant() const;
  int64_t ReadTimeout() const;
  Term SeenTerm() const;

  ReplicaHost& host_;
  const ReplicaOptions& options_;
  Clock& clock_;
  PullStream& stream_;
  const std::shared_ptr<Generation> generation_;
  const bool live_;
  const uint64_t session_id_;
  const uint64_t slot_generation_;
  const Term started_term_;

  FrameIntake intake_;
  History appended_history_;    // terms of the durable log
  uint64_t drained_bytes_ = 0;  // of record messages since the last append
  CreditAccount credit_;
  HeartbeatAccount heartbeats_;
  v1::PullResponse message_;
  v1::PullAck last_ack_;
  int64_t last_ack_micros_ = 0;
  AckPace pace_;
  int64_t last_message_micros_;
  int64_t last_progress_micros_;
  PullProgress progress_;
  std::atomic<Lsn> flushed_lsn_;  // for the applied listener
  uint64_t listener_ = 0;
};

}  // namespace towline

#endif  // TOWLINE_REPLICA_PULL_STAGE_H_
