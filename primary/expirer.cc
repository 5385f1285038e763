#include "primary/expirer.h"

#include <string>
#include <utility>
#include <vector>

#include "primary/write_intake.h"

namespace towline {
namespace {

constexpr size_t kKeysPerJob = 1000;
constexpr int64_t kBusyMicros = 10'000;

}  // namespace

class Expirer::Job final : public WriteJob {
 public:
  Job(std::shared_ptr<Shared> shared, std::vector<StateStore::DueExpiry> due)
      : shared_(std::move(shared)), due_(std::move(due)) {
    records.resize(due_.size());
    for (size_t i = 0; i < due_.size(); ++i) {
      BuildDeleteRecord(due_[i].key, &records[i]);
      records[i].expired_key = due_[i].key;
    }
  }

  void OnDone(std::unique_ptr<WriteJob> self) override {
    uint64_t deleted = 0;
    for (const WriteRecord& record : records) {
      if (record.lsn == 0) continue;
      ++deleted;
      shared_->last_lsn.store(record.lsn);
    }
    shared_->deleted_total.fetch_add(deleted, std::memory_order_relaxed);
    shared_->in_flight.store(false);
    self.reset();
  }

 private:
  const std::shared_ptr<Shared> shared_;
  const std::vector<StateStore::DueExpiry> due_;
};

Expirer::Expirer(Sequencer& sequencer, StateStore& state, Executor& executor, Clock& clock, Logger& logger,
                 int64_t interval_micros)
    : sequencer_(sequencer), state_(state), clock_(clock), logger_(logger), interval_micros_(interval_micros) {
  loop_ = executor.Start("expirer", [this] { return Step(); });
}

Expirer::~Expirer() { Stop(); }

void Expirer::Stop() { loop_->Stop(); }

StepResult Expirer::Step() {
  // One job at a time: the index shows a key as due until its delete is applied.
  if (shared_->in_flight.load() || state_.applied().lsn < shared_->last_lsn.load()) {
    return StepResult::WaitFor(kBusyMicros);
  }
  const uint64_t now_ms = static_cast<uint64_t>(clock_.WallMicros()) / 1000;
  auto due = state_.DueExpiries(now_ms, kKeysPerJob);
  if (!due.ok()) {
    logger_.Log(LogLevel::kError, "expiry_failed", {{"error", due.status().message()}});
    return StepResult::WaitFor(interval_micros_);
  }
  if (due->empty()) return StepResult::WaitFor(interval_micros_);
  const bool more = due->size() == kKeysPerJob;
  std::unique_ptr<WriteJob> job = std::make_unique<Job>(shared_, *std::move(due));
  shared_->in_flight.store(true);
  if (const absl::Status submitted = sequencer_.Submit(&job); !submitted.ok()) {
    shared_->in_flight.store(false);
    return StepResult::WaitFor(interval_micros_);
  }
  return StepResult::WaitFor(more ? kBusyMicros : interval_micros_);
}

}  // namespace towline
