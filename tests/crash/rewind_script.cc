// The victim of rewind_test.py: a replica on the machine's disk, in one thread, whose log has gone another way than
// that of its upstream.
//
//   rewind_script prepare DIR   makes a replica that holds the old line up to kOldEnd, with a rewind checkpoint
//   rewind_script run DIR       it goes back to kCommonLsn, switches, removes generation 1, and goes on along the new
//   line rewind_script check DIR     opens the directory and looks whether it is exactly one of the two lines, and
//   whether what
//                               was given up is in quarantine
//
// All but its engine is the real thing: control, log, checkpoints, quarantine, controller.
//
// Each line of the standard output is one write(2): switched, done; old LSN, new LSN.
//
// Exit codes: 0 done; 1 a violation; 2 usage; 12 the directory does not open.

#include <cstdlib>
#include <memory>
#include <string>
#include <unistd.h>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/control.h"
#include "common/data_layout.h"
#include "common/error.h"
#include "common/file_system.h"
#include "common/history.h"
#include "replica/generation.h"
#include "replica/generation_files.h"
#include "replica/log_history.h"
#include "replica/replica_controller.h"
#include "store/memory_store.h"
#include "tests/replica/fake_upstream.h"
#include "tests/replica/replica_node.h"
#include "tests/replica/snapshot_maker.h"
#include "tests/support/fake_clock.h"
#include "tests/support/recording_logger.h"
#include "tests/support/seeded_rng.h"
#include "tests/support/sim_executor.h"
#include "wal/quarantine_reader.h"

namespace towline::test {
namespace {

constexpr int kExitViolation = 1;
constexpr int kExitUsage = 2;
constexpr int kExitNotOpened = 12;

constexpr Lsn kCheckpointLsn = 20;
constexpr Lsn kCommonLsn = 25;
constexpr Lsn kOldEnd = 40;
constexpr Lsn kNewEnd = 50;
constexpr size_t kValueBytes = 9000;  // a few records fill a segment
constexpr int kStepsMax = 2000;

void Say(const std::string& line) {
  const std::string text = line + "\n";
  if (::write(STDOUT_FILENO, text.data(), text.size()) != static_cast<ssize_t>(text.size())) std::abort();
}

// Both are the same up to kCommonLsn.
LogMaker MakeLine(bool is_new) {
  LogMaker line;
  const auto put = [&line](char fill) {
    line.Put(absl::StrCat("key-", line.end_lsn() % 17), std::string(kValueBytes, fill));
  };
  line.StartTerm(1, 0xa1);
  while (line.end_lsn() < kCommonLsn) put('a');
  if (is_new) line.StartTerm(2, 0xb2);
  while (line.end_lsn() < (is_new ? kNewEnd : kOldEnd)) put(is_new ? 'c' : 'b');
  return line;
}

class Script : public ReplicaHost {
 public:
  Script(std::string directory, bool prepare)
      : prepare_(prepare),
        env_{fs_,
             clock_,
             rng_,
             executor_,
             logger_,
             stores_,
             std::move(directory),
             SmallSpool(),
             {},
             [this](absl::Status status) { fatal_ = std::move(status); },
             Rewinds()} {
    upstream_.on_pull = [this](FakePull& pull) { Answer(pull); };
  }

  int Prepare();
  int Run();
  int Check();

  ControlFile& control() override { return *control_file_; }
  std::shared_ptr<Generation> LiveGeneration() override { return live_; }
  void SwitchGeneration(std::shared_ptr<Generation> generation) override {
    live_ = std::move(generation);
    if (live_->number() == 2) Say("switched");
  }
  void OnHeartbeat(uint64_t, Lsn, Lsn) override {}
  void OnUpstreamPath(const UpstreamPath&) override {}
  const GenerationEnvironment& environment() override { return env_; }
  void OnSlotCopies(const slots::SlotCopies&) override {}
  Mutex& fence_gate() override { return gate_; }

