#include "wal/scrubber.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "wal/segment_set.h"

namespace towline::wal {
namespace {

constexpr uint64_t kPieceBytes = kReadBytesMax;

// Header and footer as the disk has them now, against what the log was opened or written with.
absl::Status CheckEndsOf(const SegmentFile& disk, const SegmentSpan& span) {
  TOWLINE_RETURN_IF_ERROR(disk.header_status);
  TOWLINE_RETURN_IF_ERROR(disk.footer_status);
  const SegmentHeader& header = span.segment->header();
  if (disk.header.salt != header.salt || disk.header.before != header.before ||
      disk.header.cluster_id != header.cluster_id || disk.header.generation != header.generation) {
    return PlaceError(absl::StatusCode::kDataLoss, "wal_damaged", "the header is not the one that was written",
                      disk.path, 0, span.first_lsn());
  }
  if (disk.footer.end != span.end || disk.footer.end_offset != span.end_offset) {
    return PlaceError(absl::StatusCode::kDataLoss, "wal_damaged", "the footer is not the one that was written",
                      disk.path, FramesEnd(disk.file_size), span.first_lsn());
  }
  return absl::OkStatus();
}

}  // namespace

Scrubber::Scrubber(SpoolEnvironment env, std::string directory, const SpoolOptions& options, LogView& view,
                   IndexStore& indexes, DamageList& damages, std::function<void()> index_queued)
    : env_(env),
      directory_(std::move(directory)),
      bytes_per_second_(options.scrub_bytes_per_second),
      index_interval_(options.index_interval_bytes),
      interval_micros_(options.scrub_interval_micros),
      view_(view),
      indexes_(indexes),
      damages_(damages),
      index_queued_(std::move(index_queued)) {}

ScrubStats Scrubber::stats() const {
  MutexLock lock(&mutex_);
  return stats_;
}

StepResult Scrubber::Step() {
  if (!in_pass_) {
    in_pass_ = true;
    pass_start_ = env_.clock.MonotonicMicros();
    next_lsn_ = 0;
    pass_ = ScrubStats();
  }
  if (reading_ == nullptr && !NextSegment()) {
    FinishPass();
    const int64_t passed = env_.clock.MonotonicMicros() - pass_start_;
    // Not at once, even if a pass takes longer than the interval: a log without sealed segments would spin.
    return StepResult::WaitFor(std::max<int64_t>(interval_micros_ - passed, 1000000));
  }
  const uint64_t before = pass_.last_pass_bytes;
  if (ReadFrames(kPieceBytes)) FinishSegment();
  const uint64_t bytes = pass_.last_pass_bytes - before;
  {
    MutexLock lock(&mutex_);
    stats_.bytes += bytes;
  }
  return StepResult::WaitFor(static_cast<int64_t>(bytes * 1000000 / bytes_per_second_));
}

bool Scrubber::NextSegment() {
  for (SegmentSpan& span : view_.Segments()) {
    if (!span.sealed || span.first_lsn() < next_lsn_) continue;
    next_lsn_ = span.end.lsn + 1;
    absl::StatusOr<std::shared_ptr<File>> file = span.segment->OpenFile();
    // Pruning may have taken it in this moment.
    if (!file.ok() && span.end.lsn < view_.first_lsn()) continue;
    reading_ = std::make_unique<Reading>();
    reading_->span = std::move(span);
    if (!file.ok()) {
      AddSegmentDamage(file.status(), false);
      return true;
    }
    reading_->file = *std::move(file);
    reading_->file->DropCache();
    reading_->index = indexes_.Load(reading_->span);
    reading_->reader.emplace(*reading_->file, reading_->span, kFramesStart, reading_->span.segment->header().before,
                             kReadBytesMax, &buffer_);
    CheckEnds();
    return true;
  }
  return false;
}

void Scrubber::CheckEnds() {
  const SegmentSpan& span = reading_->span;
  const absl::StatusOr<SegmentFile> disk = ReadSegmentFile(env_.fs, directory_, span.first_lsn());
  const absl::Status damage = disk.ok() ? CheckEndsOf(*disk, span) : disk.status();
  if (!damage.ok()) AddSegmentDamage(damage, true);
}

void Scrubber::AddSegmentDamage(const absl::Status& damage, bool readable) {
  const SegmentSpan& span = reading_->span;
  DamagedRange range = RangeOf(damage);
  range.file = span.segment->path();
  range.first_lsn = span.first_lsn();
  range.last_lsn = span.end.lsn;
  range.readable = readable;
  AddDamage(std::move(range));
}

bool Scrubber::ReadFrames(uint64_t bytes) {
  Reading& reading = *reading_;
  if (!reading.reader.has_value()) return true;
  const uint64_t until = reading.reader->offset() + bytes;
  while (reading.reader->offset() < until) {
    const uint64_t offset = reading.reader->offset();
    const absl::StatusOr<const LocalFrame*> frame = reading.reader->Next();
    if (!frame.ok()) {
      if (!SkipDamage(frame.status())) return true;
      continue;
    }
    if (*frame == nullptr) {
      if (reading.reader->position() == reading.span.end) return true;
      DamagedRange range = RangeOf(PlaceError(absl::StatusCode::kDataLoss, "wal_damaged", "the log ends differently",
                                              reading.span.segment->path(), offset, reading.span.end.lsn));
      AddDamage(std::move(range));
      return true;
    }
    const ShippedHeader& header = (*frame)->frame.header;
    pass_.last_pass_bytes += (*frame)->size;
    AddToIndex(header, offset, index_interval_, &reading.seen);
    const IndexEntry actual = {header.lsn, header.commit_time_us, offset, header.prev_chain};
    if (reading.index != nullptr && reading.next_entry < reading.index->size() &&
        (*reading.index)[reading.next_entry] == actual) {
      ++reading.next_entry;
    }
  }
  return false;
}

bool Scrubber::SkipDamage(const absl::Status& damage) {
  Reading& reading = *reading_;
  DamagedRange range = RangeOf(damage);
  range.last_lsn = reading.span.end.lsn;
  const SharedIndex index = indexes_.Get(reading.span);
  const IndexEntry* const next = index == nullptr ? nullptr : EntryBehind(*index, range.first_lsn);
  if (next != nullptr) range.last_lsn = next->lsn - 1;
  AddDamage(std::move(range));
  if (next == nullptr) return false;
  reading.reader.emplace(*reading.file, reading.span, next->offset, FrameReader::UnknownTerm(*next), kReadBytesMax,
                         &buffer_);
  return true;
}

void Scrubber::AddDamage(DamagedRange range) {
  std::vector<DamagedRange>& damages = reading_->damages;
  if (!damages.empty() && !range.readable && !damages.back().readable &&
      damages.back().last_lsn + 1 == range.first_lsn) {
    damages.back().last_lsn = range.last_lsn;
    return;
  }
  damages.push_back(std::move(range));
}

void Scrubber::FinishSegment() {
  const std::unique_ptr<Reading> owned = std::move(reading_);
  Reading& reading = *owned;
  if (reading.file != nullptr) reading.file->DropCache();
  const SegmentSpan& span = reading.span;
  ++pass_.last_pass_segments;
  if (span.end.lsn < view_.first_lsn()) return;  // removed meanwhile
  const bool index_good = reading.index != nullptr && reading.next_entry == reading.index->size();
  if (reading.damages.empty() && !index_good) {
    indexes_.Add(span.owner(), std::make_shared<IndexEntries>(std::move(reading.seen)));
    env_.logger.Log(LogLevel::kWarning, "wal_index_rebuilt", {{"segment", span.segment->path()}});
    ++pass_.indexes_rebuilt;
    index_queued_();
  }
  for (const DamagedRange& range : reading.damages) {
    env_.logger.Log(LogLevel::kError, "wal_scrub_damage",
                    {{"file", range.file},
                     {"offset", range.offset},
                     {"first_lsn", range.first_lsn},
                     {"last_lsn", range.last_lsn},
                     {"readable", range.readable},
                     {"what", range.what},
                     {"next_action", "docs/guides/exit-codes.md, \"Damage that a running node reports\""}});
  }
  pass_.last_pass_damages += reading.damages.size();
  damages_.Replace(span.first_lsn(), span.end.lsn, std::move(reading.damages));
  damages_.RemoveBelow(view_.first_lsn());
}

void Scrubber::FinishPass() {
  in_pass_ = false;
  std::string().swap(buffer_);
  const int64_t now = env_.clock.MonotonicMicros();
  MutexLock lock(&mutex_);
  ++stats_.passes;
  stats_.last_pass_end_us = env_.clock.WallMicros();
  stats_.last_pass_micros = now - pass_start_;
  stats_.last_pass_bytes = pass_.last_pass_bytes;
  stats_.last_pass_segments = pass_.last_pass_segments;
  stats_.last_pass_damages = pass_.last_pass_damages;
  stats_.indexes_rebuilt += pass_.indexes_rebuilt;
}

}  // namespace towline::wal
