#include "tests/fuzz/two_copy_input.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

#include "common/bytes.h"
#include "common/checksum.h"
#include "tests/fuzz/checksums.h"

namespace towline::fuzz {
namespace {

constexpr size_t kPrefix = 3;
constexpr uint8_t kAbsentA = 1;
constexpr uint8_t kAbsentB = 2;
constexpr uint8_t kKeepHeader = 4;  // FixInput leaves magic and version alone
constexpr uint8_t kUse = 8;

enum class CopyState { kNothing, kWhole, kDamaged };

CopyState Classify(absl::string_view copy, uint64_t magic, TwoCopyImage* image) {
  if (copy.find_first_not_of('\0') == absl::string_view::npos) return CopyState::kNothing;
  if (copy.size() < 32) return CopyState::kDamaged;
  const uint32_t length = LoadLe<uint32_t>(copy.data() + 12);
  image->version = LoadLe<uint32_t>(copy.data() + 8);
  image->sequence = LoadLe<uint64_t>(copy.data() + 16);
  const bool whole = LoadLe<uint32_t>(copy.data() + 28) == Crc32c(copy.substr(0, 28)) &&
                     LoadLe<uint64_t>(copy.data()) == magic && image->sequence >= 1 && length <= 1073741824 &&
                     length <= copy.size() - 32 &&
                     LoadLe<uint32_t>(copy.data() + 24) == Crc32c(copy.substr(32, length));
  if (!whole) return CopyState::kDamaged;
  image->payload = std::string(copy.substr(32, length));
  return CopyState::kWhole;
}

}  // namespace

TwoCopyInput ReadTwoCopyInput(Input& input, const std::string& directory, const std::string& name, uint64_t magic,
                              test::SimFileSystem* fs) {
  const uint8_t flags = input.U8();
  const size_t length = input.U16();
  const std::string copies[2] = {std::string(input.Bytes(length)), std::string(input.Rest())};
  TwoCopyInput result;
  result.use = (flags & kUse) != 0;
  bool damaged = false;
  for (int which = 0; which < 2; ++which) {
    if ((flags & (which == 0 ? kAbsentA : kAbsentB)) != 0) continue;
    fs->SetContents(absl::StrCat(directory, "/", name, which == 0 ? ".a" : ".b"), copies[which]);
    TwoCopyImage image;
    const CopyState state = Classify(copies[which], magic, &image);
    damaged = damaged || state == CopyState::kDamaged;
    if (state != CopyState::kWhole) continue;
    if (!result.newest.empty() && result.newest[0].sequence < image.sequence) result.newest.clear();
    if (result.newest.empty() || result.newest[0].sequence == image.sequence) result.newest.push_back(image);
  }
  if (!result.newest.empty()) {
    result.state = TwoCopyState::kValid;
  } else if (damaged) {
    result.state = TwoCopyState::kDamaged;
  }
  fs->ClearLog();
  return result;
}

void FixTwoCopyInput(absl::Span<char> input, uint64_t magic, uint32_t version) {
  if (input.size() < kPrefix) return;
  const bool keep = (static_cast<uint8_t>(input[0]) & kKeepHeader) != 0;
  const size_t length = std::min<size_t>(LoadLe<uint16_t>(input.data() + 1), input.size() - kPrefix);
  for (const absl::Span<char> copy : {input.subspan(kPrefix, length), input.subspan(kPrefix + length)}) {
    if (copy.size() < 32) continue;
    if (!keep) {
      StoreLe<uint64_t>(copy.data(), magic);
      StoreLe<uint32_t>(copy.data() + 8, version);
    }
    FixTwoCopy(copy);
  }
}

std::vector<Seed> TwoCopySeeds(const std::string& copy) {
  const auto seed = [](uint8_t flags, const std::string& a, const std::string& b) {
    std::string bytes;
    ByteWriter writer(&bytes);
    writer.U8(flags);
    writer.U16(static_cast<uint16_t>(a.size()));
    return bytes + a + b;
  };
  std::string older = copy;
  older[16] = static_cast<char>(older[16] - 1);
  older[40] = static_cast<char>(older[40] ^ 1);
  FixTwoCopy(absl::MakeSpan(older));
  std::string flipped = copy;
  flipped[50] = static_cast<char>(flipped[50] ^ 16);
  std::string later_version = copy;
  later_version[8] = 2;
  FixTwoCopy(absl::MakeSpan(later_version));
  const std::string nothing(64, '\0');
  return {{"same", seed(kUse, copy, copy)},
          {"older_b", seed(0, copy, older)},
          {"older_a", seed(0, older, copy)},
          {"only_a", seed(kAbsentB, copy, "")},
          {"only_b", seed(kAbsentA, "", copy)},
          {"flipped_a", seed(0, flipped, older)},
          {"flipped_both", seed(kUse, flipped, flipped)},
          {"flipped_and_nothing", seed(0, flipped, nothing)},
          {"nothing", seed(kUse, nothing, "")},
          {"absent", seed(kAbsentA | kAbsentB, "", "")},
          {"cut", seed(0, copy.substr(0, 40), copy.substr(0, 20))},
          {"later_version", seed(kKeepHeader, later_version, older)},
          {"fill_behind", seed(kUse, copy + nothing, older + copy)}};
}

}  // namespace towline::fuzz
