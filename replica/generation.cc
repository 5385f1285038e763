#include "replica/generation.h"

#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "replica/log_history.h"

namespace towline {
namespace {

constexpr size_t kCatchUpBatchBytes = 1 << 20;

absl::Status MakeDirectories(const GenerationEnvironment& env, uint64_t number) {
  const std::string directory = GenerationDirectory(env.data_directory, number);
  TOWLINE_RETURN_IF_ERROR(MakeDirectoryDurably(env.fs, env.data_directory, "gen"));
  TOWLINE_RETURN_IF_ERROR(MakeDirectoryDurably(env.fs, JoinPath(env.data_directory, "gen"), absl::StrCat(number)));
  TOWLINE_RETURN_IF_ERROR(env.fs.CreateDirectory(WalDirectory(env.data_directory, number)));
  TOWLINE_RETURN_IF_ERROR(env.fs.CreateDirectory(StoreDirectory(env.data_directory, number)));
  return env.fs.SyncDirectory(directory);
}

// Collects the records of consecutive frames for the applier. A record's chain stands in the frame behind it.
class RecordCollector {
 public:
  explicit RecordCollector(History history) : history_(std::move(history)) {}

  absl::Status Add(const wal::ShippedFrame& frame) {
    const wal::ShippedHeader& header = frame.header;
    if (header.type == wal::RecordType::kTermStart) {
      TOWLINE_ASSIGN_OR_RETURN(const TermStartRecord start, DecodeTermStart(header.lsn, frame.payload));
      MergeEntry(start.entry, &history_);
    }
    TOWLINE_ASSIGN_OR_RETURN(const Position position, PositionAt(history_, {header.lsn, header.term, 0, 0}));
    if (!records_.empty()) records_.back().position.chain = header.prev_chain;
    records_.push_back({position, frame.payload});
    return absl::OkStatus();
  }

  // The records since the last call; `chain` is that behind the last one.
  std::vector<ApplyRecord> Take(uint64_t chain) {
    if (!records_.empty()) records_.back().position.chain = chain;
    return std::exchange(records_, {});
  }

  const History& history() const { return history_; }

