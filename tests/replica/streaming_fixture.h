// A replica that streams from a scripted upstream, for the tests of the streaming path.

#ifndef TOWLINE_TESTS_REPLICA_STREAMING_FIXTURE_H_
#define TOWLINE_TESTS_REPLICA_STREAMING_FIXTURE_H_

#include <memory>
#include <utility>

#include "gtest/gtest.h"
#include "tests/replica/log_maker.h"
#include "tests/replica/replica_node.h"

namespace towline::test {

class StreamingTest : public ::testing::Test {
 protected:
  StreamingTest() {
    log_.StartTerm(1, 11);
    log_.Puts(9);
    // A primary that resumes everybody and sends what they lack.
    node_->upstream.on_pull = [this](FakePull& pull) {
      pull.SendPartial(log_);
      if (pull.start().lsn() < log_.end_lsn()) pull.SendFrames(log_.Batch(pull.start().lsn() + 1, log_.end_lsn()));
    };
  }

  bool RunUntilApplied(Lsn lsn) {
    return node_->RunUntil([&] {
      return !node_->upstream.pulls.empty() && node_->applied_lsn() >= lsn &&
             node_->pull().last_ack().applied_lsn() >= lsn;
    });
  }

  // The process dies and comes back; on a disk that lost power if `crash`.
  void Restart(bool crash) {
    if (node_->own_fs != nullptr) disk_ = std::move(node_->own_fs);
    const auto on_pull = node_->upstream.on_pull;
    node_.reset();
    SeededRng rng(1);
    if (crash) {
      disk_->Crash(CrashProfile::kStrict, rng);
    } else {
      disk_->Reopen();
    }
    node_ = std::make_unique<ReplicaNode>(disk_.get());
    node_->upstream.on_pull = on_pull;
    node_->Start();
  }

  std::unique_ptr<SimFileSystem> disk_;
  LogMaker log_;
  std::unique_ptr<ReplicaNode> node_ = std::make_unique<ReplicaNode>();
};

}  // namespace towline::test

#endif  // TOWLINE_TESTS_REPLICA_STREAMING_FIXTURE_H_
