#include "tests/ctl/fake_server.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "client/rpc_status.h"
#include "common/check.h"
#include "common/error.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "tests/ctl/fake_replication.h"
#include "towline/v1/admin_service.grpc.pb.h"
#include "towline/v1/kv_service.grpc.pb.h"
#include "towline/v1/slot_service.grpc.pb.h"

namespace towline::testing {
namespace {

constexpr char kClusterId[] = "0123456789abcdef01234567";

v1::Position PositionAt(uint64_t lsn, uint64_t term = 1) {
  v1::Position position;
  position.set_cluster_id(kClusterId);
  position.set_term(term);
  position.set_term_id(0x1111 * term);
  position.set_lsn(lsn);
  position.set_chain(0xc0 + lsn);
  return position;
}

bool Holds(const FakeState& state, const v1::Condition& condition) {
  const auto entry = state.entries.find(condition.key());
  if (condition.test_case() == v1::Condition::kModifiedLsn) {
    return entry != state.entries.end() && entry->second.modified_lsn() == condition.modified_lsn();
  }
  return (entry != state.entries.end()) == condition.exists();
}

// A write as Write and WriteStream do it.
absl::StatusOr<v1::WriteResponse> WriteLocked(FakeState& state, const v1::WriteRequest& request) {
  const std::string id = absl::StrCat(request.request_id().client_id(), ":", request.request_id().sequence());
  if (request.has_request_id() && state.request_ids.contains(id)) {
    v1::WriteResponse response = state.request_ids[id];
    response.set_duplicate(true);
    return response;
  }
  for (const v1::Condition& condition : request.conditions()) {
    if (!Holds(state, condition)) {
      return MakeError(absl::StatusCode::kFailedPrecondition, "condition_failed", "the condition does not hold");
    }
  }
  v1::WriteResponse response;
  *response.mutable_position() = PositionAt(ApplyLocked(state, request), state.term);
  if (request.has_request_id()) state.request_ids[id] = response;
  return response;
}

class FakeKv final : public v1::KvService::Service {
 public:
  using Stream = grpc::ServerReaderWriter<v1::WriteStreamResponse, v1::WriteStreamRequest>;

  explicit FakeKv(FakeState& state) : state_(state) {}

  grpc::Status Write(grpc::ServerContext*, const v1::WriteRequest* request, v1::WriteResponse* response) override {
    MutexLock lock(&state_.mutex);
    state_.writes.push_back(*request);
    if (!state_.refuse_writes.ok()) return ToGrpcStatus(state_.refuse_writes);
    if (!state_.write_errors.empty()) {
      const absl::Status error = std::move(state_.write_errors.front());
      state_.write_errors.pop_front();
      if (!error.ok()) return ToGrpcStatus(error);
    }
    auto written = WriteLocked(state_, *request);
    if (!written.ok()) return ToGrpcStatus(written.status());
    if (state_.lose_answers > 0) {
      --state_.lose_answers;
      return {grpc::StatusCode::UNAVAILABLE, "Socket closed"};
    }
    *response = *std::move(written);
    return grpc::Status::OK;
  }

  grpc::Status WriteStream(grpc::ServerContext*, Stream* stream) override {
    v1::WriteStreamRequest request;
    v1::WriteStreamResponse response;
    {
      MutexLock lock(&state_.mutex);
      ++state_.streams;
      if (!state_.refuse_writes.ok()) return ToGrpcStatus(state_.refuse_writes);
    }
    bool hold = false;
    while (stream->Read(&request)) {
      MutexLock lock(&state_.mutex);
      if (request.first_sequence() != response.acked_sequence() + 1) {
        return ToGrpcStatus(absl::InvalidArgumentError("a hole in the stream's sequence"));
      }
      ++state_.stream_messages;
      if (request.has_durability()) ++state_.stream_durability;
      response.clear_refused();
      for (const v1::WriteRequest& element : request.elements()) {
        if (state_.cut_stream_after > 0 && state_.stream_elements >= state_.cut_stream_after) {
          state_.cut_stream_after = 0;
          if (response.acked_sequence() > 0) stream->Write(response);
          return ToGrpcStatus(MakeError(absl::StatusCode::kUnavailable, "stopped", "the server stops"));
        }
        TakeElement(element, response);
      }
      hold = state_.hold_acks;
      if (!hold) stream->Write(response);
    }
    if (hold) stream->Write(response);
    return grpc::Status::OK;
  }

