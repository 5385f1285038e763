#include "server/replication_service.h"

#include <deque>
#include <memory>
#include <utility>

#include "client/rpc_status.h"
#include "common/error.h"
#include "server/run_on_pool.h"
#include "server/strand.h"

namespace towline {
namespace {

absl::Status ClientGone() { return MakeError(absl::StatusCode::kCancelled, "cancelled", "the peer went away"); }

// One Pull stream: gRPC's events fill an inbox, the strand drives the session.
class PullCall final : public grpc::ServerBidiReactor<v1::PullRequest, v1::PullResponse> {
 public:
  static PullCall* Start(Node& node, WorkPool& pool) {
    auto call = std::shared_ptr<PullCall>(new PullCall);
    call->self_ = call;
    // The strand must not keep the call alive on its own: the session's wake callback holds the strand.
    const std::weak_ptr<PullCall> weak = call;
    call->strand_ = std::make_shared<Strand>(pool, [weak] {
      if (const auto alive = weak.lock()) alive->Run();
    });
    call->session_ = node.source().NewPullSession([strand = call->strand_] { strand->Signal(); });
    call->StartRead(&call->incoming_);
    return call.get();
  }

  void OnReadDone(bool ok) override {
    {
      MutexLock lock(&mutex_);
      if (ok) {
        inbox_.emplace_back();
        inbox_.back().Swap(&incoming_);
      } else {
        read_closed_ = true;
      }
    }
    strand_->Signal();
  }

  void OnWriteDone(bool ok) override {
    {
      MutexLock lock(&mutex_);
      write_pending_ = false;
      if (!ok) broken_ = true;
    }
    strand_->Signal();
  }

  void OnCancel() override {
    {
      MutexLock lock(&mutex_);
      broken_ = true;
    }
    strand_->Signal();
  }

  void OnDone() override { self_.reset(); }

 private:
  PullCall() = default;

  // Strand only.
  void Run() {
    if (finished_) return;
    std::deque<v1::PullRequest> requests;
    bool broken = false;
    bool read_closed = false;
    bool write_pending = false;
    {
      MutexLock lock(&mutex_);
      requests.swap(inbox_);
      broken = broken_;
      read_closed = read_closed_;
      write_pending = write_pending_;
    }
    for (const v1::PullRequest& request : requests) {
      started_ = true;
      if (const absl::Status status = session_->OnRequest(request); !status.ok()) return End(status);
    }
    if (broken || read_closed) return End(broken ? ClientGone() : absl::OkStatus());
    if (!requests.empty()) StartRead(&incoming_);
    if (write_pending || !started_) return;
    switch (session_->Next(&outgoing_)) {
      case NextResult::kMessage: {
        {
          MutexLock lock(&mutex_);
          write_pending_ = true;
        }
        StartWrite(&outgoing_);
        return;
      }
      case NextResult::kWait:
        return;
      case NextResult::kEnd:
        return End(session_->end_status());
    }
  }

  void End(const absl::Status& status) {
    finished_ = true;
    session_->Close();
    Finish(ToGrpcStatus(status));
  }

  std::shared_ptr<PullCall> self_;
  std::shared_ptr<Strand> strand_;
  std::unique_ptr<PullSession> session_;
  v1::PullRequest incoming_;   // gRPC's between StartRead and OnReadDone
  v1::PullResponse outgoing_;  // gRPC's between StartWrite and OnWriteDone
  bool started_ = false;       // strand only
  bool finished_ = false;      // strand only

  Mutex mutex_;
  std::deque<v1::PullRequest> inbox_ TOWLINE_GUARDED_BY(mutex_);
  bool read_closed_ TOWLINE_GUARDED_BY(mutex_) = false;
  bool broken_ TOWLINE_GUARDED_BY(mutex_) = false;
  bool write_pending_ TOWLINE_GUARDED_BY(mutex_) = false;
};

// One FetchSnapshot stream.
class SnapshotCall final : public grpc::ServerWriteReactor<v1::FetchSnapshotResponse> {
 public:
  static SnapshotCall* Start(Node& node, WorkPool& pool, const v1::FetchSnapshotRequest* request) {
    auto call = std::shared_ptr<SnapshotCall>(new SnapshotCall(node, request));
    call->self_ = call;
    const std::weak_ptr<SnapshotCall> weak = call;
    call->strand_ = std::make_shared<Strand>(pool, [weak] {
      if (const auto alive = weak.lock()) alive->Run();
    });
    call->strand_->Signal();
    return call.get();
  }

  void OnWriteDone(bool ok) override {
    {
      MutexLock lock(&mutex_);
      write_pending_ = false;
      if (!ok) broken_ = true;
    }
    strand_->Signal();
  }

  void OnCancel() override {
    {
      MutexLock lock(&mutex_);
      broken_ = true;
    }
    strand_->Signal();
  }

  void OnDone() override { self_.reset(); }

 private:
  SnapshotCall(Node& node, const v1::FetchSnapshotRequest* request) : node_(node), request_(request) {}

  // Strand only.
  void Run() {
    if (finished_) return;
    bool broken = false;
    {
      MutexLock lock(&mutex_);
      if (write_pending_) return;
      broken = broken_;
    }
    if (broken) return End(ClientGone());
    if (session_ == nullptr) {
      auto session = node_.source().NewSnapshotSession(*request_);
      if (!session.ok()) return End(session.status());
      session_ = *std::move(session);
    }
    if (session_->Next(&outgoing_) != NextResult::kMessage) return End(session_->end_status());
    {
      MutexLock lock(&mutex_);
      write_pending_ = true;
    }
    StartWrite(&outgoing_);
  }

  void End(const absl::Status& status) {
    finished_ = true;
    if (session_ != nullptr) session_->Close();
    Finish(ToGrpcStatus(status));
  }

  Node& node_;
  const v1::FetchSnapshotRequest* const request_;  // gRPC's, until Finish
  std::shared_ptr<SnapshotCall> self_;
  std::shared_ptr<Strand> strand_;
  std::unique_ptr<SnapshotSession> session_;
  v1::FetchSnapshotResponse outgoing_;
  bool finished_ = false;

  Mutex mutex_;
  bool broken_ TOWLINE_GUARDED_BY(mutex_) = false;
  bool write_pending_ TOWLINE_GUARDED_BY(mutex_) = false;
};

}  // namespace

grpc::ServerBidiReactor<v1::PullRequest, v1::PullResponse>* ReplicationServiceImpl::Pull(
    grpc::CallbackServerContext*) {
  return PullCall::Start(node_, streams_);
}

grpc::ServerWriteReactor<v1::FetchSnapshotResponse>* ReplicationServiceImpl::FetchSnapshot(
    grpc::CallbackServerContext*, const v1::FetchSnapshotRequest* request) {
  return SnapshotCall::Start(node_, streams_, request);
}

grpc::ServerUnaryReactor* ReplicationServiceImpl::PlanResume(grpc::CallbackServerContext* context,
                                                             const v1::PlanResumeRequest* request,
                                                             v1::PlanResumeResponse* response) {
  return RunOnPool(calls_, context, [this, request, response]() -> absl::Status {
    uint64_t bytes = 0;
    TOWLINE_ASSIGN_OR_RETURN(*response->mutable_plan(), node_.source().Explain(request->start(), &bytes));
    response->set_bytes_to_ship(bytes);
    return absl::OkStatus();
  });
}

}  // namespace towline
