#include "store/rdb_writer.h"

#include "common/bytes.h"
#include "common/checksum.h"
#include "store/rdb_format.h"

namespace towline {
namespace {

constexpr size_t kLengthSizeMax = 9;

// Writes a length to `to` and returns its size.
size_t PutLength(uint64_t length, char* to) {
  if (length < 1u << 6) {
    to[0] = static_cast<char>(kRdbLength6 | length);
    return 1;
  }
  if (length < 1u << 14) {
    to[0] = static_cast<char>(kRdbLength14 | (length >> 8));
    to[1] = static_cast<char>(length);
    return 2;
  }
  if (length <= UINT32_MAX) {
    to[0] = static_cast<char>(kRdbLength32);
    StoreLe(to + 1, __builtin_bswap32(static_cast<uint32_t>(length)));
    return 5;
  }
  to[0] = static_cast<char>(kRdbLength64);
  StoreLe(to + 1, __builtin_bswap64(length));
  return kLengthSizeMax;
}

}  // namespace

void RdbAppendLength(uint64_t length, std::string* out) {
  char bytes[kLengthSizeMax];
  out->append(bytes, PutLength(length, bytes));
}

void RdbAppendString(absl::string_view text, std::string* out) {
  RdbAppendLength(text.size(), out);
  out->append(text.data(), text.size());
}

void RdbAppendAux(absl::string_view name, absl::string_view value, std::string* out) {
  out->push_back(static_cast<char>(kRdbAux));
  RdbAppendString(name, out);
  RdbAppendString(value, out);
}

void RdbAppendSelectDb(uint64_t db, std::string* out) {
  out->push_back(static_cast<char>(kRdbSelectDb));
  RdbAppendLength(db, out);
}

void RdbAppendResizeDb(uint64_t keys, uint64_t expires, std::string* out) {
  out->push_back(static_cast<char>(kRdbResizeDb));
  RdbAppendLength(keys, out);
  RdbAppendLength(expires, out);
}

void RdbAppendEntry(absl::string_view key, absl::string_view value, uint64_t expire_at_ms, std::string* out) {
  char head[1 + 8 + 1 + kLengthSizeMax];
  size_t size = 0;
  if (expire_at_ms != 0) {
    head[0] = static_cast<char>(kRdbExpireMs);
    StoreLe(head + 1, expire_at_ms);
    size = 9;
  }
  head[size++] = static_cast<char>(kRdbString);
  size += PutLength(key.size(), head + size);
  out->append(head, size);
  out->append(key.data(), key.size());
  out->append(head, PutLength(value.size(), head));
  out->append(value.data(), value.size());
}

void RdbAppendEof(uint64_t crc, std::string* out) {
  const char eof = static_cast<char>(kRdbEof);
  out->push_back(eof);
  ByteWriter(out).U64(Crc64JonesExtend(crc, absl::string_view(&eof, 1)));
}

}  // namespace towline
