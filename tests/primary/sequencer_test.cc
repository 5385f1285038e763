// Tests of the write path up to the log: intake, overlay, sequencer, expiry.
//
// Goal     Conditions and expiries are decided as if every record before had been applied already, and nothing is
//          answered before it is appended and applied. Request ids: sequencer_requests_test.cc.
// Method   A group sink that a test holds back and releases, real state over MemoryStore, SimExecutor and FakeClock.
//          The random test compares outcomes with a plain map that decides one record after the other.

#include "primary/sequencer.h"

#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "common/error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "primary/expirer.h"
#include "primary/write_intake.h"
#include "tests/primary/sequencer_fixture.h"
#include "tests/support/status_matchers.h"
#include "towline/v1/change.pb.h"
#include "towline/v1/kv_service.pb.h"

namespace towline {
namespace {

using test::Delete;
using test::DeleteRange;
using test::IfExists;
using test::IfModified;
using test::IsOk;
using test::kTerm;
using test::kTermId;
using test::Put;
using test::ReasonIs;
using test::SequencerTest;
using test::TestJob;
using test::WithId;
using ::testing::ElementsAre;

TEST_F(SequencerTest, RecordsGetConsecutiveLsnsOfTheTerm) {
  const WriteOutcome first = Write(Put("a", "1"));
  const WriteOutcome second = Write(Put("b", "2"));
  EXPECT_EQ(first.position.lsn, 1u);
  EXPECT_EQ(second.position.lsn, 2u);
  EXPECT_EQ(second.position.term, kTerm);
  EXPECT_EQ(second.position.term_id, kTermId);
  EXPECT_EQ(second.position.chain, sink_->End().chain);
}

TEST_F(SequencerTest, NothingIsAnsweredBeforeItIsDurable) {
  sink_->Hold();
  const size_t put = Submit(Put("a", "1"));
  bool looked = false;
  sink_->OnAppend([&] {
    looked = true;
    EXPECT_FALSE(outcomes_[put].has_value());
    EXPECT_EQ(sequencer_->answered_lsn(), 0u);
  });
  executor_.RunUntilIdle();
  EXPECT_TRUE(looked);
  EXPECT_THAT(outcomes_[put].value().status, IsOk());
}

TEST_F(SequencerTest, WhoReadsIsToldWhatWasAnsweredButIsNotApplied) {
  sink_->Hold();
  Write(Put("a", "1"));
  EXPECT_EQ(sequencer_->answered_lsn(), 1u);
  EXPECT_EQ(state_->applied().lsn, 0u);
  sink_->Release();
  EXPECT_EQ(state_->applied().lsn, sequencer_->answered_lsn());
  // A refusal is in no log.
  Write(IfExists(Put("a", "2"), "a", false));
  EXPECT_EQ(sequencer_->answered_lsn(), 1u);
}

TEST_F(SequencerTest, AllThatIsQueuedGoesIntoOneGroup) {
  for (int i = 0; i < 10; ++i) Submit(Put("k" + std::to_string(i), "v"));
  executor_.RunUntilIdle();
  EXPECT_EQ(sink_->groups(), 1);
}

TEST_F(SequencerTest, ABurstWaitsForItsKick) {
  executor_.RunUntilIdle();  // the loop's first step
  for (int i = 0; i < 10; ++i) {
    std::unique_ptr<WriteJob> job =
        std::make_unique<TestJob>(Put("k" + std::to_string(i), "v"), NowMs(), &outcomes_.emplace_back());
    ASSERT_THAT(sequencer_->Submit(&job, Sequencer::Wake::kAtKick), IsOk());
    executor_.RunUntilIdle();
  }
  EXPECT_EQ(sink_->groups(), 0);
  sequencer_->Kick();
  executor_.RunUntilIdle();
  EXPECT_EQ(sink_->groups(), 1);
  EXPECT_THAT(outcomes_[9].value().status, IsOk());
}

TEST_F(SequencerTest, AStopDoesNotWaitForTheStore) {
  sink_->Hold();
  Write(Put("a", "1"));
  Write(Put("b", "1"));
  sequencer_->Stop();
  sequencer_.reset();
  // A store that finds space again applies what it has; one that is closed drops it.
  sink_->ApplyOne();
  sink_->Drop();
  EXPECT_EQ(state_->applied().lsn, 1u);
  sink_ = std::make_unique<test::HeldSink>(*state_);
  MakeSequencer({});
}

TEST_F(SequencerTest, NothingIsAnsweredWhileItIsHeld) {
  sequencer_->Hold();
  const size_t put = Submit(Put("a", "1"));
  executor_.RunUntilIdle();
  EXPECT_EQ(sink_->End().lsn, 1u) << "the log goes on";
  EXPECT_FALSE(outcomes_[put].has_value());
  EXPECT_FALSE(sequencer_->idle());
  sequencer_->Release();
  EXPECT_THAT(outcomes_[put].value().status, IsOk());
  EXPECT_TRUE(sequencer_->idle());
}

TEST_F(SequencerTest, WhatIsClosedSaysWhetherItIsInTheLog) {
  const absl::Status stale = MakeError(absl::StatusCode::kFailedPrecondition, "stale_primary", "term 4 is promised");
  sequencer_->Hold();
  const size_t logged = Submit(Put("a", "1"));
  executor_.RunUntilIdle();
  const size_t queued = Submit(Put("b", "2"));
  sequencer_->Close(stale);
  EXPECT_THAT(outcomes_[queued].value().status, ReasonIs("stale_primary"));
  EXPECT_EQ(GetErrorInfo(outcomes_[queued].value().status).metadata.at("outcome"), "not_logged");
  const ErrorInfo info = GetErrorInfo(outcomes_[logged].value().status);
  EXPECT_EQ(info.reason, "stale_primary");
  EXPECT_EQ(info.metadata.at("outcome"), "unknown");
  EXPECT_EQ(info.metadata.at("lsn"), "1");
  EXPECT_EQ(sink_->End().lsn, 1u);

  std::unique_ptr<WriteJob> late = std::make_unique<TestJob>(Put("c", "3"), NowMs(), &outcomes_.emplace_back());
  EXPECT_THAT(sequencer_->Submit(&late), ReasonIs("stale_primary"));
}

TEST_F(SequencerTest, WhatIsHeldWhenItIsClosedIsNotAcknowledged) {
  sequencer_->Hold();
  const size_t put = Submit(Put("a", "1"));
  executor_.RunUntilIdle();
  sequencer_->Close(MakeError(absl::StatusCode::kFailedPrecondition, "stale_primary", "term 4 is promised"));
  EXPECT_EQ(GetErrorInfo(outcomes_[put].value().status).metadata.at("outcome"), "unknown");
}

TEST_F(SequencerTest, APauseRefusesNewWritesOnly) {
  sink_->Hold();
  const size_t put = Submit(Put("a", "1"));
  sequencer_->Pause(MakeError(absl::StatusCode::kUnavailable, "switchover", "the primary hands over"));
  std::unique_ptr<WriteJob> refused = std::make_unique<TestJob>(Put("b", "2"), NowMs(), &outcomes_.emplace_back());
  const absl::Status status = sequencer_->Submit(&refused);
  EXPECT_THAT(status, ReasonIs("switchover"));
  EXPECT_EQ(GetErrorInfo(status).metadata.at("outcome"), "not_logged");
  executor_.RunUntilIdle();
  sink_->Release();
  EXPECT_THAT(outcomes_[put].value().status, IsOk());
  sequencer_->Unpause();
  EXPECT_THAT(Write(Put("c", "3")).status, IsOk());
}

TEST_F(SequencerTest, AnswersAfterAStandstillAreHeld) {
  Standstill standstill(clock_, 1'000'000);
  SequencerOptions options;
  options.standstill = &standstill;
  MakeSequencer(options);
  EXPECT_THAT(Write(Put("a", "1")).status, IsOk());
  clock_.Suspend(1'000'001);
  const size_t put = Submit(Put("b", "2"));
  executor_.RunUntilIdle();
  EXPECT_FALSE(outcomes_[put].has_value());
  EXPECT_GT(standstill.Beat(), 1'000'000);
  EXPECT_EQ(standstill.Beat(), 0);
  sequencer_->Release();
  EXPECT_THAT(outcomes_[put].value().status, IsOk());
  sequencer_->Stop();
  sequencer_.reset();
  MakeSequencer({});
}

TEST_F(SequencerTest, ConditionsSeeRecordsThatAreNotAppliedYet) {
  sink_->Hold();
  Submit(Put("a", "1"));
  executor_.RunUntilIdle();
  const size_t absent = Submit(IfExists(Put("a", "2"), "a", false));
  const size_t version = Submit(IfModified(Put("a", "3"), "a", 1));
  const size_t stale = Submit(IfModified(Put("a", "4"), "a", 1));
  executor_.RunUntilIdle();
  EXPECT_EQ(state_->applied().lsn, 0u);
  EXPECT_THAT(outcomes_[absent].value().status, ReasonIs("condition_failed"));
  EXPECT_EQ(outcomes_[version].value().position.lsn, 2u);
  EXPECT_THAT(outcomes_[stale].value().status, ReasonIs("condition_failed"));
}

TEST_F(SequencerTest, ConditionsSeeDeleteRangesInFlight) {
  Write(Put("b", "1"));
  sink_->Hold();
  Submit(Put("c", "1"));
  Submit(DeleteRange("a", "d"));
  const size_t b = Submit(IfExists(Put("x", "1"), "b", true));
  const size_t c = Submit(IfExists(Put("x", "1"), "c", true));
  Submit(Put("c", "2"));
  const size_t again = Submit(IfExists(Put("x", "1"), "c", true));
  executor_.RunUntilIdle();
  sink_->Release();
  EXPECT_THAT(outcomes_[b].value().status, ReasonIs("condition_failed"));
  EXPECT_THAT(outcomes_[c].value().status, ReasonIs("condition_failed"));
  EXPECT_THAT(outcomes_[again].value().status, IsOk());
}

TEST_F(SequencerTest, AFullDiskRefusesTheGroupAndLeavesNoTraceOfIt) {
  sink_->FailNext(MakeError(absl::StatusCode::kResourceExhausted, "disk_full", "no space"));
  EXPECT_THAT(Write(WithId(Put("a", "1"), "c1", 1)).status, ReasonIs("disk_full"));
  EXPECT_THAT(fatal_, IsOk());
  // Neither the key nor the request id of the refused record is known.
  EXPECT_THAT(Write(IfExists(Put("a", "2"), "a", false)).status, IsOk());
  EXPECT_FALSE(Write(WithId(Put("b", "1"), "c1", 1)).duplicate);
}

TEST_F(SequencerTest, AFailedLogEndsEverything) {
  sink_->FailNext(MakeError(absl::StatusCode::kDataLoss, "wal_poisoned", "sync failed"));
  EXPECT_THAT(Write(Put("a", "1")).status, ReasonIs("wal_poisoned"));
  EXPECT_THAT(fatal_, ReasonIs("wal_poisoned"));
  EXPECT_THAT(Write(Put("a", "1")).status, ReasonIs("wal_poisoned"));
  EXPECT_EQ(sink_->End().lsn, 0u);
}

TEST_F(SequencerTest, TheQueueIsBoundedUntilWritesAreApplied) {
  SequencerOptions options;
  options.queue_bytes_max = 4096;
  MakeSequencer(options);
  sink_->Hold();
  const size_t first = Submit(Put("a", std::string(3000, 'x')));
  std::optional<WriteOutcome> never;
  std::unique_ptr<WriteJob> job = std::make_unique<TestJob>(Put("b", std::string(3000, 'x')), NowMs(), &never);
  EXPECT_THAT(sequencer_->Submit(&job), ReasonIs("queue_full"));
  ASSERT_NE(job, nullptr);  // not taken
  int notified = 0;
  sequencer_->NotifySpace([&] { ++notified; });
  executor_.RunUntilIdle();
  EXPECT_THAT(outcomes_[first].value().status, IsOk());
  ASSERT_THAT(sequencer_->Submit(&job), ReasonIs("queue_full"));
  EXPECT_EQ(notified, 0);
  sequencer_->Hold();
  sink_->Release();
  EXPECT_EQ(notified, 1);
  EXPECT_THAT(sequencer_->Submit(&job), IsOk());
  executor_.RunUntilIdle();
  EXPECT_FALSE(never.has_value());
  // Applied, but not answered: still there.
  std::optional<WriteOutcome> third;
  job = std::make_unique<TestJob>(Put("c", std::string(3000, 'x')), NowMs(), &third);
  EXPECT_THAT(sequencer_->Submit(&job), ReasonIs("queue_full"));
  sequencer_->NotifySpace([&] { ++notified; });
  sequencer_->Release();
  EXPECT_TRUE(never.has_value());
  EXPECT_EQ(notified, 2);
}

TEST_F(SequencerTest, NobodyWaitsForTheSpaceOfAClosedQueue) {
  sink_->Hold();
  Write(Put("a", "1"));
  int notified = 0;
  sequencer_->NotifySpace([&] { ++notified; });
  EXPECT_EQ(notified, 0);
  sequencer_->Close(MakeError(absl::StatusCode::kFailedPrecondition, "stale_primary", "term 4 is promised"));
  EXPECT_EQ(notified, 1);
  sequencer_->NotifySpace([&] { ++notified; });
  EXPECT_EQ(notified, 2);
  EXPECT_EQ(sequencer_->answered_lsn(), 0u) << "what it answered may be given up";
}

TEST_F(SequencerTest, AnExpiredKeyDoesNotExistForConditions) {
  Write(Put("a", "1", NowMs() + 1000));
  EXPECT_THAT(Write(IfExists(Put("x", "1"), "a", true)).status, IsOk());
  clock_.Advance(1'000'000);
  EXPECT_THAT(Write(IfExists(Put("x", "2"), "a", true)).status, ReasonIs("condition_failed"));
}

TEST_F(SequencerTest, TheExpirerDeletesWhatIsDueAndNothingElse) {
  Write(Put("due", "1", NowMs() + 1000));
  Write(Put("later", "1", NowMs() + 60'000));
  Write(Put("renewed", "1", NowMs() + 1000));
  Write(Put("renewed", "2"));
  test::FakeClock& clock = clock_;
  Expirer expirer(*sequencer_, *state_, executor_, clock, *NullLogger(), 500'000);
  executor_.AdvanceTime(3'000'000);
  EXPECT_EQ(expirer.deleted_total(), 1u);
  EXPECT_FALSE(state_->Get("due", 0)->has_value());
  EXPECT_TRUE(state_->Get("later", 0)->has_value());
  EXPECT_EQ(state_->Get("renewed", 0)->value().value, "2");
}

TEST_F(SequencerTest, TheExpirerAsksOnceForWhatIsOnItsWay) {
  Write(Put("due", "1", NowMs() + 1000));
  sink_->Hold();
  Expirer expirer(*sequencer_, *state_, executor_, clock_, *NullLogger(), 500'000);
  executor_.AdvanceTime(3'000'000);
  EXPECT_EQ(expirer.deleted_total(), 1u);
  EXPECT_EQ(sequencer_->stats().refused_total, 0u);
  EXPECT_TRUE(state_->Get("due", 0)->has_value());
  sink_->Release();
  Write(Put("next", "1", NowMs() + 1000));
  executor_.AdvanceTime(3'000'000);
  EXPECT_EQ(expirer.deleted_total(), 2u);
}

// The plain model: decides records one after the other on a map.
class Model {
 public:
  bool Accept(const v1::WriteRequest& request, Lsn lsn) {
    for (const v1::Condition& condition : request.conditions()) {
      const auto it = modified_.find(condition.key());
      const bool exists = it != modified_.end();
      if (condition.test_case() == v1::Condition::kExists ? exists != condition.exists()
                                                          : !exists || it->second != condition.modified_lsn()) {
        return false;
      }
    }
    for (const v1::Operation& op : request.operations()) {
      if (op.has_put()) modified_[op.put().key()] = lsn;
      if (op.has_delete_()) modified_.erase(op.delete_().key());
      if (op.has_delete_range()) {
        modified_.erase(modified_.lower_bound(op.delete_range().begin()),
                        modified_.lower_bound(op.delete_range().end()));
      }
    }
    return true;
  }

 private:
  std::map<std::string, Lsn> modified_;
};

TEST_F(SequencerTest, DecisionsEqualThoseOfAModelWhateverIsInFlight) {
  std::mt19937 random(4711);
  const auto pick = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
  const auto key = [&] { return std::string(1, static_cast<char>('a' + pick(6))); };
  Model model;
  Lsn next_lsn = 1;
  std::vector<std::pair<size_t, Lsn>> expected;  // outcome index, LSN or 0
  for (int i = 0; i < 3000; ++i) {
    v1::WriteRequest request;
    switch (pick(4)) {
      case 0:
        request = Delete(key());
        break;
      case 1:
        request = DeleteRange("b", "e");
        if (pick(2) == 0) *request.add_operations() = Put(key(), "in the same record").operations(0);
        break;
      default:
        request = Put(key(), "v");
        if (pick(4) == 0) *request.add_operations() = DeleteRange("a", "c").operations(0);
    }
    if (pick(2) == 0) request = IfExists(std::move(request), key(), pick(2) == 0);
    if (pick(3) == 0) request = IfModified(std::move(request), key(), std::max<Lsn>(1, next_lsn - 1 - Lsn(pick(4))));
    const bool accepted = model.Accept(request, next_lsn);
    expected.emplace_back(Submit(std::move(request)), accepted ? next_lsn : 0);
    next_lsn += accepted ? 1 : 0;
    if (pick(5) == 0) executor_.RunUntilIdle();
    if (pick(20) == 0) sink_->Hold();
    if (pick(20) == 0) sink_->Release();
  }
  executor_.RunUntilIdle();
  sink_->Release();
  for (const auto& [index, lsn] : expected) {
    ASSERT_TRUE(outcomes_[index].has_value());
    const WriteOutcome& outcome = *outcomes_[index];
    ASSERT_EQ(outcome.status.ok() ? outcome.position.lsn : 0, lsn) << "record " << index;
  }
}

TEST(WriteIntakeTest, RefusesWhatCannotBeLogged) {
  const auto build = [](const v1::WriteRequest& request, uint64_t limit = kRecordSizeMaxDefault) {
    WriteRecord record;
    return BuildWriteRecord(request, 1000, limit, &record);
  };
  EXPECT_THAT(build(v1::WriteRequest()), ReasonIs("empty_write"));
  EXPECT_THAT(build(Put("", "v")), ReasonIs("invalid_key"));
  EXPECT_THAT(build(Put(std::string(65536, 'k'), "v")), IsOk());
  EXPECT_THAT(build(Put(std::string(65537, 'k'), "v")), ReasonIs("invalid_key"));
  EXPECT_THAT(build(DeleteRange("b", "a")), ReasonIs("invalid_range"));
  EXPECT_THAT(build(DeleteRange("a", "a")), ReasonIs("invalid_range"));
  EXPECT_THAT(build(DeleteRange("", "")), IsOk());
  EXPECT_THAT(build(Put("a", std::string(2000, 'v')), 1000), ReasonIs("record_too_large"));
  EXPECT_THAT(build(WithId(Put("a", "v"), "Bad Name", 1)), ReasonIs("invalid_name"));
  EXPECT_THAT(build(WithId(Put("a", "v"), "c", 0)), ReasonIs("invalid_request_id"));
  v1::WriteRequest both = Put("a", "v", 5000);
  both.mutable_operations(0)->mutable_put()->set_ttl_ms(5);
  EXPECT_THAT(build(both), ReasonIs("invalid_ttl"));
  v1::WriteRequest no_kind;
  no_kind.add_operations();
  EXPECT_THAT(build(no_kind), ReasonIs("empty_operation"));
}

TEST(WriteIntakeTest, ThePayloadIsTheEncodedChangeWithAbsoluteExpiry) {
  v1::WriteRequest request = WithId(Put("a", "v"), "c1", 9);
  request.mutable_operations(0)->mutable_put()->set_ttl_ms(500);
  *request.add_operations() = Delete("b").operations(0);
  WriteRecord record;
  ASSERT_THAT(BuildWriteRecord(request, 1000, kRecordSizeMaxDefault, &record), IsOk());
  v1::Change change;
  ASSERT_TRUE(change.ParseFromString(record.payload));
  ASSERT_EQ(change.batch().operations_size(), 2);
  EXPECT_EQ(change.batch().operations(0).put().expire_at_ms(), 1500u);
  EXPECT_EQ(change.batch().operations(0).put().ttl_ms(), 0u);
  EXPECT_EQ(change.batch().operations(1).delete_().key(), "b");
  EXPECT_EQ(change.batch().request_id().client_id(), "c1");
  EXPECT_EQ(change.batch().request_id().sequence(), 9u);
  // The same bytes as protobuf itself would write.
  EXPECT_EQ(change.SerializeAsString(), record.payload);
}

}  // namespace
}  // namespace towline
