#include "store/rdb_reader.h"

#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

#include "common/bytes.h"
#include "common/checksum.h"
#include "common/error.h"
#include "store/rdb_format.h"

namespace towline {
namespace {

constexpr uint32_t kRedisVersionMax = 12;
constexpr uint32_t kValkeyVersionMin = 80;
constexpr uint32_t kValkeyVersionMax = 81;
constexpr uint32_t kChecksumSince = 5;
constexpr uint32_t kContinuedVersion = 9;
constexpr uint64_t kAuxNameBytesMax = 64 << 10;
// Three bytes of LZF make 264 at most.
constexpr uint64_t kLzfRatioMax = 88;

absl::string_view NameOf(uint8_t opcode) {
  switch (opcode) {
    case 1:
      return "list";
    case 2:
      return "set";
    case 3:
      return "zset";
    case 4:
      return "hash";
    case 5:
      return "zset_2";
    case 6:
      return "module";
    case 7:
      return "module_2";
    case 9:
      return "hash_zipmap";
    case 10:
      return "list_ziplist";
    case 11:
      return "set_intset";
    case 12:
      return "zset_ziplist";
    case 13:
      return "hash_ziplist";
    case 14:
      return "list_quicklist";
    case 15:
      return "stream_listpacks";
    case 16:
      return "hash_listpack";
    case 17:
      return "zset_listpack";
    case 18:
      return "list_quicklist_2";
    case 19:
      return "stream_listpacks_2";
    case 20:
      return "set_listpack";
    case 21:
      return "stream_listpacks_3";
    case 0xf4:
      return "slot_info";
    case 0xf5:
      return "function";
    case 0xf6:
      return "function_pre_release";
    case 0xf7:
      return "module_aux";
    default:
      return "unknown";
  }
}

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

// Goes over one item. The first shortage or fault sticks; values are then 0 or empty.
class RdbReader::Cursor {
 public:
  explicit Cursor(absl::string_view data) : data_(data) {}

  bool is_short() const { return short_; }
  const char* fault() const { return fault_; }
  bool ok() const { return !short_ && fault_ == nullptr; }
  size_t taken() const { return at_; }

  void Fault(const char* what) {
    if (ok()) fault_ = what;
  }

  absl::string_view Bytes(uint64_t size) {
    if (!ok()) return {};
    if (data_.size() - at_ < size) {
      short_ = true;
      return {};
    }
    const absl::string_view bytes = data_.substr(at_, size);
    at_ += size;
    return bytes;
  }

  uint8_t U8() {
    const absl::string_view bytes = Bytes(1);
    return bytes.empty() ? 0 : static_cast<uint8_t>(bytes[0]);
  }

  uint64_t U64() {
    const absl::string_view bytes = Bytes(8);
    return bytes.empty() ? 0 : LoadLe<uint64_t>(bytes.data());
  }

  uint32_t U32() {
    const absl::string_view bytes = Bytes(4);
    return bytes.empty() ? 0 : LoadLe<uint32_t>(bytes.data());
  }

