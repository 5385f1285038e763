// A spool on a simulated disk, and the records that tests put into it.

#ifndef TOWLINE_TESTS_WAL_SPOOL_FIXTURE_H_
#define TOWLINE_TESTS_WAL_SPOOL_FIXTURE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "tests/support/fake_clock.h"
#include "tests/support/recording_logger.h"
#include "tests/support/seeded_rng.h"
#include "tests/support/sim_executor.h"
#include "tests/support/sim_file_system.h"
#include "wal/frame.h"
#include "wal/spool.h"

namespace towline::wal::test {

using ::towline::test::FakeClock;
using ::towline::test::SeededRng;
using ::towline::test::SimExecutor;
using ::towline::test::SimFileSystem;

inline constexpr char kClusterId[] = "0123456789abcdef01234567";
inline constexpr char kDirectory[] = "wal";
inline constexpr char kQuarantine[] = "quarantine";

// Small segments without spares: every byte of the disk is the log's.
SpoolOptions SmallOptions();

// A new spool of the cluster, as generation 1.
RecoveryInputs Inputs(Lsn watermark = 0);

// Path of the segment that begins with this LSN.
std::string SegmentPath(Lsn first_lsn);
std::string IndexPath(Lsn first_lsn);

// The payload of a record: made from its LSN, of `size` bytes.
std::string PayloadOf(Lsn lsn, size_t size);

// A group of one record per size, behind `end`. Record n has commit time 1000 * n.
std::shared_ptr<FrameGroup> MakeGroup(const LogEnd& end, const std::vector<size_t>& sizes, Term term = 1);

// One life of a process that has a spool open.
class Node {
 public:
  explicit Node(SimFileSystem& fs, uint64_t seed = 1);
  // On the machine's disk; with it `directory` may be absolute.
  Node(FileSystem& fs, std::string directory, std::string quarantine, uint64_t seed = 1);

  absl::Status Open(const SpoolOptions& options, const RecoveryInputs& inputs);
  absl::Status Open() { return Open(SmallOptions(), Inputs()); }
  void Close() { spool.reset(); }

  // Appends one group of records with these payload sizes.
  absl::Status Append(const std::vector<size_t>& sizes);

  // Lets the spool's loop do what it has to.
  void RunLoops() { executor.RunUntilIdle(); }

  // An acknowledgement of what is not durable is an order violation of the simulated disk.
  void WatchAcknowledgements();

  FileSystem& fs;
  const std::string directory;
  const std::string quarantine;
  FakeClock clock;
  SeededRng rng;
  SimExecutor executor;
  RecoveryReport report;
  std::unique_ptr<Spool> spool;
};

// A record as a cursor gives it.
struct ReadRecord {
  Lsn lsn = 0;
  Term term = 0;
  RecordType type = RecordType::kBatch;
  std::string payload;

  friend bool operator==(const ReadRecord&, const ReadRecord&) = default;
};

// All records from `from` to the end. Checks that batches continue each other.
absl::StatusOr<std::vector<ReadRecord>> ReadAll(Spool& spool, Lsn from, size_t max_bytes = 1 << 20);

}  // namespace towline::wal::test

#endif  // TOWLINE_TESTS_WAL_SPOOL_FIXTURE_H_
