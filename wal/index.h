// The seek index of one segment: about one entry per options.index_interval_bytes of log.
//
// Format: docs/formats/index_v1.md. A hint: whoever follows an entry checks the frame that it points to, and builds the
// index anew when they do not agree. Internal to wal.

#ifndef TOWLINE_WAL_INDEX_H_
#define TOWLINE_WAL_INDEX_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

#include "common/types.h"
#include "wal/frame.h"

namespace towline::wal {

inline constexpr uint64_t kIndexMagic = 0x0a3158444957540aull;  // "\nTWIDX1\n"
inline constexpr uint32_t kIndexVersion = 1;
inline constexpr size_t kIndexHeaderSize = 48;
inline constexpr size_t kIndexEntrySize = 32;

// A frame of the segment.
struct IndexEntry {
  Lsn lsn = 0;
  int64_t commit_time_us = 0;
  uint64_t offset = 0;  // of its local part
  uint64_t prev_chain = 0;

  friend bool operator==(const IndexEntry&, const IndexEntry&) = default;
};

// Ordered by LSN; the first entry is the segment's first frame. Empty only if the segment is.
using IndexEntries = std::vector<IndexEntry>;

// Adds the frame if it is the first one or at least `interval` bytes behind the last entry.
void AddToIndex(const ShippedHeader& header, uint64_t offset, uint64_t interval, IndexEntries* entries);

// The last entry with LSN <= `lsn`. Requires a first entry that qualifies.
const IndexEntry& FloorOfLsn(const IndexEntries& entries, Lsn lsn);

// The first entry with LSN > `lsn`; nullptr if there is none.
const IndexEntry* EntryBehind(const IndexEntries& entries, Lsn lsn);

// The last entry with commit time < `time_us`, else the first one. Requires !entries.empty().
const IndexEntry& FloorOfTime(const IndexEntries& entries, int64_t time_us);

// The segment that an index belongs to.
struct IndexOwner {
  Lsn first_lsn = 0;
  Lsn last_lsn = 0;
  uint64_t salt = 0;
  uint64_t end_offset = 0;
};

std::string EncodeIndex(const IndexOwner& owner, const IndexEntries& entries);

// False if the bytes are damaged or describe another segment; *what then says why.
bool DecodeIndex(absl::string_view bytes, const IndexOwner& owner, IndexEntries* entries, std::string* what);

}  // namespace towline::wal

#endif  // TOWLINE_WAL_INDEX_H_
