// Tests of replica::FrameIntake: a message is taken as a whole, or nothing of it is.

#include "replica/frame_intake.h"

#include <functional>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/replica/log_maker.h"
#include "tests/support/status_matchers.h"

namespace towline::test {
namespace {

constexpr Lsn kKnown = 3;  // the log in front of the intake
constexpr Lsn kEnd = 10;

class FrameIntakeTest : public ::testing::Test {
 protected:
  FrameIntakeTest() {
    log_.StartTerm(1, 11);
    log_.Puts(kEnd - 1);
  }

  FrameIntake NewIntake() const { return FrameIntake(log_.EndAt(kKnown), log_.history(), kCluster); }

  // Expects that a message is refused for `reason`, with nothing of it taken, behind a good one.
  void ExpectRefused(const v1::FrameBatch& bad, const std::string& reason) const {
    FrameIntake intake = NewIntake();
    ASSERT_THAT(intake.Add(log_.Batch(4, 5)), IsOk());
    EXPECT_THAT(intake.Add(bad), ReasonIs(reason));
    EXPECT_EQ(intake.end().lsn, 5u);
    EXPECT_EQ(intake.history(), log_.history());
    EXPECT_EQ(intake.Finish().frames->last_lsn(), 5u);
  }

  LogMaker log_;
};

TEST_F(FrameIntakeTest, MessagesBecomeOneGroup) {
  FrameIntake intake = NewIntake();
  ASSERT_THAT(intake.Add(log_.Batch(4, 6)), IsOk());
  ASSERT_THAT(intake.Add(log_.Batch(7, 10)), IsOk());
  EXPECT_EQ(intake.end().lsn, 10u);
  EXPECT_EQ(intake.end().chain, log_.EndAt(10).chain);
  const IntakeGroup group = intake.Finish();
  EXPECT_EQ(group.frames->first_lsn(), 4u);
  EXPECT_EQ(group.frames->last_lsn(), 10u);
  EXPECT_EQ(group.frames->frames.size(), 7u);
  EXPECT_EQ(group.frames->shipped(6), log_.shipped(10));
  EXPECT_FALSE(group.term_primary.has_value());
  EXPECT_TRUE(intake.empty());
}

TEST_F(FrameIntakeTest, WhatDoesNotFollowIsRefused) {
  ExpectRefused(log_.Batch(7, 10), "lsn_gap");
  ExpectRefused(log_.Batch(5, 10), "lsn_gap");
  ExpectRefused(v1::FrameBatch(), "lsn_gap");

  v1::FrameBatch renamed = log_.Batch(7, 10);  // says that it follows, and does not
  renamed.set_first_lsn(6);
  ExpectRefused(renamed, "lsn_gap");

  v1::FrameBatch hole = log_.Batch(6, 7);
  *hole.mutable_frames() = log_.shipped(6) + log_.shipped(8);
  ExpectRefused(hole, "lsn_gap");
}

TEST_F(FrameIntakeTest, AnotherLogIsRefused) {
  LogMaker other;
  other.StartTerm(1, 11);
  other.Put("another", "log");
  other.Puts(8);
  ExpectRefused(other.Batch(6, 8), "chain_mismatch");
}

TEST_F(FrameIntakeTest, ABitErrorAnywhereIsRefused) {
  const v1::FrameBatch good = log_.Batch(6, 7);
  const size_t size = good.frames().size();
  for (size_t byte = 0; byte < size; ++byte) {
    v1::FrameBatch bad = good;
    (*bad.mutable_frames())[byte] ^= 0x10;
    FrameIntake intake = NewIntake();
    ASSERT_THAT(intake.Add(log_.Batch(4, 5)), IsOk());
    EXPECT_FALSE(intake.Add(bad).ok()) << "byte " << byte;
    EXPECT_EQ(intake.end().lsn, 5u) << "byte " << byte;
  }
}

TEST_F(FrameIntakeTest, ACutMessageIsRefused) {
  v1::FrameBatch cut = log_.Batch(6, 7);
  cut.mutable_frames()->pop_back();
  ExpectRefused(cut, "bad_frame");
}

TEST_F(FrameIntakeTest, WhatTheMessageAnnouncesMustHold) {
  v1::FrameBatch batch = log_.Batch(6, 7);
  batch.set_chain_after(batch.chain_after() + 1);
  ExpectRefused(batch, "chain_mismatch");
  batch = log_.Batch(6, 7);
  batch.set_last_lsn(8);
  ExpectRefused(batch, "chain_mismatch");
}

TEST_F(FrameIntakeTest, FragmentsBecomeTheFrame) {
  const std::string value(3000, 'v');
  const Lsn lsn = log_.Put("large", value);
  const std::string shipped = log_.shipped(lsn);
  FrameIntake intake = NewIntake();
  ASSERT_THAT(intake.Add(log_.Batch(4, lsn - 1)), IsOk());
  for (size_t offset = 0; offset < shipped.size(); offset += 1000) {
    EXPECT_EQ(intake.end().lsn, lsn - 1);
    v1::FrameBatch fragment = log_.Batch(lsn, lsn);
    fragment.set_frames(shipped.substr(offset, 1000));
    fragment.set_fragment_offset(offset);
    fragment.set_fragment_total(shipped.size());
    ASSERT_THAT(intake.Add(fragment), IsOk());
  }
  EXPECT_EQ(intake.end().lsn, lsn);
  EXPECT_EQ(intake.Finish().frames->shipped(static_cast<size_t>(lsn - 4)), shipped);
}

TEST_F(FrameIntakeTest, FragmentsThatDoNotFitAreRefused) {
  const Lsn lsn = log_.Put("large", std::string(3000, 'v'));
  const std::string shipped = log_.shipped(lsn);
  v1::FrameBatch first = log_.Batch(lsn, lsn);
  first.set_frames(shipped.substr(0, 1000));
  first.set_fragment_total(shipped.size());

  const auto expect_refused = [&](const std::function<void(v1::FrameBatch&)>& change) {
    FrameIntake intake = NewIntake();
    ASSERT_THAT(intake.Add(log_.Batch(4, lsn - 1)), IsOk());
    ASSERT_THAT(intake.Add(first), IsOk());
    v1::FrameBatch second = log_.Batch(lsn, lsn);
    second.set_frames(shipped.substr(1000));
    second.set_fragment_offset(1000);
    second.set_fragment_total(shipped.size());
    change(second);
    EXPECT_THAT(intake.Add(second), ReasonIs("bad_fragment"));
    EXPECT_EQ(intake.end().lsn, lsn - 1);
  };
  expect_refused([](v1::FrameBatch& b) { b.set_fragment_offset(1001); });
  expect_refused([](v1::FrameBatch& b) { b.set_fragment_offset(0); });
  expect_refused([](v1::FrameBatch& b) { b.set_fragment_total(b.fragment_total() + 1); });
  expect_refused([](v1::FrameBatch& b) { b.mutable_frames()->append("x"); });
  expect_refused([](v1::FrameBatch& b) { b.clear_frames(); });
  expect_refused([](v1::FrameBatch& b) { b.set_last_lsn(b.first_lsn() + 1); });
  expect_refused([](v1::FrameBatch& b) { b.set_fragment_total(0); });  // a whole message in between
}

TEST_F(FrameIntakeTest, AFragmentTotalBeyondTheLimitIsRefusedAtOnce) {
  FrameIntake intake = NewIntake();
  v1::FrameBatch fragment = log_.Batch(4, 4);
  fragment.set_fragment_total(wal::kShippedHeaderSize + uint64_t{wal::kPayloadSizeMax} + 1);
  EXPECT_THAT(intake.Add(fragment), ReasonIs("bad_fragment"));
}

TEST_F(FrameIntakeTest, ANewTermExtendsTheHistory) {
  const Lsn start = log_.StartTerm(4, 44);
  log_.Members({"p1", "r1"});
  const Lsn end = log_.Puts(2);
  FrameIntake intake(log_.EndAt(start - 1), {{1, 1, 11}}, kCluster);
  ASSERT_THAT(intake.Add(log_.Batch(start, end)), IsOk());
  EXPECT_EQ(intake.history(), log_.history());
  const IntakeGroup group = intake.Finish();
  EXPECT_TRUE(group.term_primary.has_value());
  ASSERT_TRUE(group.members.has_value());
  EXPECT_EQ(group.members->members.size(), 2u);
  // It belongs to that group only.
  log_.Puts(1);
  ASSERT_THAT(intake.Add(log_.Batch(end + 1, end + 1)), IsOk());
  const IntakeGroup next = intake.Finish();
  EXPECT_FALSE(next.term_primary.has_value());
  EXPECT_FALSE(next.members.has_value());
}

TEST_F(FrameIntakeTest, TermsMustBeStartedAndMustNotFall) {
  v1::Change put;
  put.mutable_batch()->add_operations()->mutable_delete_()->set_key("k");
  const auto refuse = [](const LogMaker& log, const std::string& reason) {
    FrameIntake intake(log.EndAt(log.end_lsn() - 1), {{1, 1, 11}}, kCluster);
    EXPECT_THAT(intake.Add(log.Batch(log.end_lsn(), log.end_lsn())), ReasonIs(reason));
    EXPECT_TRUE(intake.empty());
  };
  LogMaker risen = log_;
  risen.Add(wal::RecordType::kBatch, 2, put.SerializeAsString());
  refuse(risen, "unknown_term");

  LogMaker repeated = log_;
  repeated.StartTerm(1, 12);
  refuse(repeated, "bad_term_start");

  LogMaker mistaken = log_;
  v1::Change start;
  start.mutable_term_start()->set_term(3);
  start.mutable_term_start()->set_term_id(33);
  mistaken.Add(wal::RecordType::kTermStart, 2, start.SerializeAsString());
  refuse(mistaken, "bad_term_start");

  LogMaker foreign(kOtherCluster);
  foreign.StartTerm(1, 11);
  FrameIntake intake({}, {}, kCluster);
  EXPECT_THAT(intake.Add(foreign.Batch(1, 1)), ReasonIs("cluster_mismatch"));

  LogMaker members = log_;
  members.Members({"b", "a"});
  refuse(members, "bad_members");
}

}  // namespace
}  // namespace towline::test
