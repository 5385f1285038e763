// Tests of what is read out of TERM_START and Members records.

#include "replica/log_history.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/replica/log_maker.h"
#include "tests/support/status_matchers.h"
#include "towline/v1/change.pb.h"

namespace towline::test {
namespace {

using ::testing::ElementsAre;

std::string TermStartPayload(uint64_t term, uint64_t term_id) {
  v1::Change change;
  change.mutable_term_start()->set_term(term);
  change.mutable_term_start()->set_term_id(term_id);
  change.mutable_term_start()->set_cluster_id(kCluster);
  return change.SerializeAsString();
}

TEST(LogHistoryTest, TermStartsInTheLogExtendWhatControlKnows) {
  const History control = {{1, 1, 11}};
  EXPECT_THAT(HistoryWith(control, {{1, TermStartPayload(1, 11)}, {40, TermStartPayload(3, 33)}}),
              IsOkAndHolds(ElementsAre(HistoryEntry{1, 1, 11}, HistoryEntry{3, 40, 33})));
}

TEST(LogHistoryTest, TheLogWinsOverControlFromItsTermStartOn) {
  const History control = {{1, 1, 11}, {2, 40, 22}, {3, 60, 33}};
  EXPECT_THAT(HistoryWith(control, {{40, TermStartPayload(2, 99)}}),
              IsOkAndHolds(ElementsAre(HistoryEntry{1, 1, 11}, HistoryEntry{2, 40, 99})));
}

TEST(LogHistoryTest, PayloadsThatStartNoTermAreRefused) {
  EXPECT_THAT(DecodeTermStart(1, "\xff\xff"), ReasonIs("bad_term_start"));
  EXPECT_THAT(DecodeTermStart(1, TermStartPayload(0, 1)), ReasonIs("bad_term_start"));
  EXPECT_THAT(DecodeTermStart(1, TermStartPayload(1, 0)), ReasonIs("bad_term_start"));
  EXPECT_THAT(DecodeTermStart(1, TermStartPayload(uint64_t{1} << 32, 1)), ReasonIs("bad_term_start"));
  v1::Change batch;
  batch.mutable_batch();
  EXPECT_THAT(DecodeTermStart(1, batch.SerializeAsString()), ReasonIs("bad_term_start"));
}

TEST(LogHistoryTest, MembersMustBeWhatControlCanHold) {
  const auto encode = [](const std::string& first, const std::string& second, uint64_t incarnation) {
    v1::Change change;
    for (const std::string& name : {first, second}) {
      v1::Member& member = *change.mutable_members()->add_members();
      member.set_node_id(name);
      member.set_incarnation(incarnation);
      member.set_address("127.0.0.1:7700");
      member.set_counting(true);
    }
    return change.SerializeAsString();
  };
  TOWLINE_ASSERT_OK_AND_ASSIGN(const MemberList list, DecodeMembers(encode("a", "b", 3)));
  EXPECT_THAT(list.members,
              ElementsAre(MemberInfo{"a", 3, "127.0.0.1:7700", true}, MemberInfo{"b", 3, "127.0.0.1:7700", true}));
  EXPECT_THAT(DecodeMembers(encode("b", "a", 3)), ReasonIs("bad_members"));
  EXPECT_THAT(DecodeMembers(encode("a", "a", 3)), ReasonIs("bad_members"));
  EXPECT_THAT(DecodeMembers(encode("a", "B/..", 3)), ReasonIs("bad_members"));
  EXPECT_THAT(DecodeMembers(encode("a", "b", 0)), ReasonIs("bad_members"));
  EXPECT_THAT(DecodeMembers(TermStartPayload(1, 1)), ReasonIs("bad_members"));
}

TEST(LogHistoryTest, APositionNeedsItsTermInTheHistory) {
  const History history = {{1, 1, 11}, {3, 40, 33}};
  EXPECT_THAT(PositionAt(history, {39, 1, 5, 0}), IsOkAndHolds(Position{1, 11, 39, 5}));
  EXPECT_THAT(PositionAt(history, {40, 3, 6, 0}), IsOkAndHolds(Position{3, 33, 40, 6}));
  EXPECT_THAT(PositionAt(history, {0, 0, 0, 0}), IsOkAndHolds(Position{}));
  EXPECT_THAT(PositionAt(history, {40, 1, 6, 0}), ReasonIs("unknown_term"));
  EXPECT_THAT(PositionAt({}, {1, 1, 6, 0}), ReasonIs("unknown_term"));
}

}  // namespace
}  // namespace towline::test
