#include "tests/support/sim_file_system.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "common/check.h"
#include "common/error.h"
#include "gtest/gtest.h"
#include "tests/support/seeded_rng.h"

namespace towline::test {
namespace {

constexpr size_t kLogSizeMax = 100000;

constexpr size_t kOrderViolationsMax = 20;

bool IsLogged(SimCall kind) {
  return kind != SimCall::kOpen && kind != SimCall::kRead && kind != SimCall::kLock && kind != SimCall::kList;
}

}  // namespace

// An open file. Its methods lock the file system.
class SimFile : public File {
 public:
  SimFile(SimFileSystem* fs, Ino ino, int64_t epoch, bool writable, std::string path)
      : fs_(*fs), ino_(ino), epoch_(epoch), writable_(writable), path_(std::move(path)) {}

  ~SimFile() override {
    MutexLock lock(&fs_.mutex_);
    if (fs_.epoch_ != epoch_) return;
    --fs_.disk_.Mutable(ino_).handles;
    const auto held = fs_.locks_.find(ino_);
    if (held != fs_.locks_.end() && held->second == this) fs_.locks_.erase(held);
  }

  absl::StatusOr<size_t> ReadAt(uint64_t offset, size_t size, char* buffer) override {
    if (!late_.ok()) return late_;
    MutexLock lock(&fs_.mutex_);
    TOWLINE_RETURN_IF_ERROR(Begin(SimCall::kRead, "read"));
    const SimInode& inode = fs_.disk_.Get(ino_);
    if (inode.directory) return FileError(EISDIR, "read", path_);
    return inode.visible.Read(offset, size, buffer);
  }

  absl::Status WritePieces(uint64_t offset, absl::Span<const absl::string_view> pieces) override {
    if (!late_.ok()) return late_;
    absl::Status status = WriteLocked(offset, absl::StrJoin(pieces, ""));
    fs_.AfterCall();
    if (behind_) late_.Update(std::exchange(status, absl::OkStatus()));
    return status;
  }

  absl::Status SyncData() override {
    if (!late_.ok()) return late_;
    const absl::Status status = SyncLocked();
    fs_.AfterCall();
    return status;
  }

  absl::StatusOr<uint64_t> Size() override {
    if (!late_.ok()) return late_;
    MutexLock lock(&fs_.mutex_);
    TOWLINE_RETURN_IF_ERROR(CheckUsable());
    return fs_.disk_.Get(ino_).visible.size();
  }

  absl::Status Truncate(uint64_t size) override {
    if (!late_.ok()) return late_;
    const absl::Status status = TruncateLocked(size);
    fs_.AfterCall();
    return status;
  }

  absl::Status Lock() override {
    MutexLock lock(&fs_.mutex_);
    TOWLINE_RETURN_IF_ERROR(Begin(SimCall::kLock, "flock"));
    const File*& holder = fs_.locks_[ino_];
    if (holder != nullptr && holder != this) return FileError(EWOULDBLOCK, "flock", path_);
    holder = this;
    return absl::OkStatus();
  }

  void DropCache() override {}
  void WriteDirectly(DirectWrites how) override { behind_ = behind_ || how == DirectWrites::kBehind; }

 private:
  absl::Status CheckUsable() TOWLINE_REQUIRES(fs_.mutex_) {
    return fs_.epoch_ == epoch_ ? absl::OkStatus() : FileError(EBADF, "use of a file from before a crash:", path_);
  }

  absl::Status Begin(SimCall kind, absl::string_view label) TOWLINE_REQUIRES(fs_.mutex_) {
    TOWLINE_RETURN_IF_ERROR(CheckUsable());
    return fs_.Begin(kind, path_, absl::StrCat(label, " ", path_));
  }

  absl::Status WriteLocked(uint64_t offset, absl::string_view data) TOWLINE_EXCLUDES(fs_.mutex_) {
    MutexLock lock(&fs_.mutex_);
    const absl::Status status = Begin(SimCall::kWrite, "write");
    TOWLINE_RETURN_IF_ERROR(CheckUsable());
    if (!writable_) return FileError(EBADF, "write", path_);
    if (!status.ok()) {
      if (data.size() > 1) fs_.disk_.Write(ino_, offset, data.substr(0, data.size() / 2));
      return status;
    }
    TOWLINE_RETURN_IF_ERROR(fs_.CheckSpace(ino_, offset, data.size(), path_));
    fs_.disk_.Write(ino_, offset, data);
    return absl::OkStatus();
  }

