#include "server/grpc_upstream.h"

#include <atomic>
#include <chrono>
#include <grpcpp/alarm.h>
#include <grpcpp/grpcpp.h>
#include <utility>

#include "client/channel.h"
#include "client/rpc_status.h"
#include "common/error.h"
#include "server/file_chunk_wire.h"
#include "server/near_peer.h"
#include "towline/v1/admin_service.grpc.pb.h"
#include "towline/v1/replication_service.grpc.pb.h"

namespace towline {
namespace {

enum Tag : intptr_t { kStart = 1, kRead, kWrite, kFinish, kWake };

// For the rest of a stream that is over, before it is cut off.
constexpr int64_t kDrainMicros = 1'000'000;

gpr_timespec Never() { return gpr_inf_future(GPR_CLOCK_MONOTONIC); }

// gRPC rounds deadlines up to its next millisecond: to look without waiting the deadline must have passed.
gpr_timespec DeadlineIn(int64_t micros) {
  if (micros == 0) return gpr_inf_past(GPR_CLOCK_MONOTONIC);
  return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_micros(micros, GPR_TIMESPAN));
}

void* ToPointer(Tag tag) { return reinterpret_cast<void*>(static_cast<intptr_t>(tag)); }

// A client call on its own completion queue: one thread issues operations and takes their completions.
// `Response` is what the stream reads.
template <typename Stream, typename Response>
class QueueCall {
 public:
  ~QueueCall() {
    Cancel();
    (void)FinishCall();
    queue_.Shutdown();
    void* tag = nullptr;
    bool ok = false;
    while (queue_.Next(&tag, &ok)) {
    }
  }

  ReadResult Read(Response* out, int64_t timeout_micros) {
    const gpr_timespec deadline = DeadlineIn(timeout_micros);
    while (true) {
      if (read_ready_) {
        read_ready_ = false;
        out->Swap(&incoming_);
        return ReadResult::kMessage;
      }
      if (closed_) return ReadResult::kClosed;
      if (timeout_micros != 0 && std::exchange(woken_, false)) return ReadResult::kTimeout;
      StartReadIfIdle();
      if (!TakeEvent(deadline)) return ReadResult::kTimeout;
    }
  }

  void Wake() {
    if (!wake_pending_.exchange(true)) alarm_.Set(&queue_, gpr_inf_past(GPR_CLOCK_MONOTONIC), ToPointer(kWake));
  }

  void Cancel() { context_.TryCancel(); }

  absl::Status FinishCall() {
    if (!finish_started_) {
      // Finish may only be asked for once the start has completed.
      while (!started_ && !closed_) TakeEvent(Never());
      ReadToTheEnd();
      finish_started_ = true;
      stream_->Finish(&status_, ToPointer(kFinish));
      while (!finished_) TakeEvent(Never());
    }
    return FromGrpcStatus(status_);
  }

 protected:
  // Waits for the completion of the write on its way. False: the stream is broken.
  bool DrainWrite() {
    while (!closed_ && !write_broken_ && (!started_ || write_pending_)) {
      TakeEvent(Never());
    }
    return !closed_ && !write_broken_;
  }

  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
  std::unique_ptr<Stream> stream_;
  bool write_pending_ = false;

 private:
  // gRPC gives the status only behind the last message, so what nobody wants any more is read and dropped. A peer that
  // goes on sending is cut off.
  void ReadToTheEnd() {
    const gpr_timespec deadline = DeadlineIn(kDrainMicros);
    while (!closed_) {
      read_ready_ = false;
      StartReadIfIdle();
      if (TakeEvent(deadline)) continue;
      context_.TryCancel();
      return;
    }
  }

  void StartReadIfIdle() {
    if (!started_ || read_pending_ || closed_) return;
    read_pending_ = true;
    stream_->Read(&incoming_, ToPointer(kRead));
  }

  // Takes one completion. False: the deadline has passed.
  bool TakeEvent(gpr_timespec deadline) {
    void* tag = nullptr;
    bool ok = false;
    if (queue_.AsyncNext(&tag, &ok, deadline) != grpc::CompletionQueue::GOT_EVENT) return false;
    switch (static_cast<Tag>(reinterpret_cast<intptr_t>(tag))) {
      case kStart:
        started_ = true;
        if (!ok) closed_ = true;
        break;
      case kRead:
        read_pending_ = false;
        (ok ? read_ready_ : closed_) = true;
        break;
      case kWrite:
        write_pending_ = false;
        if (!ok) write_broken_ = true;  // what was received before is still to be read
        break;
      case kFinish:
        finished_ = true;
        closed_ = true;
        break;
      case kWake:
        wake_pending_.store(false);
        woken_ = true;
        break;
    }
    return true;
  }

