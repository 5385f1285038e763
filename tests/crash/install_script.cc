// The victim of install_test.py: a replica on the machine's disk, in one thread, that loads a snapshot beside its live
// data and switches to it.
//
//   install_script prepare DIR   makes a replica whose generation 1 holds the log up to kOldLsn
//   install_script run DIR       it falls behind, loads a snapshot in several streams, the rest of them from a newer
//                                one, replays the log behind it, switches, removes generation 1, and goes on streaming
//   install_script files DIR     the same, but that it loads files of a store
//   install_script check DIR     opens the directory and looks whether it is exactly the old or the new state
//
// All but its engine is the real thing: control, log, journal, controller. What the source sends is a function of what
// it is asked, so two runs make the same system calls.
//
// Each line of the standard output is one write(2): found BYTES (of an unfinished load), resumed BYTES, switched, done;
// old LSN, new LSN.
//
// Exit codes: 0 done; 1 a violation; 2 usage; 12 the directory does not open.

#include <cstdlib>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <unistd.h>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/control.h"
#include "common/error.h"
#include "common/file_system.h"
#include "replica/generation.h"
#include "replica/generation_files.h"
#include "replica/replica_controller.h"
#include "store/memory_store.h"
#include "store/snapshot_codec.h"
#include "tests/crash/pausing_file_system.h"
#include "tests/replica/fake_upstream.h"
#include "tests/replica/replica_node.h"
#include "tests/replica/snapshot_maker.h"
#include "tests/support/fake_clock.h"
#include "tests/support/recording_logger.h"
#include "tests/support/seeded_rng.h"
#include "tests/support/sim_executor.h"

