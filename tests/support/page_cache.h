// What of a file of the machine is in the page cache.

#ifndef TOWLINE_TESTS_SUPPORT_PAGE_CACHE_H_
#define TOWLINE_TESTS_SUPPORT_PAGE_CACHE_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace towline::test {

// Makes the file durable and takes it out of the page cache.
absl::Status DropPages(const std::string& path);
// Of the file, in the page cache.
absl::StatusOr<uint64_t> ResidentBytes(const std::string& path);

}  // namespace towline::test

#endif  // TOWLINE_TESTS_SUPPORT_PAGE_CACHE_H_
