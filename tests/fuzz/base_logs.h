// The valid logs from which the scripts of spool_script.h start.

#ifndef TOWLINE_TESTS_FUZZ_BASE_LOGS_H_
#define TOWLINE_TESTS_FUZZ_BASE_LOGS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

#include "tests/support/sim_file_system.h"
#include "wal/spool.h"

namespace towline::fuzz {

// Where a record stands, as it was before any edit.
struct RecordPlace {
  std::string file;
  uint64_t offset = 0;
  uint64_t size = 0;
};

// A valid log and what the same files held in a former life (the same sizes under another salt).
struct BaseLog {
  std::string name;
  std::map<std::string, std::string> files;  // by name in the directory
  std::map<std::string, std::string> stale;
  wal::RecoveryInputs inputs;
  Lsn end_lsn = 0;
  std::vector<RecordPlace> records;
  std::unique_ptr<test::SimFileSystem> disk;
};

const std::vector<BaseLog>& BaseLogs();

// Whether a file of that name and content is taken for a segment.
bool IsSegment(absl::string_view name, absl::string_view file);

// The salt in the header of a segment.
uint64_t SaltOf(absl::string_view file);

}  // namespace towline::fuzz

#endif  // TOWLINE_TESTS_FUZZ_BASE_LOGS_H_
