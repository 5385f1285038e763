#include "tests/replica/fake_upstream.h"

#include <utility>

#include "replica/pull_messages.h"

namespace towline::test {

class FakePullStream : public PullStream {
 public:
  FakePullStream(std::shared_ptr<FakePull> pull, FakeUpstream& upstream)
      : pull_(std::move(pull)), upstream_(upstream) {}

  bool Write(const v1::PullRequest& request) override {
    if (request.has_start()) {
      pull_->start_ = request.start();
      if (upstream_.on_pull == nullptr) {
        pull_->inbox.Close(absl::UnavailableError("connection refused"));
        return false;
      }
      upstream_.on_pull(*pull_);
      return true;
    }
    if (pull_->inbox.closed()) return false;
    pull_->Receive(request);
    return true;
  }

  ReadResult Read(v1::PullResponse* out, int64_t timeout_micros) override {
    return pull_->inbox.Read(out, timeout_micros);
  }
  void Wake() override { pull_->inbox.Wake(); }
  void Cancel() override { pull_->inbox.Close(absl::CancelledError()); }
  absl::Status Finish() override { return pull_->inbox.status(); }

 private:
  const std::shared_ptr<FakePull> pull_;
  FakeUpstream& upstream_;
};

namespace {

class FakeSnapshotStream : public SnapshotStream {
 public:
  explicit FakeSnapshotStream(std::shared_ptr<FakeSnapshot> snapshot) : snapshot_(std::move(snapshot)) {}

  ReadResult Read(v1::FetchSnapshotResponse* out, absl::Cord* data, int64_t timeout_micros) override {
    const ReadResult read = snapshot_->inbox.Read(out, timeout_micros);
    if (read == ReadResult::kMessage) TakeFileData(out, data);
    return read;
  }
  void Cancel() override { snapshot_->inbox.Close(absl::CancelledError()); }
  absl::Status Finish() override { return snapshot_->inbox.status(); }

 private:
  const std::shared_ptr<FakeSnapshot> snapshot_;
};

}  // namespace

void FakePull::SendPartial(const LogMaker& log) { SendDecision(log, v1::RESUME_DECISION_PARTIAL, "resumed"); }

void FakePull::SendDecision(const LogMaker& log, v1::ResumeDecision decision, const std::string& reason,
                            uint32_t retry_after_ms) {
  v1::PullResponse response;
  v1::PullStarted& started = *response.mutable_started();
  started.set_decision(decision);
  started.set_reason(reason);
  started.set_message("numbers");
  started.set_cluster_id(log.cluster_id());
  started.set_node_id("p1");
  started.set_term(log.term());
  started.set_durable_lsn(log.end_lsn());
  started.set_first_retained_lsn(1);
  started.set_retry_after_ms(retry_after_ms);
  for (const std::string& node_id : upstream_path) started.add_upstream_path(node_id);
  if (decision == v1::RESUME_DECISION_PARTIAL) {
    started.set_session_id(7);
    started.set_slot_generation(9);
    started.set_from_lsn(start_.lsn() + 1);
  }
  inbox.Send(std::move(response));
  if (decision != v1::RESUME_DECISION_PARTIAL) inbox.Close(absl::OkStatus());
}

void FakePull::SendRewind(const LogMaker& log, Lsn common_lsn) {
  v1::PullResponse response;
  v1::PullStarted& started = *response.mutable_started();
  started.set_decision(v1::RESUME_DECISION_REWIND);
  started.set_reason("diverged");
  started.set_cluster_id(log.cluster_id());
  started.set_node_id("p1");
  started.set_term(log.term());
  started.set_durable_lsn(log.end_lsn());
  started.set_first_retained_lsn(1);
  started.set_common_lsn(common_lsn);
  started.set_common_chain(log.EndAt(common_lsn).chain);
  for (const HistoryEntry& entry : log.history()) {
    v1::HistoryEntry& added = *started.add_history();
    added.set_term(entry.term);
    added.set_start_lsn(entry.start_lsn);
    added.set_term_id(entry.term_id);
  }
  inbox.Send(std::move(response));
  inbox.Close(absl::OkStatus());
}

void FakePull::SendFrames(const v1::FrameBatch& batch) {
  v1::PullResponse response;
  *response.mutable_frames() = batch;
  inbox.Send(std::move(response));
}

void FakePull::SendHeartbeat(uint64_t sequence, Lsn durable_lsn, Lsn committed_lsn) {
  v1::PullResponse response;
  response.mutable_heartbeat()->set_sequence(sequence);
  response.mutable_heartbeat()->set_durable_lsn(durable_lsn);
  response.mutable_heartbeat()->set_committed_lsn(committed_lsn);
  inbox.Send(std::move(response));
}

void FakePull::SendEnded(const std::string& reason) {
  v1::PullResponse response;
  response.mutable_ended()->set_reason(reason);
  inbox.Send(std::move(response));
  inbox.Close(absl::OkStatus());
}

std::vector<v1::PullAck> FakePull::acks() const {
  MutexLock lock(&mutex_);
  return acks_;
}

v1::PullAck FakePull::last_ack() const {
  MutexLock lock(&mutex_);
  return acks_.empty() ? v1::PullAck() : acks_.back();
}

std::vector<uint64_t> FakePull::grants() const {
  MutexLock lock(&mutex_);
  return grants_;
}

void FakePull::Receive(const v1::PullRequest& request) {
  if (request.has_ack() && on_ack != nullptr) on_ack(request.ack());
  MutexLock lock(&mutex_);
  if (request.has_ack()) acks_.push_back(request.ack());
  if (request.has_credit()) grants_.push_back(request.credit().granted_bytes());
}

std::unique_ptr<PullStream> FakeUpstream::OpenPull() {
  pulls.push_back(std::make_shared<FakePull>(clock_));
  return std::make_unique<FakePullStream>(pulls.back(), *this);
}

std::unique_ptr<SnapshotStream> FakeUpstream::OpenSnapshot(const v1::FetchSnapshotRequest& request) {
  snapshots.push_back(std::make_shared<FakeSnapshot>(clock_));
  FakeSnapshot& snapshot = *snapshots.back();
  snapshot.request = request;
  if (on_snapshot == nullptr) {
    snapshot.inbox.Close(absl::UnavailableError("connection refused"));
  } else {
    on_snapshot(snapshot);
  }
  return std::make_unique<FakeSnapshotStream>(snapshots.back());
}

}  // namespace towline::test
