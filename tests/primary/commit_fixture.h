// Writes that wait for replicas, without a log.

#ifndef TOWLINE_TESTS_PRIMARY_COMMIT_FIXTURE_H_
#define TOWLINE_TESTS_PRIMARY_COMMIT_FIXTURE_H_

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/types.h"
#include "primary/commit_tracker.h"

namespace towline::test {

// What became of one wait.
struct Outcome {
  int calls = 0;
  CommitResult result;
};

class RecordingWaiter final : public CommitWaiter {
 public:
  explicit RecordingWaiter(std::shared_ptr<Outcome> outcome) : outcome_(std::move(outcome)) {}
  void OnCommit(std::unique_ptr<CommitWaiter> self, const CommitResult& result) override {
    ++outcome_->calls;
    outcome_->result = result;
    self.reset();
  }

 private:
  const std::shared_ptr<Outcome> outcome_;
};

inline std::shared_ptr<Outcome> Await(CommitTracker& tracker, Lsn lsn, const CommitLevel& level) {
  auto outcome = std::make_shared<Outcome>();
  tracker.Await(lsn, lsn, level, 100, std::make_unique<RecordingWaiter>(outcome));
  return outcome;
}

inline CommitLevel Replicas(uint32_t replicas, CommitStage stage = CommitStage::kFlushed) {
  CommitLevel level;
  level.replicas = replicas;
  level.stage = stage;
  return level;
}

// "p" is the primary; the incarnation of a node is `incarnation`, 1 for all by default.
inline MemberList Members(const std::vector<std::string>& replicas, uint32_t min_replicas = 0) {
  MemberList list;
  list.min_replicas = min_replicas;
  list.members.push_back({"p", 1, "", true});
  for (const std::string& id : replicas) list.members.push_back({id, 1, "", true});
  return list;
}

inline ReplicaAck Ack(const std::string& node, Lsn flushed, std::optional<Lsn> applied = std::nullopt, Term term = 3,
                      uint64_t incarnation = 1, uint64_t session = 7) {
  return {node, incarnation, session, term, flushed, applied.value_or(flushed)};
}

}  // namespace towline::test

#endif  // TOWLINE_TESTS_PRIMARY_COMMIT_FIXTURE_H_
