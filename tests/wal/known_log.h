// A log of known records in three segments, and ways to damage it by hand. Offsets come from the format.

#ifndef TOWLINE_TESTS_WAL_KNOWN_LOG_H_
#define TOWLINE_TESTS_WAL_KNOWN_LOG_H_

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

#include "gtest/gtest.h"
#include "tests/wal/spool_fixture.h"

namespace towline::wal::test {

inline constexpr size_t kPayload = 9000;
inline constexpr uint64_t kFrame = 9056;  // seven of them fill a segment
inline constexpr uint64_t kSegment = 64 << 10;
inline constexpr uint64_t kSector = 512;
inline constexpr Lsn kLast = 20;  // segments begin with 1, 8, 15; the newest one holds six records

// Appends records of kPayload bytes up to `last`, one group each.
void AppendTo(Node& node, Lsn last);

// Records 1 to kLast; the node is gone.
void BuildLog(SimFileSystem& fs, uint64_t seed = 1, const RecoveryInputs& inputs = Inputs());

// Overwrites bytes of a file, durably.
void Change(SimFileSystem& fs, const std::string& path, uint64_t offset, absl::string_view bytes);

void RemoveFile(SimFileSystem& fs, const std::string& path);

// Of a record in the segment that begins with `first`.
inline uint64_t OffsetOf(Lsn lsn, Lsn first) { return kSector + (lsn - first) * kFrame; }

// Bytes without meaning.
std::string Noise(size_t size);

// What a case makes of a directory, and what has to come of it.
struct Scenario {
  SimFileSystem fs;
  RecoveryInputs inputs = Inputs();
  // If the row accepts:
  Lsn end = kLast;
  uint64_t quarantined = 0;
  // If it does not:
  std::string file;
  uint64_t offset = 0;
  Lsn lsn = 0;
};

// An open spool on a simulated disk, for records of kPayload bytes.
class OpenSpoolTest : public ::testing::Test {
 protected:
  OpenSpoolTest() : node_(fs_) {}

  static SpoolOptions WithSpares(int spares) {
    SpoolOptions options = SmallOptions();
    options.spare_segments = spares;
    return options;
  }

  void Open(const SpoolOptions& options = SmallOptions());
  void AppendTo(Lsn last) { test::AppendTo(node_, last); }

  Spool& spool() { return *node_.spool; }

  SimFileSystem fs_;
  Node node_;
};

}  // namespace towline::wal::test

#endif  // TOWLINE_TESTS_WAL_KNOWN_LOG_H_
