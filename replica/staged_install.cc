#include "replica/staged_install.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/failpoint.h"
#include "common/history.h"
#include "replica/generation_files.h"
#include "replica/pull_messages.h"

namespace towline {
namespace {

// What is in memory when a replica dies is sent again, and each commit makes a file. So often:
constexpr int64_t kCommitMicros = 100'000;
constexpr uint64_t kCommitBytesMin = 1 << 20;
// A load of any size makes about so many files at most by committing.
constexpr uint64_t kCommitsMax = 1024;

absl::Status MakeStoreDirectory(const GenerationEnvironment& env, uint64_t number) {
  TOWLINE_RETURN_IF_ERROR(MakeDirectoryDurably(env.fs, env.data_directory, "gen"));
  TOWLINE_RETURN_IF_ERROR(MakeDirectoryDurably(env.fs, JoinPath(env.data_directory, "gen"), absl::StrCat(number)));
  return MakeDirectoryDurably(env.fs, GenerationDirectory(env.data_directory, number), "db");
}

}  // namespace

StagedInstall::StagedInstall(ReplicaHost& host, uint64_t number, InstallRecord record)
    : host_(host),
      number_(number),
      record_(std::move(record)),
      journal_(host.environment().fs, GenerationDirectory(host.environment().data_directory, number)) {}

StagedInstall::~StagedInstall() = default;

absl::StatusOr<std::unique_ptr<StagedInstall>> StagedInstall::Begin(ReplicaHost& host, InstallRecord record) {
  const GenerationEnvironment& env = host.environment();
  const Control control = host.control().Get();
  TOWLINE_ASSIGN_OR_RETURN(const std::vector<uint64_t> numbers, ListGenerations(env.fs, env.data_directory));
  const uint64_t number = std::max(control.generation, numbers.empty() ? 0 : numbers.back()) + 1;
  record.phase = InstallPhase::kLoading;
  record.incarnation = control.incarnation;
  record.started_unix_ms = static_cast<uint64_t>(env.clock.WallMicros()) / 1000;
  std::unique_ptr<StagedInstall> staged(new StagedInstall(host, number, std::move(record)));
  TOWLINE_RETURN_IF_ERROR(MakeStoreDirectory(env, number));
  TOWLINE_RETURN_IF_ERROR(staged->SaveJournal());
  return staged;
}

absl::StatusOr<std::unique_ptr<StagedInstall>> StagedInstall::Find(ReplicaHost& host) {
  const GenerationEnvironment& env = host.environment();
  const Control control = host.control().Get();
  TOWLINE_ASSIGN_OR_RETURN(const std::vector<uint64_t> numbers, ListGenerations(env.fs, env.data_directory));
  for (auto it = numbers.rbegin(); it != numbers.rend() && *it > control.generation; ++it) {
    InstallJournal journal(env.fs, GenerationDirectory(env.data_directory, *it));
    absl::StatusOr<InstallRecord> record = journal.Load();
    const bool ours = record.ok() && record->incarnation == control.incarnation &&
                      (control.cluster_id.empty() || control.cluster_id == record->point.meta.cluster_id);
    env.logger.Log(LogLevel::kInfo, "unfinished_bootstrap_found",
                   {{"generation", *it},
                    {"usable", ours},
                    {"status", record.status().ToString()},
                    {"bytes", record.ok() ? record->point.cursor.bytes : 0}});
    if (ours) return std::unique_ptr<StagedInstall>(new StagedInstall(host, *it, *std::move(record)));
  }
  return std::unique_ptr<StagedInstall>();
}

// --- Loading ---

// What was added behind the last commit is given up if the installer is not usable any more.
absl::Status StagedInstall::OpenInstaller() {
  if (installer_ != nullptr && installer_->usable()) return absl::OkStatus();
  installer_.reset();
  const GenerationEnvironment& env = host_.environment();
  TOWLINE_ASSIGN_OR_RETURN(std::unique_ptr<StoreBulkLoader> loader,
                           env.stores.NewBulkLoader(StoreDirectory(env.data_directory, number_), BulkLoad::kResume));
  TOWLINE_ASSIGN_OR_RETURN(installer_, SnapshotInstaller::Resume(std::move(loader), record_.point));
  committed_micros_ = env.clock.MonotonicMicros();
  return absl::OkStatus();
}

bool StagedInstall::FillCursor(v1::SnapshotCursor* out) {
  const bool in_memory = installer_ != nullptr && installer_->usable();
  const SnapshotCursor& cursor = in_memory ? installer_->RewindToCursor() : record_.point.cursor;
  if (cursor.sequence == 0 || loaded()) return false;
  const SnapshotMeta& meta = in_memory ? installer_->meta() : record_.point.meta;
  out->set_snapshot_id(record_.snapshot_id);
  PositionToProto(meta.cluster_id, meta.position, out->mutable_position());
  PositionToProto(meta.cluster_id, record_.read, out->mutable_read_position());
  out->set_sequence(cursor.sequence);
  out->set_last_key(cursor.last_key);
  out->set_keys(cursor.keys);
  out->set_bytes(cursor.bytes);
  out->set_crc64(cursor.crc64);
  out->set_digest(cursor.digest.Hex());
  return true;
}

absl::Status StagedInstall::GoOn(uint64_t snapshot_id, const Position& read) {
  TOWLINE_RETURN_IF_ERROR(OpenInstaller());
  installer_->RewindToCursor();
  record_.snapshot_id = snapshot_id;
  record_.read = read;
  ++record_.resumes;
  ++untold_.resumes;
  // Before a chunk of the newer snapshot can be durable.
  return SaveJournal();
}

absl::Status StagedInstall::Refuse(absl::Status status) {
  if (!absl::IsDataLoss(status) && !absl::IsUnimplemented(status)) return status;
  ++strikes_;
  struck_chunks_ = std::max(struck_chunks_, installer_ == nullptr ? 0 : installer_->chunks());
  return status;
}

absl::Status StagedInstall::AddChunk(const EncodedChunk& chunk) {
  TOWLINE_RETURN_IF_ERROR(OpenInstaller());
  record_.received_bytes += chunk.data.size();
  untold_.bytes += chunk.data.size();
  TOWLINE_RETURN_IF_ERROR(Refuse(installer_->AddChunk(chunk)));
  const SnapshotMeta& meta = installer_->meta();
  const SnapshotMeta& expected = record_.point.meta;
  if (meta.position != expected.position || meta.cluster_id != expected.cluster_id ||
      meta.history != expected.history) {
    absl::Status refused = Refuse(
        MakeError(absl::StatusCode::kDataLoss, "bad_snapshot",
                  absl::StrCat("the stream is of LSN ", meta.position.lsn, " of cluster ", meta.cluster_id, " (",
                               FormatHistory(meta.history), "), its header of LSN ", expected.position.lsn,
                               " of cluster ", expected.cluster_id, " (", FormatHistory(expected.history), ")")));
    installer_.reset();  // it has taken the chunk
    return refused;
  }
  if (installer_->chunks() > struck_chunks_) strikes_ = 0;
  return CommitIsDue() ? Commit() : absl::OkStatus();
}

bool StagedInstall::CommitIsDue() const {
  // Only behind a chunk of entries.
  if (installer_->bytes() != installer_->cursor().bytes) return false;
  if (host_.environment().clock.MonotonicMicros() - committed_micros_ < kCommitMicros) return false;
  return installer_->pending_bytes() >= std::max(kCommitBytesMin, record_.estimated_bytes / kCommitsMax);
}

absl::Status StagedInstall::Commit() {
  if (Failpoint("replica_journal_early")) {
    record_.point.cursor = installer_->cursor();
    TOWLINE_RETURN_IF_ERROR(SaveJournal());
  }
  TOWLINE_ASSIGN_OR_RETURN(InstallPoint point, installer_->Commit());
  committed_micros_ = host_.environment().clock.MonotonicMicros();
  record_.point = std::move(point);
  return SaveJournal();
}

absl::Status StagedInstall::SaveJournal() { return Annotate(journal_.Save(record_), "install journal"); }

absl::Status StagedInstall::Finish(const v1::SnapshotEnd& end) {
  TOWLINE_RETURN_IF_ERROR(OpenInstaller());
  if (end.bytes() != installer_->bytes() || end.chunks() != installer_->chunks()) {
    return Refuse(MakeError(absl::StatusCode::kDataLoss, "bad_snapshot",
                            absl::StrCat("received ", installer_->chunks(), " chunks of ", installer_->bytes(),
                                         " bytes, announced were ", end.chunks(), " of ", end.bytes())));
  }
  TOWLINE_RETURN_IF_ERROR(Refuse(installer_->Finish(end.keys(), end.digest())));
  record_.point.meta = installer_->meta();
  record_.point.cursor = installer_->cursor();
  record_.point.cursor.bytes = installer_->bytes();
  installer_.reset();
  record_.phase = InstallPhase::kReplaying;
  return SaveJournal();
}

uint64_t StagedInstall::bytes() const {
  return installer_ != nullptr ? installer_->bytes() : record_.point.cursor.bytes;
}
uint64_t StagedInstall::keys() const { return installer_ != nullptr ? installer_->keys() : record_.point.cursor.keys; }

}  // namespace towline
