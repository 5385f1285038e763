// Checks what a crash leaves of a spool against what was promised before.

#ifndef TOWLINE_TESTS_WAL_CRASH_CHECKER_H_
#define TOWLINE_TESTS_WAL_CRASH_CHECKER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "tests/wal/spool_fixture.h"

namespace towline::wal::test {

// What the outside knows at some moment.
struct Promise {
  Lsn acked = 0;           // highest LSN that was told to be durable
  Lsn submitted = 0;       // highest LSN that was handed to Append
  Lsn first_retained = 1;  // saved by the last prune
};

// Payload size of record `lsn` in all workloads here: the record of an LSN is the same in every history, so that it can
// be checked without knowing which one happened.
size_t SizeOf(Lsn lsn);
const std::string& PayloadAt(Lsn lsn);

// Appends the next `count` records as one group.
absl::Status AppendNext(Node& node, size_t count);

// Counts states and collects violations of the promise.
class CrashChecker {
 public:
  explicit CrashChecker(SpoolOptions options) : options_(options) {}

  // Lets `fs` lose power, or its process die, in `samples` ways per profile; recovers from each, checks it, goes on
  // appending, and lets some of them crash again during recovery and after it. `fs` does not change.
  void CheckAllCrashes(const SimFileSystem& fs, const Promise& promise, int samples);

  uint64_t states() const { return states_; }
  const std::vector<std::string>& violations() const { return violations_; }
  // Rows of the recovery table that were reached, and how often.
  const std::map<std::string, uint64_t>& rows() const { return rows_; }

 private:
  // `depth`: how many crashes may still follow.
  void CheckState(SimFileSystem& fs, const Promise& promise, int depth, const std::string& what);
  // Opens the spool of `fs`, crashing again in between.
  absl::Status Recover(Node& node, SimFileSystem& fs, const Promise& promise, int depth, const std::string& what);
  void Violated(const std::string& what, const std::string& violation);

  const SpoolOptions options_;
  uint64_t states_ = 0;
  uint64_t recoveries_ = 0;
  std::vector<std::string> violations_;
  std::map<std::string, uint64_t> rows_;
};

}  // namespace towline::wal::test

#endif  // TOWLINE_TESTS_WAL_CRASH_CHECKER_H_
