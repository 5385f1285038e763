// Tests of the promotion rules: which answers let a node become the primary.
//
// Goal     Every quorum that may promote meets every set of replicas that may have acknowledged a write, and every
// other
//          quorum that may promote.
// Method   Examples for each reason, and an exhaustive check over clusters of up to five nodes.

#include "server/promotion_rules.h"

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "common/error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"

namespace towline {
namespace {

using test::IsOk;
using test::ReasonIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kCluster[] = "0123456789abcdef01234567";

// A cluster p1, r1, r2, ... of `size` members; p1 is the primary of term 1.
v1::Standing Member(const std::string& node_id, Lsn lsn, int size = 3, uint32_t min_replicas = 0) {
  v1::Standing standing;
  standing.set_node_id(node_id);
  standing.set_cluster_id(kCluster);
  standing.set_incarnation(std::hash<std::string>()(node_id) | 1);
  standing.set_exact(true);
  standing.set_lsn(lsn);
  standing.set_term_primary("p1");
  standing.set_min_replicas(min_replicas);
  v1::HistoryEntry* const entry = standing.add_history();
  entry->set_term(1);
  entry->set_start_lsn(1);
  entry->set_term_id(0xa1);
  for (int i = 0; i < size; ++i) {
    v1::Member* const member = standing.add_members();
    member->set_node_id(i == 0 ? "p1" : "r" + std::to_string(i));
    member->set_incarnation(std::hash<std::string>()(member->node_id()) | 1);
    member->set_counting(true);
  }
  return standing;
}

PeerAnswer Says(const v1::Standing& standing) { return {standing.node_id(), "host:1", standing}; }
PeerAnswer Silent(const std::string& node_id) { return {node_id, "host:1", absl::UnavailableError("refused")}; }

absl::Status Check(const PromotionInput& input, bool force = false) {
  return CheckPromotion(input, JudgePromotion(input), force);
}

void AddTerm(uint64_t term, Lsn start, uint64_t id, v1::Standing* standing) {
  v1::HistoryEntry* const entry = standing->add_history();
  entry->set_term(term);
  entry->set_start_lsn(start);
  entry->set_term_id(id);
}

TEST(PromotionRulesTest, BothReplicasOfADeadPrimaryAreAQuorum) {
  const PromotionInput input{Member("r1", 10), {Silent("p1"), Says(Member("r2", 10))}};
  const PromotionVerdict verdict = JudgePromotion(input);
  EXPECT_EQ(verdict.term, 2u);
  EXPECT_THAT(verdict.granted, ElementsAre("r1", "r2"));
  EXPECT_THAT(Check(input), IsOk());
}

TEST(PromotionRulesTest, OneReplicaOfTwoMayLackWhatTheOtherAcknowledged) {
  const PromotionInput input{Member("r1", 10), {Silent("p1"), Silent("r2")}};
  EXPECT_THAT(Check(input), ReasonIs("no_quorum"));
  EXPECT_THAT(Check(input, /*force=*/true), IsOk());
  EXPECT_THAT(LossOf(input, JudgePromotion(input)), Not(ElementsAre()));
}

TEST(PromotionRulesTest, TheOldPrimarysGrantStandsInForAbsentReplicas) {
  v1::Standing p1 = Member("p1", 10);
  p1.set_is_primary(true);
  const PromotionInput input{Member("r1", 10), {Says(p1), Silent("r2")}};
  EXPECT_THAT(Check(input), IsOk());
  p1.set_recovery_required(true);  // it has lost some of what it acknowledged
  EXPECT_THAT(Check({Member("r1", 10), {Says(p1), Silent("r2")}}), ReasonIs("no_quorum"));
}

TEST(PromotionRulesTest, AHigherLeastLevelNeedsFewerGrants) {
  const PromotionInput input{Member("r1", 10, 4, 2), {Silent("p1"), Says(Member("r2", 10, 4, 2)), Silent("r3")}};
  EXPECT_THAT(Check(input), ReasonIs("no_quorum")) << "2 of 4 members are no majority";
  const PromotionInput three{Member("r1", 10, 5, 2),
                             {Silent("p1"), Says(Member("r2", 10, 5, 2)), Says(Member("r3", 10, 5, 2)), Silent("r4")}};
  EXPECT_THAT(Check(three), IsOk());
  const PromotionInput at_level_one{
      Member("r1", 10, 5, 0), {Silent("p1"), Says(Member("r2", 10, 5, 0)), Says(Member("r3", 10, 5, 0)), Silent("r4")}};
  EXPECT_THAT(Check(at_level_one), ReasonIs("no_quorum")) << "r4 may be the one that acknowledged";
}

TEST(PromotionRulesTest, APrimaryThatTakesWritesIsNotPushedAside) {
  v1::Standing p1 = Member("p1", 10);
  p1.set_is_primary(true);
  p1.set_writable(true);
  const PromotionInput input{Member("r1", 10), {Says(p1), Says(Member("r2", 10))}};
  EXPECT_THAT(Check(input), ReasonIs("primary_alive"));
  EXPECT_THAT(Check(input, /*force=*/true), IsOk());
}

TEST(PromotionRulesTest, WhoHoldsMoreOfTheSameLineIsCaughtUpWith) {
  const PromotionVerdict verdict = JudgePromotion({Member("r1", 10), {Silent("p1"), Says(Member("r2", 12))}});
  EXPECT_EQ(verdict.ahead, "r2");
  EXPECT_FALSE(verdict.diverged.has_value());
}

TEST(PromotionRulesTest, ALongerLogOfAnOlderTermIsNotAhead) {
  v1::Standing self = Member("r1", 10);
  AddTerm(2, 9, 0xa2, &self);
  const PromotionVerdict verdict = JudgePromotion({self, {Silent("p1"), Says(Member("r2", 50))}});
  EXPECT_FALSE(verdict.ahead.has_value());
  EXPECT_EQ(verdict.term, 3u);
}

TEST(PromotionRulesTest, ANewerLineBehindADivergedTailNamesThePeer) {
  v1::Standing peer = Member("r2", 10);
  AddTerm(2, 9, 0xa2, &peer);
  const PromotionInput input{Member("r1", 10), {Silent("p1"), Says(peer)}};
  EXPECT_EQ(JudgePromotion(input).diverged, "r2");
  EXPECT_THAT(Check(input), ReasonIs("peer_diverged"));
}

TEST(PromotionRulesTest, TheTermIsAboveEveryPromise) {
  v1::Standing peer = Member("r2", 10);
  peer.set_promised_term(7);
  EXPECT_EQ(JudgePromotion({Member("r1", 10), {Silent("p1"), Says(peer)}}).term, 8u);
}

TEST(PromotionRulesTest, OnlyExactMembersOfTheListedIncarnationCount) {
  v1::Standing wiped = Member("r2", 0);
  wiped.set_incarnation(99);
  EXPECT_THAT(Check({Member("r1", 10), {Silent("p1"), Says(wiped)}}), ReasonIs("no_quorum"));
  EXPECT_THAT(Check({Member("r1", 10), {Silent("p1"), Says(wiped)}}).message(), HasSubstr("r2, whose directory"));
  v1::Standing inexact = Member("r2", 10);
  inexact.set_exact(false);
  EXPECT_THAT(Check({Member("r1", 10), {Silent("p1"), Says(inexact)}}), ReasonIs("no_quorum"));
  EXPECT_THAT(Check({Member("r1", 10), {Silent("p1"), Says(inexact)}}).message(), HasSubstr("r2, whose state"));
  v1::Standing new_here = Member("r2", 10);  // its log does not reach the record that admitted it
  new_here.mutable_members()->RemoveLast();
  EXPECT_THAT(Check({Member("r1", 10), {Silent("p1"), Says(new_here)}}), ReasonIs("no_quorum"));
  EXPECT_THAT(Check({Member("r1", 10), {Silent("p1"), Says(new_here)}}).message(), HasSubstr("r2, which has loaded"));
}

TEST(PromotionRulesTest, AnInexactCandidateIsNeverPromoted) {
  v1::Standing self = Member("r1", 10);
  self.set_exact(false);
  EXPECT_THAT(Check({self, {Silent("p1"), Says(Member("r2", 10))}}, /*force=*/true), ReasonIs("not_exact"));
}

TEST(PromotionRulesTest, WhatTheOldPrimaryWasKnownToHaveIsReported) {
  v1::Standing self = Member("r1", 10);
  self.set_primary_durable_lsn(14);
  EXPECT_EQ(JudgePromotion({self, {Silent("p1"), Says(Member("r2", 11))}}).known_lost_records, 3u);
}

// Over all clusters of up to five members and all sets of answers: two sets that may promote have a member in common,
// and a set that may promote without the primary holds one of any k replicas.
TEST(PromotionRulesTest, QuorumsMeetEachOtherAndEveryAcknowledgement) {
  for (int size = 2; size <= 5; ++size) {
    for (uint32_t least = 0; least < static_cast<uint32_t>(size); ++least) {
      const uint32_t k = std::max<uint32_t>(1, least);
      std::vector<unsigned> winning;
      for (unsigned set = 1; set < (1u << size); ++set) {
        PromotionInput input;
        bool has_self = false;
        for (int i = 0; i < size; ++i) {
          const std::string name = i == 0 ? "p1" : "r" + std::to_string(i);
          if ((set >> i & 1) == 0) {
            input.peers.push_back(Silent(name));
          } else if (!has_self) {
            input.self = Member(name, 10, size, least);
            has_self = true;
          } else {
            input.peers.push_back(Says(Member(name, 10, size, least)));
          }
        }
        if (!Check(input).ok()) continue;
        winning.push_back(set);
        if ((set & 1) != 0) continue;
        const int absent = size - 1 - __builtin_popcount(set);
        EXPECT_LT(absent, static_cast<int>(k)) << "size " << size << " least " << least << " set " << set;
      }
      for (const unsigned a : winning) {
        for (const unsigned b : winning) EXPECT_NE(a & b, 0u) << "size " << size << " least " << least;
      }
      EXPECT_THAT(winning, Not(ElementsAre())) << "size " << size << " least " << least;
    }
  }
}

}  // namespace
}  // namespace towline
