#include "store/rdb_cursor.h"

#include "absl/strings/str_cat.h"

#include "common/bytes.h"
#include "store/rdb_format.h"

namespace towline {
namespace {

// Three bytes of LZF make 264 at most.
constexpr uint64_t kLzfRatioMax = 88;

// Signed little-endian integer of `size` bytes.
int64_t LoadInteger(absl::string_view bytes) {
  switch (bytes.size()) {
    case 1:
      return LoadLe<int8_t>(bytes.data());
    case 2:
      return LoadLe<int16_t>(bytes.data());
    default:
      return LoadLe<int32_t>(bytes.data());
  }
}

}  // namespace

absl::string_view RdbCursor::Bytes(uint64_t size) {
  if (!ok()) return {};
  if (data_.size() - at_ < size) {
    short_ = true;
    return {};
  }
  const absl::string_view bytes = data_.substr(at_, size);
  at_ += size;
  return bytes;
}

uint8_t RdbCursor::U8() {
  const absl::string_view bytes = Bytes(1);
  return bytes.empty() ? 0 : static_cast<uint8_t>(bytes[0]);
}

uint32_t RdbCursor::U32() {
  const absl::string_view bytes = Bytes(4);
  return bytes.empty() ? 0 : LoadLe<uint32_t>(bytes.data());
}

uint64_t RdbCursor::U64() {
  const absl::string_view bytes = Bytes(8);
  return bytes.empty() ? 0 : LoadLe<uint64_t>(bytes.data());
}

uint64_t RdbCursor::Length(uint8_t* encoding) {
  const uint8_t first = U8();
  if (!ok()) return 0;
  switch (first & 0xc0) {
    case kRdbLength6:
      return first;
    case kRdbLength14:
      return (static_cast<uint64_t>(first & 0x3f) << 8) | U8();
    case kRdbEncoded:
      if (encoding != nullptr) {
        *encoding = first;
      } else {
        Fault("a length is an encoded string");
      }
      return 0;
    default:
      break;
  }
  if (first == kRdbLength32) return __builtin_bswap32(U32());
  if (first == kRdbLength64) return __builtin_bswap64(U64());
  Fault("a length has an unknown encoding");
  return 0;
}

absl::string_view RdbCursor::String(uint64_t max, std::string* scratch) {
  uint8_t encoding = 0;
  const uint64_t length = Length(&encoding);
  if (encoding == 0) return Checked(length, max) ? Bytes(length) : absl::string_view();
  if (encoding == kRdbLzf) return Lzf(max, scratch);
  if (encoding > kRdbLzf) {
    Fault("a string has an unknown encoding");
    return {};
  }
  const absl::string_view bytes = Bytes(size_t{1} << (encoding - kRdbInt8));
  if (bytes.empty()) return {};
  *scratch = absl::StrCat(LoadInteger(bytes));
  return *scratch;
}

uint64_t RdbCursor::StringSize() {
  uint8_t encoding = 0;
  const uint64_t length = Length(&encoding);
  if (encoding == 0) return length;
  if (encoding < kRdbLzf) return uint64_t{1} << (encoding - kRdbInt8);
  if (encoding > kRdbLzf) {
    Fault("a string has an unknown encoding");
    return 0;
  }
  const uint64_t compressed_size = Length(nullptr);
  Length(nullptr);  // decompressed
  return compressed_size;
}

bool RdbCursor::Checked(uint64_t length, uint64_t max) {
  if (ok() && length > max) Fault("a string is longer than the limit");
  return ok();
}

absl::string_view RdbCursor::Lzf(uint64_t max, std::string* scratch) {
  const uint64_t compressed_size = Length(nullptr);
  const uint64_t size = Length(nullptr);
  if (!Checked(compressed_size, max) || !Checked(size, max)) return {};
  if (size > compressed_size * kLzfRatioMax) {
    Fault("a compressed string claims more than it can hold");
    return {};
  }
  const absl::string_view compressed = Bytes(compressed_size);
  if (!ok()) return {};
  if (!LzfDecompress(compressed, size, scratch)) {
    Fault("a compressed string cannot be decompressed");
    return {};
  }
  return *scratch;
}

bool LzfDecompress(absl::string_view compressed, uint64_t size, std::string* out) {
  out->clear();
  size_t at = 0;
  const auto byte = [&] { return static_cast<uint8_t>(compressed[at++]); };
  while (at < compressed.size()) {
    const uint8_t control = byte();
    if (control < 32) {  // literals
      const size_t count = control + size_t{1};
      if (compressed.size() - at < count || size - out->size() < count) return false;
      out->append(compressed.data() + at, count);
      at += count;
      continue;
    }
    size_t count = control >> 5;  // a reference back
    if (count == 7) {
      if (at == compressed.size()) return false;
      count += byte();
    }
    count += 2;
    if (at == compressed.size()) return false;
    const size_t distance = ((size_t{control} & 0x1f) << 8 | byte()) + 1;
    if (distance > out->size() || size - out->size() < count) return false;
    for (size_t from = out->size() - distance; count > 0; --count) out->push_back((*out)[from++]);
  }
  return out->size() == size;
}

}  // namespace towline
