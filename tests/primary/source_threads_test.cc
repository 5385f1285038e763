// A writer, a timer, readers of status and owners that come and go, each on a thread of its own: every owner receives
// the log without a gap. For ThreadSanitizer, too.

#include <memory>
#include <string>
#include <vector>

#include "common/error.h"
#include "common/executor.h"
#include "common/mutex.h"
#include "tests/primary/source_fixture.h"
#include "wal/frame.h"

namespace towline::test {
namespace {

constexpr int kRecords = 3000;
constexpr int kOwners = 3;

class SourceThreadsTest : public SourceTest {
 protected:
  void SetUp() override {
    options_.session_timeout_micros = int64_t{3600} * 1'000'000;
    options_.stall_timeout_micros = options_.session_timeout_micros;
    options_.slots_persist_micros = 100'000;
    spool_options_.tail_cache_bytes = 8 << 10;  // some reads come from memory, some from the disk
    SourceTest::SetUp();
  }

  // One turn of an owner: takes what is there and acknowledges it. Comes back after every end of its stream, and now
  // and then by itself.
  StepResult Turn(Owner* owner, SeededRng* rng) {
    // EndSessions may have been faster than the last ack, which is then given in the next session. A session that has
    // ended takes acks without a word: its Next says why it ended.
    const bool streams = owner->session != nullptr && !owner->ended;
    if (streams && owner->last_lsn == kRecords + 1 && owner->AckAll(owner->last_lsn).ok() &&
        SlotOf(owner->start.slot()).confirmed_lsn == owner->last_lsn) {
      return Finish(owner);
    }
    if (owner->session == nullptr || owner->ended || rng->OneIn(200)) {
      const Lsn lsn = owner->last_lsn;
      const v1::PullStart fresh = ReplicaStart(owner->start.slot(), lsn);
      owner->start.set_lsn(lsn);
      owner->start.set_chain(fresh.chain());
      owner->start.set_cluster_id(fresh.cluster_id());
      *owner->start.mutable_history() = fresh.history();
      const absl::Status connected = owner->Connect();
      if (absl::IsUnavailable(connected)) return StepResult::Again();  // EndSessions was faster
      EXPECT_THAT(connected, IsOk());
      EXPECT_EQ(owner->started.decision(), v1::RESUME_DECISION_PARTIAL) << owner->started.DebugString();
      EXPECT_EQ(owner->last_lsn, lsn);
      return StepResult::Again();
    }
    const NextResult result = owner->ReceiveOne();
    if (result == NextResult::kWait) return StepResult::WaitForWake();
    if (result == NextResult::kEnd) return StepResult::Again();
    const absl::Status acked = owner->AckAll(owner->last_lsn);
    EXPECT_TRUE(acked.ok() || GetErrorInfo(acked).reason == "stale_session");  // EndSessions came in between
    return StepResult::Again();
  }

  StepResult Finish(Owner* owner) {
    owner->Close();
    MutexLock lock(&mutex_);
    ++finished_;
    finished_cv_.NotifyAll();
    return StepResult::WaitForWake();
  }

  void WaitForOwners() {
    MutexLock lock(&mutex_);
    while (finished_ < kOwners) {
      ASSERT_TRUE(finished_cv_.WaitFor(&mutex_, 60'000'000)) << finished_ << " owners are done";
    }
  }

  Mutex mutex_;
  CondVar finished_cv_;
  int finished_ TOWLINE_GUARDED_BY(mutex_) = 0;
};

TEST_F(SourceThreadsTest, OwnersThatComeAndGoMissNothing) {
  const std::unique_ptr<Executor> threads = NewThreadExecutor();
  std::vector<std::unique_ptr<Owner>> owners;
  std::vector<std::unique_ptr<SeededRng>> seeds;
  std::vector<std::unique_ptr<Loop>> loops(kOwners);
  for (int i = 0; i < kOwners; ++i) {
    v1::PullStart start = ReplicaStart("r" + std::to_string(i), 0);
    start.set_process_instance(100 + static_cast<uint64_t>(i));
    ASSERT_THAT(slots_->Create(start.slot(), slots::SlotKind::kReplica, 1, 0), IsOk());
    owners.push_back(std::make_unique<Owner>(*source_, start));
    seeds.push_back(std::make_unique<SeededRng>(static_cast<uint64_t>(i) + 1));
  }
  for (size_t i = 0; i < kOwners; ++i) {
    // The loop is woken by a session that it opens itself, so it exists by then.
    auto handle = std::make_shared<std::atomic<Loop*>>(nullptr);
    owners[i]->on_wake = [handle] {
      if (Loop* loop = handle->load()) loop->Wake();
    };
    loops[i] = threads->Start("owner", [this, owner = owners[i].get(), seed = seeds[i].get(), handle] {
      return handle->load() == nullptr ? StepResult::WaitForWake() : Turn(owner, seed);
    });
    handle->store(loops[i].get());
    loops[i]->Wake();
  }
  int written = 0;
  const auto writer = threads->Start("writer", [&] {
    if (written == kRecords) return StepResult::WaitForWake();
    Write(1, static_cast<size_t>(written % 700));
    ++written;
    return StepResult::Again();
  });
  int ticks = 0;
  const auto ticker = threads->Start("ticker", [&] {
    clock_.Advance(10'000);
    Tick();
    if (++ticks % 50 == 0) FlushStore();
    if (ticks % 100 == 0) source_->EndSessions(absl::UnavailableError("again"));
    return StepResult::Again();
  });
  const auto watcher = threads->Start("watcher", [&] {
    EXPECT_LE(source_->Peers().size(), static_cast<size_t>(kOwners));
    EXPECT_EQ(source_->Slots().size(), static_cast<size_t>(kOwners));
    source_->Counters();
    return StepResult::Again();
  });
  WaitForOwners();
  watcher->Stop();
  ticker->Stop();
  writer->Stop();
  for (const auto& loop : loops) loop->Stop();

  const wal::LogEnd end = host_.live->spool().end();
  for (const auto& owner : owners) {
    wal::GroupBuilder log({});
    absl::string_view rest = owner->frames;
    while (!rest.empty()) {
      absl::StatusOr<size_t> used = log.AddShipped(rest);
      ASSERT_THAT(used, IsOk());
      rest.remove_prefix(*used);
    }
    EXPECT_EQ(log.end().lsn, end.lsn);
    EXPECT_EQ(log.end().chain, end.chain);
    EXPECT_EQ(SlotOf(owner->start.slot()).confirmed_lsn, end.lsn);
  }
  const ResyncCounters counters = source_->Counters();
  EXPECT_EQ(counters.full_total + counters.refused_total, 0u);
  EXPECT_GT(counters.partial_total, 0u);
}

}  // namespace
}  // namespace towline::test
