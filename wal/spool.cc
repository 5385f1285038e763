#include "wal/spool.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/check.h"
#include "common/error.h"
#include "common/failpoint.h"
#include "common/mutex.h"
#include "wal/damage_list.h"
#include "wal/index_store.h"
#include "wal/listeners.h"
#include "wal/log_cursor.h"
#include "wal/log_view.h"
#include "wal/pins.h"
#include "wal/recovery.h"
#include "wal/scrubber.h"
#include "wal/seeker.h"
#include "wal/segment_writer.h"
#include "wal/spare_pool.h"

namespace towline::wal {
namespace {

LogEnd EndOf(const Position& base) { return {base.lsn, base.term, base.chain, 0}; }

// Shares ownership of the list: a pin may outlive its spool.
class SpoolPin : public Pin {
 public:
  SpoolPin(std::shared_ptr<Pins> pins, Lsn first_needed) : pins_(std::move(pins)), id_(pins_->Add(first_needed)) {}
  ~SpoolPin() override { pins_->Remove(id_); }
  void MoveTo(Lsn first_needed) override { pins_->Move(id_, first_needed); }

 private:
  const std::shared_ptr<Pins> pins_;
  const uint64_t id_;
};

class DiskSpool : public Spool {
 public:
  DiskSpool(SpoolEnvironment env, const std::string& directory, const SpoolOptions& options,
            const RecoveryInputs& inputs)
      : env_(env),
        directory_(directory),
        base_(EndOf(inputs.base)),
        view_(base_, options.tail_cache_bytes),
        indexes_(env.fs, directory, options.index_cache_bytes, options.index_interval_bytes, env.logger),
        spares_(env.fs, directory, options.segment_bytes, options.spare_segments, env.logger),
        seeker_(view_, indexes_),
        scrubber_(env, directory, options, view_, indexes_, damages_, [this] { loop_->Wake(); }),
        writer_(env.fs, env.clock, env.rng, env.logger, WriterOptions(options, inputs), view_, indexes_, spares_) {}

  ~DiskSpool() override {
    if (scrub_loop_ != nullptr) scrub_loop_->Stop();
    if (loop_ != nullptr) loop_->Stop();
  }

  // Takes over what recovery found, and makes the segment that is missing.
  absl::Status Start(RecoveredLog log);

  absl::Status Append(std::shared_ptr<FrameGroup> group) override { return writer_.Append(group); }
  LogEnd end() const override { return view_.end(); }
  absl::StatusOr<std::unique_ptr<Cursor>> NewCursor(Lsn from) override;
  absl::StatusOr<LogEnd> EndAt(Lsn lsn) override;
  absl::StatusOr<Lsn> SeekTime(int64_t time_us) override { return seeker_.SeekTime(time_us); }
  uint64_t BytesBehind(Lsn lsn) const override { return seeker_.BytesBehind(lsn); }
  std::unique_ptr<Pin> NewPin(Lsn first_needed) override { return std::make_unique<SpoolPin>(pins_, first_needed); }
  absl::StatusOr<Lsn> Prune(Lsn first_needed, uint64_t keep_bytes,
                            const std::function<absl::Status(Lsn)>& save_first_retained) override;
  SpoolStats stats() const override;
  uint64_t AddDurableListener(std::function<void(Lsn)> fn) override { return listeners_.Add(std::move(fn)); }
  void RemoveListener(uint64_t id) override { listeners_.Remove(id); }

 private:
  SegmentWriter::Options WriterOptions(const SpoolOptions& options, const RecoveryInputs& inputs);
  // Where record `lsn` starts; notes a damage that is in the way.
  absl::StatusOr<Place> Locate(Lsn lsn);
  // One step of the loop that makes spares and writes indexes.
  StepResult StepMaintenance();
  // Removes or recycles the files of segments that are out of the view.
  absl::Status RemoveFiles(std::vector<SegmentSpan> removed) TOWLINE_REQUIRES(maintenance_);
  // Makes a spare of the segment. False if it has to be unlinked.
  absl::StatusOr<bool> Recycle(const SegmentSpan& span, std::vector<std::string>* recycled);

