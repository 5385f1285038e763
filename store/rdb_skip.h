// What an RDB stream may hold beside strings, and how to get over it without holding it.

#ifndef TOWLINE_STORE_RDB_SKIP_H_
#define TOWLINE_STORE_RDB_SKIP_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/strings/string_view.h"

namespace towline {

// A type of value, or an opcode, that is not a string.
struct RdbOtherType {
  uint8_t type;
  absl::string_view name;    // with its encoding: "list_quicklist_2"
  absl::string_view kind;    // what users call it: "list"
  bool has_key;              // false: it belongs to no key
  absl::string_view layout;  // what follows the type, or the key; empty = cannot be skipped. See rdb_skip.cc
};

// What `type` means in a file of Redis, or of Valkey, which give some numbers different meanings. Never null: a type
// that nobody knows is named "unknown" and cannot be skipped.
const RdbOtherType& FindRdbOtherType(uint8_t type, bool valkey);

// Gets over one value piece by piece. Holds no bytes, only where it is: a few dozen bytes however large the value.
// Threads: external synchronization.
class RdbSkipper {
 public:
  // Begins with what follows the type, or the key. Requires a layout.
  void Begin(const RdbOtherType& type);

  bool active() const { return !levels_.empty(); }

  // Takes bytes from the beginning of `data` and returns how many. If it is still active() then, what is left is the
  // beginning of a number whose end is missing: it has to be given again with what follows.
  size_t Take(absl::string_view data);

  // What is wrong with the bytes; null = nothing.
  const char* fault() const { return fault_; }

 private:
  // A sequence that is repeated.
  struct Level {
    absl::string_view layout;
    size_t at = 0;
    uint64_t more = 0;  // rounds behind this one
  };

  bool TakeStep(absl::string_view data, size_t* taken);
  void BeginRound(uint64_t count);

  std::vector<Level> levels_;
  uint64_t bytes_ = 0;  // to be taken before the next step
  const char* fault_ = nullptr;
};

}  // namespace towline

#endif  // TOWLINE_STORE_RDB_SKIP_H_
