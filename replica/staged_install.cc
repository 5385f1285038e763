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
// A power loss takes what files have got since. Each costs a sync, which the stream waits for.
constexpr int64_t kFileCommitMicros = 250'000;
// A load of any size makes about so many files at most by committing.
constexpr uint64_t kCommitsMax = 1024;

absl::Status MakeGenerationDirectory(const GenerationEnvironment& env, uint64_t number) {
  TOWLINE_RETURN_IF_ERROR(MakeDirectoryDurably(env.fs, env.data_directory, "gen"));
  TOWLINE_RETURN_IF_ERROR(MakeDirectoryDurably(env.fs, JoinPath(env.data_directory, "gen"), absl::StrCat(number)));
  return absl::OkStatus();
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
  TOWLINE_RETURN_IF_ERROR(MakeGenerationDirectory(env, number));
  TOWLINE_RETURN_IF_ERROR(staged->SaveJournal());
  TOWLINE_RETURN_IF_ERROR(staged->OpenFiles());
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
    if (!ours) continue;
    std::unique_ptr<StagedInstall> staged(new StagedInstall(host, *it, *std::move(record)));
    if (const absl::Status opened = staged->OpenFiles(); !opened.ok()) {
      env.logger.Log(LogLevel::kWarning, "unfinished_bootstrap_unusable",
                     {{"generation", *it}, {"status", opened.ToString()}});
      continue;
    }
    return staged;
  }
  return std::unique_ptr<StagedInstall>();
}

// --- Loading ---

// What was added behind the last commit is given up if the installer is not usable any more.
absl::Status StagedInstall::OpenInstaller() {
  if (installer_ != nullptr && installer_->usable()) return absl::OkStatus();
  installer_.reset();
  const GenerationEnvironment& env = host_.environment();
  TOWLINE_RETURN_IF_ERROR(MakeDirectoryDurably(env.fs, GenerationDirectory(env.data_directory, number_), "db"));
  TOWLINE_ASSIGN_OR_RETURN(std::unique_ptr<StoreBulkLoader> loader,
                           env.stores.NewBulkLoader(StoreDirectory(env.data_directory, number_), BulkLoad::kResume));
  TOWLINE_ASSIGN_OR_RETURN(installer_, SnapshotInstaller::Resume(std::move(loader), record_.point));
  committed_micros_ = env.clock.MonotonicMicros();
  return absl::OkStatus();
}

bool StagedInstall::FillCursor(v1::SnapshotCursor* out) {
  if (record_.form != SnapshotForm::kRdb) return false;
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
  struck_bytes_ = std::max(struck_bytes_, bytes());
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
  if (bytes() > struck_bytes_) strikes_ = 0;
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
  return record_.form == SnapshotForm::kFiles ? FinishFiles(end) : FinishRdb(end);
}

absl::Status StagedInstall::FinishRdb(const v1::SnapshotEnd& end) {
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
  if (files_ != nullptr) return files_->bytes();
  return installer_ != nullptr ? installer_->bytes() : record_.point.cursor.bytes;
}

// --- Loading of files ---

absl::Status StagedInstall::OpenFiles() {
  if (record_.form != SnapshotForm::kFiles) return absl::OkStatus();
  const GenerationEnvironment& env = host_.environment();
  auto files = std::make_unique<FileInstall>(env.fs, ArrivingFilesDirectory(env.data_directory, number_));
  if (loaded()) {
    files->RemoveOwnNames();  // a stop came between the journal and that
    return absl::OkStatus();
  }
  TOWLINE_RETURN_IF_ERROR(files->Load());
  files_ = std::move(files);
  committed_micros_ = env.clock.MonotonicMicros();
  record_.received_bytes = std::max(record_.received_bytes, files_->bytes());
  return absl::OkStatus();
}

void StagedInstall::FillHeld(v1::FetchSnapshotRequest* request) const {
  if (files_ == nullptr) return;
  files_->FillHeld(request);
  request->set_held_snapshot_id(record_.snapshot_id);
}

absl::Status StagedInstall::GoOnWithFiles(const v1::SnapshotHeader& header, InstallRecord fresh) {
  TOWLINE_RETURN_IF_ERROR(Refuse(files_->Begin(header)));
  if (files_->bytes() != 0) {
    ++record_.resumes;
    ++untold_.resumes;
  }
  fresh.phase = record_.phase;
  fresh.incarnation = record_.incarnation;
  fresh.started_unix_ms = record_.started_unix_ms;
  fresh.resumes = record_.resumes;
  fresh.received_bytes = record_.received_bytes;
  fresh.point.cursor.bytes = files_->durable_bytes();
  record_ = std::move(fresh);
  return SaveJournal();
}

absl::Status StagedInstall::AddFileChunk(const v1::SnapshotFileChunk& chunk, const absl::Cord& data) {
  record_.received_bytes += data.size();
  untold_.bytes += data.size();
  TOWLINE_RETURN_IF_ERROR(Refuse(files_->Add(chunk, data)));
  if (bytes() > struck_bytes_) strikes_ = 0;
  const int64_t now = host_.environment().clock.MonotonicMicros();
  if (now - committed_micros_ < kFileCommitMicros) return absl::OkStatus();
  committed_micros_ = now;
  TOWLINE_RETURN_IF_ERROR(files_->Commit());
  record_.point.cursor.bytes = files_->durable_bytes();
  return SaveJournal();
}

absl::Status StagedInstall::FinishFiles(const v1::SnapshotEnd& end) {
  const GenerationEnvironment& env = host_.environment();
  if (end.bytes() != files_->bytes()) {
    return Refuse(
        MakeError(absl::StatusCode::kDataLoss, "bad_snapshot",
                  absl::StrCat("received ", files_->bytes(), " bytes of files, announced were ", end.bytes())));
  }
  TOWLINE_RETURN_IF_ERROR(Refuse(files_->Finish(StoreDirectory(env.data_directory, number_))));
  InstallRecord whole = record_;
  whole.point.cursor.bytes = files_->bytes();
  whole.phase = InstallPhase::kReplaying;
  TOWLINE_RETURN_IF_ERROR(Annotate(journal_.Save(whole), "install journal"));
  record_ = std::move(whole);
  files_->RemoveOwnNames();
  files_.reset();
  return absl::OkStatus();
}

uint64_t StagedInstall::keys() const { return installer_ != nullptr ? installer_->keys() : record_.point.cursor.keys; }

}  // namespace towline
