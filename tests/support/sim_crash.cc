// What a power loss leaves of a simulated disk.

#include <algorithm>
#include <set>

#include "common/check.h"
#include "tests/support/sim_disk.h"

namespace towline::test {
namespace {

uint64_t Below(Rng& rng, uint64_t end) { return rng.Next() % end; }

// Contents for sectors that held nothing durable: zeros, noise, or what some file of the disk holds.
class Fill {
 public:
  Fill(const std::map<Ino, std::shared_ptr<SimInode>>& inodes, Rng& rng) : rng_(rng) {
    for (const auto& [ino, inode] : inodes) {
      if (inode->visible.size() >= kSectorSize) stale_.push_back(&inode->visible);
    }
  }

  std::string Sector() {
    std::string bytes(kSectorSize, '\0');
    const uint64_t kind = Below(rng_, 3);
    if (kind == 1) {
      for (char& byte : bytes) byte = static_cast<char>(rng_.Next());
    } else if (kind == 2 && !stale_.empty()) {
      const SimImage& from = *stale_[Below(rng_, stale_.size())];
      from.Read(Below(rng_, from.size() / kSectorSize) * kSectorSize, bytes.size(), bytes.data());
    }
    return bytes;
  }

 private:
  Rng& rng_;
  std::vector<const SimImage*> stale_;
};

// Which sectors of one unsynced write reach the disk.
std::vector<bool> Tear(uint64_t sectors, Rng& rng) {
  std::vector<bool> kept(sectors);
  enum Kind { kAll, kNone, kPrefix, kPrefixToo, kAny, kAnyToo, kKinds };
  const uint64_t kind = Below(rng, kKinds);
  const uint64_t prefix = Below(rng, sectors + 1);
  for (uint64_t i = 0; i < sectors; ++i) {
    if (kind == kAll || kind == kNone) {
      kept[i] = kind == kAll;
    } else {
      kept[i] = kind == kPrefix || kind == kPrefixToo ? i < prefix : Below(rng, 2) == 0;
    }
  }
  return kept;
}

// A sector is written from memory as it is then, so a version of it holds all changes made to it before: `result` takes
// whole sectors from `now`, the contents after each write.
SimImage AdversaryImage(const SimInode& inode, Fill& fill, Rng& rng) {
  SimImage result = inode.durable;
  SimImage now = inode.durable;
  const uint64_t unwritten = (inode.durable.size() + kSectorSize - 1) / kSectorSize;  // first sector without history
  std::set<uint64_t> settled;
  for (const SimWrite& write : inode.writes) {
    if (write.truncate) {
      now.Truncate(write.offset);
      if (Below(rng, 2) == 0) result.Truncate(write.offset);
      continue;
    }
    now.Write(write.offset, *write.data);
    if (write.data->empty()) continue;
    const uint64_t first = write.offset / kSectorSize;
    const uint64_t last = (write.offset + write.data->size() - 1) / kSectorSize;
    const std::vector<bool> kept = Tear(last - first + 1, rng);
    // The size may reach the disk although the data does not; then the sectors hold whatever was there.
    uint64_t end = Below(rng, 4) == 0 ? last + 1 : (result.size() + kSectorSize - 1) / kSectorSize;
    for (uint64_t sector = first; sector <= last; ++sector) {
      if (kept[sector - first]) end = std::max(end, sector);
    }
    for (uint64_t sector = first; sector <= last; ++sector) {
      std::string bytes(kSectorSize, '\0');
      bytes.resize(now.Read(sector * kSectorSize, bytes.size(), bytes.data()));
      if (kept[sector - first]) {
        result.Write(sector * kSectorSize, bytes);
        settled.insert(sector);
      } else if (sector >= unwritten && sector < end && settled.count(sector) == 0) {
        result.Write(sector * kSectorSize, fill.Sector().substr(0, bytes.size()));
      }
    }
  }
  return result;
}

SimImage PrefixImage(const SimInode& inode, Rng& rng) {
  SimImage result = inode.durable;
  const uint64_t kept = Below(rng, inode.writes.size() + 1);
  for (uint64_t i = 0; i < kept; ++i) {
    const SimWrite& write = inode.writes[i];
    if (write.truncate) {
      result.Truncate(write.offset);
    } else {
      result.Write(write.offset, *write.data);
    }
  }
  return result;
}

std::map<std::string, Ino> NamesAfterCrash(const SimInode& inode, CrashProfile profile, Rng& rng) {
  std::map<std::string, Ino> names = inode.durable_names;
  if (profile == CrashProfile::kStrict || inode.changes.empty()) return names;
  uint64_t kept = Below(rng, inode.changes.size() + 1);
  if (profile == CrashProfile::kExt4Like) {
    for (uint64_t i = 0; i < inode.changes.size(); ++i) {
      if (inode.changes[i].file_synced) kept = std::max(kept, i + 1);
    }
  }
  for (uint64_t i = 0; i < kept; ++i) {
    for (const auto& [name, ino] : inode.changes[i].entries) {
      if (ino == 0) {
        names.erase(name);
      } else {
        names[name] = ino;
      }
    }
  }
  return names;
}

SimImage ImageAfterCrash(const SimInode& inode, CrashProfile profile, Fill& fill, Rng& rng) {
  if (inode.writes.empty() || profile == CrashProfile::kStrict) return inode.durable;
  if (profile == CrashProfile::kExt4Like) return PrefixImage(inode, rng);
  // Many writes would hardly ever be all kept or all dropped by chance.
  const uint64_t extreme = Below(rng, 8);
  if (extreme == 0) return inode.durable;
  if (extreme == 1 && !inode.lost_writes) return inode.visible;
  return AdversaryImage(inode, fill, rng);
}

}  // namespace

const char* CrashProfileName(CrashProfile profile) {
  switch (profile) {
    case CrashProfile::kStrict:
      return "strict";
    case CrashProfile::kExt4Like:
      return "ext4-like";
    case CrashProfile::kAdversary:
      return "adversary";
  }
  return "?";
}

SimDisk SimDisk::AfterCrash(CrashProfile profile, Rng& rng) const {
  Fill fill(inodes_, rng);
  SimDisk after;
  after.inodes_.clear();
  after.next_ino_ = next_ino_;
  for (const auto& [ino, inode] : inodes_) {
    auto left = std::make_shared<SimInode>();
    left->directory = inode->directory;
    left->durable = ImageAfterCrash(*inode, profile, fill, rng);
    left->visible = left->durable;
    left->durable_names = NamesAfterCrash(*inode, profile, rng);
    left->names = left->durable_names;
    after.inodes_[ino] = std::move(left);
  }
  after.RemoveUnreachable();
  for (auto& [ino, inode] : after.inodes_) {
    for (const auto& [name, target] : inode->names) ++after.inodes_.at(target)->links;
  }
  return after;
}

}  // namespace towline::test
