// After a crash at any point: every slot that came up still has the log that it claims, and no slot claims more than
// the log holds.

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/failpoint.h"
#include "tests/primary/source_fixture.h"

namespace towline::test {
namespace {

class SourceCrashTest : public SourceTest {
 protected:
  // Slots and log as a node would open them after the crash. Returns what is wrong; empty = nothing.
  std::string CheckRecovery(SimFileSystem& crashed) {
    FakeClock clock;
    SeededRng rng(7);
    SimExecutor executor(&clock);
    absl::StatusOr<std::unique_ptr<slots::SlotTable>> table =
        slots::SlotTable::Open(crashed, "/", clock, rng, *NullLogger(), limits_);
    if (!table.ok()) return std::string(table.status().message());
    if ((*table)->unknown()) return "the slots are unknown";
    wal::RecoveryInputs inputs;
    inputs.cluster_id = kCluster;
    inputs.first_retained = (*table)->first_retained(1);
    for (const slots::Slot& slot : (*table)->List()) {
      inputs.watermarks.push_back({absl::StrCat("slot:", slot.name), slot.confirmed_lsn});
    }
    wal::RecoveryReport report;
    absl::StatusOr<std::unique_ptr<wal::Spool>> spool = wal::OpenSpool(
        {crashed, clock, rng, executor, *NullLogger()}, "/wal-1", "/quarantine", spool_options_, inputs, &report);
    if (!spool.ok()) return std::string(spool.status().message());
    const Lsn first = (*spool)->stats().first_lsn;
    for (const slots::Slot& slot : (*table)->List()) {
      if (slot.state == slots::SlotState::kInvalidated || slot.confirmed_lsn + 1 >= first) continue;
      return absl::StrCat("slot ", slot.name, " needs LSN ", slot.confirmed_lsn + 1, ", the log begins at ", first);
    }
    return "";
  }

  // Two replicas at different positions, one of which goes back, while the log grows and is pruned.
  void RunWorkload() {
    v1::PullStart start = ReplicaStart("r2", 1);
    start.set_process_instance(31);
    auto slow = Attach(start);
    auto owner = Attach(ReplicaStart("r1", 1));
    for (int round = 0; round < 6; ++round) {
      Write(9, 4000);
      FlushStore();
      owner->Receive();
      ASSERT_THAT(owner->AckAll(owner->last_lsn), IsOk());
      slow->Receive();
      ASSERT_THAT(slow->AckAll(slow->last_lsn - 8), IsOk());
      Pass(options_.slots_persist_micros);
      if (round != 3) continue;
      owner = Attach(ReplicaStart("r1", owner->last_lsn - 5));  // an older copy of its disk
    }
    EXPECT_GT(FirstRetained(), 1u);
  }

  // Runs it with a check of every crash state; returns what was found to be wrong.
  std::vector<std::string> Problems() {
    std::vector<std::string> problems;
    fs_.SetAfterCall([&] {
      ForEachCrashState(fs_, 2, [&](SimFileSystem& crashed) {
        ++crash_states_;
        const std::string problem = CheckRecovery(crashed);
        if (!problem.empty()) problems.push_back(problem);
      });
    });
    RunWorkload();
    fs_.SetAfterCall(nullptr);
    return problems;
  }

  size_t crash_states_ = 0;
};

TEST_F(SourceCrashTest, EverySlotFindsItsLogAfterEveryCrash) {
  EXPECT_THAT(Problems(), ::testing::IsEmpty());
  EXPECT_GT(crash_states_, 500u);
}

// The same with a fault: the check sees it.
TEST_F(SourceCrashTest, PruningWithoutTheSlotsIsSeen) {
  const FailpointScope fault("source_prune_without_slots");
  EXPECT_THAT(Problems(), ::testing::Not(::testing::IsEmpty()));
}

}  // namespace
}  // namespace towline::test
