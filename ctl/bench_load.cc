#include "ctl/bench_load.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "client/channel.h"
#include "client/rpc_status.h"
#include "common/error.h"
#include "ctl/bench_schedule.h"
#include "grpcpp/channel.h"
#include "grpcpp/completion_queue.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/support/byte_buffer.h"
#include "towline/v1/kv_service.pb.h"

namespace towline::ctl {
namespace {

using SteadyClock = Schedule::Clock;

grpc::ByteBuffer Encode(const RequestTemplate& request, absl::string_view in_front, KeyChoice& keys) {
  grpc::Slice slice(in_front.size() + request.bytes.size());
  char* to = const_cast<char*>(reinterpret_cast<const char*>(slice.begin()));
  std::copy(in_front.begin(), in_front.end(), to);
  to += in_front.size();
  std::copy(request.bytes.begin(), request.bytes.end(), to);
  for (const size_t digits : request.digits) PutDigits(to + digits, keys.Next());
  return grpc::ByteBuffer(&slice, 1);
}

// One thread: a completion queue, a connection, and the calls or streams that it drives.
class Worker {
 public:
  // An operation that the queue reports.
  class Operation {
   public:
    virtual ~Operation() = default;
    virtual void OnDone(bool ok, SteadyClock::time_point now) = 0;
  };

  Worker(const LoadOptions& load_options, const Schedule& load_schedule, uint64_t seed)
      : options(load_options),
        schedule(load_schedule),
        keys(seed, load_options.key_space),
        stub(client::MakeChannel(load_options.endpoint, client::Connection::kDedicated)) {}

  bool ending() const { return ending_; }

  // Runs until `pending` operations have ended; after the end of the schedule nothing new is started.
  template <typename Cancel>
  void Loop(Cancel cancel) {
    bool cancelled = false;
    while (pending > 0) {
      void* tag = nullptr;
      bool ok = false;
      const auto deadline = std::chrono::system_clock::now() + std::chrono::milliseconds(100);
      const auto next = queue.AsyncNext(&tag, &ok, deadline);
      const SteadyClock::time_point now = SteadyClock::now();
      ending_ = ending_ || now >= schedule.end;
      if (next == grpc::CompletionQueue::TIMEOUT || (++events_ & 1023u) == 0) {
        if (options.interrupt->triggered()) ending_ = result.interrupted = true;
      }
      const bool too_late = now >= schedule.give_up || (result.interrupted && now < schedule.end);
      if (too_late && !std::exchange(cancelled, true)) cancel();
      if (next == grpc::CompletionQueue::GOT_EVENT) static_cast<Operation*>(tag)->OnDone(ok, now);
    }
    queue.Shutdown();
    void* tag = nullptr;
    bool ok = false;
    while (queue.Next(&tag, &ok)) {
    }
  }

  const LoadOptions& options;
  const Schedule& schedule;
  KeyChoice keys;
  grpc::CompletionQueue queue;
  grpc::GenericStub stub;
  int pending = 0;  // operations that the queue will report
  LoadResult result;

 private:
  bool ending_ = false;
  uint32_t events_ = 0;
};

// One call in flight, again and again.
class UnaryCall final : public Worker::Operation {
 public:
  UnaryCall(Worker& worker, const std::string& method) : worker_(worker), method_(method) {}

  void Start() {
    context_.emplace();
    start_ = SteadyClock::now();
    reader_ = worker_.stub.PrepareUnaryCall(&*context_, method_, Encode(worker_.options.request, "", worker_.keys),
                                            &worker_.queue);
    reader_->StartCall();
    reader_->Finish(&response_, &status_, this);
    ++worker_.pending;
  }

  void OnDone(bool /*ok*/, SteadyClock::time_point now) override {
    --worker_.pending;
    if (!status_.ok()) {
      if (!worker_.ending()) CountError(FromGrpcStatus(status_), worker_.result);
    } else if (worker_.schedule.Measured(now)) {
      ++worker_.result.calls;
      ++worker_.result.records;
      worker_.result.latency_ns.Add(static_cast<uint64_t>((now - start_).count()));
    }
    reader_.reset();
    // A server that fails every call would be asked in a tight loop.
    if (!worker_.ending() && worker_.result.errors < 1000) Start();
  }

  void Cancel() {
    if (reader_ != nullptr) context_->TryCancel();
  }

 private:
  Worker& worker_;
  const std::string& method_;
  std::optional<grpc::ClientContext> context_;
  std::unique_ptr<grpc::GenericClientAsyncResponseReader> reader_;
  grpc::ByteBuffer response_;
  grpc::Status status_;
  SteadyClock::time_point start_;
};

// One write stream with a window of batches.
class StreamCall {
 public:
  explicit StreamCall(Worker& worker) : worker_(worker) {
    static const std::string kMethod = "/towline.v1.KvService/WriteStream";
    stream_ = worker_.stub.PrepareCall(&context_, kMethod, &worker_.queue);
    stream_->StartCall(Expect(start_done_));
  }

  void Cancel() { context_.TryCancel(); }

 private:
  // A member function of the stream as an operation.
  struct Step final : Worker::Operation {
    using Function = void (StreamCall::*)(bool ok, SteadyClock::time_point now);
    Step(StreamCall* step_call, Function step_function) : call(step_call), function(step_function) {}
    void OnDone(bool ok, SteadyClock::time_point now) override {
      --call->worker_.pending;
      (call->*function)(ok, now);
    }
    StreamCall* call;
    Function function;
  };

