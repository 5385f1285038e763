// Loading a snapshot as a new generation.
//
// Beside the live generation, which stays as it is and serves reads until the switch:
// header -> checks, new generation's store -> chunks -> totals and digest -> own records that the source does not have
// go to quarantine -> new log behind the snapshot's position -> one control write -> live. Whatever fails before that
// write leaves the old state; the partial generation is removed, and the load starts over.

#ifndef TOWLINE_REPLICA_BOOTSTRAP_H_
#define TOWLINE_REPLICA_BOOTSTRAP_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"

#include "replica/quarantine.h"
#include "replica/replica_controller.h"
#include "replica/stage_result.h"
#include "replica/upstream.h"
#include "store/snapshot_codec.h"
#include "towline/v1/replication_service.pb.h"

namespace towline {

// Threads: one thread.
class Bootstrap {
 public:
  // `stream` answers a FetchSnapshot whose Pull was answered `started`, with decision FULL. `options` and `host` must
  // outlive it.
  Bootstrap(ReplicaHost& host, const ReplicaOptions& options, SnapshotStream& stream, const v1::PullStarted& started);

  // Removes what was loaded, unless it went live or may have.
  ~Bootstrap();

  // A bounded piece of work; waits for at most a quarter of a second. kDone: the new generation is live.
  StageResult Step();

  // Whether the snapshot was accepted and its data is being loaded.
  bool loading() const { return phase_ != Phase::kHeader; }

  const BootstrapProgress& progress() const { return progress_; }

 private:
  enum class Phase { kHeader, kChunks, kQuarantine, kSwitch };

  StageResult Receive();
  StageResult Take(v1::FetchSnapshotResponse& message);
  StageResult TakeHeader(const v1::SnapshotHeader& header);
  absl::Status ReadHeader(const v1::SnapshotHeader& header);
  absl::Status CheckSource() const;
  absl::Status CheckSpace(uint64_t estimated_bytes) const;
  absl::Status StartGeneration();
  absl::Status TakeChunk(v1::SnapshotChunk& chunk);
  absl::Status TakeEnd(const v1::SnapshotEnd& end);
  void StartQuarantine();
  StageResult ContinueQuarantine();
  StageResult Switch();
  Lsn CommonLsn() const;
  StageResult Failed(absl::Status status) const;

  ReplicaHost& host_;
  const ReplicaOptions& options_;
  SnapshotStream& stream_;
  const v1::PullStarted started_;
  const std::shared_ptr<Generation> old_;  // may be null

  Phase phase_ = Phase::kHeader;
  uint64_t number_ = 0;  // of the new generation; 0 = nothing was created yet
  bool keep_files_ = false;
  ClusterId cluster_id_;
  History history_;
  Position position_;
  uint64_t chunks_ = 0;
  std::unique_ptr<SnapshotInstaller> installer_;
  std::unique_ptr<RecordQuarantine> quarantine_;
  BootstrapProgress progress_;
  int64_t last_message_micros_;
};

}  // namespace towline

#endif  // TOWLINE_REPLICA_BOOTSTRAP_H_
