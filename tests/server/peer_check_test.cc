// Tests of PeerCheck: what a primary concludes from the answers of its members, and when it stops to wait.

#include "server/peer_check.h"

#include <map>
#include <string>
#include <vector>

#include "common/error.h"
#include "gtest/gtest.h"
#include "tests/support/fake_clock.h"
#include "tests/support/recording_logger.h"
#include "towline/v1/replication_service.pb.h"

namespace towline {
namespace {

constexpr char kCluster[] = "0123456789abcdef01234567";
constexpr Lsn kDurable = 100;

// A primary in term 2 with LSN 1 to 100: term 1 from LSN 1, term 2 from LSN 50.
NodeView Primary() {
  NodeView node;
  node.node_id = "p1";
  node.cluster_id = kCluster;
  node.is_primary = true;
  node.term = 2;
  node.history = {{1, 1, 0xa1}, {2, 50, 0xa2}};
  return node;
}

v1::PullStart PeerAt(const std::string& name, Lsn lsn) {
  v1::PullStart start;
  start.set_protocol_version(1);
  start.set_slot(name);
  start.set_kind(v1::SLOT_KIND_REPLICA);
  start.set_format(v1::RECORD_FORMAT_FRAMES);
  start.set_incarnation(7);
  start.set_process_instance(8);
  start.set_credit_bytes(1);
  start.set_cluster_id(kCluster);
  start.set_lsn(lsn);
  start.set_chain(0xc0);
  for (const HistoryEntry& entry : Primary().history) {
    if (entry.start_lsn > lsn) continue;
    v1::HistoryEntry* const added = start.add_history();
    added->set_term(entry.term);
    added->set_start_lsn(entry.start_lsn);
    added->set_term_id(entry.term_id);
  }
  return start;
}

PeerStanding Compare(const v1::PullStart& peer) { return ComparePeer(Primary(), kDurable, peer); }

TEST(ComparePeerTest, OnlyMoreOfOurOwnTermIsAhead) {
  EXPECT_EQ(Compare(PeerAt("r1", 99)), PeerStanding::kNotAhead);
  EXPECT_EQ(Compare(PeerAt("r1", 100)), PeerStanding::kNotAhead);
  EXPECT_EQ(Compare(PeerAt("r1", 101)), PeerStanding::kAhead);
}

TEST(ComparePeerTest, AnOlderLineIsNotAheadHoweverLong) {
  v1::PullStart peer = PeerAt("r1", 500);
  peer.mutable_history()->DeleteSubrange(1, 1);  // it never saw term 2, which begins at LSN 50
  EXPECT_EQ(Compare(peer), PeerStanding::kNotAhead);
}

TEST(ComparePeerTest, AHigherTermCountsWhetherInTheLogOrPromised) {
  v1::PullStart promised = PeerAt("r1", 90);
  promised.set_promised_term(3);
  EXPECT_EQ(Compare(promised), PeerStanding::kHigherTerm);
  v1::PullStart logged = PeerAt("r1", 120);
  v1::HistoryEntry* const entry = logged.add_history();
  entry->set_term(3);
  entry->set_start_lsn(101);
  entry->set_term_id(0xa3);
  EXPECT_EQ(Compare(logged), PeerStanding::kHigherTerm);
  v1::PullStart same = PeerAt("r1", 90);
  same.set_promised_term(2);
  EXPECT_EQ(Compare(same), PeerStanding::kNotAhead);
}

TEST(ComparePeerTest, AnEmptyNodeHoldsNothing) {
  v1::PullStart peer = PeerAt("r1", 0);
  peer.clear_cluster_id();
  peer.clear_chain();
  EXPECT_EQ(Compare(peer), PeerStanding::kNotAhead);
}

TEST(ComparePeerTest, StrangersAndNonsenseSayNothing) {
  v1::PullStart other = PeerAt("r1", 500);
  other.set_cluster_id("ffffffffffffffffffffffff");
  EXPECT_EQ(Compare(other), PeerStanding::kOther);
  v1::PullStart newer = PeerAt("r1", 500);
  newer.set_protocol_version(2);
  EXPECT_EQ(Compare(newer), PeerStanding::kOther);
  v1::PullStart falls = PeerAt("r1", 500);
  falls.mutable_history(1)->set_term(1);
  EXPECT_EQ(Compare(falls), PeerStanding::kOther);
}

class PeerCheckTest : public ::testing::Test {
 protected:
  PeerCheck Check(std::vector<MemberInfo> members, int64_t wait_micros = 5'000'000) {
    return PeerCheck(
        Primary(), kDurable, std::move(members), wait_micros,
        [this](const std::string& endpoint, int64_t timeout_micros) -> absl::StatusOr<v1::PullStart> {
          EXPECT_GT(timeout_micros, 0);
          ++asked_[endpoint];
          const auto found = answers_.find(endpoint);
          if (found != answers_.end()) return found->second;
          clock_.Advance(timeout_micros);  // nobody there: the whole time is gone
          return absl::UnavailableError("no connection");
        },
        clock_, logger_);
  }

