#include "wal/segment_writer.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/check.h"
#include "common/error.h"
#include "common/failpoint.h"
#include "wal/local_frame.h"

namespace towline::wal {
namespace {

constexpr size_t kSamples = 1024;
// Writes end at a page boundary where they can, so that the kernel never has to read a page of a recycled file first.
constexpr uint64_t kPageBytes = 4096;
constexpr uint64_t kSmallSegmentBytes = 4 << 20;

uint64_t RoundUp(uint64_t value, uint64_t unit) { return (value + unit - 1) / unit * unit; }

}  // namespace

SegmentWriter::SegmentWriter(FileSystem& fs, Clock& clock, Rng& rng, Logger& logger, Options options, LogView& view,
                             IndexStore& indexes, SparePool& spares)
    : fs_(fs),
      clock_(clock),
      rng_(rng),
      logger_(logger),
      options_(std::move(options)),
      view_(view),
      indexes_(indexes),
      spares_(spares),
      end_(view.end()) {}

void SegmentWriter::Resume(std::unique_ptr<File> file, IndexEntries index, bool footer_written) {
  const SegmentSpan newest = view_.Segments().back();
  file_ = std::move(file);
  header_ = newest.segment->header();
  log_start_ = newest.segment->log_start();
  offset_ = newest.end_offset;
  end_ = newest.end;
  index_ = std::move(index);
  footer_written_ = footer_written;
}

absl::Status SegmentWriter::Prepare() {
  if (!poison_.ok()) return poison_;
  return file_ == nullptr || footer_written_ ? Roll(0) : absl::OkStatus();
}

absl::Status SegmentWriter::Append(const std::shared_ptr<FrameGroup>& group) {
  if (!poison_.ok()) return poison_;
  if (group->frames.empty() || group->before != end_) {
    return MakeError(absl::StatusCode::kInvalidArgument, "append_mismatch",
                     absl::StrCat("the group follows LSN ", group->before.lsn, ", the log ends with ", end_.lsn));
  }
  const uint64_t frame_bytes = group->bytes.size();
  if (!Fits(frame_bytes)) TOWLINE_RETURN_IF_ERROR(Roll(frame_bytes));

  TOWLINE_RETURN_IF_ERROR(WriteFrames(group.get()));
  const uint64_t end_offset = offset_ + frame_bytes;
  const bool ack_early = Failpoint("wal_ack_early");
  if (ack_early) Publish(group, end_offset);
  if (!Failpoint("wal_skip_sync")) TOWLINE_RETURN_IF_ERROR(Sync(*file_));
  if (!ack_early) Publish(group, end_offset);
  offset_ = end_offset;
  end_ = group->after;
  return absl::OkStatus();
}

void SegmentWriter::Publish(const std::shared_ptr<FrameGroup>& group, uint64_t end_offset) {
  const size_t indexed = index_.size();
  // From one frame that gets an entry to the next one: there are thousands in between.
  auto frame = group->frames.begin();
  while (true) {
    const auto in_front = [this](const FrameGroup::Ref& ref, uint64_t offset) { return offset_ + ref.offset < offset; };
    const uint64_t next = index_.empty() ? 0 : index_.back().offset + options_.index_interval_bytes;
    frame = std::lower_bound(frame, group->frames.end(), next, in_front);
    if (frame == group->frames.end()) break;
    ShippedHeader header;
    const char* const shipped = group->bytes.data() + frame->offset + kLocalPartSize;
    TOWLINE_CHECK(DecodeShippedHeader(shipped, &header).ok());
    AddToIndex(header, offset_ + frame->offset, options_.index_interval_bytes, &index_);
  }
  view_.Publish(group, end_offset, IndexEntries(index_.begin() + static_cast<ptrdiff_t>(indexed), index_.end()));
  {
    MutexLock lock(&mutex_);
    stats_.records += group->frames.size();
    stats_.bytes += group->bytes.size();
    ++stats_.groups;
    stats_.disk_full = false;
  }
  if (options_.published) options_.published(group->last_lsn());
}

AppendStats SegmentWriter::stats() const {
  MutexLock lock(&mutex_);
  return stats_;
}

bool SegmentWriter::Fits(uint64_t frame_bytes) const {
  return file_ != nullptr && !footer_written_ && offset_ + frame_bytes <= FramesEnd(header_.file_size);
}

absl::Status SegmentWriter::WriteFrames(FrameGroup* group) {
  std::string& bytes = group->bytes;
  if (header_.salt == 0 || group->before.salt_hint != header_.salt) {
    for (const FrameGroup::Ref& ref : group->frames) {
      FinishLocalPart(ref.local_part_begun, header_.salt, bytes.data() + ref.offset);
    }
    group->after.salt_hint = header_.salt;
  }
  const size_t frame_bytes = bytes.size();
  const uint64_t page_end = RoundUp(offset_ + frame_bytes, kPageBytes);
  bytes.resize(static_cast<size_t>(std::min(page_end, FramesEnd(header_.file_size)) - offset_), '\0');
  const absl::Status written = file_->WriteAt(offset_, bytes);
  bytes.resize(frame_bytes);
  return written.ok() ? written : Poison(written);
}

absl::Status SegmentWriter::Roll(uint64_t frame_bytes) {
  const bool replaces_empty = file_ != nullptr && end_.lsn < header_.first_lsn();
  if (file_ != nullptr && !replaces_empty && !footer_written_) TOWLINE_RETURN_IF_ERROR(WriteFooter());
  TOWLINE_ASSIGN_OR_RETURN(Successor successor, MakeSuccessor(frame_bytes));
  return Install(std::move(successor));
}

absl::Status SegmentWriter::WriteFooter() {
  SegmentFooter footer;
  footer.first_lsn = header_.first_lsn();
  footer.records = end_.lsn - header_.before.lsn;
  footer.end = end_;
  footer.end_offset = offset_;
  footer.salt = header_.salt;
  const absl::Status written = file_->WriteAt(FramesEnd(header_.file_size), EncodeSegmentFooter(footer));
  if (!written.ok()) return Poison(written);
  TOWLINE_RETURN_IF_ERROR(Sync(*file_));
  footer_written_ = true;
  return absl::OkStatus();
}

absl::StatusOr<SegmentWriter::Successor> SegmentWriter::MakeSuccessor(uint64_t frame_bytes) {
  // A group that does not fit a segment gets a larger one.
  const uint64_t needed = RoundUp(kFramesStart + frame_bytes + kSectorSize, kPageBytes);
  // Who has no spare waits until the file is filled, and others wait for the disk: a small one, and behind it there
  // will be a spare. The first one of a log never has one.
  const bool small = spares_.ready() == 0 && (file_ == nullptr || spares_.makes_spares());
  const uint64_t size = small ? std::min(spares_.segment_bytes(), kSmallSegmentBytes) : spares_.segment_bytes();
  TOWLINE_ASSIGN_OR_RETURN(Successor successor, OpenBlank(std::max(size, needed)));
  successor.header.cluster_id = options_.cluster_id;
  successor.header.generation = options_.generation;
  successor.header.before = end_;
  successor.header.salt = rng_.Next();
  absl::Status done = successor.file->WriteAt(0, EncodeSegmentHeader(successor.header));
  if (done.ok()) done = successor.file->SyncData();
  if (done.ok()) return successor;
  if (successor.spare || !absl::IsResourceExhausted(done)) return Poison(done);
  // The zeros of a new file, or the header over them where nothing is overwritten in place, found no room.
  successor.file.reset();
  fs_.Remove(successor.path).IgnoreError();
  return DiskFull(done);
}

absl::StatusOr<SegmentWriter::Successor> SegmentWriter::OpenBlank(uint64_t size) {
  Successor blank;
  blank.header.file_size = size;
  while (size == spares_.segment_bytes()) {
    std::optional<std::string> spare = spares_.Take();
    if (!spare.has_value()) break;
    absl::StatusOr<std::unique_ptr<File>> file = fs_.Open(*spare, OpenMode::kReadWrite);
    if (absl::IsNotFound(file.status())) continue;
    if (!file.ok()) return Poison(file.status());
    blank.path = *std::move(spare);
    blank.file = *std::move(file);
    blank.spare = true;
    return blank;
  }
  absl::StatusOr<std::string> path = spares_.CreateFilled(size);
  if (absl::IsResourceExhausted(path.status())) return DiskFull(path.status());
  if (!path.ok()) return Poison(path.status());
  absl::StatusOr<std::unique_ptr<File>> file = fs_.Open(*path, OpenMode::kReadWrite);
  if (!file.ok()) return Poison(file.status());
  blank.path = *std::move(path);
  blank.file = *std::move(file);
  return blank;
}

absl::Status SegmentWriter::Install(Successor successor) {
  const std::string path = JoinPath(options_.directory, SegmentFileName(successor.header.first_lsn()));
  const absl::Status renamed = fs_.Rename(successor.path, path);
  if (absl::IsResourceExhausted(renamed)) {
    if (successor.spare) {
      spares_.Add(successor.path);
    } else {
      fs_.Remove(successor.path).IgnoreError();
    }
    return DiskFull(renamed);
  }
  if (!renamed.ok()) return Poison(renamed);
  if (!Failpoint("wal_skip_directory_sync")) {
    const absl::Status synced = fs_.SyncDirectory(options_.directory);
    if (!synced.ok()) return Poison(synced);
  }
  // Under its new name, which is what errors should tell.
  absl::StatusOr<std::unique_ptr<File>> file = fs_.Open(path, OpenMode::kReadWrite);
  if (!file.ok()) return Poison(file.status());
  const bool replaces_empty = file_ != nullptr && end_.lsn < header_.first_lsn();
  if (file_ != nullptr && !replaces_empty) {
    log_start_ += offset_ - kFramesStart;
    indexes_.Add({header_.first_lsn(), end_.lsn, header_.salt, offset_},
                 std::make_shared<IndexEntries>(std::move(index_)));
  }
  index_.clear();
  file_ = *std::move(file);
  header_ = std::move(successor.header);
  offset_ = kFramesStart;
  footer_written_ = false;
  SegmentSpan span;
  span.segment = std::make_shared<Segment>(fs_, options_.directory, header_, log_start_);
  span.end = end_;
  span.end_offset = offset_;
  view_.AddSegment(std::move(span), {});
  if (options_.rolled) options_.rolled();
  return absl::OkStatus();
}

absl::Status SegmentWriter::Sync(File& file) {
  const int64_t start = clock_.MonotonicMicros();
  absl::Status synced = file.SyncData();
  if (!synced.ok() && Failpoint("wal_retry_failed_sync")) synced = file.SyncData();
  if (!synced.ok()) return Poison(synced);
  const double seconds = static_cast<double>(clock_.MonotonicMicros() - start) * 1e-6;
  MutexLock lock(&mutex_);
  ++stats_.fsyncs;
  stats_.fsync_seconds_sum += seconds;
  if (stats_.fsync_recent_seconds.size() < kSamples) {
    stats_.fsync_recent_seconds.push_back(static_cast<float>(seconds));
  } else {
    stats_.fsync_recent_seconds[next_sample_++ % kSamples] = static_cast<float>(seconds);
  }
  return absl::OkStatus();
}

absl::Status SegmentWriter::Poison(const absl::Status& cause) {
  poison_ = MakeError(absl::StatusCode::kDataLoss, "wal_poisoned",
                      absl::StrCat("the log cannot be written any more: ", cause.message()),
                      "check the disk, then restart the node");
  logger_.Log(LogLevel::kError, "wal_poisoned", {{"error", cause.message()}, {"durable_lsn", end_.lsn}});
  MutexLock lock(&mutex_);
  stats_.poisoned = true;
  return poison_;
}

absl::Status SegmentWriter::DiskFull(const absl::Status& cause) {
  MutexLock lock(&mutex_);
  if (!stats_.disk_full) logger_.Log(LogLevel::kWarning, "wal_disk_full", {{"error", cause.message()}});
  stats_.disk_full = true;
  return MakeError(absl::StatusCode::kResourceExhausted, "disk_full",
                   absl::StrCat("no space for a new segment: ", cause.message()), "free space on that disk");
}

}  // namespace towline::wal
