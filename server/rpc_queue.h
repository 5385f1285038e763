// One completion queue and the one thread that reads requests from it and answers them.
//
// Decoding a request, handing it on and sending its answer happen on the same thread, so that nothing of a call wakes
// another thread: with gRPC's callback API each of these steps may run on a thread of its own (docs/adr/0004).

#ifndef TOWLINE_SERVER_RPC_QUEUE_H_
#define TOWLINE_SERVER_RPC_QUEUE_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <grpcpp/alarm.h>
#include <grpcpp/grpcpp.h>
#include <memory>
#include <thread>
#include <vector>

#include "common/mutex.h"
#include "server/answer_burst.h"

namespace towline {

// What a completion queue reports. A pointer to it is the tag of the operation.
class RpcEvent {
 public:
  // On the queue's thread. `ok` false: the operation did not happen, because the call or the server is gone.
  virtual void OnEvent(bool ok) = 0;

 protected:
  ~RpcEvent() = default;
};

// Threads: Post, PostAnswer, Enter and Leave from any thread; the rest as stated.
class RpcQueue {
 public:
  explicit RpcQueue(std::unique_ptr<grpc::ServerCompletionQueue> queue);
  ~RpcQueue();

  grpc::ServerCompletionQueue* get() const { return queue_.get(); }

  // Before Start. `fn` is called on the queue's thread when all that has arrived is handled, before it sleeps, and at
  // least once in kEventsPerRound events: the place to hand on what a burst of requests has gathered.
  void AtEndOfRound(std::function<void()> fn) { end_of_round_.push_back(std::move(fn)); }

  // Starts the thread. Once, after the server has started.
  void Start();

  // Calls `fn` on the queue's thread soon, in the order of the posts. Only while a call lives (see Enter).
  void Post(std::function<void()> fn) TOWLINE_EXCLUDES(mutex_);

  // The same with `answer`, which goes out with others that are ready.
  void PostAnswer(PendingAnswer* answer) TOWLINE_EXCLUDES(mutex_);

  bool OnThread() const { return std::this_thread::get_id() == thread_id_.load(std::memory_order_relaxed); }

  // A call object lives from Enter to Leave; the queue ends after the last one.
  void Enter() TOWLINE_EXCLUDES(mutex_);
  void Leave() TOWLINE_EXCLUDES(mutex_);

  // After the server's shutdown: waits for the last call, then ends the thread. Idempotent.
  void Stop() TOWLINE_EXCLUDES(mutex_);

 private:
  // The event by which Post wakes the thread.
  class Bell final : public RpcEvent {
   public:
    explicit Bell(RpcQueue& queue) : queue_(queue) {}
    void OnEvent(bool ok) override;

   private:
    RpcQueue& queue_;
  };

  void Run();
  void RingLocked() TOWLINE_REQUIRES(mutex_);
  void RunPosted() TOWLINE_EXCLUDES(mutex_);
  void OnBell() TOWLINE_EXCLUDES(mutex_);
  bool FallAsleep() TOWLINE_EXCLUDES(mutex_);
  void WakeUp() TOWLINE_EXCLUDES(mutex_);

  const std::unique_ptr<grpc::ServerCompletionQueue> queue_;
  std::vector<std::function<void()>> end_of_round_;
  std::vector<std::function<void()>> running_;  // the thread's; kept for its memory
  std::vector<PendingAnswer*> sending_;         // likewise
  AnswerBurst burst_;                           // the thread's
  std::thread thread_;
  std::atomic<std::thread::id> thread_id_{};  // set by the thread itself
  bool stopped_ = false;                      // Stop only

  Mutex mutex_;
  CondVar left_cv_;
  uint64_t calls_ TOWLINE_GUARDED_BY(mutex_) = 0;
  std::vector<std::function<void()>> posted_ TOWLINE_GUARDED_BY(mutex_);
  std::vector<PendingAnswer*> answers_ TOWLINE_GUARDED_BY(mutex_);
  bool asleep_ TOWLINE_GUARDED_BY(mutex_) = false;  // or about to be: Post must ring
  bool rung_ TOWLINE_GUARDED_BY(mutex_) = false;    // the bell's event is on its way
  Bell bell_{*this};
  grpc::Alarm alarm_;
};

}  // namespace towline

#endif  // TOWLINE_SERVER_RPC_QUEUE_H_