  absl::Status SyncLocked() TOWLINE_EXCLUDES(fs_.mutex_) {
    MutexLock lock(&fs_.mutex_);
    const absl::Status status = Begin(SimCall::kSync, "sync");
    TOWLINE_RETURN_IF_ERROR(CheckUsable());
    if (status.ok() || fs_.failed_sync_persists_) {
      fs_.disk_.SyncFile(ino_);
    } else {
      fs_.disk_.LoseWrites(ino_);
    }
    return status;
  }

  absl::Status TruncateLocked(uint64_t size) TOWLINE_EXCLUDES(fs_.mutex_) {
    MutexLock lock(&fs_.mutex_);
    TOWLINE_RETURN_IF_ERROR(Begin(SimCall::kTruncate, "truncate"));
    if (!writable_) return FileError(EBADF, "truncate", path_);
    fs_.disk_.Truncate(ino_, size);
    return absl::OkStatus();
  }

  SimFileSystem& fs_;
  const Ino ino_;
  const int64_t epoch_;
  const bool writable_;
  const std::string path_;
  bool behind_ = false;  // as WriteDirectly said
  absl::Status late_;    // of a write behind the caller
};

SimFileSystem::SimFileSystem() = default;
SimFileSystem::SimFileSystem(SimDisk disk) : disk_(std::move(disk)) {}

SimFileSystem::~SimFileSystem() {
  if (order_violations_expected_) return;
  for (const std::string& violation : order_violations_) ADD_FAILURE() << "order of syncs: " << violation;
}

absl::StatusOr<std::unique_ptr<File>> SimFileSystem::Open(const std::string& path, OpenMode mode) {
  std::unique_ptr<File> file;
  bool created = false;
  {
    MutexLock lock(&mutex_);
    TOWLINE_ASSIGN_OR_RETURN(const Ino ino, OpenInode(path, mode, &created));
    ++disk_.Mutable(ino).handles;
    file = std::make_unique<SimFile>(this, ino, epoch_, mode != OpenMode::kRead, path);
  }
  if (created) AfterCall();
  return file;
}

absl::StatusOr<Ino> SimFileSystem::OpenInode(const std::string& path, OpenMode mode, bool* created) {
  std::string name;
  const Ino parent = disk_.FindParent(path, &name);
  Ino ino = disk_.Find(path);
  *created = ino == 0 && parent != 0 && (mode == OpenMode::kCreate || mode == OpenMode::kCreateOrOpen);
  TOWLINE_RETURN_IF_ERROR(Begin(*created ? SimCall::kCreate : SimCall::kOpen, path, absl::StrCat("create ", path)));
  if (*created) return disk_.Create(parent, name, false);
  if (ino == 0) return FileError(ENOENT, "open", path);
  if (mode == OpenMode::kCreate) return FileError(EEXIST, "open", path);
  if (mode != OpenMode::kRead && disk_.Get(ino).directory) return FileError(EISDIR, "open", path);
  return ino;
}

absl::StatusOr<std::vector<std::string>> SimFileSystem::List(const std::string& directory) {
  MutexLock lock(&mutex_);
  TOWLINE_RETURN_IF_ERROR(Begin(SimCall::kList, directory, ""));
  const Ino ino = disk_.Find(directory);
  if (ino == 0) return FileError(ENOENT, "opendir", directory);
  if (!disk_.Get(ino).directory) return FileError(ENOTDIR, "opendir", directory);
  std::vector<std::string> names;
  for (const auto& [name, target] : disk_.Get(ino).names) names.push_back(name);
  return names;
}

absl::Status SimFileSystem::CreateDirectory(const std::string& path) {
  const absl::Status status = [&] {
    MutexLock lock(&mutex_);
    TOWLINE_RETURN_IF_ERROR(Begin(SimCall::kMakeDirectory, path, absl::StrCat("mkdir ", path)));
    const Ino ino = disk_.Find(path);
    if (ino != 0) return disk_.Get(ino).directory ? absl::OkStatus() : FileError(EEXIST, "mkdir", path);
    std::string name;
    const Ino parent = disk_.FindParent(path, &name);
    if (parent == 0) return FileError(ENOENT, "mkdir", path);
    disk_.Create(parent, name, true);
    return absl::OkStatus();
  }();
  AfterCall();
  return status;
}

absl::Status SimFileSystem::Rename(const std::string& from, const std::string& to) {
  const absl::Status status = [&] {
    MutexLock lock(&mutex_);
    TOWLINE_RETURN_IF_ERROR(
        Begin(SimCall::kRename, absl::StrCat(from, " ", to), absl::StrCat("rename ", from, " ", to)));
    return Move(from, to);
  }();
  AfterCall();
  return status;
}

absl::Status SimFileSystem::Move(const std::string& from, const std::string& to) {
  const Ino ino = disk_.Find(from);
  const Ino replaced = disk_.Find(to);
  std::string from_name;
  std::string to_name;
  const Ino from_parent = disk_.FindParent(from, &from_name);
  const Ino to_parent = disk_.FindParent(to, &to_name);
  if (ino == 0 || from_parent == 0 || to_parent == 0) return FileError(ENOENT, "rename", from + " to " + to);
  if (ino == replaced) return absl::OkStatus();
  if (replaced != 0) {
    const SimInode& old = disk_.Get(replaced);
    if (old.directory != disk_.Get(ino).directory) return FileError(EISDIR, "rename", from + " to " + to);
    if (old.directory && !old.names.empty()) return FileError(ENOTEMPTY, "rename", from + " to " + to);
  }
  if (!disk_.Get(ino).writes.empty() && order_violations_.size() < kOrderViolationsMax) {
    order_violations_.push_back(absl::StrCat("rename ", from, " ", to, ": it has contents that were not synced"));
  }
  SimNameChange change;
  change.entries = {{to_name, ino}};
  if (from_parent == to_parent) change.entries.push_back({from_name, 0});
  disk_.ChangeNames(to_parent, std::move(change));
  if (from_parent != to_parent) disk_.ChangeNames(from_parent, SimNameChange{{{from_name, 0}}, 0, false});
  return absl::OkStatus();
}

absl::Status SimFileSystem::Remove(const std::string& path) {
  const absl::Status status = [&] {
    MutexLock lock(&mutex_);
    TOWLINE_RETURN_IF_ERROR(Begin(SimCall::kRemove, path, absl::StrCat("remove ", path)));
    const Ino ino = disk_.Find(path);
    std::string name;
    const Ino parent = disk_.FindParent(path, &name);
    if (ino == 0 || parent == 0) return FileError(ENOENT, "remove", path);
    if (!disk_.Get(ino).names.empty()) return FileError(ENOTEMPTY, "remove", path);
    disk_.ChangeNames(parent, SimNameChange{{{name, 0}}, 0, false});
    return absl::OkStatus();
  }();
  AfterCall();
  return status;
}

absl::Status SimFileSystem::SyncDirectory(const std::string& path) {
  const absl::Status status = [&] {
    MutexLock lock(&mutex_);
    TOWLINE_RETURN_IF_ERROR(Begin(SimCall::kSyncDirectory, path, absl::StrCat("syncdir ", path)));
    const Ino ino = disk_.Find(path);
    if (ino == 0) return FileError(ENOENT, "open", path);
    if (!disk_.Get(ino).directory) return FileError(ENOTDIR, "open", path);
    disk_.SyncDirectory(ino);
    return absl::OkStatus();
  }();
  AfterCall();
  return status;
}

absl::Status SimFileSystem::Link(const std::string& from, const std::string& to) {
  const absl::Status status = [&] {
    MutexLock lock(&mutex_);
    TOWLINE_RETURN_IF_ERROR(Begin(SimCall::kLink, absl::StrCat(from, " ", to), absl::StrCat("link ", from, " ", to)));
    const Ino ino = disk_.Find(from);
    std::string name;
    const Ino parent = disk_.FindParent(to, &name);
    if (ino == 0 || parent == 0) return FileError(ENOENT, "link", from + " to " + to);
    if (disk_.Get(ino).directory) return FileError(EPERM, "link", from + " to " + to);
    if (disk_.Find(to) != 0) return FileError(EEXIST, "link", from + " to " + to);
    disk_.ChangeNames(parent, SimNameChange{{{name, ino}}, 0, false});
    return absl::OkStatus();
  }();
  AfterCall();
  return status;
}

absl::StatusOr<uint64_t> SimFileSystem::LinkCount(const std::string& path) {
  MutexLock lock(&mutex_);
  const Ino ino = disk_.Find(path);
  if (ino == 0) return FileError(ENOENT, "stat", path);
  return static_cast<uint64_t>(disk_.Get(ino).links);
}

absl::StatusOr<SpaceInfo> SimFileSystem::Space(const std::string& path) {
  MutexLock lock(&mutex_);
  if (disk_.Find(path) == 0) return FileError(ENOENT, "statvfs", path);
  const uint64_t total = quota_ == 0 ? uint64_t{1} << 40 : quota_;
  return SpaceInfo{total, total - std::min(total, disk_.UsedBytes())};
}

// Counts and logs a call. Returns its injected failure, if any.
absl::Status SimFileSystem::Begin(SimCall kind, const std::string& path, const std::string& label) {
  ++calls_;
  if (IsLogged(kind)) {
    log_.push_back(label);
    if (log_.size() > kLogSizeMax) log_.pop_front();
  }
  if (fail_at_ != 0 && (calls_ == fail_at_ || (fail_sticky_ && calls_ > fail_at_))) return fail_status_;
  for (auto it = fail_next_.begin(); it != fail_next_.end(); ++it) {
    if (it->kind != kind || !absl::StrContains(path, it->part)) continue;
    absl::Status status = std::move(it->status);
    fail_next_.erase(it);
    return status;
  }
  return absl::OkStatus();
}

absl::Status SimFileSystem::CheckSpace(Ino ino, uint64_t offset, size_t size, const std::string& path) {
  if (quota_ == 0) return absl::OkStatus();
  const uint64_t more = disk_.Get(ino).visible.BytesToAllocate(offset, size);
  if (more == 0 || disk_.UsedBytes() + more <= quota_) return absl::OkStatus();
  return FileError(ENOSPC, "write", path);
}

void SimFileSystem::AfterCall() {
  std::function<void()> hook;
  {
    MutexLock lock(&mutex_);
    hook = after_call_;
  }
  if (hook) hook();
}

// --- Ends of the process and of the power ---

void SimFileSystem::Crash(CrashProfile profile, Rng& rng) {
  MutexLock lock(&mutex_);
  disk_ = disk_.AfterCrash(profile, rng);
  locks_.clear();
  ++epoch_;
}

void SimFileSystem::Reopen() {
  MutexLock lock(&mutex_);
  disk_.CloseAll();
  locks_.clear();
  ++epoch_;
}

std::unique_ptr<SimFileSystem> SimFileSystem::CloneAfterCrash(CrashProfile profile, uint64_t seed) const {
  SeededRng rng(seed);
  MutexLock lock(&mutex_);
  auto clone = std::unique_ptr<SimFileSystem>(new SimFileSystem(disk_.AfterCrash(profile, rng)));
  if (order_violations_expected_) clone->ExpectOrderViolations();
  return clone;
}

std::unique_ptr<SimFileSystem> SimFileSystem::Clone() const {
  MutexLock lock(&mutex_);
  SimDisk disk = disk_;
  disk.CloseAll();
  auto clone = std::unique_ptr<SimFileSystem>(new SimFileSystem(std::move(disk)));
  if (order_violations_expected_) clone->ExpectOrderViolations();
  return clone;
}

void ForEachCrashState(const SimFileSystem& fs, int samples, const std::function<void(SimFileSystem&)>& fn) {
  const auto call = [&](CrashProfile profile, uint64_t seed) {
    SCOPED_TRACE(::testing::Message() << "power loss: profile " << CrashProfileName(profile) << ", seed " << seed);
    fn(*fs.CloneAfterCrash(profile, seed));
  };
  call(CrashProfile::kStrict, 1);
  for (int i = 1; i <= samples; ++i) call(CrashProfile::kExt4Like, static_cast<uint64_t>(i));
  for (int i = 1; i <= samples; ++i) call(CrashProfile::kAdversary, static_cast<uint64_t>(i));
}

}  // namespace towline::test
