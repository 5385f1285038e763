// Goes over bytes of an RDB stream: numbers, lengths and strings of docs/formats/rdb_v9.md.

#ifndef TOWLINE_STORE_RDB_CURSOR_H_
#define TOWLINE_STORE_RDB_CURSOR_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace towline {

// The first shortage or fault sticks; values are then 0 or empty.
// Threads: external synchronization.
class RdbCursor {
 public:
  explicit RdbCursor(absl::string_view data) : data_(data) {}

  bool is_short() const { return short_; }
  const char* fault() const { return fault_; }
  bool ok() const { return !short_ && fault_ == nullptr; }
  size_t taken() const { return at_; }

  void Fault(const char* what) {
    if (ok()) fault_ = what;
  }

  absl::string_view Bytes(uint64_t size);
  uint8_t U8();
  uint32_t U32();
  uint64_t U64();

  // A length, or the first byte of an encoded string in *encoding; nullptr = a string is a fault.
  uint64_t Length(uint8_t* encoding);

  // A string of at most `max` bytes; `scratch` holds it if it is not plain.
  absl::string_view String(uint64_t max, std::string* scratch);

  // The head of a string; returns how many bytes follow, whatever they mean.
  uint64_t StringSize();

 private:
  bool Checked(uint64_t length, uint64_t max);
  absl::string_view Lzf(uint64_t max, std::string* scratch);

  const absl::string_view data_;
  size_t at_ = 0;
  bool short_ = false;
  const char* fault_ = nullptr;
};

// Redis' LZF. False if the input is malformed or does not decompress to exactly `size` bytes.
bool LzfDecompress(absl::string_view compressed, uint64_t size, std::string* out);

}  // namespace towline

#endif  // TOWLINE_STORE_RDB_CURSOR_H_
