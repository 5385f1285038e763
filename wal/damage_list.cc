#include "wal/damage_list.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "common/error.h"

namespace towline::wal {

DamagedRange RangeOf(const absl::Status& status) {
  const ErrorInfo info = GetErrorInfo(status);
  const auto text = [&](const char* key) {
    const auto found = info.metadata.find(key);
    return found == info.metadata.end() ? std::string() : found->second;
  };
  DamagedRange range;
  range.file = text("file");
  range.offset = std::strtoull(text("offset").c_str(), nullptr, 10);
  range.first_lsn = std::strtoull(text("lsn").c_str(), nullptr, 10);
  range.last_lsn = range.first_lsn;
  range.what = info.message;
  return range;
}

bool DamageList::Note(const DamagedRange& range) {
  MutexLock lock(&mutex_);
  for (const DamagedRange& known : ranges_) {
    if (!known.readable && known.first_lsn <= range.first_lsn && range.last_lsn <= known.last_lsn) return false;
  }
  const auto behind =
      std::upper_bound(ranges_.begin(), ranges_.end(), range,
                       [](const DamagedRange& a, const DamagedRange& b) { return a.first_lsn < b.first_lsn; });
  ranges_.insert(behind, range);
  return true;
}

void DamageList::Replace(Lsn segment_first, Lsn segment_last, std::vector<DamagedRange> ranges) {
  MutexLock lock(&mutex_);
  ranges_.erase(std::remove_if(ranges_.begin(), ranges_.end(),
                               [&](const DamagedRange& range) {
                                 return segment_first <= range.first_lsn && range.first_lsn <= segment_last;
                               }),
                ranges_.end());
  for (DamagedRange& range : ranges) ranges_.push_back(std::move(range));
  std::stable_sort(ranges_.begin(), ranges_.end(),
                   [](const DamagedRange& a, const DamagedRange& b) { return a.first_lsn < b.first_lsn; });
}

void DamageList::RemoveBelow(Lsn lsn) {
  MutexLock lock(&mutex_);
  ranges_.erase(
      std::remove_if(ranges_.begin(), ranges_.end(), [&](const DamagedRange& range) { return range.last_lsn < lsn; }),
      ranges_.end());
}

std::vector<DamagedRange> DamageList::Get() const {
  MutexLock lock(&mutex_);
  return ranges_;
}

}  // namespace towline::wal
