// Tests of the resync planner: each row of the table is reached by name.

#include <string>

#include "absl/strings/str_cat.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "primary/resync_planner.h"
#include "tests/support/format_doc.h"

namespace towline {
namespace {

constexpr char kCluster[] = "0123456789abcdef01234567";

// A primary p1 in term 2 with LSN 1 to 100: term 1 from LSN 1, term 2 from LSN 50. A replica r1 at LSN 80 of that line.
class PlannerTest : public ::testing::Test {
 protected:
  PlannerTest() {
    node_.node_id = "p1";
    node_.incarnation = 10;
    node_.cluster_id = kCluster;
    node_.is_primary = true;
    node_.term = 2;
    node_.history = {{1, 1, 0xa1}, {2, 50, 0xa2}};
    node_.data_generation = 1;
    log_.first_lsn = 1;
    log_.durable_lsn = 100;
    log_.bytes_from_first = 10'000;
    request_.protocol_version = kPullProtocolVersion;
    request_.slot = "r1";
    request_.incarnation = 20;
    request_.process_instance = 30;
    request_.cluster_id = kCluster;
    request_.history = node_.history;
    request_.lsn = 80;
    request_.chain = 0xc80;
    request_.first_retained_lsn = 1;
    log_.chain_at_request = 0xc80;
    slot_.emplace().name = "r1";
    slot_->generation = 1;
    slot_->confirmed_lsn = 80;
  }

  Plan Decide() const { return PlanResume(request_, slot_, node_, log_, options_); }

  void AsConsumer() {
    request_.kind = slots::SlotKind::kConsumer;
    request_.incarnation = 0;
    slot_->kind = slots::SlotKind::kConsumer;
  }

  // An owner of the line that forked off at LSN 61.
  void Diverge() { request_.history = {{1, 1, 0xa1}}; }

  void Expect(const char* row, Decision decision, const char* reason) const {
    const Plan plan = Decide();
    EXPECT_EQ(plan.row, row) << plan.reason;
    EXPECT_EQ(DecisionName(plan.decision), DecisionName(decision)) << plan.reason;
    EXPECT_EQ(plan.reason, reason);
    EXPECT_FALSE(plan.message.empty());
    EXPECT_NE(guide_.find(absl::StrCat("| ", row, " |")), std::string::npos) << row;
    EXPECT_NE(guide_.find(absl::StrCat("`", reason, "`")), std::string::npos) << reason << " is not in the guide";
    EXPECT_EQ(plan.numbers.at("durable_lsn"), std::to_string(log_.durable_lsn));
    EXPECT_EQ(plan.numbers.at("first_lsn"), std::to_string(log_.first_lsn));
    const bool waits = decision == Decision::kRefuse || decision == Decision::kRetryAfter;
    EXPECT_EQ(plan.retry_after_ms != 0, waits);
    EXPECT_EQ(plan.next_action.empty(), decision == Decision::kPartial);
    EXPECT_EQ(plan.from_lsn != 0, decision == Decision::kPartial);
  }