 private:
  History history_;
  std::vector<ApplyRecord> records_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Generation>> Generation::Open(const GenerationEnvironment& env, const Control& control,
                                                             std::vector<wal::Watermark> slot_watermarks,
                                                             Lsn first_retained, wal::RecoveryReport* report) {
  std::unique_ptr<Generation> generation(new Generation());
  generation->number_ = control.generation;
  TOWLINE_RETURN_IF_ERROR(MakeDirectories(env, control.generation));

  TOWLINE_ASSIGN_OR_RETURN(std::unique_ptr<Store> store,
                           env.stores.Open(StoreDirectory(env.data_directory, control.generation)));
  TOWLINE_ASSIGN_OR_RETURN(generation->state_, StateStore::Open(std::move(store)));
  TOWLINE_ASSIGN_OR_RETURN(const Lsn persisted, generation->state_->PersistedLsn());

  wal::RecoveryInputs inputs;
  inputs.cluster_id = control.cluster_id;
  inputs.generation = control.generation;
  inputs.base = control.base;
  inputs.first_retained = first_retained;
  inputs.watermarks = std::move(slot_watermarks);
  inputs.watermarks.push_back({"control", control.watermark});
  inputs.watermarks.push_back({"store", persisted});
  wal::RecoveryReport own_report;
  if (report == nullptr) report = &own_report;
  TOWLINE_ASSIGN_OR_RETURN(generation->spool_,
                           wal::OpenSpool({env.fs, env.clock, env.rng, env.executor, env.logger},
                                          WalDirectory(env.data_directory, control.generation),
                                          QuarantineDirectory(env.data_directory), env.spool_options, inputs, report));

  TOWLINE_ASSIGN_OR_RETURN(generation->history_at_open_, HistoryWith(control.history, report->term_starts));
  TOWLINE_RETURN_IF_ERROR(generation->CheckState(control));
  TOWLINE_RETURN_IF_ERROR(generation->CatchUp());

  generation->applier_ = std::make_unique<Applier>(*generation->state_, env.executor, env.clock, env.logger,
                                                   env.applier_options, env.on_fatal);
  generation->applier_->SetAppliedListener([self = generation.get()](Lsn lsn) { self->NotifyApplied(lsn); });
  generation->checkpoints_ =
      RewindCheckpoints::Open({env.fs, env.clock, env.executor, env.logger, env.data_directory, env.rewind_options},
                              control.generation, *generation->state_, *generation->spool_, control.exact_from.lsn);
  return generation;
}

Generation::~Generation() = default;

// The state must be that of a prefix of this log, and the log must hold everything behind it.
absl::Status Generation::CheckState(const Control& control) {
  const Position applied = state_->applied();
  const Lsn end = spool_->end().lsn;
  if (applied.lsn > end) {
    return MakeError(absl::StatusCode::kDataLoss, "store_ahead",
                     absl::StrCat("the store of generation ", number_, " holds records up to ", applied.lsn,
                                  ", its log ends at ", end),
                     "restore the log, or let this node load a snapshot as an empty one");
  }
  const Lsn first = spool_->stats().first_lsn;
  if (applied.lsn < control.base.lsn || (applied.lsn < end && applied.lsn + 1 < first)) {
    return MakeError(absl::StatusCode::kDataLoss, "store_behind",
                     absl::StrCat("the store of generation ", number_, " holds records up to ", applied.lsn,
                                  ", its log begins at ", first),
                     "restore the store, or let this node load a snapshot as an empty one");
  }
  if (applied.lsn == 0) return absl::OkStatus();

  const absl::StatusOr<wal::LogEnd> logged = spool_->EndAt(applied.lsn);
  if (absl::IsOutOfRange(logged.status())) return absl::OkStatus();
  if (!logged.ok()) return logged.status();
  const absl::StatusOr<Position> expected = PositionAt(history_at_open_, *logged);
  if (!expected.ok() || applied != *expected) {
    return MakeError(absl::StatusCode::kDataLoss, "state_mismatch",
                     absl::StrCat("at record ", applied.lsn, " the store of generation ", number_, " stands at term ",
                                  applied.term, ", chain ", absl::Hex(applied.chain), ", its log at term ",
                                  logged->term, ", chain ", absl::Hex(logged->chain)),
                     "let this node load a snapshot as an empty one");
  }
  return absl::OkStatus();
}

// Applies the durable records that the store lacks. On the calling thread: nothing else runs yet.
absl::Status Generation::CatchUp() {
  const wal::LogEnd end = spool_->end();
  Position applied = state_->applied();
  if (applied.lsn == end.lsn) return absl::OkStatus();

  TOWLINE_ASSIGN_OR_RETURN(const std::unique_ptr<wal::Cursor> cursor, spool_->NewCursor(applied.lsn + 1));
  RecordCollector collector(history_at_open_);
  while (applied.lsn < end.lsn) {
    TOWLINE_ASSIGN_OR_RETURN(const wal::ShippedBatch batch, cursor->Next(kCatchUpBatchBytes));
    if (batch.empty() || batch.before.lsn != applied.lsn || batch.before.chain != applied.chain) {
      return MakeError(absl::StatusCode::kDataLoss, "state_mismatch",
                       absl::StrCat("record ", applied.lsn + 1, " of the log does not follow the state: chain ",
                                    absl::Hex(batch.before.chain), ", expected ", absl::Hex(applied.chain)));
    }
    TOWLINE_RETURN_IF_ERROR(
        wal::ForEachShipped(batch.bytes, [&](const wal::ShippedFrame& frame) { return collector.Add(frame); }));
    TOWLINE_RETURN_IF_ERROR(state_->Apply(collector.Take(batch.after.chain)));
    applied = state_->applied();
  }
  history_at_open_ = collector.history();
  return absl::OkStatus();
}

absl::Status Generation::AppendAndApply(std::shared_ptr<wal::FrameGroup> group, const History& history,
                                        std::function<void()> done) {
  RecordCollector collector(history);
  for (size_t i = 0; i < group->frames.size(); ++i) {
    TOWLINE_ASSIGN_OR_RETURN(const wal::ShippedFrame frame, wal::DecodeShipped(group->shipped(i)));
    TOWLINE_RETURN_IF_ERROR(collector.Add(frame));
  }
  TOWLINE_RETURN_IF_ERROR(spool_->Append(group));

  // The append may have moved the bytes.
  ApplyBatch batch;
  batch.records = collector.Take(group->after.chain);
  for (size_t i = 0; i < batch.records.size(); ++i) batch.records[i].payload = group->payload(i);
  batch.bytes = group->bytes.size();
  batch.done = std::move(done);
  batch.keep_alive = std::move(group);
  applier_->Enqueue(std::move(batch));
  return absl::OkStatus();
}

uint64_t Generation::AddAppliedListener(std::function<void(Lsn)> fn) {
  MutexLock lock(&listeners_mutex_);
  const uint64_t id = next_listener_++;
  listeners_.emplace(id, std::move(fn));
  return id;
}

void Generation::RemoveAppliedListener(uint64_t id) {
  MutexLock lock(&listeners_mutex_);
  listeners_.erase(id);
}

void Generation::NotifyApplied(Lsn lsn) {
  MutexLock lock(&listeners_mutex_);
  for (const auto& [id, fn] : listeners_) fn(lsn);
}

absl::Status Generation::Close() {
  MutexLock lock(&close_mutex_);
  if (closed_) return absl::OkStatus();
  checkpoints_->Stop();
  applier_->Stop();
  TOWLINE_RETURN_IF_ERROR(state_->store().Flush(/*wait=*/true));
  closed_ = true;
  return absl::OkStatus();
}

}  // namespace towline