  grpc::Status Get(grpc::ServerContext*, const v1::GetRequest* request, v1::GetResponse* response) override {
    MutexLock lock(&state_.mutex);
    state_.gets.push_back(*request);
    if (const absl::Status refused = RefusedRead(*request); !refused.ok()) return ToGrpcStatus(refused);
    const auto entry = state_.entries.find(request->key());
    if (entry != state_.entries.end()) *response->mutable_entry() = entry->second;
    *response->mutable_position() = PositionAt(state_.log.size(), state_.term);
    return grpc::Status::OK;
  }

  grpc::Status BatchGet(grpc::ServerContext*, const v1::BatchGetRequest* request,
                        v1::BatchGetResponse* response) override {
    MutexLock lock(&state_.mutex);
    if (const absl::Status refused = RefusedRead(*request); !refused.ok()) return ToGrpcStatus(refused);
    for (const std::string& key : request->keys()) {
      const auto entry = state_.entries.find(key);
      if (entry != state_.entries.end()) *response->add_entries() = entry->second;
    }
    *response->mutable_position() = PositionAt(state_.log.size(), state_.term);
    return grpc::Status::OK;
  }

  grpc::Status Scan(grpc::ServerContext*, const v1::ScanRequest* request, v1::ScanResponse* response) override {
    MutexLock lock(&state_.mutex);
    state_.scans.push_back(*request);
    if (const absl::Status refused = RefusedRead(*request); !refused.ok()) return ToGrpcStatus(refused);
    const uint32_t limit = std::min(request->limit() == 0 ? 1000u : request->limit(), state_.page_limit);
    const std::string from = std::max(request->begin(), request->page_token());
    for (auto entry = state_.entries.lower_bound(from); entry != state_.entries.end(); ++entry) {
      if (!request->end().empty() && entry->first >= request->end()) break;
      if (!absl::StartsWith(entry->first, request->prefix())) continue;
      if (static_cast<uint32_t>(response->entries_size()) == limit) {
        response->set_next_page_token(entry->first);
        break;
      }
      *response->add_entries() = entry->second;
    }
    *response->mutable_position() = PositionAt(state_.log.size(), state_.term);
    return grpc::Status::OK;
  }

 private:
  template <typename Request>
  absl::Status RefusedRead(const Request& request) TOWLINE_NO_THREAD_SAFETY_ANALYSIS {
    if (!state_.refuse_reads.ok()) return state_.refuse_reads;
    if (!request.has_min_position()) return absl::OkStatus();
    if (!state_.refuse_bookmarks.ok()) return state_.refuse_bookmarks;
    if (request.min_position().lsn() <= state_.log.size()) return absl::OkStatus();
    return MakeError(absl::StatusCode::kUnavailable, "behind", "the state is not there yet");
  }

  void TakeElement(const v1::WriteRequest& element,
                   v1::WriteStreamResponse& response) TOWLINE_NO_THREAD_SAFETY_ANALYSIS {
    ++state_.stream_elements;
    response.set_acked_sequence(response.acked_sequence() + 1);
    const std::string& key = element.operations(0).put().key();
    ErrorInfo refusal;
    if (state_.refused_keys.contains(key)) refusal = {"record_too_large", "it is too large", "", {}};
    if (!state_.busy_key.empty() && key == state_.busy_key) {
      refusal = {"queue_full", "the queue is full", "", {}};
      state_.busy_key.clear();
    }
    if (refusal.reason.empty()) {
      *response.mutable_position() = WriteLocked(state_, element)->position();
      return;
    }
    v1::RefusedElement* refused = response.add_refused();
    refused->set_sequence(response.acked_sequence());
    refused->mutable_error()->set_reason(refusal.reason);
    refused->mutable_error()->set_message(refusal.message);
  }