  Response incoming_;
  grpc::Status status_;
  bool started_ = false;
  bool read_pending_ = false;
  bool read_ready_ = false;
  bool closed_ = false;
  bool write_broken_ = false;
  bool finish_started_ = false;
  bool finished_ = false;
  bool woken_ = false;
  std::atomic<bool> wake_pending_{false};
  grpc::Alarm alarm_;
};

class GrpcPullStream final
    : public PullStream,
      private QueueCall<grpc::ClientAsyncReaderWriter<v1::PullRequest, v1::PullResponse>, v1::PullResponse> {
 public:
  explicit GrpcPullStream(v1::ReplicationService::Stub& stub) {
    stream_ = stub.PrepareAsyncPull(&context_, &queue_);
    stream_->StartCall(ToPointer(kStart));
  }

  bool Write(const v1::PullRequest& request) override {
    if (!DrainWrite()) return false;
    write_pending_ = true;
    stream_->Write(request, ToPointer(kWrite));
    return true;
  }

  ReadResult Read(v1::PullResponse* out, int64_t timeout_micros) override {
    return QueueCall::Read(out, timeout_micros);
  }
  void Wake() override { QueueCall::Wake(); }
  void Cancel() override { QueueCall::Cancel(); }
  absl::Status Finish() override { return FinishCall(); }
};

// What the stub's FetchSnapshot would be, but for answers in bytes: gRPC has no public way to get them from a stream
// with one request.
class GrpcSnapshotStream final : public SnapshotStream,
                                 private QueueCall<grpc::ClientAsyncReader<grpc::ByteBuffer>, grpc::ByteBuffer> {
 public:
  GrpcSnapshotStream(std::shared_ptr<grpc::Channel> channel, const v1::FetchSnapshotRequest& request)
      : channel_(std::move(channel)),
        method_("/towline.v1.ReplicationService/FetchSnapshot", grpc::internal::RpcMethod::SERVER_STREAMING, channel_) {
    stream_.reset(grpc::internal::ClientAsyncReaderFactory<grpc::ByteBuffer>::Create(
        channel_.get(), &queue_, method_, &context_, request, true, ToPointer(kStart)));
  }

  ReadResult Read(v1::FetchSnapshotResponse* out, absl::Cord* data, int64_t timeout_micros) override {
    const ReadResult read = garbled_ ? ReadResult::kClosed : QueueCall::Read(&bytes_, timeout_micros);
    if (read != ReadResult::kMessage) return read;
    if (DecodeSnapshotMessage(std::exchange(bytes_, {}), out, data)) return read;
    garbled_ = true;
    QueueCall::Cancel();
    return ReadResult::kClosed;
  }
  void Cancel() override { QueueCall::Cancel(); }
  absl::Status Finish() override {
    absl::Status status = FinishCall();
    if (!garbled_) return status;
    return MakeError(absl::StatusCode::kDataLoss, "bad_snapshot", "a message is no FetchSnapshotResponse");
  }

 private:
  // A connection of its own: a long copy must not stand in front of the log's frames.
  const std::shared_ptr<grpc::Channel> channel_;
  const grpc::internal::RpcMethod method_;
  grpc::ByteBuffer bytes_;
  bool garbled_ = false;
};

class GrpcUpstream final : public Upstream {
 public:
  explicit GrpcUpstream(std::string endpoint)
      : endpoint_(std::move(endpoint)),
        channel_(client::MakeChannel(endpoint_, client::Connection::kDedicated)),
        stub_(v1::ReplicationService::NewStub(channel_)),
        admin_(v1::AdminService::NewStub(channel_)) {}

  std::string endpoint() const override { return endpoint_; }
  std::unique_ptr<PullStream> OpenPull() override { return std::make_unique<GrpcPullStream>(*stub_); }
  std::unique_ptr<SnapshotStream> OpenSnapshot(const v1::FetchSnapshotRequest& request) override {
    const auto connection =
        IsNear(*admin_, client::kNearMicros) ? client::Connection::kNear : client::Connection::kDedicated;
    return std::make_unique<GrpcSnapshotStream>(client::MakeChannel(endpoint_, connection), request);
  }

 private:
  const std::string endpoint_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::ReplicationService::Stub> stub_;
  const std::unique_ptr<v1::AdminService::Stub> admin_;
};

}  // namespace

std::unique_ptr<Upstream> NewGrpcUpstream(const std::string& endpoint) {
  return std::make_unique<GrpcUpstream>(endpoint);
}

absl::StatusOr<v1::PullStart> AskForStart(const std::string& endpoint, int64_t timeout_micros) {
  const auto stub = v1::ReplicationService::NewStub(client::MakeChannel(endpoint, client::Connection::kDedicated));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::microseconds(timeout_micros));
  v1::DescribeStartResponse response;
  const absl::Status asked = FromGrpcStatus(stub->DescribeStart(&context, {}, &response));
  if (!asked.ok()) return asked;
  return std::move(*response.mutable_start());
}

}  // namespace towline
