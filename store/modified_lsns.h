// The modified LSNs of a group of snapshot entries: the value of its towline-meta field (docs/formats/rdb_v9.md).

#ifndef TOWLINE_STORE_MODIFIED_LSNS_H_
#define TOWLINE_STORE_MODIFIED_LSNS_H_

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

#include "common/types.h"
#include "store/state_format.h"

namespace towline {

// Threads: external synchronization.
class ModifiedLsns {
 public:
  // A group begins; `field` is copied.
  void Begin(absl::string_view field) {
    field_.assign(field.data(), field.size());
    left_ = field_;
    lsn_ = 0;
  }

  // That of the next entry; false if the field holds no more, or is malformed.
  bool Take(Lsn* lsn) {
    uint64_t step = 0;
    if (!TakeVarint(&left_, &step)) return false;
    lsn_ += static_cast<uint64_t>(UnZigZag(step));
    *lsn = lsn_;
    return true;
  }

  // Whether every one was taken.
  bool empty() const { return left_.empty(); }

 private:
  std::string field_;
  absl::string_view left_;  // of field_
  Lsn lsn_ = 0;
};

}  // namespace towline

#endif  // TOWLINE_STORE_MODIFIED_LSNS_H_
