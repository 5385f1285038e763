#include "server/health_service.h"

#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/names.h"

namespace towline {

namespace health = grpc::health::v1;

// Everything happens on the queue's thread.
class HealthServiceImpl::WatchCall final
    : public ServerStreamCall<health::HealthCheckRequest, health::HealthCheckResponse> {
 public:
  WatchCall(RpcQueue& queue, Asker asker, HealthServiceImpl& owner)
      : ServerStreamCall(queue, std::move(asker)), owner_(owner) {}

  const std::string& watched() const { return request().service(); }

  // Sends the state if it is another than the last one sent.
  void Update() {
    if (write_pending_ || finished_) return;
    const Status now = owner_.Get(watched());
    if (sent_ == now) return;
    sent_ = now;
    health::HealthCheckResponse response;
    response.set_status(now);
    write_pending_ = true;
    StartWrite(response);
  }
  void PostUpdate(const std::shared_ptr<WatchCall>& self) {
    queue().Post([self] { self->Update(); });
  }

 private:
  void OnOpen() override {
    self_.reset(this);
    {
      MutexLock lock(&owner_.mutex_);
      owner_.watchers_.insert(self_);
    }
    Update();
  }
  void OnWriteDone(bool ok) override {
    write_pending_ = false;
    if (ok) Update();
    if (cancelled_) OnCancel();
  }
  void OnCancel() override {
    cancelled_ = true;
    if (write_pending_ || finished_) return;
    finished_ = true;
    {
      MutexLock lock(&owner_.mutex_);
      owner_.watchers_.erase(self_);
    }
    Finish(MakeError(absl::StatusCode::kCancelled, "cancelled", "the watch has ended"));
  }
  void OnDone() override { self_.reset(); }

  HealthServiceImpl& owner_;
  std::shared_ptr<WatchCall> self_;  // from the first event to the last
  Status sent_ = health::HealthCheckResponse::UNKNOWN;
  bool write_pending_ = false;
  bool cancelled_ = false;
  bool finished_ = false;
};

void HealthServiceImpl::Serve(RpcQueue& queue) {
  using Service = health::Health::AsyncService;
  using CheckCall = UnaryCall<health::HealthCheckRequest, health::HealthCheckResponse>;
  ServeUnary(queue, &service_, &Service::RequestCheck,
             [this](CheckCall* call) { call->Finish(Check(call->request().service(), call->response())); });
  ServeStream<WatchCall>(
      queue,
      [this](grpc::ServerContext* context, health::HealthCheckRequest* request, WatchCall::Stream* stream,
             RpcQueue& calls,
             void* tag) { service_.RequestWatch(context, request, stream, calls.get(), calls.get(), tag); },
      [this](RpcQueue& calls, WatchCall::Asker asker) { return new WatchCall(calls, std::move(asker), *this); });
}

absl::Status HealthServiceImpl::Check(const std::string& service, health::HealthCheckResponse* response) {
  const Status status = Get(service);
  if (status == health::HealthCheckResponse::SERVICE_UNKNOWN) {
    return MakeError(absl::StatusCode::kNotFound, "service_unknown",
                     absl::StrCat("there is no service \"", Printable(service), "\""));
  }
  response->set_status(status);
  return absl::OkStatus();
}

HealthServiceImpl::Status HealthServiceImpl::Get(const std::string& service) const {
  MutexLock lock(&mutex_);
  const auto it = states_.find(service);
  if (it == states_.end()) return health::HealthCheckResponse::SERVICE_UNKNOWN;
  return shut_down_ ? health::HealthCheckResponse::NOT_SERVING : it->second;
}

void HealthServiceImpl::Set(const std::string& service, bool serving) {
  const Status status = serving ? health::HealthCheckResponse::SERVING : health::HealthCheckResponse::NOT_SERVING;
  MutexLock lock(&mutex_);
  const auto [it, added] = states_.try_emplace(service, health::HealthCheckResponse::UNKNOWN);
  if (std::exchange(it->second, status) != status) TellLocked(service);
}

void HealthServiceImpl::Shutdown() {
  MutexLock lock(&mutex_);
  shut_down_ = true;
  for (const auto& [service, status] : states_) TellLocked(service);
}

void HealthServiceImpl::TellLocked(const std::string& service) {
  for (const std::shared_ptr<WatchCall>& watcher : watchers_) {
    if (watcher->watched() == service) watcher->PostUpdate(watcher);
  }
}

}  // namespace towline
