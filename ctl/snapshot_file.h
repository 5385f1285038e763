// What the verbs of `towctl snapshot` share: a file on disk, and what verifying it has found.

#ifndef TOWLINE_CTL_SNAPSHOT_FILE_H_
#define TOWLINE_CTL_SNAPSHOT_FILE_H_

#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/file_system.h"
#include "ctl/app.h"
#include "store/rdb_check.h"

namespace towline::ctl {

// An RDB file that exists, and its size.
struct SnapshotFile {
  std::string path;
  std::unique_ptr<File> file;
  uint64_t bytes = 0;
};
absl::StatusOr<SnapshotFile> OpenSnapshotFile(const std::string& path);

// CheckRdb with a progress line, until the end, an error, or an interrupt (CANCELLED). `also` may be null.
absl::StatusOr<RdbReport> VerifySnapshotFile(Context& context, const SnapshotFile& file, const RdbVisitor& also);

// "REDIS0009", "VALKEY080".
std::string FormatName(const RdbFileInfo& info);

// Where a snapshot of Towline comes from, and its digest.
Json SnapshotJson(const SnapshotMeta& meta, const std::string& digest);
void PrintSnapshotMeta(std::ostream& out, const SnapshotMeta& meta, const std::string& digest);

Json PositionJson(const Position& position);

Json CountsJson(const std::map<std::string, uint64_t>& counts);
// "5 list, 2 hash".
std::string CountsText(const std::map<std::string, uint64_t>& counts);

Json ReportJson(const SnapshotFile& file, const RdbReport& report);
void PrintReport(std::ostream& out, const SnapshotFile& file, const RdbReport& report);

}  // namespace towline::ctl

#endif  // TOWLINE_CTL_SNAPSHOT_FILE_H_
