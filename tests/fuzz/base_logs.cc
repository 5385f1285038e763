#include "tests/fuzz/base_logs.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/bytes.h"
#include "common/check.h"
#include "tests/fuzz/recovery_model.h"
#include "tests/wal/spool_fixture.h"

namespace towline::fuzz {
namespace {

using test::SimFileSystem;
using wal::test::Inputs;
using wal::test::kDirectory;
using wal::test::Node;
using wal::test::SmallOptions;

constexpr size_t kSector = 512;

using Groups = std::vector<std::vector<size_t>>;  // payload sizes of the records of each group

std::map<std::string, std::string> FilesIn(const SimFileSystem& fs) {
  std::map<std::string, std::string> files;
  const std::string prefix = absl::StrCat(kDirectory, "/");
  for (const auto& [path, bytes] : fs.AllContents()) files[path.substr(path.find(prefix) + prefix.size())] = bytes;
  return files;
}

std::map<std::string, std::string> WriteLog(uint64_t seed, const Groups& groups, const wal::RecoveryInputs& inputs) {
  SimFileSystem fs;
  Node node(fs, seed);
  TOWLINE_CHECK(node.Open(SmallOptions(), inputs).ok());
  for (const std::vector<size_t>& sizes : groups) TOWLINE_CHECK(node.Append(sizes).ok());
  node.RunLoops();  // writes the indexes
  node.Close();
  return FilesIn(fs);
}

BaseLog Make(std::string name, const Groups& groups, const wal::RecoveryInputs& inputs) {
  BaseLog log;
  log.name = std::move(name);
  log.inputs = inputs;
  log.end_lsn = inputs.base.lsn;
  log.files = WriteLog(1, groups, inputs);
  log.stale = WriteLog(2, groups, inputs);
  return log;
}

// What follows from the files.
void Complete(BaseLog* log) {
  log->disk = std::make_unique<SimFileSystem>();
  for (const auto& [name, file] : log->files) {
    log->disk->SetContents(absl::StrCat(kDirectory, "/", name), file);
    if (!IsSegment(name, file)) continue;
    for (uint64_t offset = kSector; offset + kSector < file.size();) {
      const ModelFrame frame = FrameAt(absl::string_view(file).substr(offset), SaltOf(file));
      if (frame.finding != ModelFrame::Finding::kWhole) break;
      log->records.push_back({name, offset, frame.size});
      log->end_lsn = std::max(log->end_lsn, frame.lsn);
      offset += frame.size;
    }
  }
}

// One record per group; seven fill a segment.
Groups Large(size_t records) { return Groups(records, {9000}); }

Groups Mixed() { return {{100, 200}, {0, 1, 7, 8}, {300, 50, 600, 5000, 9}, {40}, {1500, 1500, 1500}}; }

const wal::RecoveryInputs& BehindABase() {
  static const wal::RecoveryInputs* const inputs = [] {
    auto* made = new wal::RecoveryInputs(Inputs());
    made->base = {3, 33, 500, 0x1234};
    made->generation = 2;
    return made;
  }();
  return *inputs;
}

std::vector<BaseLog> MakeLogs() {
  std::vector<BaseLog> logs;
  logs.push_back(Make("rolled", Large(20), Inputs()));
  logs.push_back(Make("groups", Mixed(), Inputs()));

  BaseLog footer = Make("footer", Large(15), Inputs());
  footer.files.erase("00000000000000000015.seg");
  logs.push_back(std::move(footer));

  // The file was full in its former life: behind the log stand frames and a footer of another salt.
  BaseLog recycled = Make("recycled", Mixed(), Inputs());
  const std::string full = WriteLog(3, Large(8), Inputs()).at("00000000000000000001.seg");
  std::string& file = recycled.files.at("00000000000000000001.seg");
  const size_t used = file.find_last_not_of('\0') / 8 * 8 + 8;
  file.replace(used, std::string::npos, full, used, std::string::npos);
  recycled.stale.at("00000000000000000001.seg") = full;
  logs.push_back(std::move(recycled));

  BaseLog based = Make("based", Large(16), BehindABase());
  based.inputs.first_retained = 508;
  logs.push_back(std::move(based));

  logs.push_back(Make("empty", {}, Inputs()));

  BaseLog none = Make("none", {}, Inputs());
  none.files.clear();
  none.inputs = BehindABase();
  none.end_lsn = none.inputs.base.lsn;
  logs.push_back(std::move(none));

  for (BaseLog& log : logs) Complete(&log);
  return logs;
}

}  // namespace

uint64_t SaltOf(absl::string_view file) { return LoadLe<uint64_t>(file.data() + 80); }

bool IsSegment(absl::string_view name, absl::string_view file) {
  return name.size() == 24 && name.substr(20) == ".seg" && file.size() >= 2 * kSector;
}

const std::vector<BaseLog>& BaseLogs() {
  static const std::vector<BaseLog>* const logs = new std::vector<BaseLog>(MakeLogs());
  return *logs;
}

}  // namespace towline::fuzz
