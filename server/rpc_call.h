// Calls on an RpcQueue: unary ones with a handler, streams as objects with events.
//
// A method is served by Serve...: it keeps calls armed, and arms another one for each that a client takes. Calls delete
// themselves.

#ifndef TOWLINE_SERVER_RPC_CALL_H_
#define TOWLINE_SERVER_RPC_CALL_H_

#include <atomic>
#include <functional>
#include <grpcpp/grpcpp.h>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"

#include "client/rpc_status.h"
#include "server/rpc_queue.h"

namespace towline {

// --- Unary calls ---

template <typename Request, typename Response>
class UnaryCall final : private RpcEvent, private PendingAnswer {
 public:
  struct Method {
    std::function<void(UnaryCall&)> arm;
    std::function<void(UnaryCall*)> handle;
  };

  // Waits for a client.
  static void Arm(RpcQueue& queue, std::shared_ptr<const Method> method) {
    auto* const call = new UnaryCall(queue, std::move(method));
    call->method_->arm(*call);
  }

  const Request& request() const { return request_; }
  Response* response() { return &response_; }

  // Ends the call: OK sends the response. Exactly once, from any thread; the call is gone afterwards.
  void Finish(const absl::Status& status) {
    status_ = status;
    if (queue_.OnThread()) return Send();
    queue_.PostAnswer(this);
  }

  // Of a Method's `arm`: where and as what gRPC is to report the request.
  RpcQueue& queue() { return queue_; }
  grpc::ServerContext* context() { return &context_; }
  Request* mutable_request() { return &request_; }
  grpc::ServerAsyncResponseWriter<Response>* responder() { return &responder_; }
  void* tag() { return static_cast<RpcEvent*>(this); }

 private:
  UnaryCall(RpcQueue& queue, std::shared_ptr<const Method> method) : queue_(queue), method_(std::move(method)) {
    queue_.Enter();
  }
  ~UnaryCall() { queue_.Leave(); }

  void OnEvent(bool ok) override {
    if (taken_ || !ok) {
      delete this;
      return;
    }
    taken_ = true;
    Arm(queue_, method_);
    method_->handle(this);
  }

  std::string Peer() const override { return context_.peer(); }

  void Send() override {
    const grpc::Status status = ToGrpcStatus(status_);
    if (status.ok()) {
      responder_.Finish(response_, status, tag());
    } else {
      responder_.FinishWithError(status, tag());
    }
  }

  RpcQueue& queue_;
  const std::shared_ptr<const Method> method_;
  bool taken_ = false;   // by a client
  absl::Status status_;  // from Finish on
  Request request_;
  Response response_;
  grpc::ServerContext context_;
  grpc::ServerAsyncResponseWriter<Response> responder_{&context_};
};

// Serves a method with `handle`, which is called on the queue's thread with each call and sees to it that the call is
// finished. `request` is the generated service's Request... function. `armed` calls can come in one burst without a
// detour; more are served too.
template <typename Service, typename Base, typename Request, typename Response, typename Handle>
void ServeUnary(RpcQueue& queue, Service* service,
                void (Base::*request)(grpc::ServerContext*, Request*, grpc::ServerAsyncResponseWriter<Response>*,
                                      grpc::CompletionQueue*, grpc::ServerCompletionQueue*, void*),
                Handle handle, int armed = 1) {
  using Call = UnaryCall<Request, Response>;
  auto method = std::make_shared<typename Call::Method>();
  method->handle = std::move(handle);
  method->arm = [service, request](Call& call) {
    (service->*request)(call.context(), call.mutable_request(), call.responder(), call.queue().get(),
                        call.queue().get(), call.tag());
  };
  for (int i = 0; i < armed; ++i) Call::Arm(queue, method);
}

// --- Streams ---

// What streams of all kinds share: the events, and when the call is over.
//
// Threads: the On... functions are called on the queue's thread. The start functions of a stream may be called from any
// thread, one operation of a kind at a time, none after Finish.
class StreamCall {
 public:
  StreamCall(const StreamCall&) = delete;
  StreamCall& operator=(const StreamCall&) = delete;
  virtual ~StreamCall() { queue_.Leave(); }

  // Waits for a client. `arm_next` makes and arms the next call.
  void Arm(std::function<void()> arm_next) {
    arm_next_ = std::move(arm_next);
    context_.AsyncNotifyWhenDone(&over_);
    Request(&opened_);
  }

 protected:
  explicit StreamCall(RpcQueue& queue) : queue_(queue) { queue_.Enter(); }

  // Asks gRPC for a call.
  virtual void Request(void* tag) = 0;

