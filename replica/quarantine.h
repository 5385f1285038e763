// Copies records that a node is about to give up into a file that the daemon never deletes.
//
// File: quarantine/diverged-<generation>-<first LSN>.frames, shipped parts of frames one behind the other.

#ifndef TOWLINE_REPLICA_QUARANTINE_H_
#define TOWLINE_REPLICA_QUARANTINE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/file_system.h"
#include "replica/generation.h"

namespace towline {

// Threads: external synchronization.
class RecordQuarantine {
 public:
  // Copies the records of `generation` behind `common_lsn` that its log still holds.
  RecordQuarantine(const GenerationEnvironment& env, std::shared_ptr<Generation> generation, Lsn common_lsn);

  // Copies a bounded piece. True once everything is copied and durable under its name.
  absl::StatusOr<bool> Step();

  uint64_t records() const { return records_; }
  Lsn first_lsn() const { return first_lsn_; }
  bool holds_members() const { return holds_members_; }        // one of the records is a list of members
  const std::string& file_name() const { return file_name_; }  // empty if there is nothing to copy

 private:
  absl::Status Start();
  absl::Status LookAt(const wal::ShippedBatch& batch);
  absl::Status Finish();

  FileSystem& fs_;
  const std::string data_directory_;
  const std::string directory_;
  const std::shared_ptr<Generation> generation_;
  const Lsn end_lsn_;
  Lsn first_lsn_;
  std::string file_name_;
  std::unique_ptr<File> file_;
  std::unique_ptr<wal::Cursor> cursor_;
  uint64_t offset_ = 0;
  uint64_t records_ = 0;
  bool holds_members_ = false;
};

}  // namespace towline

#endif  // TOWLINE_REPLICA_QUARANTINE_H_
