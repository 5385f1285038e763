// The victim of the tests in this directory: uses a log on the machine's disk, in one thread, and says what it does.
//
//   wal_script run DIR [--rounds N] [--first-round N] [--pause-at-ack N] [--pause-at-call N] [--pause-at-sync N]
//                      [--pause-when-full] [--keep-all] [--keep-open]
//   wal_script check DIR --acked N --submitted M [--watermark W] [--may-be-full] [--pause-when-open]
//                      [--pause-at-ack N] [--pause-at-call N]
//
// `run` appends, rolls, prunes, recycles, closes and reopens. What it does in a round is a function of the round's
// number, and a payload is a function of the LSN, so two runs make the same system calls (--keep-all: without prunes;
// --keep-open: in one life). `check` recovers the log and looks whether everything up to LSN N is there, with the right
// contents, nothing above LSN M, and whether the log goes on. A pause writes "paused" and waits for a byte (or the end)
// of the standard input.
//
// Each line of the standard output is one write(2), before the thing happens (append, maintain, prune, open, close) or
// after it (recovered, acked, retained, refused, resumed, read, done, checked).
//
// Exit codes: 0 done; 1 `check` found a violation, or reading failed; 2 usage; 12 the log does not open; 13 it is
// poisoned.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unistd.h>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/file_system.h"
#include "common/rng.h"
#include "tests/crash/pausing_file_system.h"
#include "tests/wal/spool_fixture.h"

namespace towline::wal::test {
namespace {

using ::towline::test::PausingFileSystem;

constexpr int kExitViolation = 1;
constexpr int kExitUsage = 2;
constexpr int kExitNotOpened = 12;
constexpr int kExitPoisoned = 13;

constexpr char kFirstRetainedFile[] = "first_retained";
constexpr Lsn kKeptRecords = 15;          // by a prune
constexpr int64_t kIdleMicros = 2000000;  // longer than the loop waits after a failure

struct Arguments {
  std::string mode;
  std::string directory;
  std::map<std::string, uint64_t> options;

  uint64_t Get(const std::string& name, uint64_t fallback = 0) const {
    const auto found = options.find(name);
    return found == options.end() ? fallback : found->second;
  }
};

void Say(const std::string& line) {
  const std::string text = line + "\n";
  if (::write(STDOUT_FILENO, text.data(), text.size()) != static_cast<ssize_t>(text.size())) std::abort();
}

void Pause() {
  Say("paused");
  char byte;
  if (::read(STDIN_FILENO, &byte, 1) < 0) std::abort();
}

// Around the frame alignment, the sector and the page; one that needs a larger segment of its own now and then.
size_t SizeAt(Lsn lsn) {
  constexpr size_t kSizes[] = {0, 9000, 455, 456, 457, 12000, 1, 4040, 100, 20000, 7};
  return lsn % 31 == 17 ? 90000 : kSizes[lsn % (sizeof kSizes / sizeof kSizes[0])];
}

class Script {
 public:
  explicit Script(const Arguments& arguments)
      : arguments_(arguments),
        fs_(*PosixFileSystem(), {arguments.Get("pause-at-call"), arguments.Get("pause-at-sync")}, Pause),
        node_(fs_, JoinPath(arguments.directory, "wal"), JoinPath(arguments.directory, "quarantine"),
              SystemRng()->Next()) {}

  int Run();
  int Check();

 private:
  // Each returns an exit code when the script has to end.
  std::optional<int> Open();
  std::optional<int> Append(size_t count);
  std::optional<int> Refused(const absl::Status& status);
  std::optional<int> CheckContents();

  void Maintain();
  void Prune();
  absl::StatusOr<Lsn> LoadFirstRetained();
  int Fail(int code, const absl::Status& status);

