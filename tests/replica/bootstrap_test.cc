// Tests of the replica's controller while it loads a snapshot.
//
// Method   A scripted upstream that resumes whoever its log still covers and sends everybody else a snapshot, on a
//          simulated disk that also holds the stores.

#include <functional>

#include "absl/strings/str_cat.h"

#include "common/failpoint.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/replica/replica_node.h"
#include "tests/replica/snapshot_maker.h"
#include "tests/support/status_matchers.h"

namespace towline::test {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

using Stream = std::vector<v1::FetchSnapshotResponse>;

class BootstrapTest : public ::testing::Test {
 protected:
  BootstrapTest() {
    log_.StartTerm(1, 11);
    log_.Puts(9);
    node_ = std::make_unique<ReplicaNode>();
    Script(*node_);
  }
  ~BootstrapTest() override { node_.reset(); }

  // Makes the node's upstream a source of log_.
  void Script(ReplicaNode& node) {
    node.upstream.on_pull = [this](FakePull& pull) {
      const Lsn next = pull.start().lsn() + 1;
      if (next < first_retained_ || !full_reason_.empty()) {
        pull.SendDecision(log_, v1::RESUME_DECISION_FULL, full_reason_.empty() ? "wal_removed" : full_reason_);
        return;
      }
      pull.SendPartial(log_);
      if (next <= log_.end_lsn()) pull.SendFrames(log_.Batch(next, log_.end_lsn()));
    };
    node.upstream.on_snapshot = [this](FakeSnapshot& snapshot) {
      full_reason_.clear();
      Stream stream = MakeSnapshot(log_, snapshot_lsn_);
      if (change_) change_(stream);
      for (const v1::FetchSnapshotResponse& response : stream) sent_bytes_ += response.chunk().data().size();
      for (v1::FetchSnapshotResponse& response : stream) snapshot.inbox.Send(std::move(response));
      if (close_) snapshot.inbox.Close(absl::UnavailableError("cut"));
    };
  }

  // A replica with records 1 to 10 of log_, which goes on to 60 and keeps only what is behind 40.
  void AttachAndFallBehind() {
    node_->Start();
    ASSERT_TRUE(RunUntilApplied(10));
    log_.Puts(50);
    snapshot_lsn_ = 50;
    first_retained_ = 41;
    node_->pull().inbox.Close(absl::OkStatus());
  }

  bool RunUntilApplied(Lsn lsn) {
    return node_->RunUntil([&] { return node_->applied_lsn() >= lsn; });
  }
  bool RunUntilHalted() {
    return node_->RunUntil([&] { return node_->status().state == "halted"; });
  }

  void ExpectHoldsLog(Lsn lsn) {
    ASSERT_EQ(node_->live->state().applied(), log_.PositionAt(lsn));
    TOWLINE_ASSERT_OK_AND_ASSIGN(const auto snapshot, node_->live->state().Snapshot());
    TOWLINE_ASSERT_OK_AND_ASSIGN(const StateDigest digest, snapshot->Digest());
    EXPECT_EQ(digest.sum, DigestOf(log_, lsn).sum);
  }

  std::vector<std::string> GenerationDirectories() {
    auto names = node_->fs.List("data/gen");
    return names.ok() ? *names : std::vector<std::string>();
  }

