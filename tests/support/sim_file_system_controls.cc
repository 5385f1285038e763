// How tests meddle with a SimFileSystem.

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

#include "common/check.h"
#include "tests/support/sim_file_system.h"

namespace towline::test {
namespace {

void AddContents(const SimDisk& disk, Ino directory, const std::string& prefix,
                 std::map<std::string, std::string>* contents) {
  for (const auto& [name, ino] : disk.Get(directory).names) {
    const std::string path = absl::StrCat(prefix, name);
    if (disk.Get(ino).directory) {
      AddContents(disk, ino, absl::StrCat(path, "/"), contents);
    } else {
      (*contents)[path] = disk.Get(ino).visible.ToString();
    }
  }
}

// The file at `path`, made if absent with the directories above it.
Ino FindOrCreate(SimDisk& disk, const std::string& path) {
  std::string part_path;
  for (absl::string_view part : absl::StrSplit(path, '/', absl::SkipEmpty())) {
    std::string name;
    absl::StrAppend(&part_path, "/", part);
    const Ino parent = disk.FindParent(part_path, &name);
    TOWLINE_CHECK(parent != 0);
    if (disk.Find(part_path) == 0) disk.Create(parent, name, part_path.size() < path.size());
  }
  return disk.Find(path);
}

}  // namespace

int64_t SimFileSystem::calls() const {
  MutexLock lock(&mutex_);
  return calls_;
}

void SimFileSystem::FailCall(int64_t n, absl::Status status, bool sticky) {
  MutexLock lock(&mutex_);
  fail_at_ = n;
  fail_sticky_ = sticky;
  fail_status_ = std::move(status);
}

void SimFileSystem::FailNext(SimCall kind, absl::Status status, std::string part) {
  MutexLock lock(&mutex_);
  fail_next_.push_back({kind, std::move(part), std::move(status)});
}

void SimFileSystem::ClearFailures() {
  MutexLock lock(&mutex_);
  fail_at_ = 0;
  fail_next_.clear();
}

void SimFileSystem::SetFailedSyncPersists(bool persists) {
  MutexLock lock(&mutex_);
  failed_sync_persists_ = persists;
}

void SimFileSystem::SetQuota(uint64_t bytes) {
  MutexLock lock(&mutex_);
  quota_ = bytes;
}

bool SimFileSystem::IsDurable(const std::string& path) const {
  MutexLock lock(&mutex_);
  const Ino ino = disk_.Find(path);
  if (ino == 0 || !disk_.Get(ino).writes.empty()) return false;
  std::string at = path;
  for (Ino target = ino; !at.empty() && at != "/";) {
    std::string name;
    const Ino parent = disk_.FindParent(at, &name);
    const auto found = disk_.Get(parent).durable_names.find(name);
    if (found == disk_.Get(parent).durable_names.end() || found->second != target) return false;
    target = parent;
    const size_t slash = at.rfind('/');
    at = slash == std::string::npos ? "" : at.substr(0, slash);
  }
  return true;
}

void SimFileSystem::AddOrderViolation(std::string what) {
  MutexLock lock(&mutex_);
  order_violations_.push_back(std::move(what));
}

std::vector<std::string> SimFileSystem::order_violations() const {
  MutexLock lock(&mutex_);
  return order_violations_;
}

void SimFileSystem::ExpectOrderViolations() {
  MutexLock lock(&mutex_);
  order_violations_expected_ = true;
}

void SimFileSystem::SetAfterCall(std::function<void()> hook) {
  MutexLock lock(&mutex_);
  after_call_ = std::move(hook);
}

std::vector<std::string> SimFileSystem::log() const {
  MutexLock lock(&mutex_);
  return {log_.begin(), log_.end()};
}

void SimFileSystem::ClearLog() {
  MutexLock lock(&mutex_);
  log_.clear();
}

bool SimFileSystem::HasFile(const std::string& path) const {
  MutexLock lock(&mutex_);
  const Ino ino = disk_.Find(path);
  return ino != 0 && !disk_.Get(ino).directory;
}

std::string SimFileSystem::Contents(const std::string& path) const {
  MutexLock lock(&mutex_);
  const Ino ino = disk_.Find(path);
  TOWLINE_CHECK(ino != 0);
  return disk_.Get(ino).visible.ToString();
}

void SimFileSystem::SetContents(const std::string& path, absl::string_view bytes) {
  MutexLock lock(&mutex_);
  SimImage image;
  image.Write(0, bytes);
  disk_.Overwrite(FindOrCreate(disk_, path), image);
  disk_.SyncAllNames();
}

void SimFileSystem::FlipBit(const std::string& path, uint64_t bit) {
  MutexLock lock(&mutex_);
  const Ino ino = disk_.Find(path);
  TOWLINE_CHECK(ino != 0);
  SimImage image = disk_.Get(ino).visible;
  TOWLINE_CHECK(bit / 8 < image.size());
  char byte = 0;
  image.Read(bit / 8, 1, &byte);
  byte = static_cast<char>(byte ^ (1 << (bit % 8)));
  image.Write(bit / 8, absl::string_view(&byte, 1));
  disk_.Overwrite(ino, image);
}

std::vector<std::string> SimFileSystem::Names(const std::string& directory) const {
  MutexLock lock(&mutex_);
  const Ino ino = disk_.Find(directory);
  TOWLINE_CHECK(ino != 0);
  std::vector<std::string> names;
  for (const auto& [name, target] : disk_.Get(ino).names) names.push_back(name);
  return names;
}

std::map<std::string, std::string> SimFileSystem::AllContents() const {
  MutexLock lock(&mutex_);
  std::map<std::string, std::string> contents;
  AddContents(disk_, disk_.Find("/"), "", &contents);
  return contents;
}

}  // namespace towline::test
