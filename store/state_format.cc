#include "store/state_format.h"

#include "absl/strings/str_cat.h"

#include "common/bytes.h"
#include "common/error.h"
#include "common/names.h"

namespace towline {

void AppendBe64(uint64_t value, std::string* out) {
  char bytes[8];
  StoreLe(bytes, __builtin_bswap64(value));
  out->append(bytes, sizeof bytes);
}

uint64_t LoadBe64(const char* from) { return __builtin_bswap64(LoadLe<uint64_t>(from)); }

void AppendVarint(uint64_t value, std::string* out) {
  char bytes[10];
  size_t size = 0;
  while (value >= 0x80) {
    bytes[size++] = static_cast<char>(value | 0x80);
    value >>= 7;
  }
  bytes[size++] = static_cast<char>(value);
  out->append(bytes, size);
}

bool TakeVarint(absl::string_view* data, uint64_t* value) {
  uint64_t result = 0;
  for (size_t i = 0; i < data->size() && i < 10; ++i) {
    const uint8_t byte = static_cast<uint8_t>((*data)[i]);
    if (i == 9 && byte > 1) return false;  // more than 64 bits
    result |= static_cast<uint64_t>(byte & 0x7f) << (7 * i);
    if (byte < 0x80) {
      data->remove_prefix(i + 1);
      *value = result;
      return true;
    }
  }
  return false;
}

std::string UserKey(absl::string_view key) {
  std::string out;
  out.reserve(1 + key.size());
  out.push_back(kUserSpace);
  out.append(key.data(), key.size());
  return out;
}

std::string UserUpperBound(absl::string_view end) { return end.empty() ? std::string(kUserEnd) : UserKey(end); }

std::string RequestKey(absl::string_view client_id, uint64_t sequence) {
  std::string out;
  out.reserve(1 + client_id.size() + 9);
  out.push_back(kRequestSpace);
  out.append(client_id.data(), client_id.size());
  out.push_back('\0');
  AppendBe64(sequence, &out);
  return out;
}

std::string RequestLsnKey(Lsn lsn) {
  std::string out(1, kRequestLsnSpace);
  AppendBe64(lsn, &out);
  return out;
}

std::string FloorKey(absl::string_view client_id) {
  std::string out(1, kFloorSpace);
  out.append(client_id.data(), client_id.size());
  return out;
}

std::string ExpiryKey(uint64_t expire_at_ms, absl::string_view key) {
  std::string out;
  out.reserve(9 + key.size());
  out.push_back(kExpirySpace);
  AppendBe64(expire_at_ms, &out);
  out.append(key.data(), key.size());
  return out;
}

bool ParseRequestKey(absl::string_view engine_key, absl::string_view* client_id, uint64_t* sequence) {
  if (engine_key.size() < 10 || engine_key[0] != kRequestSpace) return false;
  const size_t client_size = engine_key.size() - 10;
  if (engine_key[1 + client_size] != '\0') return false;
  *client_id = engine_key.substr(1, client_size);
  *sequence = LoadBe64(engine_key.data() + engine_key.size() - 8);
  return true;
}

bool ParseExpiryKey(absl::string_view engine_key, uint64_t* expire_at_ms, absl::string_view* key) {
  if (engine_key.size() < 9 || engine_key[0] != kExpirySpace) return false;
  *expire_at_ms = LoadBe64(engine_key.data() + 1);
  *key = engine_key.substr(9);
  return true;
}

void AppendEnvelope(Lsn modified_lsn, uint64_t expire_at_ms, absl::string_view value, std::string* out) {
  char header[kEnvelopeHeaderSizeWithExpiry];
  header[0] = static_cast<char>(kEnvelopeVersion | (expire_at_ms != 0 ? kEnvelopeHasExpiry : 0));
  StoreLe(header + 1, modified_lsn);
  StoreLe(header + kEnvelopeHeaderSize, expire_at_ms);
  out->append(header, expire_at_ms != 0 ? kEnvelopeHeaderSizeWithExpiry : kEnvelopeHeaderSize);
  out->append(value.data(), value.size());
}

absl::Status ParseEnvelope(absl::string_view raw, Envelope* envelope) {
  if (raw.size() < kEnvelopeHeaderSize) return StateMalformed("value envelope is cut short", "");
  const uint8_t tag = static_cast<uint8_t>(raw[0]);
  if ((tag & ~kEnvelopeHasExpiry) != kEnvelopeVersion) {
    return StateMalformed(absl::StrCat("value envelope has unknown tag ", tag), "");
  }
  envelope->modified_lsn = LoadLe<uint64_t>(raw.data() + 1);
  envelope->expire_at_ms = 0;
  size_t header = kEnvelopeHeaderSize;
  if (tag & kEnvelopeHasExpiry) {
    header = kEnvelopeHeaderSizeWithExpiry;
    if (raw.size() < header) return StateMalformed("value envelope is cut short", "");
    envelope->expire_at_ms = LoadLe<uint64_t>(raw.data() + kEnvelopeHeaderSize);
    if (envelope->expire_at_ms == 0) return StateMalformed("value envelope has expiry 0", "");
  }
  envelope->value = raw.substr(header);
  return absl::OkStatus();
}

std::string EncodePosition(const Position& position) {
  std::string out;
  out.reserve(kPositionValueSize);
  ByteWriter writer(&out);
  writer.U8(kPositionVersion);
  writer.U32(position.term);
  writer.U64(position.term_id);
  writer.U64(position.lsn);
  writer.U64(position.chain);
  return out;
}

absl::Status ParsePosition(absl::string_view raw, Position* position) {
  ByteReader reader(raw);
  const uint8_t version = reader.U8();
  position->term = reader.U32();
  position->term_id = reader.U64();
  position->lsn = reader.U64();
  position->chain = reader.U64();
  if (!reader.ok() || reader.remaining() != 0) {
    return StateMalformed(absl::StrCat("position has ", raw.size(), " bytes, not ", kPositionValueSize), kPositionKey);
  }
  if (version != kPositionVersion) {
    return StateMalformed(absl::StrCat("position has unknown version ", version), kPositionKey);
  }
  return absl::OkStatus();
}

absl::Status StateMalformed(absl::string_view what, absl::string_view engine_key) {
  std::string message = absl::StrCat("the store holds something malformed: ", what);
  if (!engine_key.empty()) absl::StrAppend(&message, ", engine key ", Printable(engine_key));
  return MakeError(absl::StatusCode::kDataLoss, "state_malformed", message, "re-bootstrap this node");
}

}  // namespace towline
