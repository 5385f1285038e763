#include "tests/ctl/fake_replication.h"

#include <atomic>
#include <chrono>
#include <thread>
#include <utility>

#include "client/rpc_status.h"
#include "grpcpp/grpcpp.h"
#include "towline/v1/replication_service.grpc.pb.h"

namespace towline::testing {
namespace {

class FakeReplication final : public v1::ReplicationService::Service {
 public:
  using Stream = grpc::ServerReaderWriter<v1::PullResponse, v1::PullRequest>;

  explicit FakeReplication(FakeState& state) : state_(state) {}

  grpc::Status SaveSnapshot(grpc::ServerContext*, const v1::SaveSnapshotRequest* request,
                            grpc::ServerWriter<v1::SaveSnapshotResponse>* stream) override {
    FakeSave save{{}, absl::UnimplementedError("no save was prepared")};
    {
      MutexLock lock(&state_.mutex);
      state_.save_requests.push_back(*request);
      if (!state_.saves.empty()) {
        save = std::move(state_.saves.front());
        state_.saves.pop_front();
      }
    }
    for (const v1::SaveSnapshotResponse& answer : save.answers) stream->Write(answer);
    return save.end.ok() ? grpc::Status::OK : ToGrpcStatus(save.end);
  }

  grpc::Status Pull(grpc::ServerContext* context, Stream* stream) override {
    v1::PullRequest request;
    if (!stream->Read(&request) || !request.has_start()) {
      return ToGrpcStatus(absl::InvalidArgumentError("the first request is not a start"));
    }
    uint64_t next = 0;
    {
      MutexLock lock(&state_.mutex);
      state_.starts.push_back(request.start());
      v1::PullResponse response;
      *response.mutable_started() = DecideLocked(request.start());
      next = response.started().from_lsn();
      stream->Write(response);
      if (response.started().decision() != v1::RESUME_DECISION_PARTIAL) return grpc::Status::OK;
    }
    std::atomic<bool> closed{false};
    std::thread acks([this, stream, &closed] {
      v1::PullRequest more;
      while (stream->Read(&more)) TakeAck(more);
      closed = true;
    });
    Send(context, stream, next, closed);
    acks.join();
    return grpc::Status::OK;
  }

  grpc::Status PlanResume(grpc::ServerContext*, const v1::PlanResumeRequest* request,
                          v1::PlanResumeResponse* response) override {
    MutexLock lock(&state_.mutex);
    state_.starts.push_back(request->start());
    state_.plans.push_back(*request);
    *response->mutable_plan() = DecideLocked(request->start());
    response->set_bytes_to_ship(4096);
    return grpc::Status::OK;
  }

  grpc::Status DescribeStart(grpc::ServerContext*, const v1::DescribeStartRequest*,
                             v1::DescribeStartResponse* response) override {
    MutexLock lock(&state_.mutex);
    *response->mutable_start() = state_.own_start;
    return grpc::Status::OK;
  }

 private:
  v1::PullStarted DecideLocked(const v1::PullStart& start) TOWLINE_NO_THREAD_SAFETY_ANALYSIS {
    if (state_.decision.has_value()) return *state_.decision;
    v1::PullStarted started;
    started.set_decision(v1::RESUME_DECISION_PARTIAL);
    started.set_reason("resumed");
    started.set_session_id(99);
    started.set_slot_generation(7);
    started.set_term(1);
    const auto slot = state_.slots.find(start.slot());
    const uint64_t stands_at = slot == state_.slots.end() ? state_.log.size() : slot->second.confirmed_lsn();
    started.set_from_lsn((start.from_slot() ? stands_at : start.lsn()) + 1);
    started.set_first_retained_lsn(1);
    started.set_durable_lsn(state_.log.size());
    return started;
  }

  void TakeAck(const v1::PullRequest& request) {
    if (!request.has_ack()) return;
    MutexLock lock(&state_.mutex);
    state_.acks.push_back(request.ack());
    for (auto& [name, slot] : state_.slots) slot.set_confirmed_lsn(request.ack().flushed_lsn());
  }

  // New records and heartbeats until the client closes its side.
  void Send(grpc::ServerContext* context, Stream* stream, uint64_t next, const std::atomic<bool>& closed) {
    uint64_t heartbeats = 0;
    while (!closed && !context->IsCancelled()) {
      v1::PullResponse records;
      v1::PullResponse heartbeat;
      {
        MutexLock lock(&state_.mutex);
        for (; next <= state_.log.size(); ++next) *records.mutable_records()->add_records() = state_.log[next - 1];
        heartbeat.mutable_heartbeat()->set_sequence(++heartbeats);
        heartbeat.mutable_heartbeat()->set_durable_lsn(state_.log.size());
      }
      if (records.has_records() && !stream->Write(records)) return;
      if (!stream->Write(heartbeat)) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));  // the heartbeat interval
    }
  }

  FakeState& state_;
};

}  // namespace

std::unique_ptr<grpc::Service> NewFakeReplication(FakeState& state) { return std::make_unique<FakeReplication>(state); }

}  // namespace towline::testing
