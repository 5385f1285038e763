#include "client/session.h"

#include "gtest/gtest.h"

namespace towline::client {
namespace {

v1::Position At(uint64_t term, uint64_t lsn) {
  v1::Position position;
  position.set_cluster_id("0123456789abcdef01234567");
  position.set_term(term);
  position.set_term_id(0x10 * term);
  position.set_lsn(lsn);
  return position;
}

google::protobuf::RepeatedPtrField<v1::HistoryEntry> History(uint64_t second_term_start) {
  google::protobuf::RepeatedPtrField<v1::HistoryEntry> history;
  for (const auto& [term, start] : {std::pair<uint64_t, uint64_t>{1, 1}, {2, second_term_start}}) {
    v1::HistoryEntry* entry = history.Add();
    entry->set_term(term);
    entry->set_start_lsn(start);
    entry->set_term_id(0x10 * term);
  }
  return history;
}

TEST(Session, RisesWithWhatIsWrittenAndRead) {
  Session session;
  EXPECT_FALSE(session.Get().has_value());
  EXPECT_FALSE(session.NeedsProof(At(1, 5)));
  session.Cover(At(1, 9));
  session.Cover(At(1, 7));
  EXPECT_FALSE(session.NeedsProof(At(1, 8)));
  EXPECT_EQ(session.Get()->lsn(), 9u);
  session.Cover(v1::Position());
  EXPECT_EQ(session.Get()->lsn(), 9u);
}

TEST(Session, ARecordOfANewerTermNeedsProofThatTheOlderLineWasKept) {
  Session session;
  session.Cover(At(1, 100));
  EXPECT_TRUE(session.NeedsProof(At(2, 120)));
  EXPECT_EQ(session.Get()->lsn(), 100u);
  session.Settle(At(2, 120), true);
  EXPECT_EQ(session.Get()->term(), 2u);
  EXPECT_FALSE(session.discarded());
}

TEST(Session, ADiscardedPositionStaysUntilReset) {
  Session session;
  session.Cover(At(1, 100));
  ASSERT_TRUE(session.NeedsProof(At(2, 91)));
  session.Settle(At(2, 91), false);
  EXPECT_TRUE(session.discarded());
  EXPECT_EQ(session.Get()->lsn(), 100u);
  EXPECT_FALSE(session.NeedsProof(At(2, 95)));  // asked once is enough
  session.Reset();
  EXPECT_FALSE(session.discarded());
  EXPECT_EQ(session.Get()->lsn(), 95u);
  EXPECT_EQ(session.Get()->term(), 2u);
}

TEST(Session, AnotherClusterIsAnotherSession) {
  Session session;
  session.Cover(At(7, 100));
  v1::Position other = At(1, 2);
  other.set_cluster_id("ffffffffffffffffffffffff");
  EXPECT_FALSE(session.NeedsProof(other));
  EXPECT_EQ(session.Get()->lsn(), 2u);
}

TEST(Session, AHistoryTellsWhatItKeeps) {
  EXPECT_TRUE(KeepsPosition(History(101), At(1, 100)));
  EXPECT_FALSE(KeepsPosition(History(100), At(1, 100)));
  EXPECT_TRUE(KeepsPosition(History(100), At(2, 100)));
  v1::Position other_id = At(1, 50);
  other_id.set_term_id(0x99);
  EXPECT_FALSE(KeepsPosition(History(100), other_id));
}

}  // namespace
}  // namespace towline::client
