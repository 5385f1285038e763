#include "replica/rewind_checkpoints.h"

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

#include "common/data_layout.h"
#include "common/error.h"
#include "store/state_checkpoint.h"

namespace towline {
namespace {

// How often it is looked whether one is due.
constexpr int64_t kPollMicros = 1'000'000;
constexpr char kUnfinished[] = "making";

bool IsOver(double used_ratio, double limit) { return limit > 0 && used_ratio >= limit; }

}  // namespace

std::unique_ptr<RewindCheckpoints> RewindCheckpoints::Open(Environment env, uint64_t generation, StateStore& state,
                                                           wal::Spool& spool, Lsn exact_from) {
  std::unique_ptr<RewindCheckpoints> checkpoints(
      new RewindCheckpoints(std::move(env), generation, state, spool, exact_from));
  checkpoints->FindOnDisk();
  if (checkpoints->env_.options.interval_micros > 0) {
    checkpoints->loop_ = checkpoints->env_.executor.Start(
        "checkpoints", [self = checkpoints.get()] { return self->Step(); }, LoopPriority::kBatch);
  }
  return checkpoints;
}

RewindCheckpoints::RewindCheckpoints(Environment env, uint64_t generation, StateStore& state, wal::Spool& spool,
                                     Lsn exact_from)
    : env_(std::move(env)),
      directory_(CheckpointsDirectory(env_.data_directory, generation)),
      state_(state),
      spool_(spool),
      exact_from_(exact_from),
      last_micros_(env_.clock.MonotonicMicros()) {}

RewindCheckpoints::~RewindCheckpoints() { Stop(); }

void RewindCheckpoints::Stop() {
  if (loop_ != nullptr) loop_->Stop();
}

std::string RewindCheckpoints::Path(Lsn lsn) const { return JoinPath(directory_, absl::StrCat(lsn)); }

void RewindCheckpoints::FindOnDisk() {
  const absl::StatusOr<std::vector<std::string>> names = env_.fs.List(directory_);
  if (absl::IsNotFound(names.status())) return;
  const Lsn first = spool_.stats().first_lsn;
  const Lsn end = spool_.end().lsn;
  std::vector<RewindCheckpoint> found;
  for (const std::string& name : names.ok() ? *names : std::vector<std::string>()) {
    Lsn lsn = 0;
    const char* why = nullptr;
    const absl::StatusOr<std::vector<std::string>> files = env_.fs.List(JoinPath(directory_, name));
    if (!absl::SimpleAtoi(name, &lsn) || absl::StrCat(lsn) != name || lsn == 0) {
      why = "unfinished, or of another program";
    } else if (!files.ok() || files->empty()) {
      why = "it holds nothing";
    } else if (lsn > end || lsn + 1 < first || lsn < exact_from_) {
      why = "the log does not go on behind it";
    }
    if (why == nullptr) {
      found.push_back({lsn, Now()});
      continue;
    }
    const absl::Status removed = RemoveAll(env_.fs, JoinPath(directory_, name));
    env_.logger.Log(LogLevel::kWarning, "rewind_checkpoint_removed",
                    {{"path", JoinPath(directory_, name)}, {"why", why}, {"status", removed.ToString()}});
  }
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.lsn < b.lsn; });
  MutexLock lock(&mutex_);
  kept_ = std::move(found);
  PinLocked();
}

void RewindCheckpoints::SetCommonLsn(Lsn lsn) {
  MutexLock lock(&mutex_);
  if (lsn != 0) common_lsn_ = lsn;
}

Lsn RewindCheckpoints::oldest() const {
  MutexLock lock(&mutex_);
  return kept_.empty() ? 0 : kept_.front().lsn;
}

Lsn RewindCheckpoints::newest() const {
  MutexLock lock(&mutex_);
  return kept_.empty() ? 0 : kept_.back().lsn;
}

Lsn RewindCheckpoints::NewestUpTo(Lsn lsn) const {
  MutexLock lock(&mutex_);
  Lsn found = 0;
  for (const RewindCheckpoint& checkpoint : kept_) {
    if (checkpoint.lsn <= lsn) found = checkpoint.lsn;
  }
  return found;
}

