#include "server/replication_service.h"

#include <deque>
#include <memory>
#include <utility>

#include "common/error.h"
#include "server/file_chunk_wire.h"
#include "server/rpc_call.h"
#include "server/run_on_pool.h"
#include "server/status_report.h"
#include "server/strand.h"

namespace towline {
namespace {

absl::Status ClientGone() { return MakeError(absl::StatusCode::kCancelled, "cancelled", "the peer went away"); }

// A strand that runs the call. It must not keep the call alive on its own: what wakes the call holds the strand.
template <typename Call>
std::shared_ptr<Strand> StrandOf(WorkPool& pool, const std::shared_ptr<Call>& call) {
  return std::make_shared<Strand>(pool, [weak = std::weak_ptr<Call>(call)] {
    if (const auto alive = weak.lock()) alive->Run();
  });
}

// One Pull stream: gRPC's events fill an inbox, the strand drives the session.
class PullCall final : public BidiCall<v1::PullRequest, v1::PullResponse> {
 public:
  PullCall(RpcQueue& queue, Asker asker, Node& node, WorkPool& pool)
      : BidiCall(queue, std::move(asker)), node_(node), pool_(pool) {}

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
        StartWrite(outgoing_);
        return;
      }
      case NextResult::kWait:
        return;
      case NextResult::kEnd:
        return End(session_->end_status());
    }
  }

 private:
  void OnOpen() override {
    self_.reset(this);
    strand_ = StrandOf(pool_, self_);
    session_ = node_.source().NewPullSession([strand = strand_] { strand->Signal(); });
    StartRead(&incoming_);
  }

  // Writers wait for acks, and an ack needs no disk: it is taken on the queue's thread, which answers the writers.
  void OnReadDone(bool ok) override {
    if (ok && incoming_.has_ack() && strand_->TryRunHere([this] { TakeAck(); })) return;
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

  // The strand is free, so the inbox is empty: an ack does not overtake other requests.
  void TakeAck() {
    if (finished_) return;
    started_ = true;
    if (session_->OnRequest(incoming_).ok()) return StartRead(&incoming_);
    strand_->Signal();  // a request that is refused ends the session, which says why
  }

  void End(const absl::Status& status) {
    finished_ = true;
    session_->Close();
    Finish(status);
  }

  Node& node_;
  WorkPool& pool_;
  std::shared_ptr<PullCall> self_;  // from the first event to the last
  std::shared_ptr<Strand> strand_;
  std::unique_ptr<PullSession> session_;
  v1::PullRequest incoming_;   // gRPC's between StartRead and OnReadDone
  v1::PullResponse outgoing_;  // strand only
  bool started_ = false;       // strand only
  bool finished_ = false;      // strand only

  Mutex mutex_;
  std::deque<v1::PullRequest> inbox_ TOWLINE_GUARDED_BY(mutex_);
  bool read_closed_ TOWLINE_GUARDED_BY(mutex_) = false;
  bool broken_ TOWLINE_GUARDED_BY(mutex_) = false;
  bool write_pending_ TOWLINE_GUARDED_BY(mutex_) = false;
};

// How a FetchSnapshot stream is read and written: pieces of files without a copy.
class FetchWire {
 public:
  using Request = grpc::ByteBuffer;
  using Response = grpc::ByteBuffer;

  absl::StatusOr<std::unique_ptr<SnapshotSession>> NewSession(ReplicationSource& source, const Request& encoded,
                                                              std::function<void()> wake) const {
    Request bytes = encoded;  // shares what it holds
    v1::FetchSnapshotRequest request;
    if (!grpc::SerializationTraits<v1::FetchSnapshotRequest>::Deserialize(&bytes, &request).ok()) {
      return MakeError(absl::StatusCode::kInvalidArgument, "malformed", "the request is no FetchSnapshotRequest");
    }
    return source.NewSnapshotSession(request, std::move(wake));
  }

  void Prepare(v1::FetchSnapshotResponse* next) const { wire_.Reuse(next); }
  Response Encode(v1::FetchSnapshotResponse* next) const { return wire_.Encode(next); }

 private:
  FileChunkWire wire_;
};

class SaveWire {
 public:
  using Request = v1::SaveSnapshotRequest;
  using Response = v1::SaveSnapshotResponse;

  static absl::StatusOr<std::unique_ptr<SnapshotSession>> NewSession(ReplicationSource& source, const Request& request,
                                                                     std::function<void()> wake) {
    return source.NewSaveSession(request, std::move(wake));
  }

  static void Prepare(v1::FetchSnapshotResponse*) {}
  static Response Encode(v1::FetchSnapshotResponse* next) {
    Response out;
    if (next->has_header()) out.mutable_header()->Swap(next->mutable_header());
    if (next->has_chunk()) out.mutable_chunk()->Swap(next->mutable_chunk());
    if (next->has_end()) out.mutable_end()->Swap(next->mutable_end());
    return out;
  }
};

