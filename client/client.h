// A connection to one node. Blocking calls; no gRPC in the header.

#ifndef TOWLINE_CLIENT_CLIENT_H_
#define TOWLINE_CLIENT_CLIENT_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "client/write_stream.h"
#include "towline/v1/admin_service.pb.h"
#include "towline/v1/failover_service.pb.h"
#include "towline/v1/kv_service.pb.h"
#include "towline/v1/replication_service.pb.h"
#include "towline/v1/slot_service.pb.h"

namespace towline::client {

struct NodeClientOptions {
  std::string endpoint;             // HOST:PORT
  int64_t timeout_us = 10'000'000;  // of one unary call
  bool follow_primary = false;      // go to the primary that a not_primary answer names
};

// A ReplicationService.Pull stream.
// Threads: one thread reads, one writes; Cancel from any thread.
class PullStream {
 public:
  virtual ~PullStream() = default;  // cancels what has not ended

  // Waits for the next answer; false at the end.
  virtual bool Read(v1::PullResponse* response) = 0;

  // False when the stream is dead.
  virtual bool Write(const v1::PullRequest& request) = 0;

  // No more requests.
  virtual void CloseSending() = 0;

  // How it ended; after Read has returned false.
  virtual absl::Status Finish() = 0;

  virtual void Cancel() = 0;
};

// A ReplicationService.SaveSnapshot stream.
// Threads: one thread reads; Cancel from any thread.
class SaveStream {
 public:
  virtual ~SaveStream() = default;  // cancels what has not ended

  // Waits for the next answer; false at the end.
  virtual bool Read(v1::SaveSnapshotResponse* response) = 0;

  // How it ended; after Read has returned false.
  virtual absl::Status Finish() = 0;

  virtual void Cancel() = 0;
};

// Errors: what the server said, with ErrorInfo; UNAVAILABLE and DEADLINE_EXCEEDED of the connection itself name the
// endpoint.
// Threads: all methods from any thread, but for Follow, which needs that nobody else uses the client.
class Client {
 public:
  virtual ~Client() = default;

  virtual const std::string& endpoint() const = 0;

  // Follows to the primary, at most 4 times, if the options say so; others are not repeated anywhere.
  virtual absl::StatusOr<v1::WriteResponse> Write(const v1::WriteRequest& request) = 0;

  virtual absl::StatusOr<v1::GetResponse> Get(const v1::GetRequest& request) = 0;
  virtual absl::StatusOr<v1::ScanResponse> Scan(const v1::ScanRequest& request) = 0;
  virtual absl::StatusOr<v1::GetStatusResponse> GetStatus() = 0;
  virtual absl::StatusOr<v1::GetHistoryResponse> GetHistory() = 0;
  virtual absl::StatusOr<v1::GetTopologyResponse> GetTopology() = 0;
  // Waits `timeout_ms` of the request longer than other calls.
  virtual absl::StatusOr<v1::GetDigestResponse> GetDigest(const v1::GetDigestRequest& request) = 0;
  virtual absl::StatusOr<v1::PingResponse> Ping(const v1::PingRequest& request) = 0;
  virtual absl::StatusOr<v1::ListSlotsResponse> ListSlots() = 0;
  virtual absl::StatusOr<v1::GetSlotResponse> GetSlot(const v1::GetSlotRequest& request) = 0;
  virtual absl::StatusOr<v1::CreateSlotResponse> CreateSlot(const v1::CreateSlotRequest& request) = 0;
  virtual absl::StatusOr<v1::DropSlotResponse> DropSlot(const v1::DropSlotRequest& request) = 0;
  virtual absl::StatusOr<v1::ForecastSlotsResponse> ForecastSlots(const v1::ForecastSlotsRequest& request) = 0;
  virtual absl::StatusOr<v1::CopySlotResponse> CopySlot(const v1::CopySlotRequest& request) = 0;
  virtual absl::StatusOr<v1::AdvanceSlotResponse> AdvanceSlot(const v1::AdvanceSlotRequest& request) = 0;
  virtual absl::StatusOr<v1::AcceptSlotLossResponse> AcceptSlotLoss() = 0;
  virtual absl::StatusOr<v1::PlanResumeResponse> PlanResume(const v1::PlanResumeRequest& request) = 0;
  virtual absl::StatusOr<v1::DescribeStartResponse> DescribeStart() = 0;
  virtual absl::StatusOr<v1::BootstrapResponse> Bootstrap() = 0;
  // Waits ten seconds longer than other calls.
  virtual absl::StatusOr<v1::SetMinReplicasResponse> SetMinReplicas(const v1::SetMinReplicasRequest& request) = 0;
  virtual absl::StatusOr<v1::RemoveMemberResponse> RemoveMember(const v1::RemoveMemberRequest& request) = 0;
  // Waits a day: the records that come back may be many.
  virtual absl::StatusOr<v1::RecoverResponse> Recover(const v1::RecoverRequest& request) = 0;

  virtual absl::StatusOr<v1::GetStandingResponse> GetStanding() = 0;
  // Wait ten minutes: the node may have much to catch up with.
  virtual absl::StatusOr<v1::PromoteResponse> Promote(const v1::PromoteRequest& request) = 0;
  virtual absl::StatusOr<v1::SwitchoverResponse> Switchover(const v1::SwitchoverRequest& request) = 0;

  // Streams, each on a connection of its own.
  virtual std::unique_ptr<WriteStream> OpenWriteStream(const WriteStreamOptions& options,
                                                       OnWriteStreamAnswer on_answer) = 0;
  virtual std::unique_ptr<PullStream> OpenPull() = 0;
  virtual std::unique_ptr<SaveStream> OpenSave(const v1::SaveSnapshotRequest& request) = 0;

  // If `error` is not_primary, names another primary, and the options allow it: goes there and returns true.
  virtual bool Follow(const absl::Status& error) = 0;
};

// Connects lazily. INVALID_ARGUMENT, reason invalid_endpoint.
absl::StatusOr<std::unique_ptr<Client>> NewClient(const NodeClientOptions& options);

}  // namespace towline::client

#endif  // TOWLINE_CLIENT_CLIENT_H_
