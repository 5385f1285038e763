#include "replica/bootstrap.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/history.h"
#include "replica/generation_files.h"
#include "replica/pull_messages.h"

namespace towline {
namespace {

constexpr int64_t kReadTimeoutMicros = 250'000;
constexpr int kMessagesMax = 8;
// The new store may take up to twice the bytes of an RDB stream while it is loaded.
constexpr uint64_t kSpaceFactor = 2;

absl::Status BadSnapshot(absl::string_view what) {
  return MakeError(absl::StatusCode::kDataLoss, "bad_snapshot", what);
}

// Whether somebody has to do something about it, other than try again.
bool IsHalt(const absl::Status& status) {
  const std::string reason = GetErrorInfo(status).reason;
  return reason == "disk_full" || reason == "older_source" || reason == "cluster_mismatch";
}

}  // namespace

Bootstrap::Bootstrap(ReplicaHost& host, const ReplicaOptions& options, SnapshotStream& stream,
                     const v1::PullStarted& started, std::unique_ptr<StagedInstall>* staged)
    : host_(host),
      options_(options),
      stream_(stream),
      started_(started),
      staged_(staged),
      last_message_micros_(host.environment().clock.MonotonicMicros()) {}

StageResult Bootstrap::Step() {
  ReadResult read = stream_.Read(&message_, &data_, kReadTimeoutMicros);
  const int64_t now = host_.environment().clock.MonotonicMicros();
  for (int messages = 1; read == ReadResult::kMessage; ++messages) {
    last_message_micros_ = now;
    StageResult taken = Take(message_, data_);
    data_.Clear();  // what arrives next needs memory, too
    if (taken.kind != StageResult::Kind::kGoOn || messages >= kMessagesMax) return taken;
    read = stream_.Read(&message_, &data_, 0);
  }
  if (read == ReadResult::kClosed) {
    const absl::Status status = stream_.Finish();
    return Failed(status.ok() ? MakeError(absl::StatusCode::kUnavailable, "stream_closed",
                                          "the upstream closed the snapshot stream before its end")
                              : status);
  }
  const int64_t silence = now - last_message_micros_;
  if (silence > options_.upstream_timeout_micros) {
    return Failed(MakeError(absl::StatusCode::kDeadlineExceeded, "upstream_silent",
                            absl::StrCat("no message for ", silence / 1000, " ms")));
  }
  return StageResult::GoOn();
}

StageResult Bootstrap::Take(v1::FetchSnapshotResponse& message, const absl::Cord& data) {
  if (phase_ == Phase::kHeader && message.has_header()) return TakeHeader(message.header());
  if (phase_ == Phase::kChunks && message.has_chunk()) {
    absl::Status taken = TakeChunk(*message.mutable_chunk());
    return taken.ok() ? StageResult::GoOn() : Failed(std::move(taken));
  }
  if (phase_ == Phase::kChunks && message.has_file_chunk()) {
    absl::Status taken = TakeFileChunk(message.file_chunk(), data);
    return taken.ok() ? StageResult::GoOn() : Failed(std::move(taken));
  }
  if (phase_ != Phase::kChunks || !message.has_end()) {
    return Failed(BadSnapshot("header, chunks and end did not arrive in this order"));
  }
  absl::Status finished = (*staged_)->Finish(message.end());
  if (!finished.ok()) return Failed(std::move(finished));
  phase_ = Phase::kOver;
  return StageResult::Done();
}

StageResult Bootstrap::TakeHeader(const v1::SnapshotHeader& header) {
  InstallRecord record;
  absl::Status status = ReadHeader(header, &record);
  if (status.ok()) status = CheckSource(record.point.meta);
  bool goes_on = false;
  if (status.ok()) status = BeginOrGoOn(header, std::move(record), &goes_on);
  if (!status.ok()) return Failed(std::move(status));
  snapshot_id_ = header.snapshot_id();
  phase_ = Phase::kChunks;
  const InstallRecord& install = (*staged_)->record();
  host_.environment().logger.Log(LogLevel::kInfo, goes_on ? "bootstrap_resumed" : "bootstrap_started",
                                 {{"reason", install.reason},
                                  {"generation", (*staged_)->number()},
                                  {"form", install.form == SnapshotForm::kFiles ? "files" : "rdb"},
                                  {"lsn", install.point.meta.position.lsn},
                                  {"read_lsn", install.read.lsn},
                                  {"bytes", (*staged_)->bytes()},
                                  {"resumes", install.resumes},
                                  {"history", FormatHistory(install.point.meta.history)},
                                  {"estimated_keys", header.estimated_keys()},
                                  {"estimated_bytes", header.estimated_bytes()}});
  return StageResult::GoOn();
}

absl::Status Bootstrap::BeginOrGoOn(const v1::SnapshotHeader& header, InstallRecord record, bool* goes_on) {
  const bool files = record.form == SnapshotForm::kFiles;
  const bool same_form = *staged_ != nullptr && (*staged_)->form() == record.form;
  *goes_on = files ? same_form : header.resumed_sequence() != 0;
  const uint64_t staged = *staged_ != nullptr ? (*staged_)->bytes() : 0;
  const uint64_t have = *goes_on ? staged : 0;
  const uint64_t coming = record.estimated_bytes - std::min(have, record.estimated_bytes);
  TOWLINE_RETURN_IF_ERROR(CheckSpace(coming, files ? 1 : kSpaceFactor, staged - have));
  if (*goes_on && !files) {
    absl::Status status = CheckGoesOn(header.resumed_sequence(), record);
    if (!status.ok()) return *staged_ == nullptr ? status : (*staged_)->Refuse(std::move(status));
    return (*staged_)->GoOn(record.snapshot_id, record.read);
  }
  if (!*goes_on) {
    if (*staged_ != nullptr) TOWLINE_RETURN_IF_ERROR(GiveUpStaged());
    TOWLINE_ASSIGN_OR_RETURN(*staged_, StagedInstall::Begin(host_, record));
  }
  return files ? (*staged_)->GoOnWithFiles(header, std::move(record)) : absl::OkStatus();
}

// Whether a stream goes on with what was received, and reads nothing older than was read already: the state would be
// called exact too early.
absl::Status Bootstrap::CheckGoesOn(uint64_t sequence, const InstallRecord& record) {
  v1::SnapshotCursor cursor;
  const bool has_cursor = *staged_ != nullptr && (*staged_)->FillCursor(&cursor);
  if (!has_cursor || cursor.sequence() != sequence ||
      (*staged_)->record().point.meta.position != record.point.meta.position) {
    return BadSnapshot(absl::StrCat("the stream goes on behind chunk ", sequence, " of LSN ",
                                    record.point.meta.position.lsn, ", which is not what was received"));
  }
  if (record.read.lsn < (*staged_)->record().read.lsn) {
    return BadSnapshot(absl::StrCat("the stream goes on with a snapshot of LSN ", record.read.lsn,
                                    ", and was read at LSN ", (*staged_)->record().read.lsn, " already"));
  }
  return absl::OkStatus();
}

absl::Status Bootstrap::GiveUpStaged() {
  restarted_ = true;
  given_up_bytes_ = (*staged_)->received_bytes();
  const GenerationEnvironment& env = host_.environment();
  const uint64_t number = (*staged_)->number();
  env.logger.Log(LogLevel::kWarning, "bootstrap_restarted",
                 {{"generation", number}, {"bytes", (*staged_)->bytes()}, {"why", "the upstream could not go on"}});
  staged_->reset();
  return RemoveGeneration(env.fs, env.data_directory, number);
}

absl::Status Bootstrap::ReadHeader(const v1::SnapshotHeader& header, InstallRecord* record) const {
  SnapshotMeta& meta = record->point.meta;
  TOWLINE_ASSIGN_OR_RETURN(meta.position, PositionFromProto(header.position()));
  TOWLINE_ASSIGN_OR_RETURN(meta.history, HistoryFromProto(header.history()));
  meta.history = CutAt(meta.history, meta.position.lsn);
  const HistoryEntry* entry = EntryAt(meta.history, meta.position.lsn);
  if (meta.position.lsn != 0 &&
      (entry == nullptr || entry->term != meta.position.term || entry->term_id != meta.position.term_id)) {
    return BadSnapshot(absl::StrCat("the snapshot's position, LSN ", meta.position.lsn, " of term ", meta.position.term,
                                    ", is not on its history ", FormatHistory(meta.history)));
  }
  meta.cluster_id = header.position().cluster_id().empty() ? started_.cluster_id() : header.position().cluster_id();
  meta.node_id = started_.node_id();
  meta.estimated_keys = header.estimated_keys();
  record->read = meta.position;
  if (header.has_read_position()) {
    TOWLINE_ASSIGN_OR_RETURN(record->read, PositionFromProto(header.read_position()));
  }
  if (header.snapshot_id() == 0 || record->read.lsn < meta.position.lsn) {
    return BadSnapshot(absl::StrCat("the snapshot has id ", header.snapshot_id(), ", and is read at LSN ",
                                    record->read.lsn, " for LSN ", meta.position.lsn));
  }
  record->form = header.files().empty() ? SnapshotForm::kRdb : SnapshotForm::kFiles;
  if (record->form == SnapshotForm::kFiles && options_.file_form.empty()) {
    return BadSnapshot("files were not asked for");
  }
  if (record->form == SnapshotForm::kFiles && record->read != meta.position) {
    return BadSnapshot(absl::StrCat("files of LSN ", meta.position.lsn, " are read at LSN ", record->read.lsn));
  }
  record->snapshot_id = header.snapshot_id();
  record->reason = header.reason().empty() ? started_.reason() : header.reason();
  record->common_lsn = started_.common_lsn();
  record->estimated_bytes = header.estimated_bytes();
  return absl::OkStatus();
}

// Nothing is given up for another cluster, or for a source that holds less.
absl::Status Bootstrap::CheckSource(const SnapshotMeta& meta) const {
  const Control control = host_.control().Get();
  if (meta.cluster_id != started_.cluster_id() ||
      (!control.cluster_id.empty() && control.cluster_id != meta.cluster_id)) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "cluster_mismatch",
                     absl::StrCat("the snapshot is of cluster ", meta.cluster_id, ", this node of ",
                                  control.cluster_id.empty() ? started_.cluster_id() : control.cluster_id),
                     "check --upstream");
  }
  const std::shared_ptr<Generation> old = host_.LiveGeneration();
  if (old == nullptr || old->spool().end().lsn == 0) return absl::OkStatus();
  const Position& position = meta.position;
  const wal::LogEnd own = old->spool().end();
  const Lsn common = LastCommonLsn(control.history, own.lsn, meta.history, position.lsn);
  const bool behind_us = common == position.lsn && position.lsn < own.lsn;
  if (position.lsn == 0 || position.term < own.term || behind_us) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "older_source",
                     absl::StrCat("the snapshot ends at LSN ", position.lsn, " of term ", position.term,
                                  ", this node holds LSN ", own.lsn, " of term ", own.term),
                     "point this node at the newest primary");
  }
  return absl::OkStatus();
}