  // A client is there.
  virtual void OnOpen() = 0;
  virtual void OnReadDone(bool /*ok*/) {}
  virtual void OnWriteDone(bool ok) = 0;
  // The client is gone, or the server shuts down; the call is still to be finished.
  virtual void OnCancel() = 0;
  // The last event.
  virtual void OnDone() = 0;

  RpcQueue& queue() { return queue_; }
  grpc::ServerContext* context() { return &context_; }

  // For the start functions: each operation is announced, and its tag taken, before it starts.
  void* ReadTag() { return Announce(&read_); }
  void* WriteTag() { return Announce(&write_); }
  void* FinishTag() { return Announce(&finish_); }

 private:
  struct Event final : RpcEvent {
    using Function = void (StreamCall::*)(bool ok);
    Event(StreamCall* event_call, Function event_function) : call(event_call), function(event_function) {}
    void OnEvent(bool ok) override { (call->*function)(ok); }
    StreamCall* const call;
    const Function function;
  };

  void* Announce(Event* event) {
    pending_.fetch_add(1, std::memory_order_relaxed);
    return static_cast<RpcEvent*>(event);
  }

  void HandleOpened(bool ok) {
    if (!ok) {  // gRPC reports nothing else of a call that nobody took
      Dismiss();
      return;
    }
    pending_.fetch_add(1, std::memory_order_relaxed);  // over_
    arm_next_();
    OnOpen();
  }
  void HandleRead(bool ok) {
    OnReadDone(ok);
    Settle();
  }
  void HandleWrite(bool ok) {
    OnWriteDone(ok);
    Settle();
  }
  void HandleOver(bool /*ok*/) {
    if (!finished_ && context_.IsCancelled()) OnCancel();
    Settle();
  }
  void HandleFinish(bool /*ok*/) {
    finished_ = true;
    Settle();
  }

  // One announced operation is done.
  void Settle() {
    if (pending_.fetch_sub(1, std::memory_order_relaxed) == 1 && finished_) OnDone();
  }
  // The call was never opened: there is nothing to tell but that it can go.
  virtual void Dismiss() { delete this; }

  RpcQueue& queue_;
  grpc::ServerContext context_;
  std::function<void()> arm_next_;
  std::atomic<int> pending_{0};
  bool finished_ = false;  // the queue's thread only
  Event opened_{this, &StreamCall::HandleOpened};
  Event over_{this, &StreamCall::HandleOver};
  Event read_{this, &StreamCall::HandleRead};
  Event write_{this, &StreamCall::HandleWrite};
  Event finish_{this, &StreamCall::HandleFinish};
};

// A stream in both directions.
template <typename RequestType, typename Response>
class BidiCall : public StreamCall {
 public:
  using Stream = grpc::ServerAsyncReaderWriter<Response, RequestType>;
  using Asker = std::function<void(grpc::ServerContext*, Stream*, RpcQueue&, void* tag)>;

  BidiCall(RpcQueue& queue, Asker asker) : StreamCall(queue), asker_(std::move(asker)) {}

 protected:
  void StartRead(RequestType* request) { stream_.Read(request, ReadTag()); }
  // `response` is free again on return.
  void StartWrite(const Response& response) { stream_.Write(response, WriteTag()); }
  void Finish(const absl::Status& status) { stream_.Finish(ToGrpcStatus(status), FinishTag()); }

 private:
  void Request(void* tag) override { asker_(context(), &stream_, queue(), tag); }

  const Asker asker_;
  Stream stream_{context()};
};

// One request, a stream of responses.
template <typename RequestType, typename Response>
class ServerStreamCall : public StreamCall {
 public:
  using Stream = grpc::ServerAsyncWriter<Response>;
  using Asker = std::function<void(grpc::ServerContext*, RequestType*, Stream*, RpcQueue&, void* tag)>;

  ServerStreamCall(RpcQueue& queue, Asker asker) : StreamCall(queue), asker_(std::move(asker)) {}

 protected:
  const RequestType& request() const { return request_; }
  // `response` is free again on return.
  void StartWrite(const Response& response) { stream_.Write(response, WriteTag()); }
  void Finish(const absl::Status& status) { stream_.Finish(ToGrpcStatus(status), FinishTag()); }

 private:
  void Request(void* tag) override { asker_(context(), &request_, &stream_, queue(), tag); }

  const Asker asker_;
  RequestType request_;
  Stream stream_{context()};
};

// Serves a method with streams that `make(queue, asker)` makes on the heap.
template <typename Call, typename Make>
void ServeStream(RpcQueue& queue, typename Call::Asker asker, Make make) {
  Call* const call = make(queue, asker);
  call->Arm([&queue, asker, make] { ServeStream<Call>(queue, asker, make); });
}

}  // namespace towline

#endif  // TOWLINE_SERVER_RPC_CALL_H_