  LogMaker log_;
  Lsn first_retained_ = 1;
  Lsn snapshot_lsn_ = 10;
  std::string full_reason_;              // of the next FULL; empty = only if the log does not reach
  std::function<void(Stream&)> change_;  // what goes wrong with snapshots
  uint64_t sent_bytes_ = 0;              // of chunks of all streams
  bool close_ = false;                   // the snapshot stream breaks behind what is sent
  std::unique_ptr<ReplicaNode> node_;
};

TEST_F(BootstrapTest, AnEmptyReplicaLoadsASnapshotAndGoesOn) {
  log_.StartTerm(2, 22);
  log_.Puts(20);
  snapshot_lsn_ = 25;
  full_reason_ = "new_replica";
  node_->Start();
  ASSERT_TRUE(RunUntilApplied(31));
  ExpectHoldsLog(31);
  const Control control = node_->control().Get();
  EXPECT_EQ(control.cluster_id, kCluster);
  EXPECT_EQ(control.generation, 1u);
  EXPECT_EQ(control.base, log_.PositionAt(25));
  EXPECT_EQ(control.exact_from, log_.PositionAt(25));
  EXPECT_EQ(control.history, log_.history());
  EXPECT_EQ(node_->pull().start().lsn(), 25u);
  EXPECT_EQ(node_->pull().start().exact_from().lsn(), 25u);
  EXPECT_EQ(node_->upstream.snapshots[0]->request.start().slot(), "r1");
  EXPECT_EQ(node_->status().full_resyncs, 1u);
  EXPECT_EQ(node_->status().partial_resyncs, 0u);
  EXPECT_FALSE(node_->status().bootstrap.has_value());
  EXPECT_THAT(node_->logger.Events("bootstrap_started"), SizeIs(1));
  EXPECT_THAT(node_->logger.Events("bootstrap_finished"), SizeIs(1));
  EXPECT_THAT(node_->logger.Events("generation_switched"), SizeIs(1));
}

TEST_F(BootstrapTest, TheOldStateServesUntilTheNewOneIsWholeAndGoesWhenNobodyReadsIt) {
  bool hold_back = true;
  v1::FetchSnapshotResponse end;
  change_ = [&](Stream& stream) {
    if (!hold_back) return;
    end = stream.back();
    stream.pop_back();
  };
  AttachAndFallBehind();
  ASSERT_TRUE(node_->RunUntil([&] {
    const auto progress = node_->status().bootstrap;
    return progress.has_value() && progress->keys == 49;
  }));
  EXPECT_EQ(node_->status().state, "bootstrapping");
  EXPECT_EQ(node_->status().upstream_state, "bootstrapping");
  EXPECT_EQ(node_->status().bootstrap->reason, "wal_removed");
  EXPECT_EQ(node_->status().bootstrap->estimated_bytes, 2000u);
  EXPECT_GT(node_->status().bootstrap->bytes, 0u);
  EXPECT_EQ(node_->ReadKey("key-10"), "value-10");
  EXPECT_EQ(node_->ReadKey("key-50"), "");
  EXPECT_THAT(GenerationDirectories(), ElementsAre("1", "2"));

  std::shared_ptr<Generation> reader = node_->live;
  node_->upstream.snapshots.back()->inbox.Send(end);
  ASSERT_TRUE(RunUntilApplied(60));
  ExpectHoldsLog(60);
  EXPECT_THAT(node_->switched_to, ElementsAre(1u, 2u));
  EXPECT_THAT(GenerationDirectories(), ElementsAre("1", "2"));
  EXPECT_THAT(reader->state().Get("key-10", 0), IsOk());
  reader.reset();
  node_->RunSteps(2);
  EXPECT_THAT(GenerationDirectories(), ElementsAre("2"));
  EXPECT_FALSE(node_->fs.HasFile("data/quarantine"));
}

// The fake source knows no cursors: each of its streams begins anew.
TEST_F(BootstrapTest, ABrokenStreamStartsOver) {
  change_ = [](Stream& stream) { stream.resize(3); };
  close_ = true;
  AttachAndFallBehind();
  ASSERT_TRUE(node_->RunUntil([&] { return node_->logger.Events("bootstrap_failed").size() == 2; }));
  EXPECT_EQ(node_->live->number(), 1u);
  EXPECT_EQ(node_->ReadKey("key-10"), "value-10");
  EXPECT_THAT(GenerationDirectories(), SizeIs(2));  // what was received stays, for a source that can go on
  EXPECT_EQ(node_->status().bootstrap->phase, "waiting");
  change_ = nullptr;
  close_ = false;
  ASSERT_TRUE(RunUntilApplied(60));
  ExpectHoldsLog(60);
  EXPECT_THAT(GenerationDirectories(), SizeIs(1));
  EXPECT_EQ(node_->status().bootstrap_restarts, 2u);
  EXPECT_EQ(node_->status().bootstrap_bytes, sent_bytes_);
}

TEST_F(BootstrapTest, ASilentStreamStartsOver) {
  change_ = [](Stream& stream) { stream.resize(3); };
  AttachAndFallBehind();
  ASSERT_TRUE(node_->RunUntil([&] { return !node_->logger.Events("bootstrap_failed").empty(); }));
  EXPECT_EQ(node_->logger.Events("bootstrap_failed")[0].fields["reason"], "upstream_silent");
}

struct Fault {
  const char* name;
  std::function<void(Stream&)> change;
};

class FaultySnapshotTest : public BootstrapTest, public ::testing::WithParamInterface<Fault> {};

// A snapshot that does not hold is never switched to; the node says so, keeps its state and asks less often.
TEST_P(FaultySnapshotTest, IsNotUsed) {
  change_ = GetParam().change;
  AttachAndFallBehind();
  ASSERT_TRUE(RunUntilHalted());
  EXPECT_EQ(node_->logger.Events("bootstrap_failed").size(), 3u);
  EXPECT_THAT(node_->switched_to, ElementsAre(1u));
  EXPECT_EQ(node_->control().Get().generation, 1u);
  EXPECT_EQ(node_->ReadKey("key-10"), "value-10");
  EXPECT_THAT(node_->fatal, IsEmpty());
  change_ = nullptr;
  ASSERT_TRUE(RunUntilApplied(60));
  ExpectHoldsLog(60);
  EXPECT_EQ(node_->status().halt_reason, "");
}

const Fault kFaults[] = {
    {"WrongDigest", [](Stream& s) { s.back().mutable_end()->set_digest(std::string(32, '0')); }},
    {"WrongKeys", [](Stream& s) { s.back().mutable_end()->set_keys(1); }},
    {"WrongBytes", [](Stream& s) { s.back().mutable_end()->set_bytes(1); }},
    {"WrongChunks", [](Stream& s) { s.back().mutable_end()->set_chunks(1); }},
    {"MissingChunk", [](Stream& s) { s.erase(s.begin() + 2); }},
    {"BadByte", [](Stream& s) { s[2].mutable_chunk()->mutable_data()->back() ^= 1; }},
    {"EarlyEnd", [](Stream& s) { s.erase(s.end() - 2); }},
    {"NoHeader", [](Stream& s) { s.erase(s.begin()); }},
    {"TwoHeaders", [](Stream& s) { s.insert(s.begin(), s[0]); }},
    {"PositionOffItsHistory", [](Stream& s) { s[0].mutable_header()->mutable_position()->set_term_id(99); }},
    {"OtherPosition",
     [](Stream& s) {
       const uint64_t chain = s[0].header().position().chain();
       s[0].mutable_header()->mutable_position()->set_chain(chain + 1);
     }},
    {"EmptyHistory", [](Stream& s) { s[0].mutable_header()->clear_history(); }},
    {"FallingHistory",
     [](Stream& s) { *s[0].mutable_header()->add_history() = v1::HistoryEntry(s[0].header().history(0)); }},
};

INSTANTIATE_TEST_SUITE_P(Kinds, FaultySnapshotTest, ::testing::ValuesIn(kFaults),
                         [](const ::testing::TestParamInfo<Fault>& param) { return param.param.name; });

TEST_F(BootstrapTest, ASnapshotOfAnotherClusterIsRefused) {
  change_ = [](Stream& s) { s[0].mutable_header()->mutable_position()->set_cluster_id(kOtherCluster); };
  AttachAndFallBehind();
  ASSERT_TRUE(RunUntilHalted());
  EXPECT_EQ(node_->status().halt_reason, "cluster_mismatch");
  EXPECT_EQ(node_->control().Get().cluster_id, kCluster);
}

// Data is never given up for a source that is empty, older, or merely behind.
TEST_F(BootstrapTest, AnOlderSourceIsRefused) {
  node_->Start();
  log_.StartTerm(2, 22);
  ASSERT_TRUE(RunUntilApplied(11));
  const LogMaker full = log_;
  LogMaker old;
  old.StartTerm(1, 11);
  old.Put("another", "line");
  old.Puts(100);
  for (const Lsn lsn : {Lsn{0}, Lsn{50}, Lsn{10}}) {
    SCOPED_TRACE(lsn);
    log_ = lsn == 50 ? old : full;
    snapshot_lsn_ = lsn;
    full_reason_ = "diverged";
    // Its term passes the first check, as that of a source that promoted itself and has not logged it yet.
    node_->upstream.on_pull = [&](FakePull& pull) { pull.SendDecision(full, v1::RESUME_DECISION_FULL, "diverged"); };
    node_->pull().inbox.Close(absl::OkStatus());
    const size_t before = node_->logger.Events("bootstrap_failed").size();
    ASSERT_TRUE(node_->RunUntil([&] { return node_->logger.Events("bootstrap_failed").size() > before; }));
    EXPECT_EQ(node_->logger.Events("bootstrap_failed").back().fields["reason"], "older_source");
    EXPECT_EQ(node_->status().halt_reason, "older_source");
    EXPECT_EQ(node_->live->number(), 1u);
    EXPECT_EQ(node_->live->state().applied(), full.PositionAt(11));
    EXPECT_THAT(GenerationDirectories(), ElementsAre("1"));
  }
}

TEST_F(BootstrapTest, TooLittleSpaceIsAVisiblePauseThatHeals) {
  AttachAndFallBehind();
  node_->fs.SetQuota(300'000);
  change_ = [](Stream& s) { s[0].mutable_header()->set_estimated_bytes(1'000'000); };
  ASSERT_TRUE(RunUntilHalted());
  EXPECT_EQ(node_->status().halt_reason, "disk_full");
  EXPECT_EQ(node_->ReadKey("key-10"), "value-10");
  node_->fs.SetQuota(10'000'000);
  ASSERT_TRUE(RunUntilApplied(60));
  EXPECT_EQ(node_->status().halt_reason, "");
}

TEST_F(BootstrapTest, ADiskThatFillsWhileLoadingIsAVisiblePauseThatHeals) {
  AttachAndFallBehind();
  change_ = [&](Stream& s) {
    s[0].mutable_header()->set_estimated_bytes(0);
    node_->fs.SetQuota(1);
  };
  ASSERT_TRUE(RunUntilHalted());
  EXPECT_EQ(node_->status().halt_reason, "disk_full");
  EXPECT_THAT(node_->fatal, IsEmpty());
  change_ = nullptr;
  node_->fs.SetQuota(0);
  ASSERT_TRUE(RunUntilApplied(60));
  ExpectHoldsLog(60);
}

TEST_F(BootstrapTest, OwnRecordsOfADivergedNodeGoToQuarantine) {
  const LogMaker common = log_;
  log_.Puts(7);
  const LogMaker own = log_;
  node_->Start();
  ASSERT_TRUE(RunUntilApplied(17));
  log_ = common;
  log_.StartTerm(2, 22);
  log_.Puts(30);
  snapshot_lsn_ = 20;
  full_reason_ = "diverged";
  node_->pull().inbox.Close(absl::OkStatus());
  ASSERT_TRUE(RunUntilApplied(log_.end_lsn()));
  ExpectHoldsLog(log_.end_lsn());
  std::string expected;
  for (Lsn lsn = 11; lsn <= 17; ++lsn) expected += own.shipped(lsn);
  EXPECT_EQ(node_->fs.Contents("data/quarantine/diverged-1-11.frames"), expected);
  const auto events = node_->logger.Events("records_quarantined");
  ASSERT_THAT(events, SizeIs(1));
  EXPECT_EQ(events[0].fields.at("records"), "7");
  EXPECT_EQ(node_->control().Get().history, log_.history());
}

TEST_F(BootstrapTest, LeftoversOfAnEarlierProcessAreRemoved) {
  node_->Start();
  ASSERT_TRUE(RunUntilApplied(10));
  for (const char* directory : {"data/gen/7", "data/gen/7/db", "data/gen/lost+found"}) {
    ASSERT_THAT(node_->fs.CreateDirectory(directory), IsOk());
  }
  node_->fs.SetContents("data/gen/7/db/MEMSTORE", "half");
  const std::unique_ptr<SimFileSystem> disk = node_->fs.Clone();
  node_ = std::make_unique<ReplicaNode>(disk.get());
  Script(*node_);
  node_->Start();
  node_->RunSteps(1);
  EXPECT_THAT(GenerationDirectories(), ElementsAre("1", "lost+found"));
  node_.reset();
}

TEST_F(BootstrapTest, AControlWriteThatFailsAtTheSwitchLeavesBothGenerations) {
  AttachAndFallBehind();
  change_ = [&](Stream&) { node_->fs.FailNext(SimCall::kSync, absl::DataLossError("injected"), "control"); };
  ASSERT_TRUE(node_->RunUntil([&] { return !node_->fatal.empty(); }));
  node_->RunSteps(20);
  EXPECT_THAT(node_->fatal, SizeIs(1));
  EXPECT_THAT(node_->switched_to, ElementsAre(1u));
  EXPECT_THAT(GenerationDirectories(), ElementsAre("1", "2"));
  EXPECT_EQ(node_->status().state, "halted");
  // What was written may or may not be on the disk; either way a whole generation opens.
  ForEachCrashState(node_->fs, 4, [&](SimFileSystem& crashed) {
    ReplicaNode after(&crashed);
    ASSERT_THAT(after.Open(), IsOk());
    EXPECT_GE(after.applied_lsn(), 10u);
  });
}

TEST_F(BootstrapTest, ShutdownKeepsThePartialGeneration) {
  change_ = [](Stream& stream) { stream.resize(3); };
  AttachAndFallBehind();
  ASSERT_TRUE(node_->RunUntil([&] { return node_->status().state == "bootstrapping"; }));
  node_->RunSteps(2);
  EXPECT_THAT(GenerationDirectories(), ElementsAre("1", "2"));
  node_->controller->Shutdown();
  node_->RunSteps(2);
  EXPECT_THAT(GenerationDirectories(), ElementsAre("1", "2"));
  EXPECT_TRUE(node_->upstream.snapshots.back()->inbox.closed());
}

// What is wrong with the directory of a replica that has record 10, lost power during a re-bootstrap at record 50, and
// may then have lost a copy of control; empty = nothing. `switched`: the new generation was live already.
std::string WrongAfterCrash(SimFileSystem& disk, const LogMaker& log, bool switched) {
  for (const char* damaged : {"", "data/control.a", "data/control.b"}) {
    // Damage on top of a crash is survived wherever both copies are promised: behind the switch.
    if (*damaged != 0 && !switched) continue;
    const std::unique_ptr<SimFileSystem> copy = disk.Clone();
    if (*damaged != 0) copy->SetContents(damaged, "");
    ReplicaNode after(copy.get());
    const absl::Status opened = after.Open();
    if (!opened.ok()) return opened.ToString();
    const uint64_t generation = after.control().Get().generation;
    const Lsn applied = after.applied_lsn();
    if (generation != 2 && (generation != 1 || switched)) return absl::StrCat("generation ", generation);
    if (applied < (generation == 2 ? 50 : 10)) return absl::StrCat("applied ", applied);
    if (after.live->state().applied() != log.PositionAt(applied)) return "another position";
  }
  return "";
}

// After a power loss at any moment of a re-bootstrap the directory opens with the whole old state or the whole new one,
// and never goes back to the old one. From each such state the node gets where it was going.
TEST_F(BootstrapTest, EveryCrashStateHoldsExactlyOneWholeState) {
  AttachAndFallBehind();
  int states = 0;
  std::vector<std::unique_ptr<SimFileSystem>> disks;
  node_->fs.SetAfterCall([&] {
    disks.push_back(node_->fs.CloneAfterCrash(CrashProfile::kStrict, 1));
    ForEachCrashState(node_->fs, 2, [&](SimFileSystem& crashed) {
      ++states;
      ASSERT_EQ(WrongAfterCrash(crashed, log_, node_->live->number() == 2), "");
    });
  });
  ASSERT_TRUE(RunUntilApplied(60));
  node_->RunSteps(2);
  node_->fs.SetAfterCall(nullptr);
  EXPECT_THAT(GenerationDirectories(), ElementsAre("2"));
  EXPECT_GT(states, 100);

  for (const std::unique_ptr<SimFileSystem>& disk : disks) {
    node_ = std::make_unique<ReplicaNode>(disk.get());
    Script(*node_);
    node_->Start();
    ASSERT_TRUE(RunUntilApplied(60));
    ExpectHoldsLog(60);
    node_->RunSteps(2);
    EXPECT_THAT(GenerationDirectories(), SizeIs(1));
  }
  node_.reset();
}

class PlantedSwitchFaultTest : public BootstrapTest, public ::testing::WithParamInterface<const char*> {};

// The check above sees faults of this kind.
TEST_P(PlantedSwitchFaultTest, IsCaught) {
  AttachAndFallBehind();
  const FailpointScope fault(GetParam());
  int wrong = 0;
  node_->fs.SetAfterCall([&] {
    ForEachCrashState(node_->fs, 2, [&](SimFileSystem& crashed) {
      if (!WrongAfterCrash(crashed, log_, node_->live->number() == 2).empty()) ++wrong;
    });
  });
  EXPECT_TRUE(node_->RunUntil([&] { return wrong > 0; }));
  node_->fs.SetAfterCall(nullptr);
}

INSTANTIATE_TEST_SUITE_P(Kinds, PlantedSwitchFaultTest,
                         ::testing::Values("replica_switch_once", "replica_remove_early"));

}  // namespace
}  // namespace towline::test
