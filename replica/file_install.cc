#include "replica/file_install.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

#include "common/checksum.h"
#include "common/data_layout.h"
#include "common/error.h"
#include "common/names.h"
#include "towline/v1/replication_service.pb.h"

namespace towline {
namespace {

constexpr char kPart[] = "part";
constexpr size_t kCrcDigits = 8;
constexpr size_t kNameSizeMax = 64;
constexpr size_t kReadBytes = 1 << 20;
constexpr int kFilesMax = 100'000;

absl::Status Bad(absl::string_view what) { return MakeError(absl::StatusCode::kDataLoss, "bad_snapshot", what); }

bool IsFileName(absl::string_view name) {
  if (name.empty() || name.size() > kNameSizeMax || name[0] == '.') return false;
  return std::all_of(name.begin(), name.end(),
                     [](char c) { return absl::ascii_isalnum(c) || c == '.' || c == '-' || c == '_'; });
}

absl::StatusOr<uint32_t> CrcOf(File& file, uint64_t size) {
  std::string buffer(std::min<uint64_t>(size, kReadBytes), '\0');
  uint32_t crc = 0;
  for (uint64_t offset = 0; offset < size;) {
    const size_t wanted = std::min<uint64_t>(buffer.size(), size - offset);
    TOWLINE_ASSIGN_OR_RETURN(const size_t read, file.ReadAt(offset, wanted, buffer.data()));
    if (read == 0) break;
    crc = Crc32cExtend(crc, absl::string_view(buffer.data(), read));
    offset += read;
  }
  return crc;
}

}  // namespace

FileInstall::FileInstall(FileSystem& fs, std::string directory) : fs_(fs), directory_(std::move(directory)) {}

std::string FileInstall::PartPath(absl::string_view name) const {
  return JoinPath(directory_, absl::StrCat(name, ".", kPart));
}

std::string FileInstall::WholePath(absl::string_view name, uint32_t crc32c) const {
  return JoinPath(directory_, absl::StrCat(name, ".", absl::Hex(crc32c, absl::kZeroPad8)));
}

std::string FileInstall::PathOf(const std::string& name, const Held& held) const {
  return held.whole ? WholePath(name, held.crc32c) : PartPath(name);
}

absl::Status FileInstall::LoadPart(const std::string& name) {
  TOWLINE_ASSIGN_OR_RETURN(const std::unique_ptr<File> file, fs_.Open(PartPath(name), OpenMode::kRead));
  Held held;
  TOWLINE_ASSIGN_OR_RETURN(held.bytes, file->Size());
  held.bytes -= held.bytes % kDirectAlignment;  // what follows shall be aligned, too
  TOWLINE_ASSIGN_OR_RETURN(held.crc32c, CrcOf(*file, held.bytes));
  held_.emplace(name, held);
  return absl::OkStatus();
}

absl::Status FileInstall::LoadFile(const std::string& entry) {
  const size_t dot = entry.rfind('.');
  const std::string name = dot == std::string::npos ? "" : entry.substr(0, dot);
  const std::string suffix = dot == std::string::npos ? "" : entry.substr(dot + 1);
  Held held;
  held.whole = suffix.size() == kCrcDigits && absl::SimpleHexAtoi(suffix, &held.crc32c);
  if (!IsFileName(name) || held_.count(name) != 0 || (!held.whole && suffix != kPart)) return Bad("none of ours");
  if (!held.whole) return LoadPart(name);
  TOWLINE_ASSIGN_OR_RETURN(const std::unique_ptr<File> file, fs_.Open(JoinPath(directory_, entry), OpenMode::kRead));
  TOWLINE_ASSIGN_OR_RETURN(held.bytes, file->Size());
  held.durable = held.bytes;
  held_.emplace(name, held);
  return absl::OkStatus();
}

absl::Status FileInstall::Load() {
  const absl::StatusOr<std::vector<std::string>> names = fs_.List(directory_);
  if (absl::IsNotFound(names.status())) return absl::OkStatus();
  TOWLINE_RETURN_IF_ERROR(names.status());
  for (const std::string& entry : *names) {
    // What cannot be read is sent again.
    if (!LoadFile(entry).ok()) TOWLINE_RETURN_IF_ERROR(RemoveAll(fs_, JoinPath(directory_, entry)));
  }
  for (const auto& [name, held] : held_) bytes_ += held.bytes;
  return absl::OkStatus();
}

uint64_t FileInstall::durable_bytes() const {
  uint64_t bytes = 0;
  for (const auto& [name, held] : held_) bytes += held.durable;
  return bytes;
}

void FileInstall::FillHeld(v1::FetchSnapshotRequest* request) const {
  for (const auto& [name, held] : held_) {
    if (held.bytes == 0) continue;
    v1::SnapshotFile* file = request->add_held();
    file->set_name(name);
    file->set_held_bytes(held.bytes);
    file->set_held_crc32c(held.crc32c);
  }
}

absl::Status FileInstall::CheckHeader(const v1::SnapshotHeader& header) const {
  if (header.files_size() > kFilesMax) return Bad(absl::StrCat("it names ", header.files_size(), " files"));
  const std::string* last = nullptr;
  for (const v1::SnapshotFile& file : header.files()) {
    const std::string& name = file.name();
    if (!IsFileName(name)) return Bad(absl::StrCat("no file is called ", Printable(name)));
    if (last != nullptr && name <= *last) return Bad("the names of files do not rise");
    last = &name;
    const auto found = held_.find(name);
    const uint64_t held = found == held_.end() ? 0 : found->second.bytes;
    if (file.held_bytes() != 0 && (file.held_bytes() != held || held > file.size())) {
      return Bad(absl::StrCat("file ", name, " of ", file.size(), " bytes is to go on behind ", file.held_bytes(),
                              " bytes, held are ", held));
    }
  }
  return absl::OkStatus();
}

absl::Status FileInstall::Drop(const std::string& name) {
  const auto found = held_.find(name);
  if (found == held_.end()) return absl::OkStatus();
  const std::string path = PathOf(name, found->second);
  held_.erase(found);
  return RemoveAll(fs_, path);
}

absl::Status FileInstall::Begin(const v1::SnapshotHeader& header) {
  TOWLINE_RETURN_IF_ERROR(CheckHeader(header));
  TOWLINE_RETURN_IF_ERROR(MakeDirectoryDurably(fs_, ParentDirectory(directory_), "files"));
  open_.reset();
  files_.clear();
  std::map<std::string, uint64_t> useful;
  for (const v1::SnapshotFile& file : header.files()) {
    files_.push_back({file.name(), file.size()});
    if (file.held_bytes() != 0) useful.emplace(file.name(), file.size());
  }
  std::vector<std::string> useless;
  for (const auto& [name, held] : held_) {
    if (useful.count(name) == 0) useless.push_back(name);
  }
  for (const std::string& name : useless) TOWLINE_RETURN_IF_ERROR(Drop(name));
  bytes_ = 0;
  for (auto& [name, held] : held_) {
    bytes_ += held.bytes;
    if (!held.whole || held.bytes == useful[name]) continue;
    // The same file, which has grown: its name stands for its sum.
    TOWLINE_RETURN_IF_ERROR(fs_.Rename(PathOf(name, held), PartPath(name)));
    held.whole = false;
  }
  next_ = 0;
  return SkipWhole();
}

absl::Status FileInstall::SkipWhole() {
  for (; next_ < files_.size(); ++next_) {
    const Named& file = files_[next_];
    const auto found = held_.find(file.name);
    if (found != held_.end() && found->second.whole) continue;
    const uint64_t bytes = found == held_.end() ? 0 : found->second.bytes;
    if (bytes < file.size) return absl::OkStatus();
    // Nothing will be sent of it.
    TOWLINE_RETURN_IF_ERROR(OpenPart(file));
    TOWLINE_RETURN_IF_ERROR(MakeWhole(file));
  }
  return absl::OkStatus();
}

absl::Status FileInstall::OpenPart(const Named& file) {
  if (open_ != nullptr) return absl::OkStatus();
  TOWLINE_ASSIGN_OR_RETURN(std::unique_ptr<File> opened, fs_.Open(PartPath(file.name), OpenMode::kCreateOrOpen));
  const Held& held = held_[file.name];
  TOWLINE_ASSIGN_OR_RETURN(const uint64_t size, opened->Size());
  if (size < held.bytes) {
    bytes_ -= held.bytes;
    Drop(file.name).IgnoreError();
    return Bad(absl::StrCat("file ", file.name, " has lost what was received of it"));
  }
  // What a write that failed, or a crash, left behind what is known.
  TOWLINE_RETURN_IF_ERROR(opened->Truncate(held.bytes));
  // The old state is served meanwhile, from what the kernel has cached of it.
  opened->WriteDirectly(DirectWrites::kBehind);
  open_ = std::move(opened);
  return absl::OkStatus();
}

absl::Status FileInstall::CheckNext(const v1::SnapshotFileChunk& chunk, const absl::Cord& data) const {
  if (next_ == files_.size()) return Bad("a piece of a file arrived behind the last one");
  const Named& file = files_[next_];
  const auto found = held_.find(file.name);
  const uint64_t bytes = found == held_.end() ? 0 : found->second.bytes;
  if (chunk.file() != next_ || chunk.offset() != bytes || data.size() > file.size - bytes ||
      (data.empty() && bytes < file.size)) {
    return Bad(absl::StrCat("a piece of ", data.size(), " bytes is of file ", chunk.file(), " from byte ",
                            chunk.offset(), ", expected is file ", next_, " (", file.name, ", ", file.size,
                            " bytes) from byte ", bytes));
  }
  uint32_t crc = found == held_.end() ? 0 : found->second.crc32c;
  for (const absl::string_view part : data.Chunks()) crc = Crc32cExtend(crc, part);
  if (crc == chunk.crc32c()) return absl::OkStatus();
  return Bad(absl::StrCat("a piece of file ", file.name, " from byte ", bytes, " has a wrong checksum"));
}

absl::Status FileInstall::Add(const v1::SnapshotFileChunk& chunk, const absl::Cord& data) {
  TOWLINE_RETURN_IF_ERROR(CheckNext(chunk, data));
  const Named& file = files_[next_];
  TOWLINE_RETURN_IF_ERROR(OpenPart(file));
  Held& held = held_[file.name];
  const std::vector<absl::string_view> parts(data.chunk_begin(), data.chunk_end());
  if (absl::Status written = open_->WritePieces(held.bytes, parts); !written.ok()) {
    Recount(file.name);
    return written;
  }
  held.bytes += data.size();
  held.crc32c = chunk.crc32c();
  bytes_ += data.size();
  if (held.bytes < file.size) return absl::OkStatus();
  TOWLINE_RETURN_IF_ERROR(MakeWhole(file));
  ++next_;
  return SkipWhole();
}

// Behind a failed write: pieces that had been taken before it may be missing, too.
void FileInstall::Recount(const std::string& name) {
  open_.reset();
  bytes_ -= held_[name].bytes;
  held_.erase(name);
  if (LoadPart(name).ok()) {
    bytes_ += held_[name].bytes;
  } else {
    RemoveAll(fs_, PartPath(name)).IgnoreError();
  }
}

absl::Status FileInstall::Sync(const Named& file) {
  // Waits for what is written behind us.
  if (absl::Status written = open_->Size().status(); !written.ok()) {
    Recount(file.name);
    return written;
  }
  Held& held = held_[file.name];
  absl::Status synced = open_->SyncData();
  if (synced.ok()) {
    held.durable = held.bytes;
    return synced;
  }
  // What reached the disk is not known, and a second sync would not say it.
  open_.reset();
  bytes_ -= held.bytes;
  Drop(file.name).IgnoreError();
  return synced;
}

absl::Status FileInstall::Commit() { return open_ == nullptr ? absl::OkStatus() : Sync(files_[next_]); }

absl::Status FileInstall::MakeWhole(const Named& file) {
  TOWLINE_RETURN_IF_ERROR(Sync(file));
  open_.reset();
  Held& held = held_[file.name];
  TOWLINE_RETURN_IF_ERROR(fs_.Rename(PartPath(file.name), WholePath(file.name, held.crc32c)));
  held.whole = true;
  return absl::OkStatus();
}

absl::Status FileInstall::Finish(const std::string& store_directory) {
  if (files_.empty()) return Bad("no files were named");
  if (next_ < files_.size())
    return Bad(absl::StrCat("the stream ended before file ", files_[next_].name, " was whole"));
  TOWLINE_RETURN_IF_ERROR(RemoveAll(fs_, store_directory));
  TOWLINE_RETURN_IF_ERROR(fs_.CreateDirectory(store_directory));
  for (const Named& file : files_) {
    TOWLINE_RETURN_IF_ERROR(fs_.Link(PathOf(file.name, held_[file.name]), JoinPath(store_directory, file.name)));
  }
  TOWLINE_RETURN_IF_ERROR(fs_.SyncDirectory(store_directory));
  return fs_.SyncDirectory(ParentDirectory(store_directory));
}

void FileInstall::RemoveOwnNames() { RemoveAll(fs_, directory_).IgnoreError(); }

}  // namespace towline