  // A length, or the first byte of an encoded string in *encoding.
  uint64_t Length(uint8_t* encoding) {
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

  // A string of at most `max` bytes; `scratch` holds it if it is not plain.
  absl::string_view String(uint64_t max, std::string* scratch) {
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

 private:
  bool Checked(uint64_t length, uint64_t max) {
    if (ok() && length > max) Fault("a string is longer than the limit");
    return ok();
  }

  absl::string_view Lzf(uint64_t max, std::string* scratch) {
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

  const absl::string_view data_;
  size_t at_ = 0;
  bool short_ = false;
  const char* fault_ = nullptr;
};

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

RdbReader RdbReader::Continue(RdbReaderOptions options, uint64_t offset, uint64_t crc) {
  RdbReader reader(options);
  reader.offset_ = offset;
  reader.crc_ = crc;
  reader.version_ = kContinuedVersion;
  return reader;
}

uint64_t RdbReader::crc() const { return Crc64JonesExtend(crc_, input_.substr(counted_, taken_ - counted_)); }

void RdbReader::Feed(absl::string_view piece) {
  if (rest_.empty()) {
    input_ = piece;
  } else {
    rest_.append(piece.data(), piece.size());
    input_ = rest_;
  }
}

absl::Status RdbReader::Malformed(absl::string_view what) const {
  return MakeError(absl::StatusCode::kDataLoss, "rdb_malformed",
                   absl::StrCat("the RDB stream is malformed at byte ", offset(), ": ", what));
}

// Adds what was taken to the checksum: rarely, because short pieces are slow to sum.
void RdbReader::CountTaken() {
  crc_ = Crc64JonesExtend(crc_, input_.substr(counted_, taken_ - counted_));
  counted_ = taken_;
}

absl::StatusOr<RdbEvent> RdbReader::NeedMore() {
  CountTaken();
  if (input_.data() == rest_.data()) {
    rest_.erase(0, taken_);
  } else {
    rest_.assign(input_.data() + taken_, input_.size() - taken_);
  }
  offset_ += taken_;
  taken_ = counted_ = 0;
  input_ = rest_;
  return RdbEvent{};
}

absl::StatusOr<RdbEvent> RdbReader::Next() {
  if (ended_) return Malformed("read beyond the end");
  Cursor cursor(input_.substr(taken_));
  absl::StatusOr<RdbEvent> event = version_ == 0 ? TakeMagic(cursor) : TakeItem(cursor);
  if (cursor.fault() != nullptr) return Malformed(cursor.fault());
  if (cursor.is_short()) return NeedMore();
  if (event.ok()) taken_ += cursor.taken();
  if (event.ok() && version_ != 0 && event->kind == RdbEvent::Kind::kNeedMore) return Next();  // the magic was taken
  return event;
}

absl::StatusOr<RdbEvent> RdbReader::TakeMagic(Cursor& cursor) {
  const absl::string_view magic = cursor.Bytes(kRdbMagicSize);
  if (!cursor.ok()) return RdbEvent{};
  const bool redis = magic.substr(0, 5) == "REDIS";
  const bool valkey = magic.substr(0, 6) == "VALKEY";
  uint32_t version = 0;
  if ((!redis && !valkey) || !absl::SimpleAtoi(magic.substr(redis ? 5 : 6), &version)) {
    return Malformed("the magic is neither REDIS nor VALKEY with a version");
  }
  const uint32_t least = redis ? 1 : kValkeyVersionMin;
  const uint32_t most = redis ? kRedisVersionMax : kValkeyVersionMax;
  if (version < least || version > most) {
    return MakeError(absl::StatusCode::kUnimplemented, "rdb_version_unsupported",
                     absl::StrCat("RDB version ", magic, " is not between ", least, " and ", most));
  }
  version_ = version;
  return RdbEvent{};
}

absl::StatusOr<RdbEvent> RdbReader::TakeItem(Cursor& cursor) {
  RdbEvent event;
  const uint8_t opcode = cursor.U8();
  if (!cursor.ok()) return event;
  switch (opcode) {
    case kRdbAux:
      event.kind = RdbEvent::Kind::kAux;
      event.key = cursor.String(kAuxNameBytesMax, &decoded_[0]);
      event.value = cursor.String(options_.value_bytes_max, &decoded_[1]);
      return event;
    case kRdbSelectDb:
      event.kind = RdbEvent::Kind::kSelectDb;
      event.number = cursor.Length(nullptr);
      return event;
    case kRdbResizeDb:
      event.kind = RdbEvent::Kind::kResizeDb;
      event.number = cursor.Length(nullptr);
      cursor.Length(nullptr);  // keys with an expiry
      return event;
    case kRdbEof:
      return TakeEof(cursor);
    default:
      return TakeEntry(cursor, opcode);
  }
}

absl::StatusOr<RdbEvent> RdbReader::TakeEntry(Cursor& cursor, uint8_t opcode) {
  RdbEvent event;
  event.kind = RdbEvent::Kind::kEntry;
  bool has_expiry = false;
  bool has_use = false;
  for (;; opcode = cursor.U8()) {
    if (!cursor.ok()) return event;
    if (opcode == kRdbExpireMs || opcode == kRdbExpireSeconds) {
      if (has_expiry) return Malformed("an entry has two expiries");
      has_expiry = true;
      event.expire_at_ms = opcode == kRdbExpireMs ? cursor.U64() : uint64_t{cursor.U32()} * 1000;
      if (event.expire_at_ms == 0) event.expire_at_ms = 1;  // long past, and 0 means never here
    } else if (opcode == kRdbIdle || opcode == kRdbFreq) {
      if (has_use) return Malformed("an entry has two idle times or frequencies");
      has_use = true;
      if (opcode == kRdbIdle) cursor.Length(nullptr);
      if (opcode == kRdbFreq) cursor.U8();
    } else {
      break;
    }
  }
  if (opcode != kRdbString) {
    return MakeError(absl::StatusCode::kUnimplemented, "rdb_type_unsupported",
                     absl::StrCat("the RDB stream holds a ", NameOf(opcode), " (type ", opcode, ") at byte ", offset(),
                                  "; only strings are supported"));
  }
  event.key = cursor.String(options_.key_bytes_max, &decoded_[0]);
  event.value = cursor.String(options_.value_bytes_max, &decoded_[1]);
  return event;
}

absl::StatusOr<RdbEvent> RdbReader::TakeEof(Cursor& cursor) {
  RdbEvent event;
  event.kind = RdbEvent::Kind::kEnd;
  if (version_ < kChecksumSince && options_.require_checksum) return Malformed("its version has no checksum");
  if (version_ >= kChecksumSince) {
    const uint64_t stored = cursor.U64();
    if (!cursor.ok()) return event;
    CountTaken();
    const uint64_t computed = Crc64JonesExtend(crc_, input_.substr(taken_, 1));
    const bool not_computed = stored == 0 && !options_.require_checksum;
    if (stored != computed && !not_computed) {
      return Malformed(absl::StrCat("its CRC-64 is ", absl::Hex(computed, absl::kZeroPad16), ", and it says ",
                                    absl::Hex(stored, absl::kZeroPad16)));
    }
  }
  ended_ = true;
  return event;
}

}  // namespace towline
