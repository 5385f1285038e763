#include "replica/bootstrap.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/history.h"
#include "replica/generation_files.h"
#include "replica/generation_switch.h"
#include "replica/pull_messages.h"

namespace towline {
namespace {

constexpr int64_t kReadTimeoutMicros = 250'000;
constexpr int kMessagesMax = 8;
// The new store may take up to twice the stream's bytes while it is loaded.
constexpr uint64_t kSpaceFactor = 2;

absl::Status BadSnapshot(absl::string_view what) {
  return MakeError(absl::StatusCode::kDataLoss, "bad_snapshot", what);
}

// Whether somebody has to do something about it, other than try again.
bool IsHalt(const absl::Status& status) {
  if (absl::IsResourceExhausted(status)) return GetErrorInfo(status).reason == "disk_full";
  const std::string reason = GetErrorInfo(status).reason;
  return reason == "older_source" || reason == "cluster_mismatch";
}

}  // namespace

Bootstrap::Bootstrap(ReplicaHost& host, const ReplicaOptions& options, SnapshotStream& stream,
                     const v1::PullStarted& started)
    : host_(host),
      options_(options),
      stream_(stream),
      started_(started),
      old_(host.LiveGeneration()),
      last_message_micros_(host.environment().clock.MonotonicMicros()) {
  progress_.reason = started.reason();
  progress_.started_micros = last_message_micros_;
}

Bootstrap::~Bootstrap() {
  installer_.reset();
  if (number_ == 0 || keep_files_) return;
  const GenerationEnvironment& env = host_.environment();
  // What stays is removed by the next attempt.
  const absl::Status removed = RemoveGeneration(env.fs, env.data_directory, number_);
  env.logger.Log(LogLevel::kInfo, "generation_removed", {{"generation", number_}, {"status", removed.ToString()}});
}

StageResult Bootstrap::Step() {
  switch (phase_) {
    case Phase::kHeader:
    case Phase::kChunks:
      return Receive();
    case Phase::kQuarantine:
      return ContinueQuarantine();
    case Phase::kSwitch:
      break;
  }
  return Switch();
}

StageResult Bootstrap::Receive() {
  v1::FetchSnapshotResponse message;
  ReadResult read = stream_.Read(&message, kReadTimeoutMicros);
  const int64_t now = host_.environment().clock.MonotonicMicros();
  for (int messages = 1; read == ReadResult::kMessage; ++messages) {
    last_message_micros_ = now;
    StageResult taken = Take(message);
    const bool receiving = phase_ == Phase::kHeader || phase_ == Phase::kChunks;
    if (taken.kind != StageResult::Kind::kGoOn || !receiving || messages >= kMessagesMax) return taken;
    read = stream_.Read(&message, 0);
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

StageResult Bootstrap::Take(v1::FetchSnapshotResponse& message) {
  if (phase_ == Phase::kHeader && message.has_header()) return TakeHeader(message.header());
  absl::Status taken;
  if (phase_ == Phase::kChunks && message.has_chunk()) {
    taken = TakeChunk(*message.mutable_chunk());
  } else if (phase_ == Phase::kChunks && message.has_end()) {
    taken = TakeEnd(message.end());
  } else {
    taken = BadSnapshot("header, chunks and end did not arrive in this order");
  }
  return taken.ok() ? StageResult::GoOn() : Failed(std::move(taken));
}

StageResult Bootstrap::TakeHeader(const v1::SnapshotHeader& header) {
  absl::Status status = ReadHeader(header);
  if (status.ok()) status = CheckSource();
  if (status.ok()) status = CheckSpace(header.estimated_bytes());
  if (status.ok()) status = StartGeneration();
  if (!status.ok()) return Failed(std::move(status));
  progress_.estimated_bytes = header.estimated_bytes();
  phase_ = Phase::kChunks;
  host_.environment().logger.Log(LogLevel::kInfo, "bootstrap_started",
                                 {{"reason", progress_.reason},
                                  {"generation", number_},
                                  {"lsn", position_.lsn},
                                  {"history", FormatHistory(history_)},
                                  {"estimated_keys", header.estimated_keys()},
                                  {"estimated_bytes", header.estimated_bytes()}});
  return StageResult::GoOn();
}

absl::Status Bootstrap::ReadHeader(const v1::SnapshotHeader& header) {
  TOWLINE_ASSIGN_OR_RETURN(position_, PositionFromProto(header.position()));
  TOWLINE_ASSIGN_OR_RETURN(history_, HistoryFromProto(header.history()));
  history_ = CutAt(history_, position_.lsn);
  const HistoryEntry* entry = EntryAt(history_, position_.lsn);
  if (position_.lsn != 0 &&
      (entry == nullptr || entry->term != position_.term || entry->term_id != position_.term_id)) {
    return BadSnapshot(absl::StrCat("the snapshot's position, LSN ", position_.lsn, " of term ", position_.term,
                                    ", is not on its history ", FormatHistory(history_)));
  }
  cluster_id_ = header.position().cluster_id().empty() ? started_.cluster_id() : header.position().cluster_id();
  return absl::OkStatus();
}

// Nothing is given up for another cluster, or for a source that holds less.
absl::Status Bootstrap::CheckSource() const {
  const ClusterId own_cluster = host_.control().Get().cluster_id;
  if (cluster_id_ != started_.cluster_id() || (!own_cluster.empty() && own_cluster != cluster_id_)) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "cluster_mismatch",
                     absl::StrCat("the snapshot is of cluster ", cluster_id_, ", this node of ",
                                  own_cluster.empty() ? started_.cluster_id() : own_cluster),
                     "check --upstream");
  }
  if (old_ == nullptr || old_->spool().end().lsn == 0) return absl::OkStatus();
  const wal::LogEnd own = old_->spool().end();
  const Lsn common = LastCommonLsn(host_.control().Get().history, own.lsn, history_, position_.lsn);
  const bool behind_us = common == position_.lsn && position_.lsn < own.lsn;
  if (position_.lsn == 0 || position_.term < own.term || behind_us) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "older_source",
                     absl::StrCat("the snapshot ends at LSN ", position_.lsn, " of term ", position_.term,
                                  ", this node holds LSN ", own.lsn, " of term ", own.term),
                     "point this node at the newest primary");
  }
  return absl::OkStatus();
}