// One FetchSnapshot or SaveSnapshot stream.
template <typename Wire>
class SnapshotCall final : public ServerStreamCall<typename Wire::Request, typename Wire::Response> {
  using Base = ServerStreamCall<typename Wire::Request, typename Wire::Response>;

 public:
  SnapshotCall(RpcQueue& queue, typename Base::Asker asker, Node& node, WorkPool& pool)
      : Base(queue, std::move(asker)), node_(node), pool_(pool) {}

  // Strand only. While a message is on its way the next one is made.
  void Run() {
    if (finished_) return;
    bool pending = false;
    bool broken = false;
    {
      MutexLock lock(&mutex_);
      pending = write_pending_;
      broken = broken_;
    }
    if (broken) {
      if (!pending) End(ClientGone());
      return;
    }
    if (session_ == nullptr) {
      auto session = wire_.NewSession(node_.source(), this->request(), [strand = strand_] { strand->Signal(); });
      if (!session.ok()) return End(session.status());
      session_ = *std::move(session);
    }
    while (MakeNext(pending) && !pending) {
      has_next_ = false;
      {
        MutexLock lock(&mutex_);
        write_pending_ = true;
      }
      this->StartWrite(wire_.Encode(&next_));
      pending = true;
    }
  }

 private:
  // Whether there is a next message.
  bool MakeNext(bool pending) {
    if (has_next_) return true;
    wire_.Prepare(&next_);
    const NextResult made = session_->Next(&next_);
    has_next_ = made == NextResult::kMessage;
    if (made == NextResult::kEnd && !pending) End(session_->end_status());
    return has_next_;
  }

  void OnOpen() override {
    self_.reset(this);
    strand_ = StrandOf(pool_, self_);
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

  void End(const absl::Status& status) {
    finished_ = true;
    if (session_ != nullptr) session_->Close();
    this->Finish(status);
  }

  Node& node_;
  WorkPool& pool_;
  std::shared_ptr<SnapshotCall> self_;  // from the first event to the last
  std::shared_ptr<Strand> strand_;
  std::unique_ptr<SnapshotSession> session_;
  const Wire wire_{};
  v1::FetchSnapshotResponse next_;
  bool has_next_ = false;
  bool finished_ = false;

  Mutex mutex_;
  bool broken_ TOWLINE_GUARDED_BY(mutex_) = false;
  bool write_pending_ TOWLINE_GUARDED_BY(mutex_) = false;
};

}  // namespace

void ReplicationServiceImpl::Serve(RpcQueue& queue) {
  ServeStream<PullCall>(
      queue,
      [this](grpc::ServerContext* context, PullCall::Stream* stream, RpcQueue& calls, void* tag) {
        service_.RequestPull(context, stream, calls.get(), calls.get(), tag);
      },
      [this](RpcQueue& calls, PullCall::Asker asker) {
        return new PullCall(calls, std::move(asker), node_, streams_);
      });
  using FetchCall = SnapshotCall<FetchWire>;
  ServeStream<FetchCall>(
      queue,
      [this](grpc::ServerContext* context, grpc::ByteBuffer* request, FetchCall::Stream* stream, RpcQueue& calls,
             void* tag) { service_.RequestFetchSnapshot(context, request, stream, calls.get(), calls.get(), tag); },
      [this](RpcQueue& calls, FetchCall::Asker asker) {
        return new FetchCall(calls, std::move(asker), node_, snapshots_);
      });
  using SaveCall = SnapshotCall<SaveWire>;
  ServeStream<SaveCall>(
      queue,
      [this](grpc::ServerContext* context, v1::SaveSnapshotRequest* request, SaveCall::Stream* stream, RpcQueue& calls,
             void* tag) { service_.RequestSaveSnapshot(context, request, stream, calls.get(), calls.get(), tag); },
      [this](RpcQueue& calls, SaveCall::Asker asker) {
        return new SaveCall(calls, std::move(asker), node_, snapshots_);
      });
  ServeOnPool(queue, &service_, &Service::RequestPlanResume, calls_,
              [this](const v1::PlanResumeRequest& request, v1::PlanResumeResponse* response) -> absl::Status {
                uint64_t bytes = 0;
                v1::PullStart start = request.start();
                if (request.as_slot_owner()) {
                  TOWLINE_ASSIGN_OR_RETURN(start, node_.source().StartOfSlotOwner(request.start().slot()));
                }
                TOWLINE_ASSIGN_OR_RETURN(*response->mutable_plan(), node_.source().Explain(start, &bytes));
                response->set_bytes_to_ship(bytes);
                for (const SlotStatus& slot : node_.source().Slots()) {
                  if (slot.slot.name == start.slot()) FillSlot(slot, response->mutable_slot());
                }
                return absl::OkStatus();
              });
  ServeOnPool(queue, &service_, &Service::RequestDescribeStart, calls_,
              [this](const v1::DescribeStartRequest&, v1::DescribeStartResponse* response) {
                *response->mutable_start() = node_.DescribeStart();
                return absl::OkStatus();
              });
}

}  // namespace towline