  // Steps until there is a verdict.
  PeerCheck::Verdict Run(PeerCheck& check) {
    PeerCheck::Verdict verdict;
    for (int i = 0; i < 1000; ++i) {
      if (check.Step(&verdict)) return verdict;
      clock_.Advance(check.pause_micros());
    }
    ADD_FAILURE() << "no verdict";
    return verdict;
  }

  test::FakeClock clock_;
  test::RecordingLogger logger_;
  std::map<std::string, v1::PullStart> answers_;  // by endpoint
  std::map<std::string, int> asked_;
};

const MemberInfo kR1{"r1", 1, "h1:1", true};
const MemberInfo kR2{"r2", 2, "h2:1", true};

TEST_F(PeerCheckTest, OpensWhenAllHaveAnswered) {
  answers_ = {{"h1:1", PeerAt("r1", 100)}, {"h2:1", PeerAt("r2", 40)}};
  const int64_t start = clock_.MonotonicMicros();
  PeerCheck check = Check({kR1, kR2});
  EXPECT_TRUE(Run(check).open);
  EXPECT_EQ(clock_.MonotonicMicros(), start) << "there was nothing to wait for";
  EXPECT_TRUE(logger_.Events("peer_not_heard").empty());
}

TEST_F(PeerCheckTest, OneThatIsAheadIsEnough) {
  answers_ = {{"h2:1", PeerAt("r2", 101)}};
  PeerCheck check = Check({kR1, kR2});
  const PeerCheck::Verdict verdict = Run(check);
  EXPECT_FALSE(verdict.open);
  EXPECT_EQ(verdict.reason, "replica_ahead");
  EXPECT_NE(verdict.message.find("r2 at h2:1 holds LSN 101"), std::string::npos) << verdict.message;
}

TEST_F(PeerCheckTest, AHigherTermClosesToo) {
  answers_ = {{"h1:1", PeerAt("r1", 10)}};
  answers_["h1:1"].set_promised_term(9);
  PeerCheck check = Check({kR1});
  EXPECT_EQ(Run(check).reason, "stale_primary");
}

TEST_F(PeerCheckTest, OpensAfterTheTimeAndNamesTheSilent) {
  answers_ = {{"h1:1", PeerAt("r1", 100)}};
  const int64_t start = clock_.MonotonicMicros();
  PeerCheck check = Check({kR1, kR2});
  EXPECT_TRUE(Run(check).open);
  EXPECT_GE(clock_.MonotonicMicros() - start, 5'000'000);
  EXPECT_LT(clock_.MonotonicMicros() - start, 6'000'000);
  ASSERT_EQ(logger_.Events("peer_not_heard").size(), 1u);
  EXPECT_EQ(logger_.Events("peer_not_heard")[0].fields["node"], "r2");
  EXPECT_EQ(asked_["h1:1"], 1) << "who has answered is not asked again";
  EXPECT_GT(asked_["h2:1"], 1);
}

TEST_F(PeerCheckTest, OneThatConnectsNeedNotBeAsked) {
  PeerCheck check = Check({kR1, {"r2", 2, "", true}}, 60'000'000);
  check.Heard("r1");
  check.Heard("r2");
  EXPECT_TRUE(Run(check).open);
  EXPECT_TRUE(asked_.empty());
}

TEST_F(PeerCheckTest, AnotherNodeAtTheAddressIsNoAnswer) {
  answers_ = {{"h1:1", PeerAt("r9", 500)}};
  PeerCheck check = Check({kR1});
  EXPECT_TRUE(Run(check).open);
  EXPECT_EQ(logger_.Events("peer_not_heard").size(), 1u);
}

}  // namespace
}  // namespace towline