RewindCheckpointStats RewindCheckpoints::stats() const {
  MutexLock lock(&mutex_);
  return {kept_, common_lsn_, made_, given_up_};
}

RewindCheckpoints::Hold::Hold(RewindCheckpoints& owner) : owner_(owner) {
  MutexLock lock(&owner_.work_mutex_);
  ++owner_.holds_;
}

RewindCheckpoints::Hold::~Hold() {
  MutexLock lock(&owner_.work_mutex_);
  --owner_.holds_;
}

void RewindCheckpoints::Remove(Lsn lsn, absl::string_view why) {
  MutexLock lock(&work_mutex_);
  Drop(lsn, LogLevel::kWarning, why);
}

absl::Status RewindCheckpoints::MakeNow() {
  MutexLock lock(&work_mutex_);
  return Make(/*flush=*/true);
}

// --- Making ---

StepResult RewindCheckpoints::Step() {
  MutexLock lock(&work_mutex_);
  if (holds_ > 0) return StepResult::WaitFor(kPollMicros);
  const double used = UsedRatio();
  KeepTheBounds(used);
  if (IsOver(used, env_.options.disk_warn_ratio)) return StepResult::WaitFor(kPollMicros);
  const absl::StatusOr<Lsn> persisted = state_.PersistedLsn();
  bool flush = false;
  if (!persisted.ok() || !IsDue(*persisted, &flush)) return StepResult::WaitFor(kPollMicros);
  const absl::Status made = Make(flush);
  if (!made.ok() && !failing_) {
    env_.logger.Log(LogLevel::kWarning, "rewind_checkpoint_not_made", {{"status", made.ToString()}});
  }
  failing_ = !made.ok();
  KeepTheRight();
  return StepResult::WaitFor(kPollMicros);
}

// The store flushes by itself about as often as checkpoints are made, so most of them wait for that and cost no flush
// of their own. The first of a generation does not, because until then the node cannot go back.
bool RewindCheckpoints::IsDue(Lsn persisted, bool* flush) const {
  const Lsn applied = state_.applied().lsn;
  const Lsn newest = this->newest();
  if (applied <= newest || applied < exact_from_) return false;
  const int64_t waited = Now() - last_micros_;
  if (newest == 0) {
    *flush = true;
    return waited >= (made_one_ ? env_.options.interval_micros : std::min(kPollMicros, env_.options.interval_micros));
  }
  const uint64_t behind = spool_.BytesBehind(newest);
  if (waited < env_.options.interval_micros && behind < env_.options.log_bytes) return false;
  *flush = waited >= 2 * env_.options.interval_micros || behind >= 2 * env_.options.log_bytes;
  return *flush || persisted > newest;
}

absl::Status RewindCheckpoints::Make(bool flush) {
  if (flush) TOWLINE_RETURN_IF_ERROR(state_.store().Flush(/*wait=*/true));
  TOWLINE_ASSIGN_OR_RETURN(const Lsn persisted, state_.PersistedLsn());
  if (persisted <= newest() || persisted < exact_from_) return absl::OkStatus();
  const int64_t begin = Now();
  // The log behind it must not go while it is made.
  const std::unique_ptr<wal::Pin> pin = spool_.NewPin(persisted + 1);
  TOWLINE_RETURN_IF_ERROR(MakeDirectoryDurably(env_.fs, ParentDirectory(directory_), "checkpoints"));
  const std::string unfinished = JoinPath(directory_, kUnfinished);
  const absl::StatusOr<StateCheckpoint> copy = CheckpointState(state_, env_.fs, unfinished);
  if (!copy.ok()) {
    RemoveAll(env_.fs, unfinished).IgnoreError();  // else the next one, or the next start, removes it
    return copy.status();
  }
  const Lsn lsn = copy->position.lsn;
  TOWLINE_RETURN_IF_ERROR(env_.fs.Rename(unfinished, Path(lsn)));
  TOWLINE_RETURN_IF_ERROR(env_.fs.SyncDirectory(directory_));
  last_micros_ = Now();
  made_one_ = true;
  env_.logger.Log(LogLevel::kInfo, "rewind_checkpoint_made",
                  {{"lsn", lsn}, {"flushed", flush}, {"ms", (last_micros_ - begin) / 1000}});
  MutexLock lock(&mutex_);
  kept_.push_back({lsn, last_micros_});
  ++made_;
  PinLocked();
  return absl::OkStatus();
}