  FakeState& state_;
};

class FakeSlots final : public v1::SlotService::Service {
 public:
  explicit FakeSlots(FakeState& state) : state_(state) {}

  grpc::Status ListSlots(grpc::ServerContext*, const v1::ListSlotsRequest*, v1::ListSlotsResponse* response) override {
    MutexLock lock(&state_.mutex);
    for (const auto& [name, slot] : state_.slots) *response->add_slots() = slot;
    response->set_unknown(state_.slots_unknown);
    return grpc::Status::OK;
  }
  grpc::Status GetSlot(grpc::ServerContext*, const v1::GetSlotRequest* request,
                       v1::GetSlotResponse* response) override {
    MutexLock lock(&state_.mutex);
    const auto slot = state_.slots.find(request->name());
    if (slot == state_.slots.end()) return NotFound(request->name());
    *response->mutable_slot() = slot->second;
    return grpc::Status::OK;
  }
  grpc::Status CreateSlot(grpc::ServerContext*, const v1::CreateSlotRequest* request,
                          v1::CreateSlotResponse* response) override {
    MutexLock lock(&state_.mutex);
    if (state_.slots.contains(request->name())) {
      return ToGrpcStatus(MakeError(absl::StatusCode::kAlreadyExists, "slot_exists", "there is such a slot"));
    }
    v1::Slot& slot = state_.slots[request->name()];
    slot.set_name(request->name());
    slot.set_kind(request->kind());
    slot.set_state(v1::SLOT_STATE_INACTIVE);
    slot.set_health(v1::SLOT_HEALTH_RESERVED);
    slot.set_generation(7);
    slot.set_confirmed_lsn(request->has_confirmed_lsn() ? request->confirmed_lsn() : state_.log.size());
    *response->mutable_slot() = slot;
    return grpc::Status::OK;
  }
  grpc::Status DropSlot(grpc::ServerContext*, const v1::DropSlotRequest* request,
                        v1::DropSlotResponse* response) override {
    MutexLock lock(&state_.mutex);
    const auto slot = state_.slots.find(request->name());
    if (slot == state_.slots.end()) return NotFound(request->name());
    if (slot->second.state() == v1::SLOT_STATE_ACTIVE && !request->force()) {
      return ToGrpcStatus(
          MakeError(absl::StatusCode::kFailedPrecondition, "slot_in_use", "a session is connected", "use force"));
    }
    *response->mutable_slot() = slot->second;
    state_.slots.erase(slot);
    return grpc::Status::OK;
  }
  grpc::Status ForecastSlots(grpc::ServerContext*, const v1::ForecastSlotsRequest* request,
                             v1::ForecastSlotsResponse* response) override {
    MutexLock lock(&state_.mutex);
    state_.forecasts.push_back(*request);
    *response = state_.forecast;
    return grpc::Status::OK;
  }
  grpc::Status CopySlot(grpc::ServerContext*, const v1::CopySlotRequest* request,
                        v1::CopySlotResponse* response) override {
    MutexLock lock(&state_.mutex);
    const auto source = state_.slots.find(request->source());
    if (source == state_.slots.end()) return NotFound(request->source());
    v1::Slot copy = source->second;
    copy.set_name(request->name());
    *response->mutable_slot() = state_.slots[request->name()] = copy;
    return grpc::Status::OK;
  }
  grpc::Status AdvanceSlot(grpc::ServerContext*, const v1::AdvanceSlotRequest* request,
                           v1::AdvanceSlotResponse* response) override {
    MutexLock lock(&state_.mutex);
    const auto slot = state_.slots.find(request->name());
    if (slot == state_.slots.end()) return NotFound(request->name());
    if (request->confirmed_lsn() < slot->second.confirmed_lsn()) {
      return ToGrpcStatus(MakeError(absl::StatusCode::kOutOfRange, "advance_backwards", "it stands above"));
    }
    slot->second.set_confirmed_lsn(request->confirmed_lsn());
    *response->mutable_slot() = slot->second;
    return grpc::Status::OK;
  }
  grpc::Status AcceptSlotLoss(grpc::ServerContext*, const v1::AcceptSlotLossRequest*,
                              v1::AcceptSlotLossResponse* response) override {
    MutexLock lock(&state_.mutex);
    response->set_was_unknown(std::exchange(state_.slots_unknown, false));
    for (const auto& [name, slot] : state_.slots) *response->add_slots() = slot;
    return grpc::Status::OK;
  }

