#include "tests/wal/crash_checker.h"

#include <algorithm>
#include <memory>

#include "absl/strings/str_cat.h"

#include "common/checksum.h"

namespace towline::wal::test {
namespace {

using ::towline::test::CrashProfile;
using ::towline::test::CrashProfileName;

constexpr size_t kViolationsMax = 20;

// Around the frame alignment, the sector (a frame has 56 bytes of headers) and the page; the large ones make a log of
// some 15 records roll.
constexpr size_t kSizes[] = {0, 9000, 455, 456, 457, 12000, 1, 4040, 100, 20000, 7};

std::string CheckRecords(Spool& spool, Lsn first) {
  const absl::StatusOr<std::vector<ReadRecord>> records = ReadAll(spool, first);
  if (!records.ok()) return absl::StrCat("cannot be read: ", records.status().ToString());
  if (first + records->size() != spool.end().lsn + 1) return "the log does not end where it says";
  for (size_t i = 0; i < records->size(); ++i) {
    const ReadRecord& record = (*records)[i];
    if (record.lsn != first + i || record.payload != PayloadAt(record.lsn)) {
      return absl::StrCat("LSN ", record.lsn, " is not what was written");
    }
  }
  return "";
}

}  // namespace

size_t SizeOf(Lsn lsn) { return kSizes[lsn % (sizeof kSizes / sizeof kSizes[0])]; }

const std::string& PayloadAt(Lsn lsn) {
  static std::map<Lsn, std::string>* const payloads = new std::map<Lsn, std::string>;
  std::string& payload = (*payloads)[lsn];
  if (payload.empty()) payload = PayloadOf(lsn, SizeOf(lsn));
  return payload;
}

absl::Status AppendNext(Node& node, size_t count) {
  GroupBuilder builder(node.spool->end());
  for (size_t i = 0; i < count; ++i) {
    const Lsn lsn = builder.end().lsn + 1;
    builder.Add(RecordType::kBatch, 1, static_cast<int64_t>(lsn) * 1000, PayloadAt(lsn), Crc32c(PayloadAt(lsn)));
  }
  return node.spool->Append(builder.Finish());
}

void CrashChecker::CheckAllCrashes(const SimFileSystem& fs, const Promise& promise, int samples) {
  for (const CrashProfile profile : {CrashProfile::kStrict, CrashProfile::kExt4Like, CrashProfile::kAdversary}) {
    const int count = profile == CrashProfile::kStrict ? 1 : samples;
    for (int seed = 1; seed <= count; ++seed) {
      const std::unique_ptr<SimFileSystem> crashed = fs.CloneAfterCrash(profile, static_cast<uint64_t>(seed));
      CheckState(*crashed, promise, 1, absl::StrCat(CrashProfileName(profile), " seed ", seed));
    }
  }
  const std::unique_ptr<SimFileSystem> killed = fs.Clone();
  CheckState(*killed, promise, 1, "killed");
}

void CrashChecker::CheckState(SimFileSystem& fs, const Promise& promise, int depth, const std::string& what) {
  ++states_;
  const uint64_t number = ++recoveries_;
  Node node(fs, number);
  const absl::Status opened = Recover(node, fs, promise, depth, what);
  if (!opened.ok()) return Violated(what, absl::StrCat("does not open: ", opened.ToString()));
  ++rows_[node.report.row];
  const LogEnd end = node.spool->end();
  if (end.lsn < promise.acked) {
    return Violated(what, absl::StrCat("LSN ", promise.acked, " was acknowledged, the log ends with ", end.lsn));
  }
  if (end.lsn > promise.submitted) return Violated(what, absl::StrCat("LSN ", end.lsn, " was never written"));
  const Lsn first = std::max(node.spool->stats().first_lsn, promise.first_retained);
  if (first > promise.first_retained) return Violated(what, absl::StrCat("the log begins with ", first));
  std::string violation = CheckRecords(*node.spool, first);
  if (!violation.empty()) return Violated(what, violation);

  // Life goes on: what is acknowledged now has to survive the next crash, as has what was recovered.
  for (const size_t count : {1, 3}) {
    const absl::Status appended = AppendNext(node, count);
    if (!appended.ok()) return Violated(what, absl::StrCat("cannot append: ", appended.ToString()));
  }
  const Lsn appended_end = node.spool->end().lsn;
  if (depth == 0) return;
  const CrashProfile profile = number % 2 == 0 ? CrashProfile::kStrict : CrashProfile::kAdversary;
  const std::unique_ptr<SimFileSystem> again = fs.CloneAfterCrash(profile, number);
  CheckState(*again, {appended_end, appended_end, promise.first_retained}, 0, absl::StrCat(what, ", append, crash"));
}

absl::Status CrashChecker::Recover(Node& node, SimFileSystem& fs, const Promise& promise, int depth,
                                   const std::string& what) {
  // Every other recovery knows all that was acknowledged, as from a slot.
  RecoveryInputs inputs = Inputs(recoveries_ % 2 == 0 ? promise.acked : 0);
  inputs.first_retained = promise.first_retained;
  if (depth == 0) return node.Open(options_, inputs);
  // One call of this recovery is followed by a crash; another one's turn comes with the next state.
  uint64_t calls = 0;
  const uint64_t crash_at = 1 + recoveries_ % 7;
  std::unique_ptr<SimFileSystem> again;
  fs.SetAfterCall([&] {
    if (++calls != crash_at) return;
    const CrashProfile profile = recoveries_ % 3 == 0 ? CrashProfile::kExt4Like : CrashProfile::kAdversary;
    again = fs.CloneAfterCrash(profile, recoveries_);
  });
  const absl::Status opened = node.Open(options_, inputs);
  fs.SetAfterCall(nullptr);
  if (again != nullptr) CheckState(*again, promise, 0, absl::StrCat(what, ", crash in recovery at call ", crash_at));
  return opened;
}

void CrashChecker::Violated(const std::string& what, const std::string& violation) {
  if (violations_.size() < kViolationsMax) violations_.push_back(absl::StrCat(what, ": ", violation));
}

}  // namespace towline::wal::test