  ResumeRequest request_;
  std::optional<slots::Slot> slot_;
  NodeView node_;
  LogFacts log_;
  PlannerOptions options_;
  const std::string guide_ = test::ReadSourceFile("docs/guides/resync.md");
};

TEST_F(PlannerTest, Row0OtherProtocolVersion) {
  request_.protocol_version = 2;
  Expect("0", Decision::kRefuse, "protocol_version");
}

TEST_F(PlannerTest, Row0Self) {
  request_.incarnation = node_.incarnation;
  Expect("0", Decision::kRefuse, "self");
  request_.incarnation = 20;
  request_.slot = "p1";
  Expect("0", Decision::kRefuse, "self");
  AsConsumer();  // a consumer may call itself as it likes
  Expect("11", Decision::kPartial, "resumed");
}

TEST_F(PlannerTest, Row0Loop) {
  node_.is_primary = false;
  node_.upstream_path = {"r2", "r1", "r3"};
  Expect("0", Decision::kRefuse, "loop");
  EXPECT_THAT(Decide().message, ::testing::HasSubstr("r2, r1, r3"));
  node_.upstream_path = {"r2", "r11", "p0"};
  Expect("11", Decision::kPartial, "resumed");
  node_.upstream_path = {"r2", "r1"};
  node_.starting = true;  // it is one whatever the node does
  Expect("0", Decision::kRefuse, "loop");
  node_.starting = false;
  request_.temporary = true;  // takes back what it has lost, and goes
  EXPECT_NE(Decide().reason, "loop");
  request_.temporary = false;
  AsConsumer();  // nobody gets records from a consumer
  Expect("11", Decision::kPartial, "resumed");
}

TEST_F(PlannerTest, Row0PathTooLong) {
  node_.is_primary = false;
  for (size_t i = 1; i < kUpstreamPathMax; ++i) node_.upstream_path.push_back(absl::StrCat("n", i));
  Expect("11", Decision::kPartial, "resumed");  // with this node, 64
  node_.upstream_path.push_back("p0");
  Expect("0", Decision::kRefuse, "path_too_long");
  node_.upstream_path.back() = "r1";
  Expect("0", Decision::kRefuse, "loop");
  AsConsumer();
  Expect("11", Decision::kPartial, "resumed");
}

TEST_F(PlannerTest, Row0NotServing) {
  node_.starting = true;
  Expect("0", Decision::kRetryAfter, "starting");
  node_.starting = false;
  node_.exact = false;
  Expect("0", Decision::kRetryAfter, "not_exact");
}

TEST_F(PlannerTest, Row1Cluster) {
  request_.cluster_id = "ffffffffffffffffffffffff";
  Expect("1", Decision::kRefuse, "cluster_mismatch");
  request_.cluster_id = "";
  Expect("1", Decision::kRefuse, "malformed");
  request_.lsn = 0;
  request_.history.clear();
  request_.promised_term = 1;
  Expect("1", Decision::kRefuse, "malformed");
  request_.promised_term = 0;
  Expect("6", Decision::kPartial, "new_replica");
}

TEST_F(PlannerTest, Row1PositionThatDoesNotFitItsHistory) {
  request_.history.clear();
  Expect("1", Decision::kRefuse, "malformed");
  request_.history = {{2, 50, 0xa2}, {1, 60, 0xa1}};
  Expect("1", Decision::kRefuse, "malformed");
  request_.history = {{1, 1, 0xa1}, {2, 81, 0xa2}};
  Expect("1", Decision::kRefuse, "malformed");
  request_.history = node_.history;
  request_.from_slot = true;  // for consumers only
  Expect("1", Decision::kRefuse, "malformed");
}

TEST_F(PlannerTest, Row2HigherTermOnAPrimary) {
  request_.promised_term = 3;
  Expect("2", Decision::kRefuse, "stale_primary");
  EXPECT_FALSE(Decide().step_down);  // anybody can claim a term
  node_.members.members = {{"r1", 21, "", true}};
  EXPECT_FALSE(Decide().step_down);
  node_.members.members = {{"r1", 20, "", true}};
  EXPECT_TRUE(Decide().step_down);
  EXPECT_THAT(Decide().message, ::testing::HasSubstr("r1"));
  AsConsumer();
  request_.incarnation = 20;
  EXPECT_FALSE(Decide().step_down);
}

TEST_F(PlannerTest, Row2HigherTermOnAReplica) {
  node_.is_primary = false;
  request_.promised_term = 3;
  Expect("2", Decision::kRetryAfter, "upstream_behind");
  EXPECT_FALSE(Decide().step_down);
}

TEST_F(PlannerTest, Row3HigherLogTerm) {
  node_.term = 3;  // promised or opened, with nothing of it in the log
  request_.history.push_back({3, 70, 0xa3});
  Expect("3", Decision::kRefuse, "stale_upstream");
  node_.is_primary = false;
  Expect("3", Decision::kRetryAfter, "upstream_behind");
}

TEST_F(PlannerTest, Row3AnEmptySourceNeverEmptiesAnOwner) {
  node_.history.clear();
  log_ = {};
  log_.first_lsn = 1;
  Expect("3", Decision::kRefuse, "stale_upstream");
}

TEST_F(PlannerTest, Row4NoSlot) {
  slot_.reset();
  Expect("11", Decision::kPartial, "resumed");
  EXPECT_TRUE(Decide().create_slot);
  options_.auto_create_slots = false;
  Expect("4", Decision::kRefuse, "slot_not_found");
  EXPECT_FALSE(Decide().create_slot);
}

TEST_F(PlannerTest, Row4SlotOfTheOtherKind) {
  slot_->kind = slots::SlotKind::kConsumer;
  Expect("4", Decision::kRefuse, "slot_kind");
}

TEST_F(PlannerTest, Row5ExactOnlyAheadOfUs) {
  request_.exact_from = Position{2, 0xa2, 101, 0xe};
  Expect("5", Decision::kRefuse, "replica_ahead");
  EXPECT_TRUE(Decide().recovery_required);
  node_.is_primary = false;
  Expect("5", Decision::kRetryAfter, "upstream_behind");
  EXPECT_FALSE(Decide().recovery_required);
}

TEST_F(PlannerTest, Row5aInexact) {
  request_.exact_from = Position{2, 0xb2, 70, 0xe};  // another start of term 2
  Expect("5a", Decision::kFull, "inexact");
  request_.exact_from = Position{1, 0xa1, 70, 0xe};  // the term of an earlier record
  Expect("5a", Decision::kFull, "inexact");
  request_.exact_from = Position{2, 0xa2, 70, 0xe};
  log_.chain_at_exact_from = 0xf;
  Expect("5a", Decision::kFull, "inexact");
  log_.chain_at_exact_from = 0xe;
  Expect("11", Decision::kPartial, "resumed");
  log_.chain_at_exact_from.reset();  // not retained: the line decides
  Expect("11", Decision::kPartial, "resumed");
}

TEST_F(PlannerTest, Row5aConsumer) {
  AsConsumer();
  request_.exact_from = Position{2, 0xb2, 70, 0xe};
  Expect("5a", Decision::kRefuse, "inexact");
}

TEST_F(PlannerTest, Row6EmptyReplica) {
  request_.cluster_id = "";
  request_.history.clear();
  request_.lsn = 0;
  request_.chain.reset();
  log_.bytes_from_first = options_.replay_max_bytes;
  Expect("6", Decision::kPartial, "new_replica");
  EXPECT_EQ(Decide().from_lsn, 1u);
  log_.bytes_from_first = options_.replay_max_bytes + 1;
  Expect("6", Decision::kFull, "new_replica");
  log_.bytes_from_first = 10;
  log_.first_lsn = 2;
  Expect("6", Decision::kFull, "new_replica");
}

TEST_F(PlannerTest, Row6EmptyReplicaOfAnEmptyLog) {
  node_.history.clear();
  log_ = {};
  log_.first_lsn = 1;
  request_.history.clear();
  request_.lsn = 0;
  Expect("6", Decision::kPartial, "new_replica");
  log_.first_lsn = 501;  // loaded from a snapshot: everything is below the log
  log_.durable_lsn = 500;
  Expect("6", Decision::kFull, "new_replica");
}

TEST_F(PlannerTest, Row6EmptyConsumer) {
  AsConsumer();
  request_.history.clear();
  request_.lsn = 0;
  log_.bytes_from_first = options_.replay_max_bytes + 1;  // no matter for a consumer
  Expect("6", Decision::kPartial, "new_consumer");
  log_.first_lsn = 2;
  Expect("6", Decision::kRefuse, "wal_removed");
}

TEST_F(PlannerTest, Row7Ahead) {
  request_.lsn = 101;
  log_.chain_at_request.reset();
  Expect("7", Decision::kRefuse, "replica_ahead");
  EXPECT_TRUE(Decide().recovery_required);
  node_.is_primary = false;
  Expect("7", Decision::kRetryAfter, "upstream_behind");
}

TEST_F(PlannerTest, Row7ConsumerAhead) {
  AsConsumer();
  request_.lsn = 101;
  Expect("7", Decision::kRefuse, "ahead");
  EXPECT_FALSE(Decide().recovery_required);
  request_.history.clear();  // known by its word only
  request_.chain.reset();
  Expect("7", Decision::kRefuse, "ahead");
  node_.is_primary = false;
  Expect("7", Decision::kRetryAfter, "upstream_behind");
}

TEST_F(PlannerTest, Row7aRequested) {
  request_.snapshot_requested = true;
  Expect("7a", Decision::kFull, "requested");
  log_.first_lsn = 90;  // it would have been needed in any case
  Expect("7a", Decision::kFull, "requested");
  log_.first_lsn = 1;
  Diverge();
  Expect("7a", Decision::kFull, "requested");
  EXPECT_EQ(Decide().common_lsn, 49u);
  // Rows before it win: what must not be given up is not, and the primary's loss is told.
  request_.history = node_.history;
  request_.lsn = 150;
  Expect("7", Decision::kRefuse, "replica_ahead");
  request_.lsn = 80;
  request_.promised_term = 3;
  Expect("2", Decision::kRefuse, "stale_primary");
  request_.promised_term = 0;
  AsConsumer();  // it has no use for one
  Expect("11", Decision::kPartial, "resumed");
}

TEST_F(PlannerTest, Row8DivergedWithoutRewindPoint) {
  Diverge();
  Expect("8", Decision::kFull, "diverged");
  EXPECT_EQ(Decide().common_lsn, 49u);
}

TEST_F(PlannerTest, Row8Rewind) {
  Diverge();
  request_.oldest_rewind_lsn = 49;
  Expect("8", Decision::kRewind, "diverged");
  EXPECT_EQ(Decide().common_lsn, 49u);
  request_.oldest_rewind_lsn = 50;  // behind the common point
  Expect("8", Decision::kFull, "diverged");
  request_.oldest_rewind_lsn = 49;
  request_.first_retained_lsn = 50;
  Expect("8", Decision::kRewind, "diverged");
  request_.first_retained_lsn = 51;
  Expect("8", Decision::kFull, "diverged");
  request_.first_retained_lsn = 0;
  Expect("8", Decision::kFull, "diverged");
  request_.first_retained_lsn = 1;
  log_.first_lsn = 50;
  Expect("8", Decision::kRewind, "diverged");
  log_.first_lsn = 51;
  Expect("8", Decision::kFull, "diverged");
}

TEST_F(PlannerTest, Row8DivergedAndLongerThanWeAre) {
  Diverge();
  request_.lsn = 150;
  Expect("8", Decision::kFull, "diverged");
}

TEST_F(PlannerTest, Row8Consumer) {
  AsConsumer();
  Diverge();
  request_.oldest_rewind_lsn = 49;
  Expect("8", Decision::kRefuse, "diverged");
  EXPECT_EQ(Decide().common_lsn, 49u);
  EXPECT_EQ(Decide().numbers.at("common_lsn"), "49");
  EXPECT_EQ(Decide().numbers.at("first_lsn"), "1");
}

TEST_F(PlannerTest, Row9ChainDiffers) {
  log_.chain_at_request = 0xdead;
  Expect("9", Decision::kRefuse, "diverged_same_term");
  request_.chain.reset();
  Expect("11", Decision::kPartial, "resumed");
}

TEST_F(PlannerTest, Row10Removed) {
  log_.first_lsn = 81;
  Expect("11", Decision::kPartial, "resumed");
  log_.first_lsn = 82;
  log_.chain_at_request.reset();
  Expect("10", Decision::kFull, "wal_removed");
  slot_->state = slots::SlotState::kInvalidated;
  slot_->invalidation.emplace().cause = "retained_bytes";
  Expect("10", Decision::kFull, "retained_bytes");
  AsConsumer();
  Expect("10", Decision::kRefuse, "retained_bytes");
  slot_.reset();
  Expect("10", Decision::kRefuse, "wal_removed");
}

TEST_F(PlannerTest, Row10DamageAhead) {
  log_.damaged_lsn = 80;
  Expect("11", Decision::kPartial, "resumed");
  log_.damaged_lsn = 81;
  Expect("10", Decision::kFull, "wal_damaged");
  EXPECT_EQ(Decide().numbers.at("damaged_lsn"), "81");
  AsConsumer();
  Expect("10", Decision::kRefuse, "wal_damaged");
}

TEST_F(PlannerTest, DamageAheadIsNeitherReplayedNorRewoundTo) {
  log_.damaged_lsn = 50;
  Diverge();
  request_.oldest_rewind_lsn = 49;
  Expect("8", Decision::kFull, "diverged");
  log_.damaged_lsn = 49;
  Expect("8", Decision::kRewind, "diverged");
  request_.history.clear();
  request_.lsn = 0;
  Expect("6", Decision::kFull, "new_replica");
  AsConsumer();
  Expect("6", Decision::kRefuse, "wal_damaged");
}

TEST_F(PlannerTest, Row11Resumed) {
  Expect("11", Decision::kPartial, "resumed");
  EXPECT_EQ(Decide().from_lsn, 81u);
  EXPECT_FALSE(Decide().create_slot);
  request_.lsn = 100;
  Expect("11", Decision::kPartial, "resumed");
  EXPECT_EQ(Decide().from_lsn, 101u);
}

TEST_F(PlannerTest, Row11TheRequestedPositionDecides) {
  slot_->confirmed_lsn = 95;  // a wiped disk that came back older: never skipped forward
  Expect("11", Decision::kPartial, "resumed");
  EXPECT_EQ(Decide().from_lsn, 81u);
}

TEST_F(PlannerTest, Row11Revived) {
  slot_->state = slots::SlotState::kInvalidated;
  slot_->invalidation.emplace().cause = "idle_timeout";
  Expect("11", Decision::kPartial, "revived");
}

TEST_F(PlannerTest, AConsumerGoesOnBehindItsSlot) {
  AsConsumer();
  request_ = {};
  request_.protocol_version = kPullProtocolVersion;
  request_.slot = "c1";
  request_.kind = slots::SlotKind::kConsumer;
  request_.process_instance = 30;
  request_.from_slot = true;
  slot_->confirmed_lsn = 42;
  Expect("11", Decision::kPartial, "resumed");
  EXPECT_EQ(Decide().from_lsn, 43u);
  slot_->confirmed_lsn = 0;
  Expect("6", Decision::kPartial, "new_consumer");
  log_.first_lsn = 2;
  Expect("6", Decision::kRefuse, "wal_removed");

  slot_.reset();  // a new slot starts at the end
  Expect("11", Decision::kPartial, "resumed");
  EXPECT_EQ(Decide().from_lsn, 101u);
  EXPECT_TRUE(Decide().create_slot);
  options_.auto_create_slots = false;
  Expect("4", Decision::kRefuse, "slot_not_found");
}

}  // namespace
}  // namespace towline