// --- Keeping ---

// The newest one is nobody's base: what all have flushed may be known before all know it, and a successor that was cut
// off a moment ago may lack what it holds. While the common LSN is not known, any may be the one that is needed: the
// oldest stays.
void RewindCheckpoints::KeepTheRight() {
  const RewindCheckpointStats now = stats();
  if (now.kept.size() < 2) return;
  Lsn base = now.kept.front().lsn;
  for (size_t i = 0; i + 1 < now.kept.size(); ++i) {
    if (now.kept[i].lsn <= now.common_lsn) base = now.kept[i].lsn;
  }
  const Lsn newest = now.kept.back().lsn;
  const int64_t too_old = Now() - env_.options.age_max_micros;
  for (const RewindCheckpoint& checkpoint : now.kept) {
    if (checkpoint.lsn == newest) continue;
    if (checkpoint.lsn != base) {
      Drop(checkpoint.lsn, LogLevel::kDebug, "newer ones are there");
    } else if (checkpoint.since_micros <= too_old) {
      Drop(checkpoint.lsn, LogLevel::kWarning, "rewind.max_age");
    }
  }
}

void RewindCheckpoints::KeepTheBounds(double used_ratio) {
  const RewindCheckpointStats now = stats();
  for (const RewindCheckpoint& checkpoint : now.kept) {
    const bool newest = checkpoint.lsn == now.kept.back().lsn;
    if (IsOver(used_ratio, env_.options.disk_guard_ratio)) {
      Drop(checkpoint.lsn, LogLevel::kWarning, "disk.guard_ratio");
    } else if (!newest && IsOver(used_ratio, env_.options.disk_warn_ratio)) {
      Drop(checkpoint.lsn, LogLevel::kWarning, "disk.warn_ratio");
    } else if (spool_.BytesBehind(checkpoint.lsn) > env_.options.held_bytes_max) {
      Drop(checkpoint.lsn, LogLevel::kWarning, "rewind.max_bytes");
    }
  }
}

// Out of the list first: nobody is told of one that is not whole. What is left of its files goes at the next start.
void RewindCheckpoints::Drop(Lsn lsn, LogLevel level, absl::string_view why) {
  {
    MutexLock lock(&mutex_);
    const auto is_it = [lsn](const RewindCheckpoint& checkpoint) { return checkpoint.lsn == lsn; };
    const auto found = std::find_if(kept_.begin(), kept_.end(), is_it);
    if (found == kept_.end()) return;
    kept_.erase(found);
    if (level != LogLevel::kDebug) ++given_up_;
    PinLocked();
  }
  const std::string unfinished = JoinPath(directory_, absl::StrCat(lsn, ".removed"));
  absl::Status removed = env_.fs.Rename(Path(lsn), unfinished);
  // A power loss must not leave the name with some of its files.
  if (removed.ok()) removed = env_.fs.SyncDirectory(directory_);
  if (removed.ok()) removed = RemoveAll(env_.fs, unfinished);
  env_.logger.Log(level, "rewind_checkpoint_removed", {{"lsn", lsn}, {"why", why}, {"status", removed.ToString()}});
}

void RewindCheckpoints::PinLocked() {
  if (kept_.empty()) {
    pin_.reset();
  } else if (pin_ == nullptr) {
    pin_ = spool_.NewPin(kept_.front().lsn + 1);
  } else {
    pin_->MoveTo(kept_.front().lsn + 1);
  }
}

double RewindCheckpoints::UsedRatio() const {
  const absl::StatusOr<SpaceInfo> space = env_.fs.Space(env_.data_directory);
  return space.ok() ? space->used_ratio() : 0;
}

}  // namespace towline
