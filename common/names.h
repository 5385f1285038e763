// Names from outside, and quantities with units.

#ifndef TOWLINE_COMMON_NAMES_H_
#define TOWLINE_COMMON_NAMES_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace towline {

// Node ids, slot names, client ids: [a-z0-9][a-z0-9_-]{0,62}. `what` names the field in the error
// (INVALID_ARGUMENT, reason invalid_name).
absl::Status ValidateName(absl::string_view what, absl::string_view name);

// "64MiB", "1GiB", "512B", "10GB". A number without unit is an error, but for 0. INVALID_ARGUMENT on anything else.
absl::StatusOr<uint64_t> ParseBytes(absl::string_view text);

// "250ms", "10s", "5m", "24h", "500us", "7d" in microseconds. A number without unit is an error, but for 0.
absl::StatusOr<int64_t> ParseDurationMicros(absl::string_view text);

// "64 MiB", "1.5 GiB" for people.
std::string FormatBytes(uint64_t bytes);

// Escapes what is not printable ASCII, and the backslash, as \xNN; "..." stands for what follows the first `max` bytes.
std::string Printable(absl::string_view bytes, size_t max = 64);

}  // namespace towline

#endif  // TOWLINE_COMMON_NAMES_H_
