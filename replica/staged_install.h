// A new generation in the making beside the live one: a snapshot is loaded into it, over as many streams, restarts and
// sources as it takes, then it is switched to.
//
//   chunks -> sorted files in gen/<n>/db, journal -> all checked -> own records that the source does not have go to
//   quarantine -> log behind the snapshot, until the state is exact -> one control write -> live
//
// What is durable is not fetched again: after a cut, a crash or a full disk the next stream begins behind it, from the
// same snapshot or a newer one. Chunks from a newer snapshot make the state a mixture that is exact once the log from
// the stream's position up to the newest position read has been replayed; the log is idempotent, so what was read early
// is overwritten by what the log says, and what was read late is said again. Until the control write the old generation
// is live, serves reads, and is what a crash leaves.

#ifndef TOWLINE_REPLICA_STAGED_INSTALL_H_
#define TOWLINE_REPLICA_STAGED_INSTALL_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/cord.h"

#include "replica/file_install.h"
#include "replica/install_journal.h"
#include "replica/quarantine.h"
#include "replica/replica_controller.h"
#include "replica/stage_result.h"
#include "store/snapshot_codec.h"
#include "towline/v1/replication_service.pb.h"

namespace towline {

// Threads: external synchronization.
class StagedInstall {
 public:
  // Begins a new one with what the header of a stream said. Its point and incarnation are filled in.
  static absl::StatusOr<std::unique_ptr<StagedInstall>> Begin(ReplicaHost& host, InstallRecord record);

  // The unfinished one that an earlier process left; nullptr if there is none. What is there and of no use is left for
  // whoever removes generations that are not live. INTERNAL and others: the disk.
  static absl::StatusOr<std::unique_ptr<StagedInstall>> Find(ReplicaHost& host);

  // Files stay.
  ~StagedInstall();

  uint64_t number() const { return number_; }
  const InstallRecord& record() const { return record_; }
  bool loaded() const { return record_.phase == InstallPhase::kReplaying; }

  // --- Loading ---

  SnapshotForm form() const { return record_.form; }
  // From where an RDB stream goes on; false if nothing is there yet.
  bool FillCursor(v1::SnapshotCursor* cursor);
  // What is there of files, if it is of that form.
  void FillHeld(v1::FetchSnapshotRequest* request) const;
  // An RDB stream goes on behind the cursor, reading a snapshot at `read`.
  absl::Status GoOn(uint64_t snapshot_id, const Position& read);
  // A stream of the files that `header` names begins; `fresh` is what else it said. They need not be of the snapshot
  // that the stream before was of: what is the same stays.
  absl::Status GoOnWithFiles(const v1::SnapshotHeader& header, InstallRecord fresh);
  // DATA_LOSS: the chunk is refused, and the next stream fetches it again; see strikes. RESOURCE_EXHAUSTED, reason
  // disk_full: what is durable stays.
  absl::Status AddChunk(const EncodedChunk& chunk);
  absl::Status AddFileChunk(const v1::SnapshotFileChunk& chunk, const absl::Cord& data);
  // The stream is complete: checks it and makes it durable. loaded() afterwards.
  absl::Status Finish(const v1::SnapshotEnd& end);
  // Counts a refused chunk, if `status` says that it was one.
  absl::Status Refuse(absl::Status status);
  // Refused chunks and ends since the stream last got beyond what it had before one was refused.
  int strikes() const { return strikes_; }
  // Bytes of the stream that were taken; those that are durable.
  uint64_t bytes() const;
  uint64_t keys() const;
  uint64_t received_bytes() const { return record_.received_bytes; }
  // What this process received of it, since the last call.
  struct Received {
    uint64_t bytes = 0;
    uint64_t resumes = 0;
  };
  Received TakeReceived() { return std::exchange(untold_, {}); }

  // --- After loading ---

  // A bounded piece of what needs no stream. kDone: the new generation is live. kGoOn with needs_log(): records are
  // missing, feed them to generation().
  StageResult Step();
  bool needs_log() const { return needs_log_; }
  // Open once needs_log() was true.
  const std::shared_ptr<Generation>& generation() const { return generation_; }
  // The control file as it will be at the switch, but for the log's end.
  const Control& control() const { return control_; }
  // Terms up to the end of its log, as the stream told them.
  void SetHistory(const History& history) { control_.history = history; }
  bool exact() const;

 private:
  StagedInstall(ReplicaHost& host, uint64_t number, InstallRecord record);

  absl::Status OpenFiles();
  absl::Status FinishFiles(const v1::SnapshotEnd& end);
  absl::Status FinishRdb(const v1::SnapshotEnd& end);
  absl::Status OpenInstaller();
  bool CommitIsDue() const;
  absl::Status Commit();
  absl::Status SaveJournal();

  StageResult ContinueQuarantine();
  StageResult OpenGeneration();
  StageResult Switch();
  Lsn CommonLsn(const Generation& old) const;

  ReplicaHost& host_;
  const uint64_t number_;
  InstallRecord record_;  // the point as saved, the rest as it is now
  InstallJournal journal_;
  std::unique_ptr<SnapshotInstaller> installer_;  // of an RDB stream; made when it is needed
  std::unique_ptr<FileInstall> files_;            // of files; until they are loaded
  int64_t committed_micros_ = 0;
  int strikes_ = 0;
  uint64_t struck_bytes_ = 0;  // most that were taken before something was refused
  Received untold_;

  bool quarantined_ = false;
  std::unique_ptr<RecordQuarantine> quarantine_;
  Control control_;
  std::shared_ptr<Generation> generation_;
  bool needs_log_ = false;
};

}  // namespace towline

#endif  // TOWLINE_REPLICA_STAGED_INSTALL_H_