  Worker::Operation* Expect(Step& step) {
    ++worker_.pending;
    return &step;
  }

  void OnStarted(bool ok, SteadyClock::time_point now) {
    if (!ok) return Finish();
    stream_->Read(&response_, Expect(read_done_));
    SendNext(now);
  }

  void SendNext(SteadyClock::time_point now) {
    if (writing_ || closed_) return;
    if (worker_.ending()) {
      closed_ = writing_ = true;
      stream_->WritesDone(Expect(write_done_));
      return;
    }
    if (static_cast<int>(unanswered_.size()) >= worker_.options.in_flight) return;
    writing_ = true;
    const std::string sequence = SequenceField(next_sequence_);
    next_sequence_ += static_cast<uint64_t>(worker_.options.batch);
    unanswered_.push_back({next_sequence_ - 1, now});
    stream_->Write(Encode(worker_.options.request, sequence, worker_.keys), Expect(write_done_));
  }

  void OnWritten(bool ok, SteadyClock::time_point now) {
    writing_ = false;
    if (ok) SendNext(now);
    if (!ok) closed_ = true;
  }

  void OnRead(bool ok, SteadyClock::time_point now) {
    if (!ok) return Finish();
    grpc::Slice slice;
    v1::WriteStreamResponse answer;
    if (!response_.DumpToSingleSlice(&slice).ok() ||
        !answer.ParseFromArray(slice.begin(), static_cast<int>(slice.size()))) {
      CountError(absl::InternalError("an answer of the stream cannot be parsed"), worker_.result);
      context_.TryCancel();
    }
    for (const v1::RefusedElement& refused : answer.refused()) {
      CountError(MakeError(absl::StatusCode::kAborted, FromErrorDetail(refused.error())), worker_.result);
    }
    const bool measured = worker_.schedule.Measured(now);
    while (!unanswered_.empty() && unanswered_.front().last_sequence <= answer.acked_sequence()) {
      if (measured) {
        ++worker_.result.calls;
        worker_.result.records += static_cast<uint64_t>(worker_.options.batch);
        worker_.result.latency_ns.Add(static_cast<uint64_t>((now - unanswered_.front().sent).count()));
      }
      unanswered_.pop_front();
    }
    stream_->Read(&response_, Expect(read_done_));
    SendNext(now);
  }

  void Finish() { stream_->Finish(&status_, Expect(finish_done_)); }

  void OnFinished(bool /*ok*/, SteadyClock::time_point /*now*/) {
    closed_ = true;
    if (!status_.ok() && !worker_.result.interrupted) CountError(FromGrpcStatus(status_), worker_.result);
  }

  struct Batch {
    uint64_t last_sequence;
    SteadyClock::time_point sent;
  };

  Worker& worker_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> stream_;
  grpc::ByteBuffer response_;
  grpc::Status status_;
  std::deque<Batch> unanswered_;
  uint64_t next_sequence_ = 1;
  bool writing_ = false;
  bool closed_ = false;
  Step start_done_{this, &StreamCall::OnStarted};
  Step write_done_{this, &StreamCall::OnWritten};
  Step read_done_{this, &StreamCall::OnRead};
  Step finish_done_{this, &StreamCall::OnFinished};
};

// Number of `total` things that thread `index` of `threads` drives.
int Share(int total, int index, int threads) { return total / threads + (index < total % threads ? 1 : 0); }

// Runs `drive(worker, share)` on each thread and adds up the results.
template <typename Drive>
LoadResult RunThreads(const LoadOptions& options, int total, Drive drive) {
  const int threads = std::max(1, std::min(options.threads, total));
  const Schedule schedule(options);
  std::vector<std::unique_ptr<Worker>> workers;
  for (int i = 0; i < threads; ++i) {
    workers.push_back(std::make_unique<Worker>(options, schedule, 0x2545f4914f6cdd1du * static_cast<uint64_t>(i + 1)));
  }
  std::vector<std::thread> running;
  for (int i = 0; i < threads; ++i) {
    running.emplace_back([&, i] { drive(*workers[i], Share(total, i, threads)); });
  }
  LoadResult result = AwaitEnd(schedule, *options.interrupt);
  for (std::thread& thread : running) thread.join();
  for (const std::unique_ptr<Worker>& worker : workers) AddPart(worker->result, &result);
  return result;
}

}  // namespace

LoadResult RunUnaryLoad(const LoadOptions& options, const std::string& method) {
  return RunThreads(options, options.in_flight, [&method](Worker& worker, int count) {
    std::vector<std::unique_ptr<UnaryCall>> calls;
    for (int i = 0; i < count; ++i) {
      calls.push_back(std::make_unique<UnaryCall>(worker, method));
      calls.back()->Start();
    }
    worker.Loop([&calls] {
      for (const std::unique_ptr<UnaryCall>& call : calls) call->Cancel();
    });
  });
}

LoadResult RunStreamLoad(const LoadOptions& options) {
  return RunThreads(options, options.streams, [](Worker& worker, int count) {
    std::vector<std::unique_ptr<StreamCall>> calls;
    for (int i = 0; i < count; ++i) calls.push_back(std::make_unique<StreamCall>(worker));
    worker.Loop([&calls] {
      for (const std::unique_ptr<StreamCall>& call : calls) call->Cancel();
    });
  });
}

}  // namespace towline::ctl
