#include "tests/replica/replica_node.h"

#include <utility>

#include "common/check.h"
#include "common/error.h"

namespace towline::test {

wal::SpoolOptions SmallSpool() {
  wal::SpoolOptions options;
  options.segment_bytes = 64 << 10;
  options.spare_segments = 0;
  return options;
}

ReplicaOptions TestReplicaOptions() {
  ReplicaOptions options;
  options.node_id = "r1";
  options.advertised_address = "127.0.0.1:7701";
  options.process_instance = 11;
  options.file_form = "memory-1";  // what sources in tests send of their own accord
  return options;
}

Control NewReplicaControl() {
  Control control;
  control.node_id = "r1";
  control.incarnation = 5;
  control.role = NodeRole::kReplica;
  return control;
}

ReplicaNode::ReplicaNode(SimFileSystem* other_fs)
    : own_fs(other_fs == nullptr ? std::make_unique<SimFileSystem>() : nullptr),
      fs(other_fs == nullptr ? *own_fs : *other_fs),
      stores({.file_system = &fs, .flush_every_batches = 0, .flush_on_close = false}) {
  env.reset(new GenerationEnvironment{
      fs, clock, rng, executor, logger, stores, kDataDirectory, SmallSpool(), {}, [this](absl::Status status) {
        fatal.push_back(std::move(status));
      }});
  if (other_fs != nullptr) return;
  TOWLINE_CHECK(fs.CreateDirectory(kDataDirectory).ok());
  TOWLINE_CHECK(fs.SyncDirectory("/").ok());
  auto file = ControlFile::Open(fs, kDataDirectory);
  TOWLINE_CHECK(file.ok());
  TOWLINE_CHECK((*file)->Set(NewReplicaControl(), true).ok());
}

ReplicaNode::~ReplicaNode() { controller.reset(); }

absl::Status ReplicaNode::Open() {
  TOWLINE_ASSIGN_OR_RETURN(control_file, ControlFile::Open(fs, kDataDirectory));
  TOWLINE_RETURN_IF_ERROR(control_file->Settle());
  const Control control = control_file->Get();
  if (control.generation == 0) return absl::OkStatus();
  TOWLINE_ASSIGN_OR_RETURN(live, Generation::Open(*env, control, {}, 0, nullptr));
  return absl::OkStatus();
}

void ReplicaNode::Start(ReplicaOptions options) {
  const absl::Status opened = Open();
  TOWLINE_CHECK(opened.ok());
  controller = NewReplicaController(*this, upstream, std::move(options));
}

bool ReplicaNode::RunUntil(const std::function<bool()>& done, int steps_max) {
  for (int i = 0; i < steps_max && !done(); ++i) RunSteps(1);
  return done();
}

void ReplicaNode::RunSteps(int steps) {
  for (int i = 0; i < steps; ++i) {
    StepController();
    executor.RunUntilIdle();
  }
}

void ReplicaNode::StepController() {
  const StepResult result = controller->Step();
  if (!result.again && result.wait_micros > 0) clock.Advance(result.wait_micros);
}

Lsn ReplicaNode::applied_lsn() { return live == nullptr ? 0 : live->applier().applied_lsn(); }
Lsn ReplicaNode::durable_lsn() { return live == nullptr ? 0 : live->spool().end().lsn; }

std::string ReplicaNode::ReadKey(const std::string& key) {
  auto entry = live->state().Get(key, 0);
  TOWLINE_CHECK(entry.ok());
  return entry->has_value() ? (*entry)->value : "";
}

void ReplicaNode::SwitchGeneration(std::shared_ptr<Generation> generation) {
  switched_to.push_back(generation->number());
  live = std::move(generation);
}

void ReplicaNode::OnHeartbeat(uint64_t sequence, Lsn, Lsn) { heartbeats.push_back(sequence); }

}  // namespace towline::test
