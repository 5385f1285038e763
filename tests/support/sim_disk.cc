#include "tests/support/sim_disk.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "absl/strings/str_split.h"

#include "common/check.h"

namespace towline::test {
namespace {

constexpr Ino kRoot = 1;

void Apply(const SimNameChange& change, std::map<std::string, Ino>* names) {
  for (const auto& [name, ino] : change.entries) {
    if (ino == 0) {
      names->erase(name);
    } else {
      (*names)[name] = ino;
    }
  }
}

void Apply(const SimWrite& write, SimImage* image) {
  if (write.truncate) {
    image->Truncate(write.offset);
  } else {
    image->Write(write.offset, *write.data);
  }
}

}  // namespace

size_t SimImage::Read(uint64_t offset, size_t size, char* buffer) const {
  if (offset >= size_) return 0;
  size = static_cast<size_t>(std::min<uint64_t>(size, size_ - offset));
  for (size_t done = 0; done < size;) {
    const uint64_t in_page = (offset + done) % kPageSize;
    const size_t piece = std::min<size_t>(size - done, kPageSize - in_page);
    const std::shared_ptr<Page>& page = pages_[(offset + done) / kPageSize];
    if (page == nullptr) {
      std::memset(buffer + done, 0, piece);
    } else {
      std::memcpy(buffer + done, page->bytes + in_page, piece);
    }
    done += piece;
  }
  return size;
}

std::string SimImage::ToString() const {
  std::string text(size_, '\0');
  Read(0, text.size(), text.data());
  return text;
}

void SimImage::Write(uint64_t offset, absl::string_view data) {
  if (data.empty()) return;
  if (offset + data.size() > size_) Truncate(offset + data.size());
  while (!data.empty()) {
    const uint64_t in_page = offset % kPageSize;
    const size_t piece = std::min<size_t>(data.size(), kPageSize - in_page);
    std::memcpy(MutablePage(offset / kPageSize).bytes + in_page, data.data(), piece);
    data.remove_prefix(piece);
    offset += piece;
  }
}

void SimImage::Truncate(uint64_t size) {
  const uint64_t pages = (size + kPageSize - 1) / kPageSize;
  for (uint64_t i = pages; i < pages_.size(); ++i) allocated_pages_ -= pages_[i] == nullptr ? 0 : 1;
  pages_.resize(pages);
  if (size < size_ && size % kPageSize != 0 && pages_.back() != nullptr) {
    const uint64_t in_page = size % kPageSize;
    std::memset(MutablePage(pages - 1).bytes + in_page, 0, kPageSize - in_page);
  }
  size_ = size;
}

uint64_t SimImage::BytesToAllocate(uint64_t offset, size_t size) const {
  uint64_t bytes = 0;
  for (uint64_t i = offset / kPageSize; size > 0 && i <= (offset + size - 1) / kPageSize; ++i) {
    if (i >= pages_.size() || pages_[i] == nullptr) bytes += kPageSize;
  }
  return bytes;
}

SimImage::Page& SimImage::MutablePage(uint64_t index) {
  std::shared_ptr<Page>& page = pages_[index];
  if (page == nullptr) {
    page = std::make_shared<Page>();
    ++allocated_pages_;
  } else if (page.use_count() > 1) {
    page = std::make_shared<Page>(*page);
  }
  return *page;
}

SimDisk::SimDisk() {
  auto root = std::make_shared<SimInode>();
  root->directory = true;
  root->links = 1;
  inodes_[next_ino_++] = std::move(root);
}

Ino SimDisk::Find(absl::string_view path) const {
  Ino ino = kRoot;
  for (absl::string_view part : absl::StrSplit(path, '/', absl::SkipEmpty())) {
    if (part == ".") continue;
    const SimInode& inode = Get(ino);
    const auto found = inode.names.find(std::string(part));
    if (found == inode.names.end()) return 0;
    ino = found->second;
  }
  return ino;
}

Ino SimDisk::FindParent(absl::string_view path, std::string* name) const {
  while (!path.empty() && path.back() == '/') path.remove_suffix(1);
  const size_t slash = path.rfind('/');
  *name = std::string(slash == absl::string_view::npos ? path : path.substr(slash + 1));
  const Ino parent = slash == absl::string_view::npos ? kRoot : Find(path.substr(0, slash));
  return parent != 0 && Get(parent).directory && !name->empty() ? parent : 0;
}

const SimInode& SimDisk::Get(Ino ino) const { return *inodes_.at(ino); }

SimInode& SimDisk::Mutable(Ino ino) {
  std::shared_ptr<SimInode>& inode = inodes_.at(ino);
  if (inode.use_count() > 1) inode = std::make_shared<SimInode>(*inode);
  return *inode;
}

Ino SimDisk::Create(Ino parent, const std::string& name, bool directory) {
  if (inodes_.size() >= sweep_at_) RemoveUnreachable();
  const Ino ino = next_ino_++;
  auto inode = std::make_shared<SimInode>();
  inode->directory = directory;
  inodes_[ino] = std::move(inode);
  SimNameChange change;
  change.entries = {{name, ino}};
  change.created = ino;
  ChangeNames(parent, std::move(change));
  return ino;
}

void SimDisk::ChangeNames(Ino directory, SimNameChange change) {
  SimInode& inode = Mutable(directory);
  for (const auto& [name, ino] : change.entries) {
    const auto old = inode.names.find(name);
    if (old != inode.names.end()) --Mutable(old->second).links;
    if (ino != 0) ++Mutable(ino).links;
  }
  Apply(change, &inode.names);
  inode.changes.push_back(std::move(change));
}

void SimDisk::Write(Ino ino, uint64_t offset, absl::string_view data) {
  SimInode& inode = Mutable(ino);
  inode.visible.Write(offset, data);
  inode.writes.push_back({false, offset, std::make_shared<const std::string>(data)});
}

void SimDisk::Truncate(Ino ino, uint64_t size) {
  SimInode& inode = Mutable(ino);
  inode.visible.Truncate(size);
  inode.writes.push_back({true, size, nullptr});
}

void SimDisk::SyncFile(Ino ino) {
  SimInode& inode = Mutable(ino);
  if (inode.lost_writes) {
    for (const SimWrite& write : inode.writes) Apply(write, &inode.durable);
  } else if (!inode.writes.empty()) {
    inode.durable = inode.visible;
  }
  inode.writes.clear();
  for (auto& [other_ino, other] : inodes_) {
    if (other->changes.empty()) continue;
    for (SimNameChange& change : Mutable(other_ino).changes) change.file_synced |= change.created == ino;
  }
}

void SimDisk::SyncDirectory(Ino ino) {
  SimInode& inode = Mutable(ino);
  inode.durable_names = inode.names;
  inode.changes.clear();
}

void SimDisk::LoseWrites(Ino ino) {
  SimInode& inode = Mutable(ino);
  inode.lost_writes = inode.lost_writes || !inode.writes.empty();
  inode.writes.clear();
}

void SimDisk::Overwrite(Ino ino, const SimImage& image) {
  SimInode& inode = Mutable(ino);
  inode.visible = image;
  inode.durable = image;
  inode.writes.clear();
  inode.lost_writes = false;
}

void SimDisk::SyncAllNames() {
  for (auto& [ino, inode] : inodes_) {
    if (inode->directory) SyncDirectory(ino);
  }
}

uint64_t SimDisk::UsedBytes() const {
  uint64_t bytes = 0;
  for (const auto& [ino, inode] : inodes_) {
    if (inode->links > 0 || inode->handles > 0) bytes += inode->visible.allocated_bytes();
  }
  return bytes;
}

void SimDisk::CloseAll() {
  for (auto& [ino, inode] : inodes_) {
    if (inode->handles > 0) Mutable(ino).handles = 0;
  }
}

void SimDisk::RemoveUnreachable() {
  std::set<Ino> reachable = {kRoot};
  for (const auto& [ino, inode] : inodes_) {
    if (inode->handles > 0) reachable.insert(ino);
    for (const auto& [name, target] : inode->names) reachable.insert(target);
    for (const auto& [name, target] : inode->durable_names) reachable.insert(target);
    for (const SimNameChange& change : inode->changes) {
      for (const auto& [name, target] : change.entries) reachable.insert(target);
    }
  }
  for (auto it = inodes_.begin(); it != inodes_.end();) {
    it = reachable.count(it->first) > 0 ? std::next(it) : inodes_.erase(it);
  }
  sweep_at_ = std::max<size_t>(256, 2 * inodes_.size());
}

}  // namespace towline::test
