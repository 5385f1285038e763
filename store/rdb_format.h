// Constants of Redis' RDB format, as far as strings need them: docs/formats/rdb_v9.md.

#ifndef TOWLINE_STORE_RDB_FORMAT_H_
#define TOWLINE_STORE_RDB_FORMAT_H_

#include <cstddef>
#include <cstdint>

#include "absl/strings/string_view.h"

namespace towline {

inline constexpr absl::string_view kRdbMagic = "REDIS0009";  // what is written here
inline constexpr size_t kRdbMagicSize = 9;
inline constexpr size_t kRdbTrailerSize = 9;  // EOF and CRC64

// Opcodes.
inline constexpr uint8_t kRdbIdle = 0xf8;
inline constexpr uint8_t kRdbFreq = 0xf9;
inline constexpr uint8_t kRdbAux = 0xfa;
inline constexpr uint8_t kRdbResizeDb = 0xfb;
inline constexpr uint8_t kRdbExpireMs = 0xfc;
inline constexpr uint8_t kRdbExpireSeconds = 0xfd;
inline constexpr uint8_t kRdbSelectDb = 0xfe;
inline constexpr uint8_t kRdbEof = 0xff;

// The one type of value that Towline holds.
inline constexpr uint8_t kRdbString = 0;

// Lengths: two high bits of the first byte, or the whole of it.
inline constexpr uint8_t kRdbLength6 = 0x00;
inline constexpr uint8_t kRdbLength14 = 0x40;
inline constexpr uint8_t kRdbLength32 = 0x80;
inline constexpr uint8_t kRdbLength64 = 0x81;
inline constexpr uint8_t kRdbEncoded = 0xc0;

// Encoded strings.
inline constexpr uint8_t kRdbInt8 = 0xc0;
inline constexpr uint8_t kRdbInt16 = 0xc1;
inline constexpr uint8_t kRdbInt32 = 0xc2;
inline constexpr uint8_t kRdbLzf = 0xc3;

// AUX fields of our own.
inline constexpr absl::string_view kAuxVersion = "towline-version";
inline constexpr absl::string_view kAuxTerm = "towline-term";
inline constexpr absl::string_view kAuxChain = "towline-chain";
inline constexpr absl::string_view kAuxHistory = "towline-history";
inline constexpr absl::string_view kAuxNode = "towline-node";
inline constexpr absl::string_view kAuxKeys = "towline-keys";
inline constexpr absl::string_view kAuxMeta = "towline-meta";
inline constexpr absl::string_view kAuxReserved = "towline-reserved";
inline constexpr absl::string_view kAuxDigest = "towline-digest";

// AUX fields of Redis.
inline constexpr absl::string_view kAuxCreated = "ctime";
inline constexpr absl::string_view kAuxReplId = "repl-id";
inline constexpr absl::string_view kAuxReplOffset = "repl-offset";

}  // namespace towline

#endif  // TOWLINE_STORE_RDB_FORMAT_H_
