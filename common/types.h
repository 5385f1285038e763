// Values that every layer shares: log positions, histories, identities.
//
// Units and ranges: an Lsn is the ordinal of a record, 1, 2, 3, ... without holes, 0 = none (before the first record).
// A Term rises only at a promotion, 1 or more; 0 = none. Ids are random and never 0.

#ifndef TOWLINE_COMMON_TYPES_H_
#define TOWLINE_COMMON_TYPES_H_

#include <cstdint>
#include <string>
#include <vector>

namespace towline {

using Lsn = uint64_t;
using Term = uint32_t;

// Identity of a cluster: 24 lower-case hex digits (96 random bits), or empty = none yet.
using ClusterId = std::string;
inline constexpr size_t kClusterIdSize = 24;

// One entry of a history. Equal only if all three are.
struct HistoryEntry {
  Term term = 0;
  Lsn start_lsn = 0;     // LSN of the TERM_START record
  uint64_t term_id = 0;  // random identity of the promotion

  friend bool operator==(const HistoryEntry&, const HistoryEntry&) = default;
};

// Ordered by term and, strictly rising, by start_lsn. Empty = no log yet.
using History = std::vector<HistoryEntry>;

// A point of the log. Two equal positions (of one cluster) mean the same log up to that point.
struct Position {
  Term term = 0;         // term of the record at lsn; 0 if lsn is 0
  uint64_t term_id = 0;  // identity of that term; 0 if lsn is 0
  Lsn lsn = 0;
  uint64_t chain = 0;  // chain after that record; 0 if lsn is 0

  friend bool operator==(const Position&, const Position&) = default;
};

// A member of the cluster, as the log's Members records name it.
struct MemberInfo {
  std::string node_id;
  uint64_t incarnation = 0;
  std::string address;  // HOST:PORT; empty = not known
  bool counting = false;

  friend bool operator==(const MemberInfo&, const MemberInfo&) = default;
};

struct MemberList {
  std::vector<MemberInfo> members;  // ordered by node_id, no duplicates
  uint32_t min_replicas = 0;

  friend bool operator==(const MemberList&, const MemberList&) = default;
};

// Most nodes on the way from a server to the primary, both included.
inline constexpr size_t kUpstreamPathMax = 64;

// Limits of the state model (DESIGN in docs/ARCHITECTURE.md, "Limits").
inline constexpr size_t kKeySizeMax = 65536;
inline constexpr size_t kRecordSizeMaxDefault = 8u << 20;

}  // namespace towline

#endif  // TOWLINE_COMMON_TYPES_H_