 private:
  static grpc::Status NotFound(const std::string& name) {
    return ToGrpcStatus(
        MakeError(absl::StatusCode::kNotFound, "slot_not_found", absl::StrCat("there is no slot ", name)));
  }
  FakeState& state_;
};

class FakeAdmin final : public v1::AdminService::Service {
 public:
  explicit FakeAdmin(FakeState& state) : state_(state) {}

  grpc::Status GetStatus(grpc::ServerContext*, const v1::GetStatusRequest*, v1::GetStatusResponse* response) override {
    MutexLock lock(&state_.mutex);
    if (!state_.statuses.empty()) {
      *response = std::move(state_.statuses.front());
      state_.statuses.pop_front();
      return grpc::Status::OK;
    }
    *response = state_.status;
    response->mutable_wal()->set_durable_lsn(state_.log.size());
    return grpc::Status::OK;
  }
  grpc::Status GetHistory(grpc::ServerContext*, const v1::GetHistoryRequest*,
                          v1::GetHistoryResponse* response) override {
    MutexLock lock(&state_.mutex);
    if (state_.no_history) return {grpc::StatusCode::UNAVAILABLE, "gone"};
    response->set_cluster_id(state_.status.cluster_id());
    *response->mutable_history() = state_.status.history();
    return grpc::Status::OK;
  }
  grpc::Status GetTopology(grpc::ServerContext*, const v1::GetTopologyRequest*,
                           v1::GetTopologyResponse* response) override {
    response->set_cluster_id(kClusterId);
    response->set_term(1);
    response->set_primary_node_id("p1");
    MutexLock lock(&state_.mutex);
    *response->mutable_members() = state_.status.members();
    if (state_.topology.term() > 0) *response = state_.topology;
    return grpc::Status::OK;
  }
  grpc::Status RemoveMember(grpc::ServerContext*, const v1::RemoveMemberRequest* request,
                            v1::RemoveMemberResponse* response) override {
    MutexLock lock(&state_.mutex);
    for (const v1::Member& member : state_.status.members()) {
      if (member.node_id() != request->node_id()) *response->add_members() = member;
    }
    response->set_slot_exists(state_.slots.contains(request->node_id()));
    return grpc::Status::OK;
  }
  grpc::Status Bootstrap(grpc::ServerContext*, const v1::BootstrapRequest*, v1::BootstrapResponse* response) override {
    MutexLock lock(&state_.mutex);
    if (!state_.refuse_bootstrap.ok()) return ToGrpcStatus(state_.refuse_bootstrap);
    response->set_already_running(state_.bootstraps++ > 0);
    return grpc::Status::OK;
  }
  grpc::Status Recover(grpc::ServerContext*, const v1::RecoverRequest* request,
                       v1::RecoverResponse* response) override {
    MutexLock lock(&state_.mutex);
    state_.recoveries.push_back(*request);
    response->set_old_durable_lsn(10);
    response->set_durable_lsn(request->accept_loss() ? 10 : 25);
    response->set_term(request->accept_loss() ? 2 : 1);
    return grpc::Status::OK;
  }
  grpc::Status GetDigest(grpc::ServerContext*, const v1::GetDigestRequest* request,
                         v1::GetDigestResponse* response) override {
    MutexLock lock(&state_.mutex);
    if (request->at_lsn() != 0 && request->at_lsn() < state_.log.size()) {
      return ToGrpcStatus(MakeError(absl::StatusCode::kOutOfRange, "position_passed", "it has passed"));
    }
    *response->mutable_position() = PositionAt(state_.log.size());
    response->set_digest("000102030405060708090a0b0c0d0e0f");
    response->set_keys(state_.entries.size());
    return grpc::Status::OK;
  }
  grpc::Status Ping(grpc::ServerContext*, const v1::PingRequest* request, v1::PingResponse* response) override {
    response->set_payload(request->payload());
    return grpc::Status::OK;
  }

