#include "server/rpc_queue.h"

#include <pthread.h>
#include <utility>

namespace towline {
namespace {

// A steady stream of events must not keep what they have gathered from being handed on.
constexpr int kEventsPerRound = 128;

}  // namespace

RpcQueue::RpcQueue(std::unique_ptr<grpc::ServerCompletionQueue> queue) : queue_(std::move(queue)) {}

RpcQueue::~RpcQueue() { Stop(); }

void RpcQueue::Start() {
  thread_ = std::thread([this] { Run(); });
  pthread_setname_np(thread_.native_handle(), "rpc");
}

void RpcQueue::Run() {
  thread_id_.store(std::this_thread::get_id(), std::memory_order_relaxed);
  void* tag = nullptr;
  bool ok = false;
  while (true) {
    int events = 0;
    auto next = grpc::CompletionQueue::GOT_EVENT;
    while (next == grpc::CompletionQueue::GOT_EVENT && events < kEventsPerRound) {
      next = queue_->AsyncNext(&tag, &ok, gpr_inf_past(GPR_CLOCK_MONOTONIC));
      if (next == grpc::CompletionQueue::SHUTDOWN) return;
      if (next == grpc::CompletionQueue::TIMEOUT) break;
      static_cast<RpcEvent*>(tag)->OnEvent(ok);
      ++events;
    }
    RunPosted();
    for (const auto& fn : end_of_round_) fn();
    if (events == kEventsPerRound || !FallAsleep()) continue;
    const bool alive = queue_->Next(&tag, &ok);
    WakeUp();
    if (!alive) return;
    static_cast<RpcEvent*>(tag)->OnEvent(ok);
  }
}

void RpcQueue::Post(std::function<void()> fn) {
  MutexLock lock(&mutex_);
  posted_.push_back(std::move(fn));
  RingLocked();
}

void RpcQueue::PostAnswer(PendingAnswer* answer) {
  MutexLock lock(&mutex_);
  answers_.push_back(answer);
  RingLocked();
}

void RpcQueue::RingLocked() {
  // A thread that is awake looks here before it sleeps.
  if (!asleep_ || std::exchange(rung_, true)) return;
  alarm_.Set(queue_.get(), gpr_inf_past(GPR_CLOCK_MONOTONIC), &bell_);
}

// False if something was posted.
bool RpcQueue::FallAsleep() {
  MutexLock lock(&mutex_);
  asleep_ = posted_.empty() && answers_.empty();
  return asleep_;
}

void RpcQueue::WakeUp() {
  MutexLock lock(&mutex_);
  asleep_ = false;
}

void RpcQueue::Bell::OnEvent(bool /*ok*/) { queue_.OnBell(); }

void RpcQueue::OnBell() {
  {
    MutexLock lock(&mutex_);
    rung_ = false;
  }
  RunPosted();
}

void RpcQueue::RunPosted() {
  {
    MutexLock lock(&mutex_);
    running_.swap(posted_);
    sending_.swap(answers_);
  }
  for (const auto& fn : running_) fn();
  running_.clear();
  burst_.Send(&sending_);
}

void RpcQueue::Enter() {
  MutexLock lock(&mutex_);
  ++calls_;
}

void RpcQueue::Leave() {
  MutexLock lock(&mutex_);
  if (--calls_ == 0) left_cv_.NotifyAll();
}

void RpcQueue::Stop() {
  if (std::exchange(stopped_, true)) return;
  if (thread_.joinable()) {
    MutexLock lock(&mutex_);
    while (calls_ != 0) left_cv_.Wait(&mutex_);
  }
  queue_->Shutdown();
  if (thread_.joinable()) {
    thread_.join();
    return;
  }
  void* tag = nullptr;
  bool ok = false;
  while (queue_->Next(&tag, &ok)) {
  }
}

}  // namespace towline
