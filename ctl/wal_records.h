// wal dump and wal seek: records of a log that is read from its directory.

#ifndef TOWLINE_CTL_WAL_RECORDS_H_
#define TOWLINE_CTL_WAL_RECORDS_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "ctl/app.h"

namespace towline::ctl {

struct WalOptions {
  std::string data_dir;
  uint64_t generation = 0;  // 0 = the live one
  uint64_t from = 0;        // LSN; 0 = the first retained
  uint64_t to = 0;          // LSN, inclusive; 0 = the end
  std::string since;        // see ParseTimeMicros; inclusive; empty = from the start
  std::string until;        // exclusive; empty = to the end
  bool quarantine = false;
  uint64_t lsn = 0;
  std::string time;
};

// DATA_DIR/quarantine.
std::string QuarantineOf(const WalOptions& options);

// A moment in Unix microseconds: "2026-11-21T14:00:00Z" (RFC 3339), the microseconds themselves as `commit_time_us`
// shows them, or a duration before `now_us` ("15m"). INVALID_ARGUMENT on anything else.
absl::StatusOr<int64_t> ParseTimeMicros(absl::string_view text, int64_t now_us);

// Each prints its result and returns an exit code.
int RunDump(Context& context, const WalOptions& options, const std::string& directory);
int RunSeek(Context& context, const WalOptions& options, const std::string& directory);

}  // namespace towline::ctl

#endif  // TOWLINE_CTL_WAL_RECORDS_H_
