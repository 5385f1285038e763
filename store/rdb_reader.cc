#include "store/rdb_reader.h"

#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

#include "common/checksum.h"
#include "common/error.h"
#include "store/rdb_cursor.h"
#include "store/rdb_format.h"

namespace towline {
namespace {

constexpr uint32_t kRedisVersionMax = 12;
constexpr uint32_t kValkeyVersionMin = 80;
constexpr uint32_t kValkeyVersionMax = 81;
constexpr uint32_t kChecksumSince = 5;
constexpr uint32_t kContinuedVersion = 9;
constexpr uint64_t kAuxNameBytesMax = 64 << 10;

}  // namespace

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
  if (skip_.active()) return Skip();
  RdbCursor cursor(input_.substr(taken_));
  absl::StatusOr<RdbEvent> event = version_ == 0 ? TakeMagic(cursor) : TakeItem(cursor);
  if (cursor.fault() != nullptr) return Malformed(cursor.fault());
  if (cursor.is_short()) return NeedMore();
  if (event.ok()) taken_ += cursor.taken();
  if (event.ok() && event->kind == RdbEvent::Kind::kOther) return Skip();
  if (event.ok() && version_ != 0 && event->kind == RdbEvent::Kind::kNeedMore) return Next();  // the magic was taken
  return event;
}

absl::StatusOr<RdbEvent> RdbReader::TakeMagic(RdbCursor& cursor) {
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
  valkey_ = valkey;
  return RdbEvent{};
}

absl::StatusOr<RdbEvent> RdbReader::TakeItem(RdbCursor& cursor) {
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

absl::StatusOr<RdbEvent> RdbReader::TakeEntry(RdbCursor& cursor, uint8_t opcode) {
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
  if (opcode != kRdbString) return BeginOther(cursor, opcode, event.expire_at_ms);
  event.key = cursor.String(options_.key_bytes_max, &decoded_[0]);
  event.value = cursor.String(options_.value_bytes_max, &decoded_[1]);
  return event;
}

// Takes what stands before the value; Skip() does the rest.
absl::StatusOr<RdbEvent> RdbReader::BeginOther(RdbCursor& cursor, uint8_t type, uint64_t expire_at_ms) {
  const RdbOtherType& other = FindRdbOtherType(type, valkey_);
  if (!options_.skip_other_types || other.layout.empty()) {
    return MakeError(absl::StatusCode::kUnimplemented, "rdb_type_unsupported",
                     absl::StrCat("the RDB stream holds a ", other.name, " (type ", type, ") at byte ", offset(), "; ",
                                  options_.skip_other_types ? "it cannot be skipped" : "only strings are supported"));
  }
  const absl::string_view key =
      other.has_key ? cursor.String(options_.key_bytes_max, &decoded_[0]) : absl::string_view();
  if (!cursor.ok()) return RdbEvent{};
  other_key_.assign(key.data(), key.size());
  other_.kind = RdbEvent::Kind::kOther;
  other_.value = other.kind;
  other_.expire_at_ms = expire_at_ms;
  other_.number = other.has_key ? 1 : 0;
  skip_.Begin(other);
  return other_;
}

absl::StatusOr<RdbEvent> RdbReader::Skip() {
  taken_ += skip_.Take(input_.substr(taken_));
  if (skip_.fault() != nullptr) return Malformed(skip_.fault());
  if (skip_.active()) return NeedMore();
  other_.key = other_key_;
  return other_;
}

absl::StatusOr<RdbEvent> RdbReader::TakeEof(RdbCursor& cursor) {
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
    had_checksum_ = !not_computed;
  }
  ended_ = true;
  return event;
}

}  // namespace towline
