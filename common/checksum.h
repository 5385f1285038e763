// Checksums of the formats. Speed: ISA-L and XXH3, several GB/s.

#ifndef TOWLINE_COMMON_CHECKSUM_H_
#define TOWLINE_COMMON_CHECKSUM_H_

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace towline {

// CRC-32C (Castagnoli, reflected, inverted in and out; RFC 3720). "123456789" -> 0xE3069283.
// Crc32cExtend(Crc32c(a), b) == Crc32c(a + b); the CRC of nothing is 0.
uint32_t Crc32c(absl::string_view data);
uint32_t Crc32cExtend(uint32_t crc, absl::string_view data);
// The same for the 8 bytes of `more`, little-endian.
uint32_t Crc32cExtendU64(uint32_t crc, uint64_t more);

// CRC-64/Jones as Redis computes it (reflected, start 0, no inversion). "123456789" -> 0xE9C6D914C4B8D9CA.
// Crc64JonesExtend(Crc64JonesExtend(0, a), b) == Crc64JonesExtend(0, a + b).
uint64_t Crc64JonesExtend(uint64_t crc, absl::string_view data);

// XXH3 with 64 bits, seed 0.
uint64_t Xxh3(absl::string_view data);

// A 128-bit sum that does not depend on order: each addend is XXH3-128 of one entry, added modulo 2^128.
struct Sum128 {
  uint64_t low = 0;
  uint64_t high = 0;

  void Add(const Sum128& other);
  void Subtract(const Sum128& other);
  std::string Hex() const;  // 32 lower-case hex digits, high half first
  // What Hex wrote; false if `text` is anything else.
  static bool Parse(absl::string_view text, Sum128* sum);

  friend bool operator==(const Sum128&, const Sum128&) = default;
};
Sum128 Xxh3_128(absl::string_view data);

}  // namespace towline

#endif  // TOWLINE_COMMON_CHECKSUM_H_