 private:
  static RewindOptions Rewinds() {
    RewindOptions options;
    options.interval_micros = 3600ll * 1'000'000;
    return options;
  }
  absl::Status Open();
  void Answer(FakePull& pull);
  bool Finished();
  int RunTo(Lsn lsn);
  int Fail(int code, const std::string& what);

  const bool prepare_;
  Lsn send_to_ = kNewEnd;
  FileSystem& fs_ = *PosixFileSystem();
  FakeClock clock_;
  SeededRng rng_{1};
  SimExecutor executor_{&clock_};
  RecordingLogger logger_;
  MemoryStoreFactory stores_{{.file_system = &fs_, .flush_every_batches = 0, .flush_on_close = true}};
  const LogMaker old_line_ = MakeLine(false);
  const LogMaker new_line_ = MakeLine(true);
  absl::Status fatal_;
  const GenerationEnvironment env_;
  std::unique_ptr<ControlFile> control_file_;
  std::shared_ptr<Generation> live_;
  FakeUpstream upstream_{&clock_};
  Mutex gate_;
};

int Script::Fail(int code, const std::string& what) {
  Say(absl::StrCat("failed ", code, " ", what));
  for (const RecordingLogger::Event& event : logger_.Events()) {
    std::string line = event.name;
    for (const auto& [key, value] : event.fields) absl::StrAppend(&line, " ", key, "=", value);
    Say(line);
  }
  return code;
}

absl::Status Script::Open() {
  TOWLINE_ASSIGN_OR_RETURN(control_file_, ControlFile::Open(fs_, env_.data_directory));
  TOWLINE_RETURN_IF_ERROR(control_file_->Settle());
  const Control control = control_file_->Get();
  if (control.generation == 0) return absl::OkStatus();
  TOWLINE_ASSIGN_OR_RETURN(live_, Generation::Open(env_, control, {}, 0, nullptr));
  return absl::OkStatus();
}

// As the planner of a node with that line would; it has no snapshots.
void Script::Answer(FakePull& pull) {
  const LogMaker& line = prepare_ ? old_line_ : new_line_;
  const v1::PullStart& start = pull.start();
  History theirs;
  for (const v1::HistoryEntry& entry : start.history()) {
    theirs.push_back({static_cast<Term>(entry.term()), entry.start_lsn(), entry.term_id()});
  }
  const Lsn common = LastCommonLsn(theirs, start.lsn(), line.history(), line.end_lsn());
  if (common < start.lsn()) return pull.SendRewind(line, common);
  pull.SendPartial(line);
  const Lsn last = std::min(send_to_, line.end_lsn());
  for (Lsn lsn = start.lsn() + 1; lsn <= last; ++lsn) pull.SendFrames(line.Batch(lsn, lsn));
}

bool Script::Finished() {
  const Lsn end = std::min(send_to_, prepare_ ? kOldEnd : kNewEnd);
  if (live_ == nullptr || live_->state().applied() != (prepare_ ? old_line_ : new_line_).PositionAt(end)) return false;
  const auto numbers = ListGenerations(fs_, env_.data_directory);
  return numbers.ok() && *numbers == std::vector<uint64_t>{live_->number()};
}

int Script::RunTo(Lsn lsn) {
  send_to_ = lsn;
  ReplicaOptions options = TestReplicaOptions();
  options.group_bytes_max = 1;
  std::unique_ptr<ReplicaController> controller = NewReplicaController(*this, upstream_, options);
  for (int step = 0; !Finished(); ++step) {
    if (step == kStepsMax || !fatal_.ok()) {
      return Fail(kExitViolation,
                  absl::StrCat("it does not end: ", fatal_.ToString(), " ", controller->Status().message));
    }
    const StepResult result = controller->Step();
    if (!result.again && result.wait_micros > 0) clock_.Advance(result.wait_micros);
    executor_.RunUntilIdle();
  }
  controller->Shutdown();
  return EXIT_SUCCESS;
}

int Script::Prepare() {
  {
    absl::StatusOr<std::unique_ptr<ControlFile>> file = ControlFile::Open(fs_, env_.data_directory);
    if (!file.ok()) return Fail(kExitNotOpened, file.status().ToString());
    const absl::Status set = (*file)->Set(NewReplicaControl(), /*both=*/true);
    if (!set.ok()) return Fail(kExitNotOpened, set.ToString());
  }
  const absl::Status opened = Open();
  if (!opened.ok()) return Fail(kExitNotOpened, opened.ToString());
  if (const int code = RunTo(kCheckpointLsn); code != EXIT_SUCCESS) return code;
  const absl::Status made = live_->checkpoints().MakeNow();
  if (!made.ok()) return Fail(kExitViolation, made.ToString());
  if (const int code = RunTo(kOldEnd); code != EXIT_SUCCESS) return code;
  const absl::Status closed = live_->Close();
  return closed.ok() ? EXIT_SUCCESS : Fail(kExitViolation, closed.ToString());
}

int Script::Run() {
  const absl::Status opened = Open();
  if (!opened.ok()) return Fail(kExitNotOpened, opened.ToString());
  if (const int code = RunTo(kNewEnd); code != EXIT_SUCCESS) return code;
  const absl::Status closed = live_->Close();
  if (!closed.ok()) return Fail(kExitViolation, closed.ToString());
  Say("done");
  return EXIT_SUCCESS;
}

int Script::Check() {
  const absl::Status opened = Open();
  if (!opened.ok()) return Fail(kExitNotOpened, opened.ToString());
  if (live_ == nullptr) return Fail(kExitViolation, "there is no live generation");
  const bool is_new = live_->number() == 2;
  const LogMaker& line = is_new ? new_line_ : old_line_;
  const Lsn lsn = live_->spool().end().lsn;
  if (live_->number() > 2 || lsn < (is_new ? kCommonLsn : kOldEnd) || lsn > line.end_lsn() ||
      live_->state().applied() != line.PositionAt(lsn)) {
    return Fail(kExitViolation, absl::StrCat("generation ", live_->number(), " stands at LSN ", lsn));
  }
  History history = control_file_->Get().history;
  for (const HistoryEntry& entry : live_->history_at_open()) MergeEntry(entry, &history);
  if (history != CutAt(line.history(), lsn)) {
    return Fail(kExitViolation, absl::StrCat("at LSN ", lsn, " the history is ", FormatHistory(history)));
  }
  const auto snapshot = live_->state().Snapshot();
  const absl::StatusOr<StateDigest> digest = (*snapshot)->Digest();
  if (!digest.ok() || digest->sum != DigestOf(line, lsn).sum) {
    return Fail(kExitViolation, absl::StrCat("the state of generation ", live_->number(), " is not that of LSN ", lsn));
  }
  Lsn next = kCommonLsn + 1;
  const auto files = wal::ListQuarantine(fs_, QuarantineDirectory(env_.data_directory));
  for (const wal::QuarantineFile& file : files.ok() ? *files : std::vector<wal::QuarantineFile>()) {
    if (file.torn) continue;
    const auto rest = wal::DumpQuarantineFile(fs_, file, [&next](const wal::DumpedFrame& frame) {
      if (frame.frame.header.lsn == next) ++next;
      return absl::OkStatus();
    });
    if (!rest.ok() || *rest != 0) return Fail(kExitViolation, absl::StrCat("there is rubbish in ", file.path));
  }
  if (is_new && next != kOldEnd + 1)
    return Fail(kExitViolation, absl::StrCat("record ", next, " is not in quarantine"));
  Say(absl::StrCat(is_new ? "new " : "old ", lsn));
  return EXIT_SUCCESS;
}

int Main(int argc, char** argv) {
  const std::string mode = argc == 3 ? argv[1] : "";
  if (mode == "prepare") return Script(argv[2], true).Prepare();
  if (mode == "run") return Script(argv[2], false).Run();
  if (mode == "check") return Script(argv[2], false).Check();
  Say("usage: rewind_script prepare|run|check DIR; see the top of rewind_script.cc");
  return kExitUsage;
}

}  // namespace
}  // namespace towline::test

int main(int argc, char** argv) { return towline::test::Main(argc, argv); }