absl::Status Bootstrap::CheckSpace(uint64_t estimated_bytes) const {
  const GenerationEnvironment& env = host_.environment();
  TOWLINE_ASSIGN_OR_RETURN(const SpaceInfo space, env.fs.Space(env.data_directory));
  if (space.available_bytes / kSpaceFactor >= estimated_bytes) return absl::OkStatus();
  return MakeError(absl::StatusCode::kResourceExhausted, "disk_full",
                   absl::StrCat("the snapshot has about ", estimated_bytes, " bytes and needs ", kSpaceFactor,
                                " times as much to load; ", space.available_bytes, " bytes are available"),
                   "free space on that disk; the load goes on by itself");
}

absl::Status Bootstrap::StartGeneration() {
  const GenerationEnvironment& env = host_.environment();
  const uint64_t live = host_.control().Get().generation;
  TOWLINE_ASSIGN_OR_RETURN(const std::vector<uint64_t> numbers, ListGenerations(env.fs, env.data_directory));
  number_ = std::max(live, numbers.empty() ? 0 : numbers.back()) + 1;
  TOWLINE_RETURN_IF_ERROR(MakeDirectoryDurably(env.fs, env.data_directory, "gen"));
  TOWLINE_RETURN_IF_ERROR(MakeDirectoryDurably(env.fs, JoinPath(env.data_directory, "gen"), absl::StrCat(number_)));
  TOWLINE_RETURN_IF_ERROR(MakeDirectoryDurably(env.fs, GenerationDirectory(env.data_directory, number_), "db"));
  TOWLINE_ASSIGN_OR_RETURN(std::unique_ptr<StoreBulkLoader> loader,
                           env.stores.NewBulkLoader(StoreDirectory(env.data_directory, number_)));
  installer_ = std::make_unique<SnapshotInstaller>(std::move(loader));
  return absl::OkStatus();
}

