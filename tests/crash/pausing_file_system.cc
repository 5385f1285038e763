#include "tests/crash/pausing_file_system.h"

#include <utility>

#include "common/error.h"

namespace towline::test {

class PausingFileSystem::PausingFile : public File {
 public:
  PausingFile(PausingFileSystem& fs, std::unique_ptr<File> base) : fs_(fs), base_(std::move(base)) {}

  absl::StatusOr<size_t> ReadAt(uint64_t offset, size_t size, char* buffer) override {
    return base_->ReadAt(offset, size, buffer);
  }
  absl::Status WritePieces(uint64_t offset, absl::Span<const absl::string_view> pieces) override {
    fs_.Count();
    return base_->WritePieces(offset, pieces);
  }
  absl::Status SyncData() override {
    fs_.CountSync();
    return base_->SyncData();
  }
  absl::StatusOr<uint64_t> Size() override { return base_->Size(); }
  absl::Status Truncate(uint64_t size) override {
    fs_.Count();
    return base_->Truncate(size);
  }
  absl::Status Lock() override { return base_->Lock(); }
  void DropCache() override { base_->DropCache(); }
  // Not behind the caller: calls of another thread come in no order that could be counted.
  void WriteDirectly(DirectWrites how) override {
    if (how == DirectWrites::kAtOnce) base_->WriteDirectly(how);
  }

 private:
  PausingFileSystem& fs_;
  const std::unique_ptr<File> base_;
};

PausingFileSystem::PausingFileSystem(FileSystem& base, PausePoint point, std::function<void()> pause)
    : base_(base), point_(point), pause_(std::move(pause)) {}

void PausingFileSystem::Count() {
  if (++calls_ == point_.call) pause_();
}

void PausingFileSystem::CountSync() {
  if (++syncs_ == point_.sync) pause_();
  Count();
}

absl::StatusOr<std::unique_ptr<File>> PausingFileSystem::Open(const std::string& path, OpenMode mode) {
  if (mode == OpenMode::kCreate || mode == OpenMode::kCreateOrOpen) Count();
  TOWLINE_ASSIGN_OR_RETURN(std::unique_ptr<File> file, base_.Open(path, mode));
  return std::make_unique<PausingFile>(*this, std::move(file));
}

absl::StatusOr<std::vector<std::string>> PausingFileSystem::List(const std::string& directory) {
  return base_.List(directory);
}

absl::Status PausingFileSystem::CreateDirectory(const std::string& path) {
  Count();
  return base_.CreateDirectory(path);
}

absl::Status PausingFileSystem::Rename(const std::string& from, const std::string& to) {
  Count();
  return base_.Rename(from, to);
}

absl::Status PausingFileSystem::Remove(const std::string& path) {
  Count();
  return base_.Remove(path);
}

absl::Status PausingFileSystem::SyncDirectory(const std::string& path) {
  CountSync();
  return base_.SyncDirectory(path);
}

absl::Status PausingFileSystem::Link(const std::string& from, const std::string& to) {
  Count();
  return base_.Link(from, to);
}

absl::StatusOr<uint64_t> PausingFileSystem::LinkCount(const std::string& path) { return base_.LinkCount(path); }

absl::StatusOr<SpaceInfo> PausingFileSystem::Space(const std::string& path) { return base_.Space(path); }

}  // namespace towline::test
