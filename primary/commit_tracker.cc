#include "primary/commit_tracker.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/failpoint.h"

namespace towline {
namespace {

constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

// An episode of degraded answers ends when there was none for so long and what was so answered has reached its level.
constexpr int64_t kDegradedEndMicros = 2'000'000;

const char* StageName(CommitStage stage) { return stage == CommitStage::kFlushed ? "flushed" : "applied"; }

}  // namespace

CommitTracker::CommitTracker(Clock& clock, Logger& logger, std::string self, Term term, CommitLevel level,
                             MemberList members, Lsn opened_lsn)
    : clock_(clock),
      logger_(logger),
      term_(term),
      level_(level),
      opened_lsn_(opened_lsn),
      members_(std::move(self), std::move(members), opened_lsn),
      next_deadline_micros_(kNever) {
  MutexLock lock(&mutex_);
  UpdateCommitted();
}

// --- What is known of the members ---

void CommitTracker::SetMembers(const MemberList& list, Lsn lsn) {
  DoneList done;
  {
    MutexLock lock(&mutex_);
    members_.Add(list, lsn);
    UpdateCommitted();
    Collect(&done);
  }
  Deliver(&done);
}

void CommitTracker::OnAck(const ReplicaAck& ack) {
  DoneList done;
  {
    MutexLock lock(&mutex_);
    if (ack.term != term_ && !Failpoint("commit_count_stale_ack")) return;
    Session& session = sessions_[ack.node_id];
    if (session.id != ack.session_id) session = {ack.session_id, ack.incarnation, true};
    members_.Confirm(ack.node_id, ack.incarnation, ack.flushed_lsn, ack.applied_lsn);
    UpdateCommitted();
    Collect(&done);
  }
  Deliver(&done);
}

void CommitTracker::OnSessionEnd(const std::string& node_id, uint64_t session_id) {
  MutexLock lock(&mutex_);
  const auto found = sessions_.find(node_id);
  // Kept, so that an ack that is still on its way here does not bring it back.
  if (found != sessions_.end() && found->second.id == session_id) found->second.live = false;
}

// --- Writes ---

absl::StatusOr<CommitLevel> CommitTracker::Resolve(const CommitLevel* asked) const {
  MutexLock lock(&mutex_);
  CommitLevel level = asked == nullptr ? level_ : *asked;
  const uint32_t least = members_.min_replicas();
  if (asked == nullptr) level.replicas = std::max(level.replicas, least);
  if (level.timeout_micros == 0) level.timeout_micros = level_.timeout_micros;
  if (level.replicas < least) {
    return MakeError(absl::StatusCode::kInvalidArgument, "below_min_replicas",
                     absl::StrCat("the write asks for ", level.replicas, " replicas; min_replicas is ", least),
                     "ask for more, or lower it with: towctl member min-replicas");
  }
  if (level.replicas > members_.counting()) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "too_few_replicas",
                     absl::StrCat("the write asks for ", level.replicas, " replicas; there are ", members_.counting(),
                                  " counting members besides the primary"),
                     "add replicas, or ask for less; look at towctl member list");
  }
  return level;
}

bool CommitTracker::IsReached(Lsn lsn, const GroupKey& key) const {
  return key.first == 0 || members_.Watermark(key.first, key.second) >= lsn;
}

void CommitTracker::Await(Lsn first_lsn, Lsn lsn, const CommitLevel& level, uint64_t bytes,
                          std::unique_ptr<CommitWaiter> waiter) {
  DoneList done;
  {
    MutexLock lock(&mutex_);
    const int64_t now = clock_.MonotonicMicros();
    // min_replicas may have become more since the write was taken.
    const GroupKey key(std::max(level.replicas, members_.min_replicas()), level.stage);
    Waiting waiting{std::move(waiter), first_lsn, level.on_timeout, bytes, now, now + level.timeout_micros};
    stats_.waiting_bytes += bytes;
    if (!closed_.ok()) {
      Finish(lsn, key, &waiting, CommitResult::End::kClosed, &done);
    } else if (!held_ && IsReached(lsn, key)) {
      Finish(lsn, key, &waiting, CommitResult::End::kReached, &done);
    } else {
      next_deadline_micros_ = std::min(next_deadline_micros_, waiting.deadline_micros);
      Group& group = groups_[key];
      group.emplace_hint(group.end(), lsn, std::move(waiting));  // they come in order, but for duplicates
      waiting_.fetch_add(1, std::memory_order_relaxed);
    }
  }
  Deliver(&done);
}

