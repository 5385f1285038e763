// Positions that a client keeps, hands on and reads at.

#ifndef TOWLINE_BOOKMARK_H_
#define TOWLINE_BOOKMARK_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace towline {

// A point of a cluster's log. A read at a bookmark sees everything up to it, on any node.
struct Bookmark {
  std::string cluster_id;  // 24 lower-case hex digits
  uint64_t term = 0;       // of the record at `lsn`
  uint64_t term_id = 0;    // random identity of that term
  uint64_t lsn = 0;        // ordinal of the record: 1, 2, 3, ...; 0 = no position
  uint64_t chain = 0;      // digest of the log up to it; 0 = not known

  bool empty() const { return lsn == 0; }
  friend bool operator==(const Bookmark&, const Bookmark&) = default;
};

// One printable word for a bookmark, "t1." and 64 characters (docs/guides/client.md, "Tokens"). Empty for an empty
// bookmark, and for one whose cluster id is none.
std::string ToToken(const Bookmark& bookmark);

// INVALID_ARGUMENT, reason invalid_token: it is not a token, it was cut or changed on its way, or it is of a version
// that this library does not know.
absl::StatusOr<Bookmark> ParseToken(absl::string_view token);

}  // namespace towline

#endif  // TOWLINE_BOOKMARK_H_
