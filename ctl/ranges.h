// Key ranges and scans that run over all pages.

#ifndef TOWLINE_CTL_RANGES_H_
#define TOWLINE_CTL_RANGES_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

#include "client/client.h"

namespace towline::ctl {

// The first key behind all keys that start with `prefix`; empty = there is none (the range ends with the last key).
std::string PrefixEnd(absl::string_view prefix);

// Calls `on_page` for each page of at most `limit` entries together, until it returns an error.
absl::Status ScanPages(client::Client& client, v1::ScanRequest request, bool pinned, uint64_t limit,
                       const std::function<absl::Status(const v1::ScanResponse&)>& on_page);

}  // namespace towline::ctl

#endif  // TOWLINE_CTL_RANGES_H_