  const Arguments arguments_;
  PausingFileSystem fs_;
  Node node_;
  uint64_t acks_ = 0;
  bool full_ = false;
  uint64_t segments_when_full_ = 0;
};

int Script::Fail(int code, const absl::Status& status) {
  if (GetErrorInfo(status).reason == "wal_poisoned") code = kExitPoisoned;
  Say(absl::StrCat("failed ", code, " ", status.ToString()));
  return code;
}

absl::StatusOr<Lsn> Script::LoadFirstRetained() {
  const absl::StatusOr<std::string> text = ReadFile(fs_, JoinPath(arguments_.directory, kFirstRetainedFile));
  if (absl::IsNotFound(text.status())) return Lsn{1};
  if (!text.ok()) return text.status();
  Lsn first = 0;
  if (!absl::SimpleAtoi(*text, &first)) return absl::DataLossError("first_retained is not a number: " + *text);
  return first;
}

std::optional<int> Script::Open() {
  Say("open");
  const absl::StatusOr<Lsn> first_retained = LoadFirstRetained();
  if (!first_retained.ok()) return Fail(kExitNotOpened, first_retained.status());
  SpoolOptions options = SmallOptions();
  options.spare_segments = 1;
  RecoveryInputs inputs = Inputs(arguments_.Get("watermark"));
  inputs.first_retained = *first_retained;
  const absl::Status opened = node_.Open(options, inputs);
  if (!opened.ok()) return Fail(kExitNotOpened, opened);
  Say(absl::StrCat("recovered ", *first_retained, " ", node_.spool->end().lsn, " ", node_.report.row));
  if (arguments_.Get("pause-when-open") > 0) Pause();
  // From the listener, because that is where acknowledgements come from in the service.
  node_.spool->AddDurableListener([this](Lsn lsn) {
    Say(absl::StrCat("acked ", lsn));
    if (++acks_ == arguments_.Get("pause-at-ack")) Pause();
  });
  return std::nullopt;
}

std::optional<int> Script::Append(size_t count) {
  const Lsn first = node_.spool->end().lsn + 1;
  std::vector<size_t> sizes;
  for (Lsn lsn = first; lsn < first + count; ++lsn) sizes.push_back(SizeAt(lsn));
  Say(absl::StrCat("append ", first, " ", first + count - 1));
  const absl::Status appended = node_.Append(sizes);
  if (absl::IsResourceExhausted(appended)) return Refused(appended);
  if (!appended.ok()) return Fail(kExitViolation, appended);
  // A smaller group may have fitted into the present segment.
  if (full_ && node_.spool->stats().segments > segments_when_full_) {
    full_ = false;
    Say("resumed");
  }
  return std::nullopt;
}

// A full disk: it is said, reads go on, and the next round tries again.
std::optional<int> Script::Refused(const absl::Status& status) {
  if (GetErrorInfo(status).reason != "disk_full" || !node_.spool->stats().disk_full) {
    return Fail(kExitViolation, status);
  }
  Say("refused disk_full");
  const std::optional<int> code = CheckContents();
  if (code.has_value()) return code;
  segments_when_full_ = node_.spool->stats().segments;
  const bool pauses = !full_ && arguments_.Get("pause-when-full") > 0;
  full_ = true;
  if (pauses) Pause();
  return std::nullopt;
}

// Everything from the first retained record to the end, against what was once appended.
std::optional<int> Script::CheckContents() {
  const absl::StatusOr<Lsn> saved = LoadFirstRetained();
  if (!saved.ok()) return Fail(kExitViolation, saved.status());
  Spool& spool = *node_.spool;
  const Lsn first = spool.stats().first_lsn;
  if (first > *saved) {
    Say(absl::StrCat("violation the log begins with LSN ", first, ", the first retained LSN is ", *saved));
    return kExitViolation;
  }
  const absl::StatusOr<std::vector<ReadRecord>> records = ReadAll(spool, *saved);
  if (!records.ok()) return Fail(kExitViolation, records.status());
  if (*saved + records->size() != spool.end().lsn + 1) {
    Say(absl::StrCat("violation ", records->size(), " records from LSN ", *saved, " on, but the end is LSN ",
                     spool.end().lsn));
    return kExitViolation;
  }
  for (size_t i = 0; i < records->size(); ++i) {
    const ReadRecord& record = (*records)[i];
    if (record.lsn == *saved + i && record.payload == PayloadOf(record.lsn, SizeAt(record.lsn))) continue;
    Say(absl::StrCat("violation LSN ", *saved + i, " is not what was written"));
    return kExitViolation;
  }
  Say(absl::StrCat("read ", *saved, " ", spool.end().lsn));
  return std::nullopt;
}

void Script::Maintain() {
  Say("maintain");
  node_.executor.AdvanceTime(kIdleMicros);
}

void Script::Prune() {
  const Lsn end = node_.spool->end().lsn;
  const Lsn first_needed = end > kKeptRecords ? end - kKeptRecords : 1;
  Say(absl::StrCat("prune ", first_needed));
  const absl::StatusOr<Lsn> first = node_.spool->Prune(first_needed, 0, [this](Lsn lsn) {
    return WriteFileDurably(fs_, arguments_.directory, kFirstRetainedFile, absl::StrCat(lsn));
  });
  Say(first.ok() ? absl::StrCat("retained ", *first) : absl::StrCat("prune_failed ", first.status().ToString()));
}

int Script::Run() {
  constexpr size_t kCounts[] = {1, 2, 1, 4, 3, 1, 5, 2, 6, 1, 1, 7};
  std::optional<int> code = Open();
  const uint64_t first = arguments_.Get("first-round");
  const uint64_t end = first + arguments_.Get("rounds", 24);
  for (uint64_t round = first; !code.has_value() && round < end; ++round) {
    code = Append(kCounts[round % (sizeof kCounts / sizeof kCounts[0])]);
    if (code.has_value()) break;
    if (round % 4 == 2) Maintain();
    if (round % 6 == 4 && arguments_.Get("keep-all") == 0) Prune();
    if (round % 9 == 7 && arguments_.Get("keep-open") == 0) {
      Say("close");
      node_.Close();
      code = Open();
      if (!code.has_value()) code = CheckContents();
    }
  }
  if (code.has_value()) return *code;
  Say("close");
  node_.Close();
  Say("done");
  return EXIT_SUCCESS;
}

int Script::Check() {
  std::optional<int> code = Open();
  if (code.has_value()) return *code;
  const Lsn end = node_.spool->end().lsn;
  if (end < arguments_.Get("acked") || end > arguments_.Get("submitted")) {
    Say(absl::StrCat("violation the log ends with LSN ", end, ", acknowledged is LSN ", arguments_.Get("acked"),
                     ", submitted is LSN ", arguments_.Get("submitted")));
    return kExitViolation;
  }
  code = CheckContents();
  for (const size_t count : {1, 3, 2}) {
    if (!code.has_value()) code = Append(count);
  }
  if (code.has_value()) return *code;
  if (full_ && arguments_.Get("may-be-full") == 0) {
    Say("violation the disk is full");
    return kExitViolation;
  }
  Maintain();
  Say("close");
  node_.Close();
  code = Open();
  if (!code.has_value()) code = CheckContents();
  if (code.has_value()) return *code;
  Say("checked");
  return EXIT_SUCCESS;
}

std::optional<Arguments> Parse(int argc, char** argv) {
  if (argc < 3) return std::nullopt;
  Arguments arguments;
  arguments.mode = argv[1];
  arguments.directory = argv[2];
  if (arguments.mode != "run" && arguments.mode != "check") return std::nullopt;
  for (int i = 3; i < argc; ++i) {
    if (std::strncmp(argv[i], "--", 2) != 0) return std::nullopt;
    uint64_t value = 1;  // an option without a value is a switch
    if (i + 1 < argc && std::strncmp(argv[i + 1], "--", 2) != 0) {
      if (!absl::SimpleAtoi(argv[i + 1], &value)) return std::nullopt;
      arguments.options[argv[i] + 2] = value;
      ++i;
    } else {
      arguments.options[argv[i] + 2] = value;
    }
  }
  return arguments;
}

int Main(int argc, char** argv) {
  const std::optional<Arguments> arguments = Parse(argc, argv);
  if (!arguments.has_value()) {
    std::fputs("usage: wal_script run|check DIR [--OPTION [NUMBER]]...; see the top of wal_script.cc\n", stderr);
    return kExitUsage;
  }
  Script script(*arguments);
  return arguments->mode == "run" ? script.Run() : script.Check();
}

}  // namespace
}  // namespace towline::wal::test

int main(int argc, char** argv) { return towline::wal::test::Main(argc, argv); }
