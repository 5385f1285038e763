// Little-endian fields in byte strings, for the formats that are not protobuf.

#ifndef TOWLINE_COMMON_BYTES_H_
#define TOWLINE_COMMON_BYTES_H_

#include <cstdint>
#include <cstring>
#include <string>

#include "absl/strings/string_view.h"

namespace towline {

// x86-64 and arm64 are little-endian; a big-endian build is refused in bytes.cc.
template <typename T>
inline T LoadLe(const char* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}
template <typename T>
inline void StoreLe(char* to, T value) {
  std::memcpy(to, &value, sizeof(T));
}

// Appends fields to a string.
class ByteWriter {
 public:
  explicit ByteWriter(std::string* out) : out_(out) {}

  void U8(uint8_t v) { out_->push_back(static_cast<char>(v)); }
  void U16(uint16_t v) { Raw(&v, sizeof v); }
  void U32(uint32_t v) { Raw(&v, sizeof v); }
  void U64(uint64_t v) { Raw(&v, sizeof v); }
  void Bytes(absl::string_view v) { out_->append(v.data(), v.size()); }
  // u32 length, then the bytes.
  void LengthPrefixed(absl::string_view v) {
    U32(static_cast<uint32_t>(v.size()));
    Bytes(v);
  }

 private:
  void Raw(const void* v, size_t n) { out_->append(static_cast<const char*>(v), n); }
  std::string* out_;
};

// Takes fields from a byte string. After a read beyond the end ok() is false for good and all values are 0 or empty.
class ByteReader {
 public:
  explicit ByteReader(absl::string_view data) : data_(data) {}

  uint8_t U8() { return Take<uint8_t>(); }
  uint16_t U16() { return Take<uint16_t>(); }
  uint32_t U32() { return Take<uint32_t>(); }
  uint64_t U64() { return Take<uint64_t>(); }
  absl::string_view Bytes(size_t n);
  absl::string_view LengthPrefixed() { return Bytes(U32()); }

  bool ok() const { return ok_; }
  size_t remaining() const { return data_.size(); }

 private:
  template <typename T>
  T Take() {
    const absl::string_view raw = Bytes(sizeof(T));
    return raw.size() == sizeof(T) ? LoadLe<T>(raw.data()) : T{0};
  }

  absl::string_view data_;
  bool ok_ = true;
};

}  // namespace towline

#endif  // TOWLINE_COMMON_BYTES_H_
