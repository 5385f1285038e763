#include "store/rocksdb/sorted_run.h"

#include <algorithm>

#include "common/error.h"

namespace towline {

void SortedRun::Add(absl::string_view key, absl::string_view value) {
  entries_.push_back({data_.size(), static_cast<uint32_t>(key.size()), static_cast<uint32_t>(value.size())});
  data_.append(key.data(), key.size());
  data_.append(value.data(), value.size());
}

absl::Status SortedRun::ForEach(const std::function<absl::Status(absl::string_view key, absl::string_view value)>& fn) {
  std::sort(entries_.begin(), entries_.end(), [this](const Entry& a, const Entry& b) {
    const int order = KeyOf(a).compare(KeyOf(b));
    return order != 0 ? order < 0 : a.offset < b.offset;
  });
  for (size_t i = 0; i < entries_.size(); ++i) {
    const Entry& entry = entries_[i];
    if (i + 1 < entries_.size() && KeyOf(entries_[i + 1]) == KeyOf(entry)) continue;
    const absl::string_view value = absl::string_view(data_).substr(entry.offset + entry.key_size, entry.value_size);
    TOWLINE_RETURN_IF_ERROR(fn(KeyOf(entry), value));
  }
  return absl::OkStatus();
}

void SortedRun::Clear() {
  data_.clear();
  entries_.clear();
}

}  // namespace towline
