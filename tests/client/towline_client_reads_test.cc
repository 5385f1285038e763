// Reads and scans of towline::Client.

#include <set>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "tests/client/cluster_nodes.h"
#include "towline/client.h"
#include "towline/client_error.h"

namespace towline {
namespace {

using test::IsOk;
using test::ReasonIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::kNobody;
using testing::Make;
using testing::Node;
using testing::OptionsFor;
using testing::Refusal;
using testing::SetTopology;
using ::testing::SizeIs;

// --- Reads ---

TEST(TowlineClientReads, ReadsAskForWhatTheClientHasSeen) {
  Node server;
  auto client = Make(OptionsFor({server.endpoint()}));
  ASSERT_THAT(client->Get("k"), IsOk());
  const auto written = client->Put("k", "v");
  ASSERT_THAT(client->Get("k"), IsOk());
  Bookmark later = written->position;
  server.Put("x", "y");
  later.lsn = 2;
  CallOptions at;
  at.at = later;
  ASSERT_THAT(client->Get("k", at), IsOk());
  MutexLock lock(&server.state().mutex);
  EXPECT_FALSE(server.state().gets[0].has_min_position());
  EXPECT_EQ(server.state().gets[1].min_position().lsn(), 1u);
  EXPECT_EQ(server.state().gets[1].wait_ms(), 10u);
  EXPECT_EQ(server.state().gets[2].min_position().lsn(), 2u);
}

TEST(TowlineClientReads, WithoutASessionNothingIsAskedFor) {
  Node server;
  ClientOptions options = OptionsFor({server.endpoint()});
  options.session_reads = false;
  auto client = Make(options);
  ASSERT_THAT(client->Put("k", "v"), IsOk());
  ASSERT_THAT(client->Get("k"), IsOk());
  EXPECT_TRUE(client->session().empty());
  MutexLock lock(&server.state().mutex);
  EXPECT_FALSE(server.state().gets[0].has_min_position());
}

TEST(TowlineClientReads, AReplicaThatIsBehindSendsTheReadOnAndIsLeftAlone) {
  Node primary;
  Node replica;
  SetTopology(replica, primary, 1);
  SetTopology(primary, primary, 1);
  replica.state().refuse_writes = Refusal("not_primary", primary.endpoint());
  ClientOptions options = OptionsFor({replica.endpoint(), primary.endpoint()});
  options.read_preference = ReadPreference::kLocalFirst;
  auto client = Make(options);
  EXPECT_EQ(client->Get("k")->endpoint, replica.endpoint());
  ASSERT_THAT(client->Put("k", "v"), IsOk());
  for (int i = 0; i < 3; ++i) {
    const auto read = client->Get("k");
    ASSERT_THAT(read, IsOk());
    EXPECT_EQ(read->endpoint, primary.endpoint());
    EXPECT_EQ(read->entry->value, "v");
  }
  MutexLock lock(&replica.state().mutex);
  EXPECT_GE(replica.state().gets.size(), 2u);
}

TEST(TowlineClientReads, ReadsGoToThePrimaryInTheEnd) {
  Node primary;
  Node replica;
  SetTopology(replica, primary, 1);
  for (const char* reason : {"rebootstrapping", "rewinding", "position_discarded"}) {
    {
      MutexLock lock(&replica.state().mutex);
      replica.state().refuse_reads = Refusal(reason);
    }
    ClientOptions options = OptionsFor({replica.endpoint()});
    options.read_preference = ReadPreference::kLocalFirst;
    EXPECT_EQ(Make(options)->Get("k")->endpoint, primary.endpoint()) << reason;
  }
}

TEST(TowlineClientReads, AnyReadsFromAllInTurn) {
  Node a;
  Node b;
  SetTopology(a, a, 1, {&a, &b});
  SetTopology(b, a, 1, {&a, &b});
  ClientOptions options = OptionsFor({a.endpoint()});
  options.read_preference = ReadPreference::kAny;
  auto client = Make(options);
  std::set<std::string> asked;
  for (int i = 0; i < 4; ++i) asked.insert(client->Get("k")->endpoint);
  EXPECT_THAT(asked, SizeIs(2));
}

TEST(TowlineClientReads, ADeadNodeIsNoError) {
  Node alive;
  SetTopology(alive, alive, 1);
  ClientOptions options = OptionsFor({kNobody, alive.endpoint()});
  for (const ReadPreference preference :
       {ReadPreference::kPrimary, ReadPreference::kAny, ReadPreference::kLocalFirst}) {
    options.read_preference = preference;
    EXPECT_EQ(Make(options)->Get("k")->endpoint, alive.endpoint());
  }
}

TEST(TowlineClientReads, ADiscardedPositionIsSaidByThePrimaryAndForgottenByAReset) {
  Node server;
  SetTopology(server, server, 2);
  auto client = Make(OptionsFor({server.endpoint()}));
  ASSERT_THAT(client->Put("k", "v"), IsOk());
  server.state().refuse_bookmarks = Refusal("position_discarded");
  const auto read = client->Get("k");
  EXPECT_THAT(read, ReasonIs("position_discarded"));
  EXPECT_THAT(DetailsOf(read.status()).next_action, HasSubstr("ResetSession"));
  client->ResetSession();
  EXPECT_THAT(client->Get("k"), IsOk());
}

TEST(TowlineClientReads, AWriteOfANewTermTellsThatTheSessionWasDiscarded) {
  Node server;
  auto client = Make(OptionsFor({server.endpoint()}));
  for (int i = 0; i < 3; ++i) ASSERT_THAT(client->Put("k", "v"), IsOk());
  {
    // As after a forced failover: term 2 began at LSN 2.
    MutexLock lock(&server.state().mutex);
    server.state().term = 2;
    for (const auto& [term, start] : {std::pair<uint64_t, uint64_t>{1, 1}, {2, 2}}) {
      v1::HistoryEntry* entry = server.state().status.add_history();
      entry->set_term(term);
      entry->set_start_lsn(start);
      entry->set_term_id(0x1111 * term);
    }
    server.state().refuse_bookmarks = Refusal("position_discarded");
  }
  ASSERT_THAT(client->Put("k", "w"), IsOk());
  EXPECT_EQ(client->session().term, 1u);
  EXPECT_THAT(client->Get("k"), ReasonIs("position_discarded"));
  {
    MutexLock lock(&server.state().mutex);
    server.state().refuse_bookmarks = absl::OkStatus();
  }
  client->ResetSession();
  EXPECT_EQ(client->session().term, 2u);
  EXPECT_EQ(client->Get("k")->entry->value, "w");
}

TEST(TowlineClientReads, ABookmarkOfAnotherClientIsReadWithTheSession) {
  Node server;
  auto writer = Make(OptionsFor({server.endpoint()}));
  ASSERT_THAT(writer->Put("k", "v"), IsOk());
  auto reader = Make(OptionsFor({server.endpoint()}));
  reader->JoinSession(*ParseToken(ToToken(writer->session())));
  ASSERT_THAT(reader->Get("k"), IsOk());
  MutexLock lock(&server.state().mutex);
  EXPECT_EQ(server.state().gets.back().min_position().lsn(), 1u);
}

// --- Scans ---

std::vector<std::string> KeysOf(Scanner& scanner) {
  std::vector<std::string> keys;
  while (scanner.Next()) keys.push_back(scanner.entry().key);
  return keys;
}

TEST(TowlineClientReads, AScanRunsOverAllPages) {
  Node server;
  for (const char* key : {"a1", "b1", "b2", "b3", "b4", "c1"}) server.Put(key, "v");
  auto client = Make(OptionsFor({server.endpoint()}));
  ScanRange range;
  range.prefix = "b";
  auto scanner = client->Scan(range);
  EXPECT_THAT(KeysOf(*scanner), ElementsAre("b1", "b2", "b3", "b4"));
  EXPECT_THAT(scanner->status(), IsOk());
  EXPECT_FALSE(scanner->Next());
  EXPECT_EQ(scanner->position().lsn, 6u);
}

TEST(TowlineClientReads, AScanGoesOnAtAnotherNode) {
  Node primary;
  auto first = std::make_unique<Node>();
  SetTopology(primary, primary, 1);
  for (const char* key : {"a", "b", "c", "d", "e"}) {
    primary.Put(key, "v");
    first->Put(key, "v");
  }
  ClientOptions options = OptionsFor({first->endpoint(), primary.endpoint()});
  options.read_preference = ReadPreference::kLocalFirst;
  auto client = Make(options);
  auto scanner = client->Scan({});
  ASSERT_TRUE(scanner->Next());
  first.reset();
  EXPECT_THAT(KeysOf(*scanner), ElementsAre("b", "c", "d", "e"));
  EXPECT_THAT(scanner->status(), IsOk());
  MutexLock lock(&primary.state().mutex);
  EXPECT_EQ(primary.state().scans[0].min_position().lsn(), 5u);
}

TEST(TowlineClientReads, APinnedScanEndsWithItsNode) {
  Node primary;
  auto first = std::make_unique<Node>();
  for (const char* key : {"a", "b", "c"}) first->Put(key, "v");
  ClientOptions options = OptionsFor({first->endpoint(), primary.endpoint()});
  options.read_preference = ReadPreference::kLocalFirst;
  auto client = Make(options);
  ScanRange range;
  range.pinned = true;
  auto scanner = client->Scan(range);
  ASSERT_TRUE(scanner->Next());
  first.reset();
  EXPECT_THAT(KeysOf(*scanner), ElementsAre("b"));
  EXPECT_FALSE(scanner->status().ok());
}

}  // namespace
}  // namespace towline
