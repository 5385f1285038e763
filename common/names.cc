#include "common/names.h"

#include <algorithm>
#include <limits>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

#include "common/error.h"

namespace towline {
namespace {

constexpr size_t kNameSizeMax = 63;

struct Unit {
  absl::string_view name;
  uint64_t factor;
};

constexpr Unit kByteUnits[] = {
    {"B", 1},
    {"KB", 1000},
    {"MB", 1000000},
    {"GB", 1000000000},
    {"TB", 1000000000000},
    {"KiB", uint64_t{1} << 10},
    {"MiB", uint64_t{1} << 20},
    {"GiB", uint64_t{1} << 30},
    {"TiB", uint64_t{1} << 40},
};

constexpr Unit kDurationUnits[] = {
    {"us", 1},
    {"ms", 1000},
    {"s", 1000000},
    {"m", uint64_t{60} * 1000000},
    {"h", uint64_t{3600} * 1000000},
    {"d", uint64_t{86400} * 1000000},
};

// Digits, then one of `units`, at most `max` in all; also a bare "0". False on anything else.
template <size_t kCount>
bool ParseQuantity(absl::string_view text, const Unit (&units)[kCount], uint64_t max, uint64_t* value) {
  const size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
  uint64_t number = 0;
  if (!absl::SimpleAtoi(text.substr(0, digits), &number)) return false;
  const absl::string_view name = text.substr(digits);
  if (name.empty() && number == 0) {
    *value = 0;
    return true;
  }
  for (const Unit& unit : units) {
    if (unit.name != name) continue;
    if (number > max / unit.factor) return false;
    *value = number * unit.factor;
    return true;
  }
  return false;
}

bool IsNameByte(char c) { return absl::ascii_islower(c) || absl::ascii_isdigit(c) || c == '_' || c == '-'; }

}  // namespace

absl::Status ValidateName(absl::string_view what, absl::string_view name) {
  const bool valid = !name.empty() && name.size() <= kNameSizeMax && name[0] != '_' && name[0] != '-' &&
                     std::all_of(name.begin(), name.end(), IsNameByte);
  if (valid) return absl::OkStatus();
  return MakeError(absl::StatusCode::kInvalidArgument, "invalid_name",
                   absl::StrCat(what, " \"", Printable(name), "\" of ", name.size(), " bytes is not a name"),
                   "use 1 to 63 of a-z, 0-9, _ and -, beginning with a letter or a digit");
}

absl::StatusOr<uint64_t> ParseBytes(absl::string_view text) {
  uint64_t value = 0;
  if (ParseQuantity(text, kByteUnits, std::numeric_limits<uint64_t>::max(), &value)) return value;
  return MakeError(absl::StatusCode::kInvalidArgument, "invalid_size",
                   absl::StrCat("\"", Printable(text), "\" is not a size"),
                   "write a whole number and a unit: B, KiB, MiB, GiB, TiB, KB, MB, GB or TB, such as 64MiB");
}

absl::StatusOr<int64_t> ParseDurationMicros(absl::string_view text) {
  uint64_t value = 0;
  if (ParseQuantity(text, kDurationUnits, std::numeric_limits<int64_t>::max(), &value)) {
    return static_cast<int64_t>(value);
  }
  return MakeError(absl::StatusCode::kInvalidArgument, "invalid_duration",
                   absl::StrCat("\"", Printable(text), "\" is not a duration"),
                   "write a whole number and a unit: us, ms, s, m, h or d, such as 250ms");
}

std::string FormatBytes(uint64_t bytes) {
  static constexpr absl::string_view kNames[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  if (bytes < 1024) return absl::StrCat(bytes, " B");
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  // 1023.95 and more would be printed as 1024.0.
  while (value >= 1023.95 && unit + 1 < sizeof(kNames) / sizeof(kNames[0])) {
    value /= 1024;
    ++unit;
  }
  std::string number = absl::StrFormat("%.1f", value);
  if (number.size() > 2 && number.compare(number.size() - 2, 2, ".0") == 0) number.resize(number.size() - 2);
  return absl::StrCat(number, " ", kNames[unit]);
}

std::string Printable(absl::string_view bytes, size_t max) {
  std::string text;
  for (const char c : bytes.substr(0, max)) {
    if (absl::ascii_isprint(static_cast<unsigned char>(c)) && c != '\\') {
      text.push_back(c);
    } else {
      absl::StrAppend(&text, "\\x", absl::Hex(static_cast<uint8_t>(c), absl::kZeroPad2));
    }
  }
  if (bytes.size() > max) text.append("...");
  return text;
}

}  // namespace towline
