#include "tests/server/sim_cluster.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <future>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/clock.h"
#include "common/error.h"
#include "common/executor.h"
#include "primary/write_intake.h"
#include "replica/pull_messages.h"
#include "tests/support/seeded_rng.h"
#include "towline/v1/kv_service.pb.h"
#include "towline/v1/replication_service.pb.h"

namespace towline::test {
namespace {

constexpr int64_t kAwaitMicros = 20'000'000;

absl::Status Unreachable(const std::string& endpoint) {
  return absl::UnavailableError(absl::StrCat(endpoint, " cannot be reached"));
}

// A Pull stream that is a session of another node in this process.
class LocalPull final : public PullStream {
 public:
  LocalPull(const SimCluster& cluster, std::string self, std::string endpoint)
      : cluster_(cluster), self_(std::move(self)), endpoint_(std::move(endpoint)) {
    if (cluster_.Reach(self_) != nullptr) node_ = cluster_.Reach(endpoint_);
    if (node_ != nullptr) session_ = node_->source().NewPullSession([this] { Signal(&news_); });
  }
  ~LocalPull() override { End(); }

  bool Write(const v1::PullRequest& request) override {
    if (!IsOpen()) return false;
    const absl::Status taken = session_->OnRequest(request);
    if (!taken.ok()) status_ = taken;
    return taken.ok();
  }

