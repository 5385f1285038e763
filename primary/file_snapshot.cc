#include "primary/file_snapshot.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "common/checksum.h"
#include "common/data_layout.h"
#include "common/error.h"
#include "store/state_checkpoint.h"
#include "towline/v1/replication_service.pb.h"

namespace towline {
namespace {

constexpr char kUnfinished[] = "making";

// The engine's settings, which every node has of its own.
bool IsOfNoUse(const std::string& name) { return absl::StartsWith(name, "OPTIONS"); }

std::string BaseName(const std::string& path) { return path.substr(path.find_last_of('/') + 1); }

absl::Status Damaged(const FileSnapshot::Entry& file, absl::string_view what) {
  return MakeError(absl::StatusCode::kDataLoss, "store_file_damaged",
                   absl::StrCat("file ", file.name, " of the store ", what),
                   "check the disk of this node, and let the replica load from another one");
}

}  // namespace

// What the file SNAPSHOT says of itself is that the copy is whole: it has its name only with it.
absl::StatusOr<std::unique_ptr<FileSnapshot>> FileSnapshot::Make(FileSystem& fs, StateStore& state,
                                                                 const std::string& parent, uint64_t id,
                                                                 uint64_t created_unix_s) {
  TOWLINE_RETURN_IF_ERROR(MakeDirectoryDurably(fs, ParentDirectory(parent), BaseName(parent)));
  std::unique_ptr<FileSnapshot> snapshot(new FileSnapshot(fs, JoinPath(parent, kUnfinished)));
  TOWLINE_RETURN_IF_ERROR(snapshot->Fill(state, created_unix_s));
  const std::string directory = JoinPath(parent, absl::StrCat(absl::Hex(id)));
  TOWLINE_RETURN_IF_ERROR(fs.Rename(snapshot->directory_, directory));
  snapshot->directory_ = directory;
  TOWLINE_RETURN_IF_ERROR(fs.SyncDirectory(parent));
  return snapshot;
}

absl::Status FileSnapshot::Fill(StateStore& state, uint64_t created_unix_s) {
  TOWLINE_ASSIGN_OR_RETURN(const StateCheckpoint made, CheckpointState(state, fs_, directory_));
  record_.position = made.position;
  record_.created_unix_s = created_unix_s;
  record_.estimated_keys = state.store().Stats().estimated_keys;
  TOWLINE_ASSIGN_OR_RETURN(const std::vector<std::string> names, fs_.List(directory_));
  for (const std::string& name : names) {
    if (IsOfNoUse(name)) continue;
    Entry entry{name, 0, std::nullopt};
    TOWLINE_ASSIGN_OR_RETURN(const std::unique_ptr<File> file, Open(entry));
    TOWLINE_ASSIGN_OR_RETURN(entry.size, file->Size());
    if (const auto sum = made.sums.find(name); sum != made.sums.end()) entry.crc32c = sum->second;
    bytes_ += entry.size;
    record_.files.push_back(std::move(entry));
  }
  return WriteFileDurably(fs_, directory_, kFileSnapshotName, EncodeFileSnapshot(record_));
}

absl::StatusOr<std::unique_ptr<FileSnapshot>> FileSnapshot::Load(FileSystem& fs, const std::string& parent,
                                                                 uint64_t id) {
  std::unique_ptr<FileSnapshot> snapshot(new FileSnapshot(fs, JoinPath(parent, absl::StrCat(absl::Hex(id)))));
  TOWLINE_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(fs, JoinPath(snapshot->directory_, kFileSnapshotName)));
  TOWLINE_ASSIGN_OR_RETURN(snapshot->record_, DecodeFileSnapshot(bytes));
  TOWLINE_RETURN_IF_ERROR(snapshot->Check());
  return snapshot;
}

absl::Status FileSnapshot::Check() {
  for (const Entry& entry : record_.files) {
    TOWLINE_ASSIGN_OR_RETURN(const std::unique_ptr<File> file, Open(entry));
    TOWLINE_ASSIGN_OR_RETURN(const uint64_t size, file->Size());
    if (size != entry.size) {
      return MakeError(absl::StatusCode::kDataLoss, "snapshot_damaged",
                       absl::StrCat("file ", entry.name, " has ", size, " bytes, not ", entry.size));
    }
    bytes_ += size;
  }
  return absl::OkStatus();
}

// What cannot be removed goes at the next start.
FileSnapshot::~FileSnapshot() {
  if (!leave_.load()) RemoveAll(fs_, directory_).IgnoreError();
}

uint64_t FileSnapshot::PinnedBytes() const {
  uint64_t bytes = 0;
  for (const Entry& file : record_.files) {
    const absl::StatusOr<uint64_t> names = fs_.LinkCount(JoinPath(directory_, file.name));
    if (names.ok() && *names == 1) bytes += file.size;
  }
  return bytes;
}

absl::StatusOr<std::unique_ptr<File>> FileSnapshot::Open(const Entry& file) const {
  return fs_.Open(JoinPath(directory_, file.name), OpenMode::kRead);
}

FileSender::FileSender(const FileSnapshot& snapshot) : snapshot_(snapshot), starts_(snapshot.files().size()) {}

absl::StatusOr<bool> FileSender::Holds(const FileSnapshot::Entry& file, const HeldFile& held) {
  if (held.bytes > file.size) return false;
  if (held.bytes == file.size && file.crc32c.has_value()) return held.crc32c == *file.crc32c;
  if (held.bytes > kCompareBytesMax - compared_) return false;
  compared_ += held.bytes;
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

absl::StatusOr<bool> FileSender::Next(v1::SnapshotFileChunk* out, size_t most) {
  const std::vector<FileSnapshot::Entry>& files = snapshot_.files();
  if (open_ == nullptr) {
    while (index_ < files.size() && starts_[index_].offset == files[index_].size) ++index_;
    if (index_ == files.size()) return false;
    at_ = starts_[index_];
    TOWLINE_ASSIGN_OR_RETURN(open_, snapshot_.Open(files[index_]));
  }
  const FileSnapshot::Entry& file = files[index_];
  const size_t size = std::min<uint64_t>(most, file.size - at_.offset);
  std::string& data = *out->mutable_data();
  data.resize(size);
  TOWLINE_ASSIGN_OR_RETURN(const size_t read, open_->ReadAt(at_.offset, size, data.data()));
  if (read != size) return Damaged(file, absl::StrCat("ends at byte ", at_.offset + read, ", not at ", file.size));
  out->set_file(static_cast<uint32_t>(index_));
  out->set_offset(at_.offset);
  at_ = {at_.offset + size, Crc32cExtend(at_.crc32c, data)};
  out->set_crc32c(at_.crc32c);
  sent_ += size;
  ++chunks_;
  if (at_.offset < file.size) return true;
  if (file.crc32c.has_value() && *file.crc32c != at_.crc32c)
    return Damaged(file, "is not what was written: its checksum differs");
  open_.reset();
  ++index_;
  return true;
}

}  // namespace towline
