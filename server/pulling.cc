#include "server/pulling.h"

#include <utility>

namespace towline {

Pulling::Pulling(ReplicaHost& host, Executor& executor, std::unique_ptr<FollowingUpstream> upstream,
                 std::function<ReplicaOptions()> options)
    : host_(host), executor_(executor), upstream_(std::move(upstream)), options_(std::move(options)) {}

Pulling::~Pulling() { Stop(); }

void Pulling::Start(const std::string& preferred) {
  if (!preferred.empty()) upstream_->Prefer(preferred);
  MutexLock lock(&mutex_);
  if (held_ || stopped_) return;
  if (active_ != nullptr) {
    active_->controller->Reconnect();
    active_->loop->Wake();
    return;
  }
  active_ = std::make_shared<Active>();
  active_->controller = NewReplicaController(host_, *upstream_, options_());
  active_->loop = executor_.Start(
      "puller", [controller = active_->controller.get()] { return controller->Step(); }, LoopPriority::kBatch);
}

void Pulling::End() {
  std::shared_ptr<Active> ending;
  {
    MutexLock lock(&mutex_);
    ending = std::exchange(active_, nullptr);
  }
  if (ending == nullptr) return;
  ending->controller->Shutdown();
  ending->loop->Stop();
}

void Pulling::Hold() {
  {
    MutexLock lock(&mutex_);
    held_ = true;
  }
  End();
}

void Pulling::Release() {
  MutexLock lock(&mutex_);
  held_ = false;
}

void Pulling::Stop() {
  {
    MutexLock lock(&mutex_);
    stopped_ = true;
  }
  End();
}

std::optional<ReplicaStatusView> Pulling::Status() const {
  std::shared_ptr<Active> active;
  {
    MutexLock lock(&mutex_);
    active = active_;
  }
  if (active == nullptr) return std::nullopt;
  return active->controller->Status();
}

std::optional<bool> Pulling::RequestBootstrap() {
  std::shared_ptr<Active> active;
  {
    MutexLock lock(&mutex_);
    active = active_;
  }
  if (active == nullptr) return std::nullopt;
  const bool asked = active->controller->RequestBootstrap();
  if (asked) active->loop->Wake();
  return asked;
}

}  // namespace towline
