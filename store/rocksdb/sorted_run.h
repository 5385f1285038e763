// Keys that come in any order, gathered in memory until they are written as one sorted file.

#ifndef TOWLINE_STORE_ROCKSDB_SORTED_RUN_H_
#define TOWLINE_STORE_ROCKSDB_SORTED_RUN_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace towline {

// Threads: external synchronization.
class SortedRun {
 public:
  void Add(absl::string_view key, absl::string_view value);

  bool empty() const { return entries_.empty(); }
  // Memory in use.
  uint64_t bytes() const { return data_.size() + entries_.size() * sizeof(Entry); }

  // Calls `fn` for each key once, in byte order, with the value that was added last. Stops at the first error.
  absl::Status ForEach(const std::function<absl::Status(absl::string_view key, absl::string_view value)>& fn);

  void Clear();

 private:
  struct Entry {
    uint64_t offset = 0;  // of the key in data_; the value follows
    uint32_t key_size = 0;
    uint32_t value_size = 0;
  };
  absl::string_view KeyOf(const Entry& entry) const {
    return absl::string_view(data_).substr(entry.offset, entry.key_size);
  }

  std::string data_;
  std::vector<Entry> entries_;
};

}  // namespace towline

#endif  // TOWLINE_STORE_ROCKSDB_SORTED_RUN_H_