AchievedLevel CommitTracker::AchievedAt(Lsn lsn, const CommitLevel& level) const {
  MutexLock lock(&mutex_);
  AchievedLevel achieved = members_.HoldersOf(lsn);
  achieved.reached = IsReached(lsn, {std::max(level.replicas, members_.min_replicas()), level.stage});
  return achieved;
}

void CommitTracker::Finish(Lsn lsn, const GroupKey& key, Waiting* waiting, CommitResult::End end, DoneList* done) {
  const double seconds = static_cast<double>(clock_.MonotonicMicros() - waiting->since_micros) * 1e-6;
  if (key.first != 0) {
    const auto bucket = std::lower_bound(CommitStats::kWaitBounds.begin(), CommitStats::kWaitBounds.end(), seconds);
    ++stats_.wait_buckets[static_cast<size_t>(bucket - CommitStats::kWaitBounds.begin())];
    ++stats_.waits_total;
    stats_.wait_seconds_sum += seconds;
  }
  stats_.waiting_bytes -= waiting->bytes;
  CommitResult result;
  result.end = end;
  result.achieved = members_.HoldersOf(lsn);
  result.achieved.reached = end == CommitResult::End::kReached;
  if (end == CommitResult::End::kClosed) result.closed = closed_;
  if (end == CommitResult::End::kTimedOut) {
    ++stats_.timeouts_total;
    if (waiting->on_timeout == OnCommitTimeout::kAccept) NoteDegraded(waiting->first_lsn, lsn, key);
  }
  const bool ok = end == CommitResult::End::kReached ||
                  (end == CommitResult::End::kTimedOut && waiting->on_timeout == OnCommitTimeout::kAccept);
  if (ok) stats_.exposed_to_lsn = std::max(stats_.exposed_to_lsn, lsn);
  done->push_back({std::move(waiting->waiter), std::move(result)});
}

void CommitTracker::Collect(DoneList* done) {
  if (held_ || !closed_.ok() || waiting_.load(std::memory_order_relaxed) == 0) return;
  for (auto it = groups_.begin(); it != groups_.end();) {
    const auto& [key, group] = *it;
    const Lsn reached = key.first == 0 ? std::numeric_limits<Lsn>::max() : members_.Watermark(key.first, key.second);
    Group& waiters = it->second;
    const auto end = waiters.upper_bound(reached);
    for (auto waiter = waiters.begin(); waiter != end; ++waiter) {
      Finish(waiter->first, key, &waiter->second, CommitResult::End::kReached, done);
      waiting_.fetch_sub(1, std::memory_order_relaxed);
    }
    waiters.erase(waiters.begin(), end);
    it = waiters.empty() ? groups_.erase(it) : std::next(it);
  }
}

void CommitTracker::CollectLate(int64_t now, DoneList* done) {
  if (held_ || now < next_deadline_micros_) return;
  next_deadline_micros_ = kNever;
  for (auto& [key, group] : groups_) {
    for (auto it = group.begin(); it != group.end();) {
      if (it->second.deadline_micros > now) {
        next_deadline_micros_ = std::min(next_deadline_micros_, it->second.deadline_micros);
        ++it;
        continue;
      }
      Finish(it->first, key, &it->second, CommitResult::End::kTimedOut, done);
      waiting_.fetch_sub(1, std::memory_order_relaxed);
      it = group.erase(it);
    }
  }
}

void CommitTracker::NoteDegraded(Lsn first_lsn, Lsn last_lsn, const GroupKey& key) {
  first_lsn = std::min(last_lsn, std::max(first_lsn, members_.Watermark(key.first, key.second) + 1));
  if (!stats_.degraded) {
    stats_.degraded = true;
    stats_.degraded_first_lsn = first_lsn;
    stats_.degraded_last_lsn = last_lsn;
    degraded_level_ = key;
    ++stats_.degraded_episodes_total;
  }
  stats_.degraded_records_total += last_lsn - first_lsn + 1;
  stats_.degraded_first_lsn = std::min(stats_.degraded_first_lsn, first_lsn);
  stats_.degraded_last_lsn = std::max(stats_.degraded_last_lsn, last_lsn);
  degraded_level_ = std::max(degraded_level_, key);
  degraded_micros_ = clock_.MonotonicMicros();
}