absl::Status Bootstrap::TakeChunk(v1::SnapshotChunk& chunk) {
  EncodedChunk encoded;
  encoded.sequence = chunk.sequence();
  encoded.first_key = std::move(*chunk.mutable_first_key());
  encoded.last_key = std::move(*chunk.mutable_last_key());
  encoded.keys = chunk.keys();
  encoded.crc32c = chunk.crc32c();
  encoded.data = std::move(*chunk.mutable_data());
  TOWLINE_RETURN_IF_ERROR(installer_->AddChunk(encoded));
  ++chunks_;
  progress_.keys = installer_->keys();
  progress_.bytes = installer_->bytes();
  const SnapshotMeta& meta = installer_->meta();
  if (meta.position != position_ || meta.cluster_id != cluster_id_) {
    return BadSnapshot(absl::StrCat("the stream is of LSN ", meta.position.lsn, " of cluster ", meta.cluster_id,
                                    ", its header of LSN ", position_.lsn, " of cluster ", cluster_id_));
  }
  return absl::OkStatus();
}

absl::Status Bootstrap::TakeEnd(const v1::SnapshotEnd& end) {
  if (end.chunks() != chunks_ || end.bytes() != progress_.bytes) {
    return BadSnapshot(absl::StrCat("received ", chunks_, " chunks of ", progress_.bytes, " bytes, announced were ",
                                    end.chunks(), " of ", end.bytes()));
  }
  TOWLINE_RETURN_IF_ERROR(installer_->Finish(end.keys(), end.digest()));
  installer_.reset();
  StartQuarantine();
  return absl::OkStatus();
}

// Records that the source does not have are kept, for people, if they were what made the snapshot necessary.
void Bootstrap::StartQuarantine() {
  phase_ = Phase::kSwitch;
  const bool own_records_matter = progress_.reason == "diverged" || progress_.reason == "inexact";
  if (old_ == nullptr || !own_records_matter) return;
  quarantine_ = std::make_unique<RecordQuarantine>(host_.environment(), old_, CommonLsn());
  phase_ = Phase::kQuarantine;
}

Lsn Bootstrap::CommonLsn() const {
  const Lsn common = LastCommonLsn(host_.control().Get().history, old_->spool().end().lsn, history_, position_.lsn);
  return started_.common_lsn() == 0 ? common : std::min<Lsn>(common, started_.common_lsn());
}

StageResult Bootstrap::ContinueQuarantine() {
  const absl::StatusOr<bool> done = quarantine_->Step();
  if (!done.ok()) return Failed(Annotate(done.status(), "copying own records to quarantine"));
  if (!*done) return StageResult::GoOn();
  if (quarantine_->records() != 0) {
    host_.environment().logger.Log(LogLevel::kWarning, "records_quarantined",
                                   {{"reason", progress_.reason},
                                    {"file", quarantine_->file_name()},
                                    {"first_lsn", quarantine_->first_lsn()},
                                    {"records", quarantine_->records()}});
  }
  quarantine_.reset();
  phase_ = Phase::kSwitch;
  return StageResult::GoOn();
}

StageResult Bootstrap::Switch() {
  StageResult switched = SwitchToGeneration(host_, {number_, cluster_id_, history_, position_});
  keep_files_ = switched.kind == StageResult::Kind::kDone || switched.kind == StageResult::Kind::kFatal;
  if (switched.kind == StageResult::Kind::kDone) {
    const int64_t micros = host_.environment().clock.MonotonicMicros() - progress_.started_micros;
    host_.environment().logger.Log(LogLevel::kInfo, "bootstrap_finished",
                                   {{"reason", progress_.reason},
                                    {"generation", number_},
                                    {"lsn", position_.lsn},
                                    {"keys", progress_.keys},
                                    {"bytes", progress_.bytes},
                                    {"ms", micros / 1000}});
  }
  return switched;
}

StageResult Bootstrap::Failed(absl::Status status) const {
  return IsHalt(status) ? StageResult::Halt(std::move(status)) : StageResult::Reconnect(std::move(status));
}

}  // namespace towline
