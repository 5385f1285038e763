#include "ctl/drill_run.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "common/check.h"
#include "common/clock.h"
#include "common/error.h"

namespace towline::ctl {
namespace {

constexpr int64_t kAskMicros = 5'000'000;
constexpr int64_t kStopGraceMicros = 20'000'000;
constexpr uint32_t kServeWaitMillis = 200;
constexpr uint32_t kDigestWaitMillis = 20'000;
constexpr size_t kWarmWrites = 20;  // of each level, before anything goes wrong

int64_t Now() { return SystemClock()->MonotonicMicros(); }

// How many writes of the level were answered behind a moment, in a term or a later one.
size_t AnsweredSince(const std::vector<DrillWrite>& writes, DrillLevel level, int64_t since_us, uint64_t term) {
  return static_cast<size_t>(std::count_if(writes.begin(), writes.end(), [&](const DrillWrite& write) {
    return write.level == level && write.answered_us > since_us && write.position.term() >= term;
  }));
}

}  // namespace

DrillRun::DrillRun(const DrillOptions& options, const Interrupt& interrupt, LocalCluster* local,
                   std::vector<DrillNode> nodes, const DrillLoadOptions& load)
    : options_(options),
      interrupt_(interrupt),
      local_(local),
      nodes_(std::move(nodes)),
      primary_id_(nodes_[0].node_id),
      load_(load) {
  history_.id = load.id;
  history_.scenario = options.scenario;
  history_.value_bytes = load.value_bytes;
  history_.started_ms = SystemClock()->WallMicros() / 1000;
  history_.thresholds.rpo_replicas = options.rpo_max;
  if (options.judge_local) history_.thresholds.rpo_local = options.rpo_max_local;
  history_.thresholds.rto_us = options.rto_max_us;
  for (const DrillNode& node : nodes_) history_.nodes.push_back(absl::StrCat(node.node_id, " ", node.endpoint));
}

const DrillNode& DrillRun::node(const std::string& node_id) const {
  const auto found =
      std::find_if(nodes_.begin(), nodes_.end(), [&](const DrillNode& node) { return node.node_id == node_id; });
  TOWLINE_CHECK(found != nodes_.end());
  return *found;
}

std::vector<DrillNode> DrillRun::Others() const {
  std::vector<DrillNode> others;
  std::copy_if(nodes_.begin(), nodes_.end(), std::back_inserter(others),
               [this](const DrillNode& node) { return node.node_id != primary_id_; });
  return others;
}

absl::StatusOr<std::unique_ptr<client::Client>> DrillRun::Ask(const DrillNode& node) const {
  return AskFresh(node.endpoint, kAskMicros);
}

absl::Status DrillRun::Begin() {
  TOWLINE_ASSIGN_OR_RETURN(const auto client, Ask(primary()));
  TOWLINE_ASSIGN_OR_RETURN(const v1::GetStatusResponse status, client->GetStatus());
  history_.cluster_id = status.cluster_id();
  begin_lsn_ = status.wal().durable_lsn();
  load_.Start();
  TOWLINE_RETURN_IF_ERROR(WaitAnswered(DrillLevel::kReplicas, kWarmWrites));
  TOWLINE_RETURN_IF_ERROR(WaitAnswered(DrillLevel::kLocal, kWarmWrites));
  if (!interrupt_.WaitFor(options_.before_us)) return absl::OkStatus();
  return MakeError(absl::StatusCode::kCancelled, "interrupted", "the drill was interrupted before anything happened");
}

void DrillRun::Inject() {
  for (const DrillNode& node : nodes_) {
    const auto client = Ask(node);
    if (!client.ok()) continue;
    auto counts = ReadResyncs(**client);
    if (counts.ok()) resyncs_before_[node.node_id] = *std::move(counts);
  }
  history_.injected_us = Now();
}

void DrillRun::Mark(const std::string& phase) { history_.marks.push_back({phase, Now()}); }

absl::Status DrillRun::Wait(const std::string& what, const std::function<absl::StatusOr<bool>()>& done) {
  return WaitUntil(interrupt_, options_.phase_timeout_us, what, done);
}

absl::Status DrillRun::WaitWrites(const std::string& what,
                                  const std::function<bool(const std::vector<DrillWrite>&)>& done) {
  if (load_.WaitFor(interrupt_, options_.phase_timeout_us, done)) return absl::OkStatus();
  if (interrupt_.triggered()) {
    return MakeError(absl::StatusCode::kCancelled, "interrupted", "the drill was interrupted");
  }
  return MakeError(absl::StatusCode::kDeadlineExceeded, "drill_timeout",
                   absl::StrCat("waited ", options_.phase_timeout_us / 1'000'000, " s in vain for: ", what));
}

absl::Status DrillRun::WaitDetected() {
  const int64_t since = history_.injected_us;
  return WaitWrites("a write that fails", [since](const std::vector<DrillWrite>& writes) {
    return std::any_of(writes.begin(), writes.end(),
                       [since](const DrillWrite& write) { return write.failed_us > since; });
  });
}

absl::Status DrillRun::WaitAnswered(DrillLevel level, size_t count, uint64_t term) {
  return WaitWrites("answered writes", [level, count, term, since = Now()](const std::vector<DrillWrite>& writes) {
    return AnsweredSince(writes, level, since, term) >= count;
  });
}

absl::Status DrillRun::WaitServes(const DrillNode& node, const std::string& phase) {
  TOWLINE_RETURN_IF_ERROR(WaitAnswered(DrillLevel::kReplicas, 1, history_.new_term_from));
  const std::optional<DrillWrite> write = load_.NewestAnswered();
  const absl::Status served = Wait(absl::StrCat(node.node_id, " shows a new write"), [&]() -> absl::StatusOr<bool> {
    TOWLINE_ASSIGN_OR_RETURN(const auto client, Ask(node));
    v1::GetRequest request;
    request.set_key(write->key);
    *request.mutable_min_position() = write->position;
    request.set_wait_ms(kServeWaitMillis);
    TOWLINE_ASSIGN_OR_RETURN(const v1::GetResponse response, client->Get(request));
    return response.has_entry();
  });
  if (served.ok() && !phase.empty()) Mark(phase);
  return served;
}

absl::Status DrillRun::End(const absl::Status& scenario) {
  if (!scenario.ok()) history_.failures.push_back(GetErrorInfo(scenario).message);
  if (scenario.ok() && interrupt_.WaitFor(options_.after_us)) {
    return MakeError(absl::StatusCode::kCancelled, "interrupted", "the drill was interrupted");
  }
  history_.ended_us = Now();
  load_.Stop(scenario.ok() ? kStopGraceMicros : 0);
  history_.writes = load_.TakeWrites();
  TOWLINE_ASSIGN_OR_RETURN(const auto client, Ask(primary()));
  TOWLINE_RETURN_IF_ERROR(ReadPresent(*client, &history_));
  TOWLINE_RETURN_IF_ERROR(ReadLogged(*client, begin_lsn_, &history_));
  if (local_ != nullptr) {
    for (const LocalNode& node : local_->nodes()) TOWLINE_RETURN_IF_ERROR(ReadQuarantine(node.data_dir, &history_));
  }
  TOWLINE_RETURN_IF_ERROR(CountResyncs());
  if (const absl::Status same = WaitSame(); !same.ok()) history_.failures.push_back(GetErrorInfo(same).message);
  return absl::OkStatus();
}

absl::Status DrillRun::CountResyncs() {
  const double since_injection = 1e-6 * static_cast<double>(Now() - history_.injected_us);
  for (const DrillNode& node : nodes_) {
    const auto client = Ask(node);
    const auto counts = client.ok() ? ReadResyncs(**client) : absl::StatusOr<ResyncCounts>(client.status());
    if (!counts.ok()) {
      history_.failures.push_back(absl::StrCat(node.node_id, " does not answer: ", counts.status().message()));
      continue;
    }
    // A process that is younger has counted from 0.
    const bool restarted = counts->uptime_seconds < since_injection;
    const ResyncCounts before = restarted ? ResyncCounts() : resyncs_before_[node.node_id];
    for (const auto& [key, count] : counts->by_reason) {
      const auto earlier = before.by_reason.find(key);
      const uint64_t added = count - (earlier == before.by_reason.end() ? 0 : earlier->second);
      if (added > 0) history_.resyncs[key] += added;
    }
  }
  return absl::OkStatus();
}

absl::Status DrillRun::WaitSame() {
  // The primary writes a record of its own now and then, which passes a position by.
  return Wait("equal digests on all nodes", [this]() -> absl::StatusOr<bool> {
    TOWLINE_ASSIGN_OR_RETURN(const auto client, Ask(primary()));
    TOWLINE_ASSIGN_OR_RETURN(const v1::GetDigestResponse expected, client->GetDigest(v1::GetDigestRequest()));
    for (const DrillNode& node : Others()) {
      TOWLINE_ASSIGN_OR_RETURN(const auto other, Ask(node));
      v1::GetDigestRequest request;
      request.set_at_lsn(expected.position().lsn());
      request.set_timeout_ms(kDigestWaitMillis);
      TOWLINE_ASSIGN_OR_RETURN(const v1::GetDigestResponse digest, other->GetDigest(request));
      if (digest.digest() != expected.digest() || digest.position().chain() != expected.position().chain()) {
        return MakeError(absl::StatusCode::kDataLoss, "digests_differ",
                         absl::StrCat(node.node_id, " has digest ", digest.digest(), " at LSN ",
                                      expected.position().lsn(), ", ", primary_id_, " has ", expected.digest()));
      }
    }
    return true;
  });
}

absl::Status DrillRun::DeleteKeys() {
  const std::string prefix = DrillPrefix(history_.id);
  v1::WriteRequest request;
  v1::DeleteRange* range = request.add_operations()->mutable_delete_range();
  range->set_begin(prefix);
  range->set_end(absl::StrCat(prefix.substr(0, prefix.size() - 1), "0"));  // '0' follows '/'
  TOWLINE_ASSIGN_OR_RETURN(const auto client, Ask(primary()));
  return client->Write(request).status();
}

}  // namespace towline::ctl