  ReadResult Read(v1::PullResponse* out, int64_t timeout_micros) override {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::microseconds(timeout_micros);
    while (true) {
      if (!IsOpen()) return ReadResult::kClosed;
      switch (session_->Next(out)) {
        case NextResult::kMessage:
          return ReadResult::kMessage;
        case NextResult::kEnd:
          status_ = session_->end_status();
          End();
          return ReadResult::kClosed;
        case NextResult::kWait:
          break;
      }
      MutexLock lock(&mutex_);
      if (timeout_micros != 0 && std::exchange(woken_, false)) return ReadResult::kTimeout;
      if (std::exchange(news_, false)) continue;
      const auto left =
          std::chrono::duration_cast<std::chrono::microseconds>(deadline - std::chrono::steady_clock::now());
      if (left.count() <= 0) return ReadResult::kTimeout;
      (void)changed_.WaitFor(&mutex_, std::min<int64_t>(left.count(), 20'000));
    }
  }

  void Wake() override { Signal(&woken_); }
  void Cancel() override { Signal(&cancelled_); }
  absl::Status Finish() override {
    End();
    return status_;
  }

 private:
  void Signal(bool* flag) {
    MutexLock lock(&mutex_);
    *flag = true;
    changed_.NotifyAll();
  }

  bool IsOpen() {
    if (session_ == nullptr) return false;
    {
      MutexLock lock(&mutex_);
      if (cancelled_) return false;
    }
    if (cluster_.Reach(endpoint_) == node_ && cluster_.Reach(self_) != nullptr) return true;
    End();
    status_ = Unreachable(endpoint_);
    return false;
  }

  void End() {
    if (session_ != nullptr) session_->Close();
    session_.reset();
    node_.reset();
  }

  const SimCluster& cluster_;
  const std::string self_;
  const std::string endpoint_;
  std::shared_ptr<Node> node_;
  std::unique_ptr<PullSession> session_;
  absl::Status status_ = absl::UnavailableError("closed");
  Mutex mutex_;
  CondVar changed_;
  bool news_ TOWLINE_GUARDED_BY(mutex_) = false;
  bool woken_ TOWLINE_GUARDED_BY(mutex_) = false;
  bool cancelled_ TOWLINE_GUARDED_BY(mutex_) = false;
};

class LocalSnapshot final : public SnapshotStream {
 public:
  LocalSnapshot(const SimCluster& cluster, const std::string& endpoint, const v1::FetchSnapshotRequest& request)
      : node_(cluster.Reach(endpoint)) {
    if (node_ == nullptr) return;
    auto session = node_->source().NewSnapshotSession(request, [] {});
    status_ = session.status();
    if (session.ok()) session_ = *std::move(session);
  }
  ~LocalSnapshot() override {
    if (session_ != nullptr) session_->Close();
  }

  ReadResult Read(v1::FetchSnapshotResponse* out, absl::Cord* data, int64_t) override {
    if (session_ == nullptr) return ReadResult::kClosed;
    switch (session_->Next(out)) {
      case NextResult::kMessage:
        TakeFileData(out, data);
        return ReadResult::kMessage;
      case NextResult::kWait:
        return ReadResult::kTimeout;
      case NextResult::kEnd:
        break;
    }
    status_ = session_->end_status();
    return ReadResult::kClosed;
  }
  void Cancel() override {}
  absl::Status Finish() override { return status_; }

 private:
  const std::shared_ptr<Node> node_;
  std::unique_ptr<SnapshotSession> session_;
  absl::Status status_ = absl::UnavailableError("unreachable");
};

class LocalUpstream final : public Upstream {
 public:
  LocalUpstream(const SimCluster& cluster, std::string self, std::string endpoint)
      : cluster_(cluster), self_(std::move(self)), endpoint_(std::move(endpoint)) {}
  std::string endpoint() const override { return endpoint_; }
  std::unique_ptr<PullStream> OpenPull() override { return std::make_unique<LocalPull>(cluster_, self_, endpoint_); }
  std::unique_ptr<SnapshotStream> OpenSnapshot(const v1::FetchSnapshotRequest& request) override {
    return std::make_unique<LocalSnapshot>(cluster_, endpoint_, request);
  }

 private:
  const SimCluster& cluster_;
  const std::string self_;
  const std::string endpoint_;
};

// The network as one node sees it: nothing, while it is cut off itself.
class LocalPeers final : public PeerCalls {
 public:
  LocalPeers(SimCluster& cluster, std::string self) : cluster_(cluster), self_(std::move(self)) {}

  std::vector<absl::StatusOr<v1::Standing>> AskStandings(const std::vector<std::string>& endpoints,
                                                         int64_t timeout_micros) override {
    if (CutOff()) return std::vector<absl::StatusOr<v1::Standing>>(endpoints.size(), Unreachable("everybody"));
    return cluster_.AskStandings(endpoints, timeout_micros);
  }
  std::vector<absl::StatusOr<v1::FenceResponse>> Fence(const std::vector<std::string>& endpoints,
                                                       const std::vector<v1::FenceRequest>& requests,
                                                       int64_t timeout_micros) override {
    if (CutOff()) return std::vector<absl::StatusOr<v1::FenceResponse>>(endpoints.size(), Unreachable("everybody"));
    return cluster_.Fence(endpoints, requests, timeout_micros);
  }
  absl::StatusOr<v1::HandOverResponse> HandOver(const std::string& endpoint, const v1::HandOverRequest& request,
                                                int64_t timeout_micros) override {
    if (CutOff()) return Unreachable(endpoint);
    return cluster_.HandOver(endpoint, request, timeout_micros);
  }

 private:
  bool CutOff() const { return cluster_.Reach(self_) == nullptr; }

  SimCluster& cluster_;
  const std::string self_;
};

class PutJob final : public WriteJob {
 public:
  PutJob(const std::string& key, const std::string& value) {
    v1::Put* const put = request_.add_operations()->mutable_put();
    put->set_key(key);
    put->set_value(value);
    built_ = BuildWriteRecord(request_, 1, kRecordSizeMaxDefault, &records.emplace_back());
  }
  std::future<absl::Status> done() { return done_.get_future(); }
  void OnDone(std::unique_ptr<WriteJob> self) override {
    done_.set_value(records[0].outcome.status);
    self.reset();
  }

 private:
  v1::WriteRequest request_;
  absl::Status built_;
  std::promise<absl::Status> done_;
};

}  // namespace

struct SimCluster::Process {
  Process(std::shared_ptr<SimFileSystem> file_system, uint64_t seed, MemoryStoreOptions store_options)
      : disk(std::move(file_system)), rng(seed), stores(store_options), executor(NewThreadExecutor()) {}