namespace towline::test {
namespace {

constexpr int kExitViolation = 1;
constexpr int kExitUsage = 2;
constexpr int kExitNotOpened = 12;

constexpr Lsn kOldLsn = 21;
constexpr Lsn kSnapshotLsn = 101;
constexpr Lsn kReadLsn = 105;  // of the snapshot with which a cut stream goes on
constexpr Lsn kEndLsn = 107;
constexpr size_t kValueBytes = 60'000;  // of what the old state lacks
constexpr size_t kChunkBytes = 600'000;
constexpr size_t kChunksOfStream = 5;     // then it is cut, but for the one that comes to the end
constexpr int64_t kStepMicros = 150'000;  // longer than a load waits between two commits
constexpr int kStepsMax = 2000;

void Say(const std::string& line) {
  const std::string text = line + "\n";
  if (::write(STDOUT_FILENO, text.data(), text.size()) != static_cast<ssize_t>(text.size())) std::abort();
}

// The line of the source up to `lsn`.
LogMaker MakeLog(Lsn lsn) {
  LogMaker log;
  log.StartTerm(1, 0xa1);
  log.Puts(kOldLsn - 1);
  while (log.end_lsn() < std::min(lsn, kSnapshotLsn)) {
    log.Put(absl::StrCat("large-", log.end_lsn() + 1), std::string(kValueBytes, 'a' + log.end_lsn() % 26));
  }
  // Keys at both ends of the stream, so that some were read before they changed and some behind that.
  while (log.end_lsn() < lsn) log.Put(log.end_lsn() % 2 == 0 ? "key-10" : "large-99", absl::StrCat(log.end_lsn()));
  return log;
}

class Script : public ReplicaHost {
 public:
  Script(std::string directory, Lsn end_lsn, SnapshotForm form = SnapshotForm::kRdb)
      : log_(MakeLog(end_lsn)),
        form_(form),
        env_{fs_,
             clock_,
             rng_,
             executor_,
             logger_,
             stores_,
             std::move(directory),
             SmallSpool(),
             {},
             [this](absl::Status status) { fatal_ = std::move(status); }} {
    upstream_.on_pull = [this](FakePull& pull) { Answer(pull); };
    upstream_.on_snapshot = [this](FakeSnapshot& snapshot) { BeginStream(snapshot); };
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
  void OnSlotCopies(const slots::SlotCopies&) override {}
  void OnUpstreamPath(const UpstreamPath&) override {}
  const GenerationEnvironment& environment() override { return env_; }
  Mutex& fence_gate() override { return gate_; }

 private:
  absl::Status Open();
  void Answer(FakePull& pull);
  void BeginStream(FakeSnapshot& snapshot);
  std::vector<v1::FetchSnapshotResponse> FileStream(const v1::FetchSnapshotRequest& request) const;
  void SendOne();
  bool Finished();
  int Fail(int code, const std::string& what);

  // Its files do not write behind the caller: calls that are counted must come from one thread.
  PausingFileSystem fs_{*PosixFileSystem(), PausePoint{}, nullptr};
  FakeClock clock_;
  SeededRng rng_{1};
  SimExecutor executor_{&clock_};
  RecordingLogger logger_;
  MemoryStoreFactory stores_{{.file_system = &fs_, .flush_every_batches = 0, .flush_on_close = true}};
  const LogMaker log_;
  const SnapshotForm form_;
  absl::Status fatal_;
  const GenerationEnvironment env_;
  std::unique_ptr<ControlFile> control_file_;
  std::shared_ptr<Generation> live_;
  FakeUpstream upstream_{&clock_};
  std::deque<v1::FetchSnapshotResponse> to_send_;  // of the newest snapshot stream
  bool cut_ = false;                               // behind that
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

// --- The source ---

void Script::Answer(FakePull& pull) {
  const Lsn lsn = pull.start().lsn();
  if (log_.end_lsn() > kOldLsn && lsn < kSnapshotLsn) {
    pull.SendDecision(log_, v1::RESUME_DECISION_FULL, "wal_removed");
    return;
  }
  pull.SendPartial(log_);
  if (lsn < log_.end_lsn()) pull.SendFrames(log_.Batch(lsn + 1, log_.end_lsn()));
}

void Script::BeginStream(FakeSnapshot& snapshot) {
  const v1::SnapshotCursor& cursor = snapshot.request.start().snapshot_cursor();
  const Lsn read_lsn = cursor.sequence() == 0 ? kSnapshotLsn : kReadLsn;
  if (cursor.sequence() != 0) Say(absl::StrCat("resumed ", cursor.bytes()));
  std::vector<v1::FetchSnapshotResponse> stream =
      form_ == SnapshotForm::kFiles ? FileStream(snapshot.request)
                                    : MakeSnapshotRest(log_, kSnapshotLsn, read_lsn, cursor, kChunkBytes);
  cut_ = stream.size() > 1 + kChunksOfStream;
  if (cut_) stream.resize(1 + kChunksOfStream);
  to_send_.assign(stream.begin(), stream.end());
}

// The first copy is gone when somebody comes again, the second stays.
std::vector<v1::FetchSnapshotResponse> Script::FileStream(const v1::FetchSnapshotRequest& request) const {
  uint64_t held = 0;
  for (const v1::SnapshotFile& file : request.held()) held += file.held_bytes();
  if (held != 0) Say(absl::StrCat("resumed ", held));
  const bool again = request.held_snapshot_id() != 0;
  return MakeFileSnapshot(log_, again ? kReadLsn : kSnapshotLsn, request, kChunkBytes, kFirstSnapshotId + again);
}

// Chunks arrive one by one, with time between them.
void Script::SendOne() {
  if (upstream_.snapshots.empty()) return;
  FakeSnapshot& snapshot = *upstream_.snapshots.back();
  if (!to_send_.empty()) {
    snapshot.inbox.Send(std::move(to_send_.front()));
    to_send_.pop_front();
  } else if (std::exchange(cut_, false)) {
    snapshot.inbox.Close(absl::UnavailableError("cut"));
  }
}

// --- The modes ---

bool Script::Finished() {
  if (live_ == nullptr || live_->applier().applied_lsn() != log_.end_lsn()) return false;
  const auto numbers = ListGenerations(fs_, env_.data_directory);
  return numbers.ok() && *numbers == std::vector<uint64_t>{live_->number()};
}

int Script::Prepare() {
  {
    absl::StatusOr<std::unique_ptr<ControlFile>> file = ControlFile::Open(fs_, env_.data_directory);
    if (!file.ok()) return Fail(kExitNotOpened, file.status().ToString());
    const absl::Status set = (*file)->Set(NewReplicaControl(), /*both=*/true);
    if (!set.ok()) return Fail(kExitNotOpened, set.ToString());
  }
  return Run();
}

int Script::Run() {
  const absl::Status opened = Open();
  if (!opened.ok()) return Fail(kExitNotOpened, opened.ToString());
  std::unique_ptr<ReplicaController> controller = NewReplicaController(*this, upstream_, TestReplicaOptions());
  bool told = false;
  for (int step = 0; !Finished(); ++step) {
    if (step == kStepsMax || !fatal_.ok())
      return Fail(kExitViolation, absl::StrCat("it does not end: ", fatal_.ToString()));
    clock_.Advance(kStepMicros);
    SendOne();
    const StepResult result = controller->Step();
    if (!result.again && result.wait_micros > 0) clock_.Advance(result.wait_micros);
    executor_.RunUntilIdle();
    const auto found = logger_.Events("unfinished_bootstrap_found");
    if (!std::exchange(told, true) && !found.empty()) {
      Say(absl::StrCat("found ", found.back().fields.at("bytes"), " ", found.back().fields.at("usable")));
    }
  }
  controller->Shutdown();
  controller.reset();
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
  const Lsn lsn = live_->applier().applied_lsn();
  const Lsn lowest = is_new ? kSnapshotLsn : kOldLsn;
  const Lsn highest = is_new ? kEndLsn : kOldLsn;
  if (live_->number() > 2 || lsn < lowest || lsn > highest || lsn < control_file_->Get().exact_from.lsn) {
    return Fail(kExitViolation, absl::StrCat("generation ", live_->number(), " stands at LSN ", lsn));
  }
  const auto snapshot = live_->state().Snapshot();
  if (!snapshot.ok()) return Fail(kExitViolation, snapshot.status().ToString());
  const absl::StatusOr<StateDigest> digest = (*snapshot)->Digest();
  if (!digest.ok() || digest->sum != DigestOf(log_, lsn).sum || live_->state().applied() != log_.PositionAt(lsn)) {
    return Fail(kExitViolation, absl::StrCat("the state of generation ", live_->number(), " is not that of LSN ", lsn));
  }
  Say(absl::StrCat(is_new ? "new " : "old ", lsn));
  return EXIT_SUCCESS;
}

int Main(int argc, char** argv) {
  const std::string mode = argc == 3 ? argv[1] : "";
  if (mode == "prepare") return Script(argv[2], kOldLsn).Prepare();
  if (mode == "run") return Script(argv[2], kEndLsn).Run();
  if (mode == "files") return Script(argv[2], kEndLsn, SnapshotForm::kFiles).Run();
  if (mode == "check") return Script(argv[2], kEndLsn).Check();
  Say("usage: install_script prepare|run|files|check DIR; see the top of install_script.cc");
  return kExitUsage;
}

}  // namespace
}  // namespace towline::test

int main(int argc, char** argv) { return towline::test::Main(argc, argv); }
