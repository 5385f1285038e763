// One stream of a snapshot: its header, chunks and end go to the staged install.

#ifndef TOWLINE_REPLICA_BOOTSTRAP_H_
#define TOWLINE_REPLICA_BOOTSTRAP_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/cord.h"

#include "replica/replica_controller.h"
#include "replica/stage_result.h"
#include "replica/staged_install.h"
#include "replica/upstream.h"
#include "towline/v1/replication_service.pb.h"

namespace towline {

// Threads: one thread.
class Bootstrap {
 public:
  // `stream` answers a FetchSnapshot whose Pull was answered `started`, with decision FULL. `*staged` is what there is
  // already, or null; a header that begins anew replaces it. The references must outlive it.
  Bootstrap(ReplicaHost& host, const ReplicaOptions& options, SnapshotStream& stream, const v1::PullStarted& started,
            std::unique_ptr<StagedInstall>* staged);

  // A bounded piece of work; waits for at most a quarter of a second. kDone: the snapshot is loaded.
  StageResult Step();

  // Whether the snapshot was accepted and its data is being loaded.
  bool loading() const { return phase_ == Phase::kChunks; }
  // Whether the header made what was there of no use.
  bool restarted() const { return restarted_; }
  uint64_t given_up_bytes() const { return given_up_bytes_; }  // that had been received of it

 private:
  enum class Phase { kHeader, kChunks, kOver };

  StageResult Take(v1::FetchSnapshotResponse& message, const absl::Cord& data);
  StageResult TakeHeader(const v1::SnapshotHeader& header);
  absl::Status ReadHeader(const v1::SnapshotHeader& header, InstallRecord* record) const;
  absl::Status CheckGoesOn(uint64_t sequence, const InstallRecord& record);
  absl::Status GiveUpStaged();
  absl::Status CheckSource(const SnapshotMeta& meta) const;
  // `freed`: bytes that will be given up for it.
  absl::Status CheckSpace(uint64_t estimated_bytes, uint64_t factor, uint64_t freed) const;
  absl::Status TakeChunk(v1::SnapshotChunk& chunk);
  absl::Status TakeFileChunk(const v1::SnapshotFileChunk& chunk, const absl::Cord& data);
  absl::Status BeginOrGoOn(const v1::SnapshotHeader& header, InstallRecord record, bool* goes_on);
  StageResult Failed(absl::Status status) const;

  ReplicaHost& host_;
  const ReplicaOptions& options_;
  SnapshotStream& stream_;
  const v1::PullStarted started_;
  std::unique_ptr<StagedInstall>* const staged_;

  Phase phase_ = Phase::kHeader;
  uint64_t snapshot_id_ = 0;
  bool restarted_ = false;
  uint64_t given_up_bytes_ = 0;
  v1::FetchSnapshotResponse message_;
  absl::Cord data_;  // of message_
  int64_t last_message_micros_;
};

}  // namespace towline

#endif  // TOWLINE_REPLICA_BOOTSTRAP_H_
