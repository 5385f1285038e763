// A replica on a simulated disk: its control file, its live generation and its controller, stepped by the test.
//
//   ReplicaNode node;
//   node.upstream.on_pull = [&](FakePull& pull) { pull.SendPartial(log); pull.SendFrames(log.Batch(1, 5)); };
//   node.Start();
//   ASSERT_TRUE(node.RunUntil([&] { return node.applied_lsn() == 5; }));

#ifndef TOWLINE_TESTS_REPLICA_REPLICA_NODE_H_
#define TOWLINE_TESTS_REPLICA_REPLICA_NODE_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"

#include "common/control.h"
#include "replica/generation.h"
#include "replica/replica_controller.h"
#include "store/memory_store.h"
#include "tests/replica/fake_upstream.h"
#include "tests/replica/log_maker.h"
#include "tests/support/fake_clock.h"
#include "tests/support/recording_logger.h"
#include "tests/support/seeded_rng.h"
#include "tests/support/sim_executor.h"
#include "tests/support/sim_file_system.h"

namespace towline::test {

inline constexpr char kDataDirectory[] = "data";

wal::SpoolOptions SmallSpool();
ReplicaOptions TestReplicaOptions();

// The control of a replica that has never attached.
Control NewReplicaControl();

// Everything that dies with the process.
class ReplicaNode : public ReplicaHost {
 public:
  // Runs on `fs`, or on a new one with an empty data directory and a control file.
  explicit ReplicaNode(SimFileSystem* fs = nullptr);
  ~ReplicaNode() override;

  // Opens control and the live generation, as a server does at its start.
  absl::Status Open();
  // Open, then makes the controller.
  void Start(ReplicaOptions options = TestReplicaOptions());

  // Steps controller and applier; when the controller wants to wait, the clock moves.
  bool RunUntil(const std::function<bool()>& done, int steps_max = 2000);
  void RunSteps(int steps);
  // Only the controller, so that nothing is applied.
  void StepController();

  Lsn applied_lsn();
  Lsn durable_lsn();
  std::string ReadKey(const std::string& key);  // "" = absent
  ReplicaStatusView status() { return controller->Status(); }
  FakePull& pull() { return *upstream.pulls.back(); }

  // ReplicaHost.
  ControlFile& control() override { return *control_file; }
  std::shared_ptr<Generation> LiveGeneration() override { return live; }
  void SwitchGeneration(std::shared_ptr<Generation> generation) override;
  void SetRewinding(bool value) override { rewinding.push_back(value); }
  void OnHeartbeat(uint64_t sequence, Lsn durable_lsn, Lsn committed_lsn) override;
  void OnSlotCopies(const slots::SlotCopies& told) override { copies.push_back(told); }
  void OnUpstreamPath(const UpstreamPath& path) override { paths.push_back(path); }
  const GenerationEnvironment& environment() override { return *env; }
  Mutex& fence_gate() override { return gate; }

  std::unique_ptr<SimFileSystem> own_fs;
  SimFileSystem& fs;
  FakeClock clock;
  SeededRng rng{1};
  SimExecutor executor{&clock};
  RecordingLogger logger;
  MemoryStoreFactory stores;
  std::unique_ptr<GenerationEnvironment> env;
  std::unique_ptr<ControlFile> control_file;
  FakeUpstream upstream{&clock};
  std::shared_ptr<Generation> live;
  std::vector<uint64_t> switched_to;
  std::vector<bool> rewinding;  // as SetRewinding told
  std::vector<uint64_t> heartbeats;
  std::vector<slots::SlotCopies> copies;
  std::vector<UpstreamPath> paths;
  std::vector<absl::Status> fatal;
  std::unique_ptr<ReplicaController> controller;
  Mutex gate;
};

}  // namespace towline::test

#endif  // TOWLINE_TESTS_REPLICA_REPLICA_NODE_H_