  const std::shared_ptr<SimFileSystem> disk;
  SeededRng rng;
  MemoryStoreFactory stores;
  const std::unique_ptr<Executor> executor;
  RecordingLogger logger;
  std::unique_ptr<PeerCalls> peers;
  std::unique_ptr<Node> node;
};

SimCluster::SimCluster() = default;

SimCluster::~SimCluster() {
  std::vector<std::string> names;
  {
    MutexLock lock(&mutex_);
    for (const auto& [name, process] : processes_) names.push_back(name);
  }
  for (const std::string& name : names) Kill(name);
}

absl::Status SimCluster::Start(const std::string& node_id, NodeRole role, const std::string& upstream) {
  std::shared_ptr<SimFileSystem>& disk = disks_[node_id];
  if (disk == nullptr) disk = std::make_shared<SimFileSystem>();
  static std::atomic<uint64_t> seed{1};
  const auto process =
      std::make_shared<Process>(disk, seed.fetch_add(1) * 7919, MemoryStoreOptions{disk.get(), 0, false});
  process->peers = std::make_unique<LocalPeers>(*this, absl::StrCat(node_id, ":1"));
  NodeConfig config;
  config.role = role;
  config.data_dir = "/data";
  config.node_id = node_id;
  config.listen = absl::StrCat(node_id, ":1");
  config.upstream = upstream;
  config.wal_segment_bytes = 64 << 10;
  config.wal_spare_segments = 0;
  config.wal_scrub_rate = 0;
  config.disk_guard_ratio = 0;
  config.start_peer_wait_micros = 200'000;
  config.replication_heartbeat_micros = 20'000;
  config.slots_persist_interval_micros = 50'000;
  const NodeDependencies deps{
      *disk,
      *SystemClock(),
      process->rng,
      *process->executor,
      process->logger,
      process->stores,
      [this, self = config.listen](const std::string& endpoint) {
        return std::make_unique<LocalUpstream>(*this, self, endpoint);
      },
      [this, self = config.listen](const std::string& endpoint, int64_t) -> absl::StatusOr<v1::PullStart> {
        const std::shared_ptr<Node> node = Reach(self) == nullptr ? nullptr : Reach(endpoint);
        if (node == nullptr) return Unreachable(endpoint);
        return node->DescribeStart();
      },
      *process->peers,
      [](absl::Status) {}};
  TOWLINE_ASSIGN_OR_RETURN(process->node, Node::Open(config, deps));
  {
    MutexLock lock(&mutex_);
    processes_[node_id] = process;
  }
  return process->node->Start();
}

void SimCluster::Kill(const std::string& node_id) {
  std::shared_ptr<Process> process;
  {
    MutexLock lock(&mutex_);
    const auto found = processes_.find(node_id);
    if (found == processes_.end()) return;
    process = found->second;
    processes_.erase(found);
  }
  // What a clean stop would still save does not count.
  process->disk->SetAfterCall(nullptr);
  disks_[node_id] = process->disk->Clone();
  process->node->Stop();
  // Streams of others let go of it when they see that it cannot be reached.
  std::weak_ptr<Process> left = process;
  process.reset();
  (void)Await([&left] { return left.expired(); });
}

void SimCluster::Disconnect(const std::string& node_id) {
  MutexLock lock(&mutex_);
  disconnected_.insert(node_id);
}

void SimCluster::Connect(const std::string& node_id) {
  MutexLock lock(&mutex_);
  disconnected_.erase(node_id);
}

ClusterDisks SimCluster::DisksAfterPowerLoss() const {
  ClusterDisks disks;
  for (const auto& [name, disk] : disks_) {
    disks[name] = std::shared_ptr<SimFileSystem>(disk->CloneAfterCrash(CrashProfile::kStrict, 1));
  }
  return disks;
}

std::shared_ptr<Node> SimCluster::Find(const std::string& node_id) const {
  MutexLock lock(&mutex_);
  const auto found = processes_.find(node_id);
  if (found == processes_.end()) return nullptr;
  return {found->second, found->second->node.get()};
}

std::shared_ptr<Node> SimCluster::Reach(const std::string& endpoint) const {
  const std::string node_id = endpoint.substr(0, endpoint.find(':'));
  {
    MutexLock lock(&mutex_);
    if (disconnected_.contains(node_id)) return nullptr;
  }
  return Find(node_id);
}

absl::Status SimCluster::Put(const std::string& node_id, const std::string& key, const std::string& value) {
  const std::shared_ptr<Node> node = Find(node_id);
  TOWLINE_RETURN_IF_ERROR(node->CheckTakesWrites());
  auto job = std::make_unique<PutJob>(key, value);
  std::future<absl::Status> done = job->done();
  std::unique_ptr<WriteJob> submitted = std::move(job);
  TOWLINE_RETURN_IF_ERROR(node->sequencer()->Submit(&submitted));
  return done.get();
}

std::string SimCluster::Get(const std::string& node_id, const std::string& key) {
  const auto live = Find(node_id)->Live();
  const auto entry = live->state().Get(key, 0);
  return entry.ok() && entry->has_value() ? (*entry)->value : "";
}

bool SimCluster::Await(const std::function<bool()>& done) {
  const int64_t deadline = SystemClock()->MonotonicMicros() + kAwaitMicros;
  Mutex mutex;
  CondVar never;
  while (!done()) {
    if (SystemClock()->MonotonicMicros() > deadline) return false;
    MutexLock lock(&mutex);
    (void)never.WaitFor(&mutex, 2'000);
  }
  return true;
}

std::string SimCluster::AwaitConvergence(const std::string& primary) {
  std::vector<std::string> names;
  {
    MutexLock lock(&mutex_);
    for (const auto& [name, process] : processes_) names.push_back(name);
  }
  std::string wrong;
  const auto converged = [&] {
    const auto source = node(primary).Live();
    const wal::LogEnd end = source->spool().end();
    const History history = node(primary).View().history;
    const MemberList members = node(primary).View().members;
    for (const std::string& name : names) {
      const auto live = node(name).Live();
      const bool same = live != nullptr && live->spool().end().lsn == end.lsn &&
                        live->spool().end().chain == end.chain && live->applier().applied_lsn() == end.lsn &&
                        node(name).View().history == history && node(name).View().members == members;
      if (same) continue;
      std::string reason;
      const std::string state = node(name).State(&reason);
      wrong = absl::StrCat(name, " is at LSN ", live == nullptr ? 0 : live->spool().end().lsn, " of history ",
                           FormatHistory(node(name).View().history), " (", state, " ", reason, "), ", primary,
                           " at LSN ", end.lsn, " of ", FormatHistory(history));
      return false;
    }
    return true;
  };
  return Await(converged) ? "" : wrong;
}

std::vector<absl::StatusOr<v1::Standing>> SimCluster::AskStandings(const std::vector<std::string>& endpoints, int64_t) {
  std::vector<absl::StatusOr<v1::Standing>> answers;
  for (const std::string& endpoint : endpoints) {
    const std::shared_ptr<Node> node = Reach(endpoint);
    if (node == nullptr) {
      answers.push_back(Unreachable(endpoint));
    } else {
      answers.push_back(node->Describe());
    }
  }
  return answers;
}

std::vector<absl::StatusOr<v1::FenceResponse>> SimCluster::Fence(const std::vector<std::string>& endpoints,
                                                                 const std::vector<v1::FenceRequest>& requests,
                                                                 int64_t) {
  std::vector<absl::StatusOr<v1::FenceResponse>> answers;
  for (size_t i = 0; i < endpoints.size(); ++i) {
    const std::shared_ptr<Node> node = Reach(endpoints[i]);
    if (node == nullptr) {
      answers.push_back(Unreachable(endpoints[i]));
    } else {
      answers.push_back(node->failover().Fence(requests[i]));
    }
  }
  return answers;
}

absl::StatusOr<v1::HandOverResponse> SimCluster::HandOver(const std::string& endpoint,
                                                          const v1::HandOverRequest& request, int64_t) {
  const std::shared_ptr<Node> node = Reach(endpoint);
  if (node == nullptr) return Unreachable(endpoint);
  absl::StatusOr<v1::HandOverResponse> answer = node->failover().HandOver(request);
  if (lose_hand_over_answers_.load()) return absl::DeadlineExceededError("Deadline Exceeded");
  return answer;
}

}  // namespace towline::test