void CommitTracker::Tick() {
  DoneList done;
  {
    MutexLock lock(&mutex_);
    const int64_t now = clock_.MonotonicMicros();
    CollectLate(now, &done);
    if (stats_.degraded && now - degraded_micros_ >= kDegradedEndMicros) {
      // Members may have been taken out meanwhile.
      const GroupKey key(std::min(degraded_level_.first, members_.counting()), degraded_level_.second);
      if (IsReached(stats_.degraded_last_lsn, key)) stats_.degraded = false;
    }
    if (stats_.exposed_to_lsn > committed_lsn_.load(std::memory_order_relaxed)) {
      HeartbeatInfo mark;
      mark.sequence = exposures_.newest().sequence + 1;
      mark.durable_lsn = stats_.exposed_to_lsn;
      mark.made_micros = now;
      exposures_.Add(mark);
    }
  }
  Deliver(&done);
  LogTransition();
}

void CommitTracker::LogTransition() {
  CommitStats stats;
  GroupKey level;
  {
    MutexLock lock(&mutex_);
    if (degraded_logged_ == stats_.degraded) return;
    degraded_logged_ = stats_.degraded;
    stats = stats_;
    level = degraded_level_;
  }
  logger_.Log(stats.degraded ? LogLevel::kWarning : LogLevel::kInfo,
              stats.degraded ? "commit_degraded" : "commit_restored",
              {{"replicas", level.first},
               {"stage", StageName(level.second)},
               {"first_lsn", stats.degraded_first_lsn},
               {"last_lsn", stats.degraded_last_lsn},
               {"records_total", stats.degraded_records_total}});
}

void CommitTracker::Hold() {
  MutexLock lock(&mutex_);
  held_ = true;
}

void CommitTracker::Release() {
  DoneList done;
  {
    MutexLock lock(&mutex_);
    held_ = false;
    Collect(&done);
  }
  Deliver(&done);
}

void CommitTracker::Close(const absl::Status& status) {
  DoneList done;
  {
    MutexLock lock(&mutex_);
    if (!closed_.ok()) return;
    closed_ = status;
    for (auto& [key, group] : groups_) {
      for (auto& [lsn, waiting] : group) Finish(lsn, key, &waiting, CommitResult::End::kClosed, &done);
    }
    groups_.clear();
    waiting_.store(0, std::memory_order_relaxed);
  }
  Deliver(&done);
}

void CommitTracker::Deliver(DoneList* done) {
  for (Done& each : *done) {
    CommitWaiter* const waiter = each.waiter.get();
    waiter->OnCommit(std::move(each.waiter), each.result);
  }
}

// --- Standing ---

void CommitTracker::UpdateCommitted() {
  const uint32_t replicas = std::max(level_.replicas, members_.min_replicas());
  cluster_replicas_.store(replicas, std::memory_order_relaxed);
  if (replicas == 0) return;
  const Lsn reached = members_.Watermark(replicas, level_.stage);
  if (reached > committed_lsn_.load(std::memory_order_relaxed)) {
    committed_lsn_.store(reached, std::memory_order_relaxed);
  }
}

Lsn CommitTracker::CommittedLsn(Lsn durable_lsn) const {
  if (cluster_replicas() == 0) return durable_lsn;
  return std::min(durable_lsn, committed_lsn_.load(std::memory_order_relaxed));
}

Lsn CommitTracker::HeldBy(uint32_t replicas) const {
  MutexLock lock(&mutex_);
  if (replicas == 0 || replicas > members_.counting()) return 0;
  return std::max(opened_lsn_, members_.Watermark(replicas, CommitStage::kFlushed));
}

CommitStats CommitTracker::stats() const {
  MutexLock lock(&mutex_);
  CommitStats stats = stats_;
  stats.counting_members = members_.counting();
  stats.min_replicas = members_.min_replicas();
  stats.pending_records = static_cast<uint32_t>(members_.pending());
  for (const auto& [node_id, session] : sessions_) {
    stats.acking_members += session.live && members_.Counts(node_id, session.incarnation) ? 1 : 0;
  }
  stats.waiters = waiting_.load(std::memory_order_relaxed);
  const Lsn committed = cluster_replicas() == 0 ? stats.exposed_to_lsn : committed_lsn_.load(std::memory_order_relaxed);
  stats.exposed_from_lsn = std::min(committed, stats.exposed_to_lsn);
  if (stats.exposed_from_lsn < stats.exposed_to_lsn) {
    stats.exposed_seconds = exposures_.LagSeconds(stats.exposed_from_lsn, clock_.MonotonicMicros());
  }
  return stats;
}

}  // namespace towline
