// A replica that loads a large snapshot from a source that knows cursors, and may lose its snapshots.

#ifndef TOWLINE_TESTS_REPLICA_RESUME_FIXTURE_H_
#define TOWLINE_TESTS_REPLICA_RESUME_FIXTURE_H_

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/replica/replica_node.h"
#include "tests/replica/snapshot_maker.h"
#include "tests/support/status_matchers.h"
#include "towline/v1/change.pb.h"

namespace towline::test {

using Stream = std::vector<v1::FetchSnapshotResponse>;

inline constexpr size_t kChunkBytes = 128 << 10;
inline constexpr Lsn kFirstRead = 50;   // of the first snapshot
inline constexpr Lsn kSecondRead = 70;  // of the one after it
inline constexpr Lsn kLogEnd = 80;

class ResumeFixture : public ::testing::Test {
 protected:
  ResumeFixture() {
    log_.StartTerm(1, 11);
    log_.Puts(9);
    node_ = std::make_unique<ReplicaNode>();
    Script(*node_);
  }
  ~ResumeFixture() override { node_.reset(); }

  // The source. It sends at most `messages_` of each snapshot stream, if that is not 0.
  void Script(ReplicaNode& node) {
    node.upstream.on_pull = [this](FakePull& pull) {
      const Lsn next = pull.start().lsn() + 1;
      if (pull.start().snapshot_requested()) return pull.SendDecision(log_, v1::RESUME_DECISION_FULL, "requested");
      if (next < first_retained_) return pull.SendDecision(log_, v1::RESUME_DECISION_FULL, "wal_removed");
      pull.SendPartial(log_);
      const Lsn last = std::min(log_.end_lsn(), send_to_);
      if (next <= last) pull.SendFrames(log_.Batch(next, last));
    };
    node.upstream.on_snapshot = [this](FakeSnapshot& snapshot) {
      if (refusals_ > 0) {
        --refusals_;
        return snapshot.inbox.Close(refusal_);
      }
      snapshot.inbox.SetMessageMicros(60'000);
      if (files_) {
        return SendSome(snapshot, MakeFileSnapshot(log_, read_, snapshot.request, kChunkBytes, snapshot_id_));
      }
      const v1::PullStart& start = snapshot.request.start();
      const v1::SnapshotCursor& cursor = start.snapshot_cursor();
      Stream stream = start.has_snapshot_cursor()
                          ? MakeSnapshotRest(log_, cursor.position().lsn(), read_, cursor, kChunkBytes, snapshot_id_)
                          : MakeSnapshot(log_, read_, kChunkBytes, snapshot_id_);
      SendSome(snapshot, std::move(stream));
    };
  }

  void SendSome(FakeSnapshot& snapshot, Stream stream) {
    const size_t whole = stream.size();
    if (change_) change_(stream);
    const size_t sent = messages_ == 0 ? stream.size() : std::min(messages_, stream.size());
    for (size_t i = 0; i < sent; ++i) snapshot.inbox.Send(std::move(stream[i]));
    if (sent < whole) snapshot.inbox.Close(absl::UnavailableError("cut"));
  }

  // The replica has records 1 to 10; the log goes on to kLogEnd, with large values, changes of what the first snapshot
  // holds, a new term and new members behind it.
  void AttachAndFallBehind() {
    node_->Start(options_);
    ASSERT_TRUE(RunUntilApplied(10));
    while (log_.end_lsn() < kFirstRead) PutLarge();
    log_.Put("key-12", "changed");
    Delete("key-13");
    Delete("key-49");
    log_.StartTerm(2, 22);
    log_.Members({"p1", "r1"});
    while (log_.end_lsn() < kSecondRead) PutLarge();
    log_.Puts(static_cast<int>(kLogEnd - log_.end_lsn()));
    first_retained_ = 41;
    node_->pull().inbox.Close(absl::OkStatus());
  }

  void LoseSnapshot() {
    ++snapshot_id_;
    read_ = kSecondRead;
  }

  void PutLarge() {
    const Lsn lsn = log_.end_lsn() + 1;
    log_.Put(absl::StrCat("key-", lsn), std::string(60'000, static_cast<char>('a' + lsn % 26)));
  }
  void Delete(const std::string& key) {
    v1::Change change;
    change.mutable_batch()->add_operations()->mutable_delete_()->set_key(key);
    log_.Add(wal::RecordType::kBatch, log_.term(), change.SerializeAsString());
  }

  bool RunUntilApplied(Lsn lsn) {
    return node_->RunUntil([&] { return node_->applied_lsn() >= lsn; });
  }
  // What is durable of the snapshot.
  uint64_t DurableBytes() {
    const auto progress = node_->status().bootstrap;
    return progress.has_value() ? progress->durable_bytes : 0;
  }
  std::vector<std::shared_ptr<FakeSnapshot>>& streams() { return node_->upstream.snapshots; }

  void ExpectHoldsLog() {
    ASSERT_EQ(node_->live->state().applied(), log_.PositionAt(kLogEnd));
    TOWLINE_ASSERT_OK_AND_ASSIGN(const auto snapshot, node_->live->state().Snapshot());
    TOWLINE_ASSERT_OK_AND_ASSIGN(const StateDigest digest, snapshot->Digest());
    EXPECT_EQ(digest.sum, DigestOf(log_, kLogEnd).sum);
  }

  // The process is killed and starts again; without one it starts on disk_.
  void Restart() {
    std::unique_ptr<SimFileSystem> disk = node_ == nullptr ? std::move(disk_) : node_->fs.Clone();
    node_.reset();
    disk_ = std::move(disk);
    node_ = std::make_unique<ReplicaNode>(disk_.get());
    Script(*node_);
    node_->Start(options_);
  }

  ReplicaOptions options_ = TestReplicaOptions();
  LogMaker log_;
  Lsn first_retained_ = 1;
  Lsn send_to_ = kLogEnd;                    // records behind it are held back
  uint64_t snapshot_id_ = kFirstSnapshotId;  // the one that lives
  Lsn read_ = kFirstRead;                    // and its position
  size_t messages_ = 0;                      // of each stream; 0 = all
  bool files_ = false;                       // it sends files
  std::function<void(Stream&)> change_;      // what goes wrong with streams
  int refusals_ = 0;                         // streams to come that end with refusal_
  absl::Status refusal_;
  std::unique_ptr<SimFileSystem> disk_;
  std::unique_ptr<ReplicaNode> node_;
};

}  // namespace towline::test

#endif  // TOWLINE_TESTS_REPLICA_RESUME_FIXTURE_H_