 private:
  FakeState& state_;
};

}  // namespace

uint64_t ApplyLocked(FakeState& state, const v1::WriteRequest& request) {
  v1::Record record;
  record.set_lsn(state.log.size() + 1);
  record.set_term(state.term);
  record.set_commit_time_us(1'700'000'000'000'000 + record.lsn());
  record.set_chain(0xc0 + record.lsn());
  *record.mutable_change()->mutable_batch()->mutable_operations() = request.operations();
  for (const v1::Operation& operation : request.operations()) {
    if (operation.has_put()) {
      v1::Entry& entry = state.entries[operation.put().key()];
      entry.set_key(operation.put().key());
      entry.set_value(operation.put().value());
      entry.set_expire_at_ms(operation.put().expire_at_ms() + operation.put().ttl_ms());
      entry.set_modified_lsn(record.lsn());
    } else if (operation.has_delete_()) {
      state.entries.erase(operation.delete_().key());
    } else if (operation.has_delete_range()) {
      const v1::DeleteRange& range = operation.delete_range();
      state.entries.erase(state.entries.lower_bound(range.begin()),
                          range.end().empty() ? state.entries.end() : state.entries.lower_bound(range.end()));
    }
  }
  state.log.push_back(std::move(record));
  return state.log.size();
}

struct FakeServer::Impl {
  explicit Impl(FakeState& state) : kv(state), slots(state), admin(state), replication(NewFakeReplication(state)) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.SetMaxReceiveMessageSize(16 << 20);
    builder.RegisterService(&kv);
    builder.RegisterService(&slots);
    builder.RegisterService(&admin);
    builder.RegisterService(replication.get());
    server = builder.BuildAndStart();
    TOWLINE_CHECK(server != nullptr && port > 0);
  }

  FakeKv kv;
  FakeSlots slots;
  FakeAdmin admin;
  const std::unique_ptr<grpc::Service> replication;
  int port = 0;
  std::unique_ptr<grpc::Server> server;
};

FakeServer::FakeServer() {
  v1::GetStatusResponse& status = state_.status;
  status.set_cluster_id(kClusterId);
  status.set_node_id("p1");
  status.set_role("primary");
  status.set_state("writable");
  status.set_exact(true);
  status.set_term(1);
  v1::HistoryEntry* term = status.add_history();
  term->set_term(1);
  term->set_start_lsn(1);
  term->set_term_id(0x1111);
  status.mutable_wal()->set_first_lsn(1);
  status.mutable_store();
  status.mutable_resync();
  impl_ = std::make_unique<Impl>(state_);
}

FakeServer::~FakeServer() { impl_->server->Shutdown(std::chrono::system_clock::now()); }

std::string FakeServer::endpoint() const { return absl::StrCat("127.0.0.1:", impl_->port); }

void FakeServer::Put(const std::string& key, const std::string& value) {
  v1::WriteRequest request;
  v1::Put* put = request.add_operations()->mutable_put();
  put->set_key(key);
  put->set_value(value);
  MutexLock lock(&state_.mutex);
  ApplyLocked(state_, request);
}

std::optional<std::string> FakeServer::Value(const std::string& key) {
  MutexLock lock(&state_.mutex);
  const auto entry = state_.entries.find(key);
  if (entry == state_.entries.end()) return std::nullopt;
  return entry->second.value();
}

}  // namespace towline::testing
