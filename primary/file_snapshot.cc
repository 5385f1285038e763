#include "primary/file_snapshot.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "common/checksum.h"
#include "common/error.h"
#include "store/state_checkpoint.h"
#include "towline/v1/replication_service.pb.h"

namespace towline {
namespace {

// The engine's settings, which every node has of its own.
bool IsOfNoUse(const std::string& name) { return absl::StartsWith(name, "OPTIONS"); }

absl::Status Damaged(const FileSnapshot::Entry& file, absl::string_view what) {
  return MakeError(absl::StatusCode::kDataLoss, "store_file_damaged",
                   absl::StrCat("file ", file.name, " of the store ", what),
                   "check the disk of this node, and let the replica load from another one");
}

}  // namespace

absl::StatusOr<std::unique_ptr<FileSnapshot>> FileSnapshot::Make(FileSystem& fs, StateStore& state,
                                                                 std::string directory) {
  TOWLINE_RETURN_IF_ERROR(fs.CreateDirectory(ParentDirectory(directory)));
  std::unique_ptr<FileSnapshot> snapshot(new FileSnapshot(fs, std::move(directory)));
  const std::string& path = snapshot->directory_;
  TOWLINE_ASSIGN_OR_RETURN(const StateCheckpoint made, CheckpointState(state, fs, path));
  snapshot->position_ = made.position;
  TOWLINE_ASSIGN_OR_RETURN(const std::vector<std::string> names, fs.List(path));
  for (const std::string& name : names) {
    if (IsOfNoUse(name)) continue;
    Entry entry{name, 0, std::nullopt};
    TOWLINE_ASSIGN_OR_RETURN(const std::unique_ptr<File> file, snapshot->Open(entry));
    TOWLINE_ASSIGN_OR_RETURN(entry.size, file->Size());
    if (const auto sum = made.sums.find(name); sum != made.sums.end()) entry.crc32c = sum->second;
    snapshot->bytes_ += entry.size;
    snapshot->files_.push_back(std::move(entry));
  }
  return snapshot;
}

// What cannot be removed goes at the next start.
FileSnapshot::~FileSnapshot() { RemoveAll(fs_, directory_).IgnoreError(); }

uint64_t FileSnapshot::PinnedBytes() const {
  uint64_t bytes = 0;
  for (const Entry& file : files_) {
    const absl::StatusOr<uint64_t> names = fs_.LinkCount(JoinPath(directory_, file.name));
    if (names.ok() && *names == 1) bytes += file.size;
  }
  return bytes;
}

absl::StatusOr<std::unique_ptr<File>> FileSnapshot::Open(const Entry& file) const {
  return fs_.Open(JoinPath(directory_, file.name), OpenMode::kRead);
}

FileSender::FileSender(const FileSnapshot& snapshot) : snapshot_(snapshot), starts_(snapshot.files().size()) {}

absl::StatusOr<bool> FileSender::Holds(const FileSnapshot::Entry& file, const HeldFile& held) const {
  if (held.bytes > file.size) return false;
  if (held.bytes == file.size && file.crc32c.has_value()) return held.crc32c == *file.crc32c;
  TOWLINE_ASSIGN_OR_RETURN(const std::unique_ptr<File> opened, snapshot_.Open(file));
  std::string buffer(std::min<uint64_t>(held.bytes, kFileChunkBytes), '\0');
  uint32_t crc = 0;
  for (uint64_t offset = 0; offset < held.bytes;) {
    const size_t size = std::min<uint64_t>(buffer.size(), held.bytes - offset);
    TOWLINE_ASSIGN_OR_RETURN(const size_t read, opened->ReadAt(offset, size, buffer.data()));
    if (read != size) return Damaged(file, absl::StrCat("ends at byte ", offset + read, ", not at ", file.size));
    crc = Crc32cExtend(crc, absl::string_view(buffer.data(), read));
    offset += read;
  }
  return crc == held.crc32c;
}

absl::Status FileSender::LeaveOut(absl::Span<const HeldFile> held) {
  for (const HeldFile& part : held) {
    const std::vector<FileSnapshot::Entry>& files = snapshot_.files();
    const auto file = std::lower_bound(files.begin(), files.end(), part.name,
                                       [](const auto& entry, const std::string& name) { return entry.name < name; });
    if (file == files.end() || file->name != part.name || part.bytes == 0) continue;
    Point& start = starts_[static_cast<size_t>(file - files.begin())];
    if (start.offset != 0) continue;  // it was named twice
    TOWLINE_ASSIGN_OR_RETURN(const bool holds, Holds(*file, part));
    if (!holds) continue;
    start = {part.bytes, part.crc32c};
    left_out_ += part.bytes;
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> FileSender::Next(v1::SnapshotFileChunk* out) {
  const std::vector<FileSnapshot::Entry>& files = snapshot_.files();
  if (open_ == nullptr) {
    while (index_ < files.size() && starts_[index_].offset == files[index_].size) ++index_;
    if (index_ == files.size()) return false;
    at_ = starts_[index_];
    TOWLINE_ASSIGN_OR_RETURN(open_, snapshot_.Open(files[index_]));
  }
  const FileSnapshot::Entry& file = files[index_];
  const size_t size = std::min<uint64_t>(kFileChunkBytes, file.size - at_.offset);
  std::string& data = *out->mutable_data();
  data.resize(size);
  TOWLINE_ASSIGN_OR_RETURN(const size_t read, open_->ReadAt(at_.offset, size, data.data()));
  if (read != size) return Damaged(file, absl::StrCat("ends at byte ", at_.offset + read, ", not at ", file.size));
  out->set_file(static_cast<uint32_t>(index_));
  out->set_offset(at_.offset);
  out->set_crc32c(Crc32c(data));
  at_ = {at_.offset + size, Crc32cExtend(at_.crc32c, data)};
  sent_ += size;
  ++chunks_;
  if (at_.offset < file.size) return true;
  if (file.crc32c.has_value() && *file.crc32c != at_.crc32c)
    return Damaged(file, "is not what was written: its checksum differs");
  out->set_file_crc32c(at_.crc32c);
  open_.reset();
  ++index_;
  return true;
}

}  // namespace towline
