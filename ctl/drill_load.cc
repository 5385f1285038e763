#include "ctl/drill_load.h"

#include <algorithm>
#include <map>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

#include "client/client.h"
#include "common/clock.h"
#include "common/error.h"

namespace towline::ctl {
namespace {

constexpr int64_t kRetryPauseMicros = 10'000;

// One writer's way from node to node. A connection is made anew behind every failure, so that no back-off of an old one
// delays the next attempt.
class Route {
 public:
  Route(const DrillLoadOptions& options, std::string first) : options_(options), endpoint_(std::move(first)) {}

  absl::StatusOr<v1::WriteResponse> Write(const v1::WriteRequest& request) {
    if (client_ == nullptr) {
      auto client = client::NewClient({endpoint_, options_.attempt_us, false});
      if (!client.ok()) return client.status();
      client_ = *std::move(client);
    }
    return client_->Write(request);
  }

  // To the primary that the error names, else to the next node.
  void Leave(const absl::Status& error) {
    const ErrorInfo info = GetErrorInfo(error);
    const auto primary = info.metadata.find("primary_address");
    client_ = nullptr;
    if (info.reason == "not_primary" && primary != info.metadata.end() && !primary->second.empty() &&
        primary->second != endpoint_) {
      endpoint_ = primary->second;
      return;
    }
    const auto& all = options_.endpoints;
    const auto here = std::find(all.begin(), all.end(), endpoint_);
    endpoint_ = here == all.end() || here + 1 == all.end() ? all.front() : *(here + 1);
  }

 private:
  const DrillLoadOptions& options_;
  std::string endpoint_;
  std::unique_ptr<client::Client> client_;
};

v1::WriteRequest MakeRequest(const DrillLoadOptions& options, const DrillWrite& write, const std::string& client_id,
                             uint64_t sequence) {
  v1::WriteRequest request;
  v1::Put* put = request.add_operations()->mutable_put();
  put->set_key(write.key);
  put->set_value(DrillValue(write.key, options.value_bytes));
  request.mutable_request_id()->set_client_id(client_id);
  request.mutable_request_id()->set_sequence(sequence);
  request.mutable_durability()->set_replicas(write.level == DrillLevel::kReplicas ? 1 : 0);
  request.mutable_durability()->set_timeout_ms(static_cast<uint32_t>(options.attempt_us / 1000));
  return request;
}

}  // namespace

std::string DrillPrefix(const std::string& id) { return absl::StrCat("_drill/", id, "/"); }

DrillLoad::~DrillLoad() { Stop(0); }

void DrillLoad::Start() {
  for (int i = 0; i < options_.replicated_writers; ++i) {
    threads_.emplace_back([this, i] { Write(DrillLevel::kReplicas, i); });
  }
  for (int i = 0; i < options_.local_writers; ++i) {
    threads_.emplace_back([this, i] { Write(DrillLevel::kLocal, i); });
  }
}

void DrillLoad::Stop(int64_t grace_us) {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    give_up_us_ = SystemClock()->MonotonicMicros() + grace_us;
    stopped_.NotifyAll();
  }
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

bool DrillLoad::WaitFor(const Interrupt& interrupt, int64_t timeout_us,
                        const std::function<bool(const std::vector<DrillWrite>&)>& done) {
  constexpr int64_t kSliceMicros = 50'000;
  const int64_t end = SystemClock()->MonotonicMicros() + timeout_us;
  MutexLock lock(&mutex_);
  while (!done(writes_)) {
    const int64_t left = end - SystemClock()->MonotonicMicros();
    if (left <= 0 || interrupt.triggered()) return false;
    changed_.WaitFor(&mutex_, std::min(left, kSliceMicros));
  }
  return true;
}

std::optional<DrillWrite> DrillLoad::NewestAnswered() const {
  MutexLock lock(&mutex_);
  if (!newest_) return std::nullopt;
  return writes_[*newest_];
}

std::vector<DrillWrite> DrillLoad::TakeWrites() {
  MutexLock lock(&mutex_);
  newest_ = std::nullopt;
  return std::move(writes_);
}

bool DrillLoad::stopping() const {
  MutexLock lock(&mutex_);
  return stopping_;
}

void DrillLoad::Write(DrillLevel level, int writer) {
  const bool local = level == DrillLevel::kLocal;
  const std::string name = absl::StrCat(local ? "l" : "r", writer);
  const std::string client_id = absl::StrCat("drill-", options_.id, "-", name);
  Route route(options_, local && !options_.local_endpoint.empty() ? options_.local_endpoint : options_.endpoints[0]);
  for (uint64_t sequence = 1; !stopping(); ++sequence) {
    DrillWrite write;
    write.key = absl::StrFormat("%s%s/%08d", DrillPrefix(options_.id), name, sequence);
    write.level = level;
    write.sent_us = SystemClock()->MonotonicMicros();
    size_t index = 0;
    {
      MutexLock lock(&mutex_);
      index = writes_.size();
      writes_.push_back(write);
    }
    const v1::WriteRequest request = MakeRequest(options_, write, client_id, sequence);
    for (bool answered = false; !answered;) {
      const auto response = route.Write(request);
      const int64_t now = SystemClock()->MonotonicMicros();
      answered = response.ok();
      if (!answered) route.Leave(response.status());
      MutexLock lock(&mutex_);
      DrillWrite& recorded = writes_[index];
      ++recorded.attempts;
      if (answered) {
        recorded.answered_us = now;
        recorded.position = response->position();
        if (!local) newest_ = index;
      } else if (recorded.failed_us == 0) {
        recorded.failed_us = now;
      }
      changed_.NotifyAll();
      if (!answered && now >= give_up_us_) return;
      if (!answered) stopped_.WaitFor(&mutex_, kRetryPauseMicros);
    }
    MutexLock lock(&mutex_);
    if (!stopping_) stopped_.WaitFor(&mutex_, options_.pace_us);
  }
}

}  // namespace towline::ctl
