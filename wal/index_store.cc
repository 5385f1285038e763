#include "wal/index_store.h"

#include <algorithm>
#include <utility>

#include "common/error.h"
#include "wal/frame_reader.h"

namespace towline::wal {
namespace {

uint64_t Bytes(const IndexEntries& entries) { return sizeof(IndexEntries) + entries.capacity() * sizeof(IndexEntry); }

// Under its final name the file is whole, whatever crashes. The name may be lost.
absl::Status WriteIndexFile(FileSystem& fs, const std::string& directory, Lsn first_lsn, absl::string_view bytes) {
  const std::string tmp = JoinPath(directory, TmpIndexFileName(first_lsn));
  TOWLINE_ASSIGN_OR_RETURN(std::unique_ptr<File> file, fs.Open(tmp, OpenMode::kCreateOrOpen));
  TOWLINE_RETURN_IF_ERROR(file->Truncate(0));
  TOWLINE_RETURN_IF_ERROR(file->WriteAt(0, bytes));
  TOWLINE_RETURN_IF_ERROR(file->SyncData());
  file.reset();
  return fs.Rename(tmp, JoinPath(directory, IndexFileName(first_lsn)));
}

}  // namespace

BuiltIndex BuildIndex(const SegmentSpan& span, uint64_t interval) {
  BuiltIndex built;
  built.end = span.segment->header().before;
  absl::StatusOr<std::shared_ptr<File>> file = span.segment->OpenFile();
  if (!file.ok()) {
    built.damage = PlaceError(absl::StatusCode::kDataLoss, "wal_damaged", file.status().message(), span.segment->path(),
                              0, span.first_lsn());
    return built;
  }
  std::string buffer;
  FrameReader reader(**file, span, kFramesStart, built.end, kReadBytesMax, &buffer);
  while (true) {
    const uint64_t offset = reader.offset();
    absl::StatusOr<const LocalFrame*> frame = reader.Next();
    if (!frame.ok()) {
      built.damage = std::move(frame).status();
      break;
    }
    if (*frame == nullptr) break;
    AddToIndex((*frame)->frame.header, offset, interval, &built.entries);
  }
  built.end = reader.position();
  if (built.damage.ok() && built.end != span.end) {
    built.damage =
        PlaceError(absl::StatusCode::kDataLoss, "wal_damaged", "the frames end elsewhere than the footer says",
                   span.segment->path(), reader.offset(), built.end.lsn + 1);
  }
  return built;
}

IndexStore::IndexStore(FileSystem& fs, std::string directory, uint64_t cache_bytes, uint64_t interval, Logger& logger)
    : fs_(fs), directory_(std::move(directory)), cache_bytes_(cache_bytes), interval_(interval), logger_(logger) {}

void IndexStore::Add(const IndexOwner& owner, SharedIndex index) {
  MutexLock lock(&mutex_);
  Insert(owner.first_lsn, index);
  queue_.push_back({owner, std::move(index)});
}

SharedIndex IndexStore::Get(const SegmentSpan& span) {
  const Lsn first_lsn = span.first_lsn();
  {
    MutexLock lock(&mutex_);
    const auto found = cache_.find(first_lsn);
    if (found != cache_.end()) {
      uses_.splice(uses_.begin(), uses_, found->second.use);
      return found->second.index;
    }
  }
  SharedIndex loaded = Load(span);
  if (loaded == nullptr) return nullptr;
  MutexLock lock(&mutex_);
  Insert(first_lsn, loaded);
  return loaded;
}

SharedIndex IndexStore::FindQueued(Lsn first_lsn) const {
  for (const Queued& queued : queue_) {
    if (queued.owner.first_lsn == first_lsn) return queued.index;
  }
  return nullptr;
}

SharedIndex IndexStore::Load(const SegmentSpan& span) const {
  {
    MutexLock lock(&mutex_);
    if (SharedIndex queued = FindQueued(span.first_lsn()); queued != nullptr) return queued;
  }
  const absl::StatusOr<std::string> bytes = ReadFile(fs_, JoinPath(directory_, IndexFileName(span.first_lsn())));
  if (!bytes.ok()) return nullptr;
  auto entries = std::make_shared<IndexEntries>();
  std::string what;
  if (!DecodeIndex(*bytes, span.owner(), entries.get(), &what)) {
    logger_.Log(LogLevel::kWarning, "wal_index_unusable", {{"segment", span.segment->path()}, {"what", what}});
    return nullptr;
  }
  return entries;
}

BuiltIndex IndexStore::Rebuild(const SegmentSpan& span) {
  {
    MutexLock lock(&mutex_);
    Erase(span.first_lsn());
  }
  BuiltIndex built = BuildIndex(span, interval_);
  if (built.damage.ok()) Add(span.owner(), std::make_shared<IndexEntries>(built.entries));
  return built;
}

bool IndexStore::WriteOne() {
  Queued next;
  {
    MutexLock lock(&mutex_);
    if (queue_.empty()) return false;
    next = queue_.front();
  }
  const Lsn first_lsn = next.owner.first_lsn;
  const absl::Status written = WriteIndexFile(fs_, directory_, first_lsn, EncodeIndex(next.owner, *next.index));
  if (!written.ok()) {
    logger_.Log(LogLevel::kWarning, "wal_index_not_written", {{"first_lsn", first_lsn}, {"error", written.message()}});
  }
  MutexLock lock(&mutex_);
  if (!queue_.empty() && queue_.front().index == next.index) queue_.pop_front();
  return true;
}

void IndexStore::Forget(Lsn first_lsn) {
  MutexLock lock(&mutex_);
  Erase(first_lsn);
  queue_.erase(std::remove_if(queue_.begin(), queue_.end(),
                              [&](const Queued& queued) { return queued.owner.first_lsn == first_lsn; }),
               queue_.end());
}

void IndexStore::Insert(Lsn first_lsn, SharedIndex index) {
  Erase(first_lsn);
  used_bytes_ += Bytes(*index);
  uses_.push_front(first_lsn);
  cache_[first_lsn] = {std::move(index), uses_.begin()};
  while (used_bytes_ > cache_bytes_ && !uses_.empty()) {
    const Lsn oldest = uses_.back();
    Erase(oldest);
  }
}

void IndexStore::Erase(Lsn first_lsn) {
  const auto found = cache_.find(first_lsn);
  if (found == cache_.end()) return;
  used_bytes_ -= Bytes(*found->second.index);
  uses_.erase(found->second.use);
  cache_.erase(found);
}

}  // namespace towline::wal
