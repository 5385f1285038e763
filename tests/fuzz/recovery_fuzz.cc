// Recovery on any directory: it ends, it refuses or it repairs, and it never loses what was durable.
//
// Input: a script of spool_script.h with all edits.

#include <algorithm>
#include <map>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "common/error.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/spool_script.h"
#include "tests/wal/spool_fixture.h"

namespace towline::fuzz {
namespace {

using test::CrashProfile;
using test::SimFileSystem;
using wal::test::kDirectory;
using wal::test::Node;
using wal::test::SmallOptions;

// What a spool holds, as far as it can be read.
struct Contents {
  absl::Status read;
  std::vector<wal::test::ReadRecord> records;

  friend bool operator==(const Contents&, const Contents&) = default;
};

// Every record that is read validates and continues the one in front of it (ReadAll checks that); none is skipped.
Contents ReadEverything(wal::Spool& spool) {
  Contents contents;
  const wal::SpoolStats stats = spool.stats();
  absl::StatusOr<std::vector<wal::test::ReadRecord>> records = wal::test::ReadAll(spool, stats.first_lsn, 20000);
  if (!records.ok()) {
    contents.read = records.status();
    const std::string reason = GetErrorInfo(records.status()).reason;
    FUZZ_EXPECT(reason == "wal_damaged", records.status().ToString());
    return contents;
  }
  contents.records = *std::move(records);
  FUZZ_EXPECT(
      contents.records.size() == spool.end().lsn + 1 - stats.first_lsn,
      absl::StrCat("LSN ", stats.first_lsn, " to ", spool.end().lsn, " gave ", contents.records.size(), " records"));
  return contents;
}

// Positions in the middle are found, or the log says that it is damaged there.
void CheckSeeks(wal::Spool& spool) {
  const Lsn first = spool.stats().first_lsn;
  const Lsn last = spool.end().lsn;
  if (last < first + 1) return;
  const auto check = [](const absl::Status& status) {
    FUZZ_EXPECT(status.ok() || GetErrorInfo(status).reason == "wal_damaged", status.ToString());
  };
  for (const Lsn lsn : {first, first + (last - first) / 2, std::min(first + 5, last - 1), last - 1}) {
    const absl::StatusOr<wal::LogEnd> end = spool.EndAt(lsn);
    check(end.status());
    FUZZ_EXPECT(!end.ok() || end->lsn == lsn, absl::StrCat(end->lsn));
    check(spool.SeekTime(static_cast<int64_t>(lsn) * 1000 + 1).status());
    FUZZ_EXPECT(lsn >= last || spool.BytesBehind(lsn) > 0, "");
  }
}

void CheckRefusal(const absl::Status& status, const SimFileSystem& fs,
                  const std::map<std::string, std::string>& before) {
  const ErrorInfo info = GetErrorInfo(status);
  FUZZ_EXPECT(info.reason == "wal_corrupt", status.ToString());
  FUZZ_EXPECT(info.metadata.count("file") == 1 && info.metadata.count("row") == 1, status.ToString());
  FUZZ_EXPECT(fs.AllContents() == before, "recovery refused and changed something");
}

// A spool that was recovered takes records and gives them back.
void CheckAppend(Node& node, const Contents& contents) {
  const Lsn end = node.spool->end().lsn;
  const absl::Status appended = node.Append({10, 0});
  FUZZ_EXPECT(appended.ok(), appended.ToString());
  FUZZ_EXPECT(node.spool->end().lsn == end + 2, "");
  const Contents after = ReadEverything(*node.spool);
  FUZZ_EXPECT(after.read.ok() == contents.read.ok(), after.read.ToString());
  FUZZ_EXPECT(!after.read.ok() || after.records.size() == contents.records.size() + 2, "");
}

// Without the segments that lie wholly below the first retained LSN, and their indexes. The first recovery keeps such a
// segment if it is the newest one; then it gets a successor, and the second recovery removes it.
std::map<std::string, std::string> WithoutRemovable(std::map<std::string, std::string> files, Lsn first_retained) {
  std::string previous;
  for (auto it = files.begin(); it != files.end();) {
    const std::string path = it++->first;
    const std::string name = path.substr(path.rfind('/') + 1);
    if (name.size() != 24 || name.substr(20) != ".seg" || name[0] < '0' || name[0] > '9') continue;
    if (!previous.empty() && std::stoull(name) <= first_retained) {
      files.erase(previous);
      files.erase(previous.substr(0, previous.size() - 4) + ".idx");
    }
    previous = path;
  }
  return files;
}

// Opening again finds what the first time left, on the same disk or after a power loss.
void CheckAgain(SimFileSystem& fs, const SpoolImage& image, const Node& first, const Contents& contents) {
  const std::map<std::string, std::string> before = fs.AllContents();
  Node node(fs, 5);
  const absl::Status opened = node.Open(SmallOptions(), image.inputs);
  FUZZ_EXPECT(opened.ok(), opened.ToString());
  FUZZ_EXPECT(node.report.end == first.report.end, absl::StrCat(node.report.end.lsn));
  FUZZ_EXPECT(node.report.row == "newest_clean" && node.report.quarantined_bytes == 0, node.report.row);
  const Lsn first_retained = std::max(image.inputs.first_retained, image.inputs.base.lsn + 1);
  const std::map<std::string, std::string> expected = WithoutRemovable(before, first_retained);
  FUZZ_EXPECT(fs.AllContents() == expected,
              absl::StrCat("the second recovery changed something: ", absl::StrJoin(fs.log(), ", ")));
  const Contents again = ReadEverything(*node.spool);
  FUZZ_EXPECT(expected != before || again == contents, "the second recovery gives other records");
  CheckAppend(node, again);
}

void Run(Input& input) {
  const SpoolImage image = ReadScript(input, EditSet::kNames);
  const std::unique_ptr<SimFileSystem> fs = image.ToDisk();
  const std::map<std::string, std::string> before = fs->AllContents();
  Node node(*fs, 4);
  const absl::Status opened = node.Open(SmallOptions(), image.inputs);
  if (!opened.ok()) return CheckRefusal(opened, *fs, before);

  for (const wal::Watermark& watermark : image.inputs.watermarks) {
    FUZZ_EXPECT(node.report.end.lsn >= watermark.lsn,
                absl::StrCat("the log ends with ", node.report.end.lsn, ", ", watermark.source, " has seen ",
                             watermark.lsn, " (", node.report.row, ")"));
  }
  FUZZ_EXPECT(node.spool->end() == node.report.end, "");
  FUZZ_EXPECT(node.report.end.lsn >= node.report.watermark, "");
  const Contents contents = ReadEverything(*node.spool);
  CheckSeeks(*node.spool);
  node.Close();
  const std::unique_ptr<SimFileSystem> crashed = fs->CloneAfterCrash(CrashProfile::kStrict, 1);
  CheckAgain(*crashed, image, node, contents);
  CheckAgain(*fs, image, node, contents);
}

}  // namespace

void FixInput(absl::Span<char> input) { FixRawFiles(input, EditSet::kNames); }

std::vector<Seed> Seeds() { return ScriptSeeds(EditSet::kNames); }

}  // namespace towline::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  towline::fuzz::Input input(data, size);
  towline::fuzz::Run(input);
  return 0;
}