absl::Status Bootstrap::CheckSpace(uint64_t estimated_bytes, uint64_t factor, uint64_t freed) const {
  const GenerationEnvironment& env = host_.environment();
  TOWLINE_ASSIGN_OR_RETURN(const SpaceInfo space, env.fs.Space(env.data_directory));
  if ((space.available_bytes + freed) / factor >= estimated_bytes) return absl::OkStatus();
  return MakeError(absl::StatusCode::kResourceExhausted, "disk_full",
                   absl::StrCat("the snapshot has about ", estimated_bytes, " bytes to come and needs ", factor,
                                " times as much to load; ", space.available_bytes, " bytes are available"),
                   "free space on that disk; the load goes on by itself");
}

absl::Status Bootstrap::TakeChunk(v1::SnapshotChunk& chunk) {
  if (chunk.snapshot_id() != snapshot_id_ || (*staged_)->form() != SnapshotForm::kRdb) {
    return (*staged_)->Refuse(
        BadSnapshot(absl::StrCat("a chunk is of snapshot ", chunk.snapshot_id(), ", the stream of ", snapshot_id_)));
  }
  EncodedChunk encoded;
  encoded.sequence = chunk.sequence();
  encoded.first_key = std::move(*chunk.mutable_first_key());
  encoded.last_key = std::move(*chunk.mutable_last_key());
  encoded.keys = chunk.keys();
  encoded.crc32c = chunk.crc32c();
  encoded.data = std::move(*chunk.mutable_data());
  return (*staged_)->AddChunk(encoded);
}

absl::Status Bootstrap::TakeFileChunk(const v1::SnapshotFileChunk& chunk, const absl::Cord& data) {
  if (chunk.snapshot_id() != snapshot_id_ || (*staged_)->form() != SnapshotForm::kFiles) {
    return (*staged_)->Refuse(BadSnapshot(
        absl::StrCat("a piece of a file is of snapshot ", chunk.snapshot_id(), ", the stream of ", snapshot_id_)));
  }
  return (*staged_)->AddFileChunk(chunk, data);
}

StageResult Bootstrap::Failed(absl::Status status) const {
  return IsHalt(status) ? StageResult::Halt(std::move(status)) : StageResult::Reconnect(std::move(status));
}

}  // namespace towline
