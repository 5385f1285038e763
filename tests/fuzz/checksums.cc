#include "tests/fuzz/checksums.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/string_view.h"

#include "common/bytes.h"
#include "common/checksum.h"

namespace towline::fuzz {
namespace {

constexpr size_t kLocalPart = 16;
constexpr size_t kHeaders = 56;
constexpr size_t kSector = 512;

absl::string_view View(absl::Span<const char> bytes) { return {bytes.data(), bytes.size()}; }

// Length of the payload behind a shipped header.
size_t PayloadSize(const char* shipped) { return LoadLe<uint32_t>(shipped + 4); }

// False if the payload is cut off.
bool FixPayload(absl::Span<char> shipped) {
  const size_t size = PayloadSize(shipped.data());
  if (size > shipped.size() - 40) return false;
  StoreLe<uint32_t>(shipped.data() + 12, Crc32c(View(shipped.subspan(40, size))));
  return true;
}

}  // namespace

void FixShippedParts(absl::Span<char> bytes) {
  while (bytes.size() >= 40 && FixPayload(bytes)) bytes.remove_prefix(40 + PayloadSize(bytes.data()));
}

void FixFrame(absl::Span<char> bytes, uint64_t salt) {
  if (bytes.size() < kHeaders) return;
  FixPayload(bytes.subspan(kLocalPart));
  char covered[kHeaders];  // bytes 8 to 55, then the salt
  std::memcpy(covered, bytes.data() + 8, 48);
  StoreLe(covered + 48, salt);
  StoreLe<uint32_t>(bytes.data() + 4, Crc32c(absl::string_view(covered, sizeof covered)));
}

void FixFrames(absl::Span<char> bytes, uint64_t salt, bool relink, uint64_t chain) {
  while (bytes.size() >= kHeaders) {
    if (relink) StoreLe<uint64_t>(bytes.data() + 48, chain);
    FixFrame(bytes, salt);
    const size_t payload = PayloadSize(bytes.data() + kLocalPart);
    if (payload > bytes.size() - kHeaders) return;
    chain = Xxh3(View(bytes.subspan(kLocalPart, 40 + payload)));
    bytes.remove_prefix(std::min(bytes.size(), (kHeaders + payload + 7) / 8 * 8));
    // Behind the log there are zeros, which are not a frame.
    if (bytes.size() < 4 || LoadLe<uint32_t>(bytes.data()) != 0x4d465754) return;
  }
}

void FixSector(absl::Span<char> sector) {
  if (sector.size() != kSector) return;
  StoreLe<uint32_t>(sector.data() + 508, Crc32c(View(sector.first(508))));
}

void FixSegment(absl::Span<char> file, bool relink) {
  if (file.size() < kSector) return;
  FixSector(file.first(kSector));
  const uint64_t salt = LoadLe<uint64_t>(file.data() + 80);
  const uint64_t chain = LoadLe<uint64_t>(file.data() + 56);
  const bool has_footer = file.size() >= 2 * kSector;
  FixFrames(file.subspan(kSector, file.size() - (has_footer ? 2 : 1) * kSector), salt, relink, chain);
  if (has_footer) FixSector(file.last(kSector));
}

void FixIndex(absl::Span<char> file) {
  if (file.size() < 48) return;
  StoreLe<uint32_t>(file.data() + 40, Crc32c(View(file.subspan(48))));
  StoreLe<uint32_t>(file.data() + 44, Crc32c(View(file.first(44))));
}

void FixTwoCopy(absl::Span<char> copy) {
  if (copy.size() < 32) return;
  const size_t length = std::min<size_t>(LoadLe<uint32_t>(copy.data() + 12), copy.size() - 32);
  StoreLe<uint32_t>(copy.data() + 12, static_cast<uint32_t>(length));
  StoreLe<uint32_t>(copy.data() + 24, Crc32c(View(copy.subspan(32, length))));
  StoreLe<uint32_t>(copy.data() + 28, Crc32c(View(copy.first(28))));
}

void FixRdb(absl::Span<char> stream) {
  if (stream.size() < 9) return;
  StoreLe<uint64_t>(stream.data() + stream.size() - 8, Crc64JonesExtend(0, View(stream.first(stream.size() - 8))));
}

}  // namespace towline::fuzz
