// Going back to the last record that this node and its upstream have in common, without a snapshot.
//
//   records behind it go to quarantine -> generation n+1: the newest rewind checkpoint at or below it, and the own log
//   up to it, by second names of the files -> opened, which replays the log -> flushed -> one control write -> live
//
// Until that write the old generation is live, and is what a crash leaves; the rest is removed by whoever removes
// generations that are not live. Nothing is fetched from anywhere.

#ifndef TOWLINE_REPLICA_REWIND_H_
#define TOWLINE_REPLICA_REWIND_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "replica/quarantine.h"
#include "replica/replica_controller.h"
#include "replica/stage_result.h"

namespace towline {

// Threads: external synchronization.
class Rewind {
 public:
  // The live generation goes back to record `common_lsn`. Nobody may append to it while this lives.
  Rewind(ReplicaHost& host, Lsn common_lsn);
  ~Rewind();

  // A bounded piece, but for the replay. kDone: the new generation is live. kHalt: the disk is full; begin again later.
  // kReconnect: it cannot be done, and why; a snapshot can. kFatal as SwitchToGeneration.
  StageResult Step();

  // What was done, once it is kDone; as far as it came before.
  const RewindReport& report() const { return report_; }

 private:
  StageResult ContinueQuarantine();
  StageResult Build();
  StageResult Switch();
  absl::Status MakeFiles(uint64_t number, Lsn checkpoint_lsn);
  absl::Status Open(uint64_t number);
  absl::StatusOr<Control> ControlAfter(uint64_t number);
  absl::Status FindMembers();
  void RemoveFiles();
  StageResult Failed(absl::Status status);

  ReplicaHost& host_;
  const GenerationEnvironment& env_;
  const Lsn common_lsn_;
  const int64_t began_micros_;
  const std::shared_ptr<Generation> old_;
  const RewindCheckpoints::Hold hold_;
  std::unique_ptr<wal::Pin> pin_;  // of the old log
  Lsn first_lsn_ = 0;              // that the new log begins with
  RecordQuarantine quarantine_;
  bool quarantined_ = false;
  std::shared_ptr<Generation> opened_;
  Control control_;                    // as it will be
  std::optional<MemberList> members_;  // at the common point, if the records behind it changed them
  RewindReport report_;
};

}  // namespace towline

#endif  // TOWLINE_REPLICA_REWIND_H_
