// A serving node in memory: a real spool and slot table on a simulated disk, a state over MemoryStore, and owners that
// pull from it.

#ifndef TOWLINE_TESTS_PRIMARY_SOURCE_FIXTURE_H_
#define TOWLINE_TESTS_PRIMARY_SOURCE_FIXTURE_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"

#include "common/mutex.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "primary/replication_source.h"
#include "slots/slot_table.h"
#include "store/memory_store.h"
#include "tests/support/fake_clock.h"
#include "tests/support/recording_logger.h"
#include "tests/support/seeded_rng.h"
#include "tests/support/sim_executor.h"
#include "tests/support/sim_file_system.h"
#include "tests/support/status_matchers.h"
#include "towline/v1/replication_service.pb.h"
#include "wal/spool.h"

namespace towline::test {

inline constexpr char kCluster[] = "0123456789abcdef01234567";
inline constexpr uint64_t kTermId = 0xa1;  // of term 1, in which the log begins
inline constexpr size_t kSegmentBytes = 64 << 10;

class FakeGeneration : public LogAndState {
 public:
  FakeGeneration(uint64_t number, std::unique_ptr<wal::Spool> spool, std::unique_ptr<StateStore> state,
                 Executor& executor, Clock& clock, Logger& logger);

  uint64_t number() const override { return number_; }
  wal::Spool& spool() override { return *spool_; }
  StateStore& state() override { return *state_; }
  Applier& applier() override { return applier_; }
  std::optional<FileSnapshotPlace> file_snapshots() const override { return files; }

  std::optional<FileSnapshotPlace> files;  // set before snapshots are asked for

 private:
  const uint64_t number_;
  const std::unique_ptr<wal::Spool> spool_;
  const std::unique_ptr<StateStore> state_;
  Applier applier_;
};

class FakeHost : public SourceHost {
 public:
  NodeView View() override { return view; }
  std::shared_ptr<LogAndState> Live() override { return live; }
  void OnReplicaAttached(const MemberInfo& member, bool /*knows_members*/) override {
    MutexLock lock(&mutex_);
    attached.push_back(member);
  }
  void OnReplicaAck(const ReplicaAck& ack) override {
    MutexLock lock(&mutex_);
    acks.push_back(ack);
  }
  void OnReplicaGone(const std::string& node_id, uint64_t /*session_id*/) override {
    MutexLock lock(&mutex_);
    gone.push_back(node_id);
  }
  std::optional<CommitStage> WritersWait() override { return writers_wait; }
  Lsn CommittedLsn() override { return live == nullptr ? 0 : live->spool().end().lsn; }
  void OnStaleSelf(Term /*judged*/, absl::string_view reason, absl::string_view message) override {
    MutexLock lock(&mutex_);
    stale.emplace_back(std::string(reason), std::string(message));
  }

  NodeView view;
  std::shared_ptr<LogAndState> live;
  std::vector<MemberInfo> attached;
  std::atomic<std::optional<CommitStage>> writers_wait{};
  std::vector<ReplicaAck> acks;   // that count
  std::vector<std::string> gone;  // whose session is over
  std::vector<std::pair<std::string, std::string>> stale;

 private:
  Mutex mutex_;
};

// The other end of a Pull stream.
class Owner {
 public:
  // `source` must outlive it.
  Owner(ReplicationSource& source, v1::PullStart start);

  // Opens the stream, sends the start and takes the first answer.
  absl::Status Connect();

  // Takes messages until there is none for now.
  void Receive();
  // Takes one message.
  NextResult ReceiveOne();

  absl::Status Ack(Lsn received, Lsn flushed, Lsn applied);
  absl::Status AckAll(Lsn lsn) { return Ack(lsn, lsn, lsn); }
  absl::Status Send(const v1::PullAck& ack);
  absl::Status Grant(uint64_t granted_bytes);
  v1::PullAck MakeAck(Lsn received, Lsn flushed, Lsn applied) const;
  void Close() { session.reset(); }

  // Reason of the status with which the session ended; "" while it has not, "ok" if it is OK.
  std::string EndReason() const;

  v1::PullStart start;
  std::unique_ptr<PullSession> session;
  std::function<void()> on_wake;  // set before Connect; called from any thread
  std::atomic<int> wakes = 0;
  bool ended = false;
  v1::PullStarted started;
  std::string frames;                   // shipped parts received, fragments joined
  Lsn last_lsn = 0;                     // of the records received
  std::vector<v1::FrameBatch> batches;  // without `frames`
  std::vector<size_t> batch_sizes;      // of `frames`
  std::vector<v1::Record> records;
  std::vector<v1::Heartbeat> heartbeats;
  std::vector<std::vector<std::string>> paths;
  std::vector<v1::ErrorDetail> ends;

 private:
  void Take(const v1::PullResponse& response);

  ReplicationSource& source_;
};

class SourceTest : public ::testing::Test {
 protected:
  // With `store_files` stores are in files of fs_.
  explicit SourceTest(bool store_files = false) : stores_({.file_system = store_files ? &fs_ : nullptr}) {}

  void SetUp() override;
  void TearDown() override;

  // Opens slots, log, state and source as they are on the disk; `number` of the data generation. Log and state of a
  // number that was opened before are the same again.
  void OpenNode(uint64_t number = 1);
  void CloseNode();

  // Appends and applies `count` records, each a group of its own, that put `value_size` bytes under key-<lsn>.
  void Write(int count, size_t value_size = 100);
  void StartTerm(Term term, uint64_t term_id);
  Lsn Durable() const { return host_.live->spool().end().lsn; }
  Lsn FirstRetained() const { return host_.live->spool().stats().first_lsn; }
  uint64_t ChainAt(Lsn lsn) const;
  std::string Shipped(Lsn from, Lsn to) const;  // shipped parts, both included

  // A start that this node's line allows. LSN 0 = empty, without a cluster.
  v1::PullStart ReplicaStart(const std::string& slot, Lsn lsn) const;
  v1::PullStart ConsumerStart(const std::string& slot, Lsn lsn) const;

  // Connects and expects PARTIAL.
  std::unique_ptr<Owner> Attach(const v1::PullStart& start);
  // Connects, takes the answer and closes.
  v1::PullStarted Ask(const v1::PullStart& start);

  void Tick() { ASSERT_THAT(source_->Tick(), IsOk()); }
  // Time passes in steps of 50 ms with a Tick after each.
  void Pass(int64_t micros);
  // Everything is persisted in the store, so that only slots, pins and keep_bytes hold the log.
  void FlushStore();

  slots::Slot SlotOf(const std::string& name) const;
  PeerStatus PeerOf(const std::string& slot) const;

  SimFileSystem fs_;
  FakeClock clock_;
  SeededRng rng_{1};
  RecordingLogger logger_;
  SimExecutor executor_{&clock_};
  MemoryStoreFactory stores_;
  SourceOptions options_;
  slots::SlotLimits limits_;
  wal::SpoolOptions spool_options_;
  FakeHost host_;
  std::unique_ptr<slots::SlotTable> slots_;
  std::unique_ptr<ReplicationSource> source_;

 private:
  void Append(wal::RecordType type, const std::string& payload);
};

}  // namespace towline::test

#endif  // TOWLINE_TESTS_PRIMARY_SOURCE_FIXTURE_H_
