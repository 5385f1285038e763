// Keys and values of the engine: docs/formats/state_v1.md.
//
// The first byte of an engine key is its space, so that a range delete over user keys cannot reach anything else.

#ifndef TOWLINE_STORE_STATE_FORMAT_H_
#define TOWLINE_STORE_STATE_FORMAT_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

#include "common/types.h"

namespace towline {

inline constexpr char kFloorSpace = 'f';       // 'f' client -> highest evicted sequence, its LSN
inline constexpr char kPositionSpace = 'p';    // 'p' -> position
inline constexpr char kRequestSpace = 'q';     // 'q' client 0x00 sequence(BE) -> LSN
inline constexpr char kRequestLsnSpace = 'r';  // 'r' LSN(BE) -> sequence, client
inline constexpr char kUserSpace = 'u';        // 'u' key -> envelope
inline constexpr char kExpirySpace = 'x';      // 'x' expire_at_ms(BE) key -> nothing

inline constexpr absl::string_view kPositionKey = "p";
inline constexpr absl::string_view kUserEnd = "v";    // behind every user key
inline constexpr absl::string_view kExpiryEnd = "y";  // behind every expiry index key

inline constexpr uint8_t kEnvelopeVersion = 0x10;  // high half of the tag byte
inline constexpr uint8_t kEnvelopeHasExpiry = 0x01;
inline constexpr size_t kEnvelopeHeaderSize = 9;
inline constexpr size_t kEnvelopeHeaderSizeWithExpiry = 17;
inline constexpr uint8_t kPositionVersion = 1;
inline constexpr size_t kPositionValueSize = 29;

// Big-endian, so that byte order is number order.
void AppendBe64(uint64_t value, std::string* out);
uint64_t LoadBe64(const char* from);

// Protobuf's base-128 varint. TakeVarint shortens *data; false if it is cut short or longer than 10 bytes.
void AppendVarint(uint64_t value, std::string* out);
bool TakeVarint(absl::string_view* data, uint64_t* value);

// Signed numbers as varints: 0, -1, 1, -2, ...
inline uint64_t ZigZag(int64_t value) {
  return (static_cast<uint64_t>(value) << 1) ^ static_cast<uint64_t>(value >> 63);
}
inline int64_t UnZigZag(uint64_t value) { return static_cast<int64_t>(value >> 1) ^ -static_cast<int64_t>(value & 1); }

std::string UserKey(absl::string_view key);
// Upper bound of user keys below `end`; empty `end` = all.
std::string UserUpperBound(absl::string_view end);
std::string RequestKey(absl::string_view client_id, uint64_t sequence);
std::string RequestLsnKey(Lsn lsn);
std::string FloorKey(absl::string_view client_id);
std::string ExpiryKey(uint64_t expire_at_ms, absl::string_view key);

// Splits an engine key; false if it is malformed.
bool ParseRequestKey(absl::string_view engine_key, absl::string_view* client_id, uint64_t* sequence);
bool ParseExpiryKey(absl::string_view engine_key, uint64_t* expire_at_ms, absl::string_view* key);

// What stands before the value of a user key.
struct Envelope {
  Lsn modified_lsn = 0;
  uint64_t expire_at_ms = 0;  // 0 = never
  absl::string_view value;
};

void AppendEnvelope(Lsn modified_lsn, uint64_t expire_at_ms, absl::string_view value, std::string* out);
// DATA_LOSS, reason state_malformed.
absl::Status ParseEnvelope(absl::string_view raw, Envelope* envelope);

std::string EncodePosition(const Position& position);
absl::Status ParsePosition(absl::string_view raw, Position* position);

// How a malformed byte string in the store is reported.
absl::Status StateMalformed(absl::string_view what, absl::string_view engine_key);

}  // namespace towline

#endif  // TOWLINE_STORE_STATE_FORMAT_H_
