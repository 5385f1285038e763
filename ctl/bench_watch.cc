#include "ctl/bench_watch.h"

#include <algorithm>
#include <chrono>

namespace towline::ctl {
namespace {

constexpr int64_t kSampleMicros = 200'000;
constexpr int64_t kCatchUpSampleMicros = 20'000;

}  // namespace

ReplicaWatch::ReplicaWatch(client::Client& client) : client_(client) {
  thread_ = std::thread([this] {
    while (!stop_.WaitFor(kSampleMicros)) Sample();
  });
}

ReplicaWatch::~ReplicaWatch() { (void)Stop(); }

void ReplicaWatch::Sample() {
  const auto status = client_.GetStatus();
  if (!status.ok()) return;
  MutexLock lock(&mutex_);
  for (const v1::ReplicaStatus& replica : status->replicas()) {
    Lag& lag = lags_[replica.node_id()];
    lag.min_records = std::min<uint64_t>(lag.min_records, replica.lag_records());
    lag.max_records = std::max<uint64_t>(lag.max_records, replica.lag_records());
  }
}

std::map<std::string, ReplicaWatch::Lag> ReplicaWatch::Stop() {
  stop_.Trigger();
  if (thread_.joinable()) thread_.join();
  MutexLock lock(&mutex_);
  return lags_;
}

std::optional<double> ReplicaWatch::WaitCaughtUp(const Interrupt& interrupt, int64_t timeout_us) {
  const auto begin = std::chrono::steady_clock::now();
  for (;;) {
    const auto status = client_.GetStatus();
    const auto passed = std::chrono::steady_clock::now() - begin;
    if (status.ok() && std::all_of(status->replicas().begin(), status->replicas().end(),
                                   [](const v1::ReplicaStatus& r) { return r.lag_records() == 0; })) {
      return std::chrono::duration<double>(passed).count();
    }
    if (passed >= std::chrono::microseconds(timeout_us) || interrupt.WaitFor(kCatchUpSampleMicros)) return std::nullopt;
  }
}

}  // namespace towline::ctl