  const SpoolEnvironment env_;
  const std::string directory_;
  const LogEnd base_;
  LogView view_;
  IndexStore indexes_;
  SparePool spares_;
  mutable Seeker seeker_;
  DamageList damages_;
  Scrubber scrubber_;
  Listeners listeners_;
  SegmentWriter writer_;
  const std::shared_ptr<Pins> pins_ = std::make_shared<Pins>();
  Mutex maintenance_;   // one at a time changes files of sealed segments
  bool begun_ = false;  // something was appended; of Append's thread
  std::unique_ptr<Loop> loop_;
  std::unique_ptr<Loop> scrub_loop_;
};

SegmentWriter::Options DiskSpool::WriterOptions(const SpoolOptions& options, const RecoveryInputs& inputs) {
  SegmentWriter::Options writer;
  writer.directory = directory_;
  writer.cluster_id = inputs.cluster_id;
  writer.generation = inputs.generation;
  writer.index_interval_bytes = options.index_interval_bytes;
  writer.published = [this](Lsn durable) {
    listeners_.Call(durable);
    if (!std::exchange(begun_, true) && loop_ != nullptr) loop_->Wake();  // for the spares
  };
  writer.rolled = [this] {
    if (loop_ != nullptr) loop_->Wake();
  };
  return writer;
}

absl::Status DiskSpool::Start(RecoveredLog log) {
  spares_.ReserveNumbers(log.last_number);
  for (std::string& spare : log.spares) spares_.Add(std::move(spare));
  for (size_t i = 0; i < log.segments.size(); ++i) {
    const bool newest = i + 1 == log.segments.size();
    view_.AddSegment(std::move(log.segments[i]), newest ? log.newest_index : IndexEntries());
  }
  const bool empty = log.newest_file == nullptr;
  if (!empty) writer_.Resume(std::move(log.newest_file), std::move(log.newest_index), log.footer_written);
  const absl::Status prepared = writer_.Prepare();
  // A full disk does not keep a node from serving what it has; the next Append tries again.
  if (!prepared.ok() && (empty || !absl::IsResourceExhausted(prepared))) return prepared;
  loop_ = env_.executor.Start(
      "wal-spares", [this] { return StepMaintenance(); }, LoopPriority::kBackground);
  if (scrubber_.enabled()) {
    scrub_loop_ = env_.executor.Start(
        "wal-scrub", [this] { return scrubber_.Step(); }, LoopPriority::kBatch);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Cursor>> DiskSpool::NewCursor(Lsn from) {
  TOWLINE_RETURN_IF_ERROR(view_.Find(from).status());
  const LogEnd end = view_.end();
  if (from == end.lsn + 1) return std::make_unique<LogCursor>(view_, seeker_, damages_, end);  // pins no segment
  absl::StatusOr<Place> place = Locate(from);
  if (absl::IsDataLoss(place.status())) {
    absl::StatusOr<Place> behind_damage = seeker_.LocateAtEntry(from);
    if (behind_damage.ok()) place = std::move(behind_damage);
  }
  if (!place.ok()) return place.status();
  return std::make_unique<LogCursor>(view_, seeker_, damages_, *std::move(place));
}

absl::StatusOr<LogEnd> DiskSpool::EndAt(Lsn lsn) {
  if (lsn == base_.lsn) return base_;
  const LogEnd end = view_.end();
  if (lsn == end.lsn) return end;
  if (lsn + 1 < view_.first_lsn()) {
    return MakeError(absl::StatusCode::kOutOfRange, "wal_removed",
                     absl::StrCat("LSN ", lsn, " is below the first retained LSN ", view_.first_lsn()));
  }
  if (lsn > end.lsn) {
    return MakeError(absl::StatusCode::kOutOfRange, "beyond_end",
                     absl::StrCat("LSN ", lsn, " is above the last durable LSN ", end.lsn));
  }
  TOWLINE_ASSIGN_OR_RETURN(const Place place, Locate(lsn + 1));
  return place.before;
}

absl::StatusOr<Place> DiskSpool::Locate(Lsn lsn) {
  absl::StatusOr<Place> place = seeker_.Locate(lsn);
  if (absl::IsDataLoss(place.status())) (void)damages_.Note(seeker_.Unreadable(place.status()));
  return place;
}

absl::StatusOr<Lsn> DiskSpool::Prune(Lsn first_needed, uint64_t keep_bytes,
                                     const std::function<absl::Status(Lsn)>& save_first_retained) {
  MutexLock lock(&maintenance_);
  const Lsn first = view_.FirstToKeep(pins_->Lowest(first_needed), keep_bytes);
  if (first <= view_.first_lsn()) return view_.first_lsn();
  if (Failpoint("wal_unlink_before_save")) TOWLINE_RETURN_IF_ERROR(RemoveFiles(view_.RemoveBelow(first, *pins_)));
  TOWLINE_RETURN_IF_ERROR(save_first_retained(first));
  // A pin that came meanwhile keeps its records for as long as this process lives.
  TOWLINE_RETURN_IF_ERROR(RemoveFiles(view_.RemoveBelow(first, *pins_)));
  damages_.RemoveBelow(view_.first_lsn());
  return view_.first_lsn();
}

absl::Status DiskSpool::RemoveFiles(std::vector<SegmentSpan> removed) {
  absl::Status first_error;
  std::vector<std::string> recycled;
  for (SegmentSpan& span : removed) {
    const SegmentSpan taken = std::move(span);
    indexes_.Forget(taken.first_lsn());
    env_.fs.Remove(JoinPath(directory_, IndexFileName(taken.first_lsn()))).IgnoreError();  // may never have been there
    const absl::StatusOr<bool> done = Recycle(taken, &recycled);
    absl::Status status = done.status();
    if (done.ok() && !*done) status = env_.fs.Remove(taken.segment->path());
    // The file is out of the log whatever happens; the next start removes what is left.
    if (first_error.ok()) first_error = status;
  }
  if (removed.empty()) return absl::OkStatus();
  TOWLINE_RETURN_IF_ERROR(env_.fs.SyncDirectory(directory_));
  // Only now: until the old name is gone for good, the old contents have to stay.
  for (std::string& path : recycled) spares_.Add(std::move(path));
  return first_error;
}

absl::StatusOr<bool> DiskSpool::Recycle(const SegmentSpan& span, std::vector<std::string>* recycled) {
  if (span.segment->header().file_size != spares_.segment_bytes() || span.segment.use_count() > 1 ||
      !spares_.TakesRecycled(recycled->size())) {
    return false;
  }
  TOWLINE_ASSIGN_OR_RETURN(const uint64_t links, env_.fs.LinkCount(span.segment->path()));
  if (links > 1) return false;
  std::string path = JoinPath(directory_, SpareFileName(spares_.NextNumber()));
  TOWLINE_RETURN_IF_ERROR(env_.fs.Rename(span.segment->path(), path));
  recycled->push_back(std::move(path));
  return true;
}

SpoolStats DiskSpool::stats() const {
  const AppendStats append = writer_.stats();
  const std::vector<SegmentSpan> segments = view_.Segments();
  SpoolStats stats;
  stats.first_lsn = segments.front().first_lsn();
  stats.durable_lsn = segments.back().end.lsn;
  for (const SegmentSpan& span : segments) stats.retained_bytes += span.segment->header().file_size;
  stats.segments = segments.size();
  stats.appended_records = append.records;
  stats.appended_bytes = append.bytes;
  stats.groups = append.groups;
  stats.fsyncs = append.fsyncs;
  stats.fsync_seconds_sum = append.fsync_seconds_sum;
  stats.fsync_recent_seconds = append.fsync_recent_seconds;
  stats.poisoned = append.poisoned;
  stats.disk_full = append.disk_full;
  stats.scrub = scrubber_.stats();
  stats.damaged = damages_.Get();
  return stats;
}

StepResult DiskSpool::StepMaintenance() {
  {
    MutexLock lock(&maintenance_);
    if (indexes_.WriteOne()) return StepResult::Again();
  }
  // A log without records may wait for a snapshot that is still on its way: the disk is that one's.
  if (view_.end().lsn == base_.lsn) return StepResult::WaitForWake();
  return spares_.Step();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Spool>> OpenSpool(SpoolEnvironment env, const std::string& directory,
                                                 const std::string& quarantine_directory, const SpoolOptions& options,
                                                 const RecoveryInputs& inputs, RecoveryReport* report) {
  SpoolOptions effective = options;
  effective.segment_bytes = std::max(options.segment_bytes, kSegmentBytesMin) / kSectorSize * kSectorSize;
  effective.index_interval_bytes = std::max<uint64_t>(options.index_interval_bytes, 1);
  TOWLINE_ASSIGN_OR_RETURN(RecoveredLog log,
                           RecoverLog(env, directory, quarantine_directory, effective, inputs, report));
  auto spool = std::make_unique<DiskSpool>(env, directory, effective, inputs);
  TOWLINE_RETURN_IF_ERROR(spool->Start(std::move(log)));
  return spool;
}

}  // namespace towline::wal
