#include <chrono>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "common/error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/ctl/fake_server.h"
#include "tests/support/status_matchers.h"
#include "towline/client.h"
#include "towline/client_error.h"

namespace towline {
namespace {

using std::chrono::milliseconds;
using test::IsOk;
using test::ReasonIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;
using ::towline::testing::FakeServer;

constexpr char kNobody[] = "127.0.0.1:1";  // refuses connections

ClientOptions OptionsFor(std::vector<std::string> endpoints) {
  ClientOptions options;
  options.endpoints = std::move(endpoints);
  options.backoff_min = options.backoff_max = milliseconds(1);
  options.bookmark_wait = milliseconds(10);
  return options;
}

std::unique_ptr<Client> Make(const ClientOptions& options) {
  auto client = Client::Make(options);
  EXPECT_THAT(client, IsOk());
  return *std::move(client);
}

absl::Status Refusal(const std::string& reason, const std::string& primary = "") {
  ErrorInfo info{reason, "not here, not now", "", {}};
  if (!primary.empty()) info.metadata["primary_address"] = primary;
  return MakeError(absl::StatusCode::kFailedPrecondition, info);
}

// `server` says that `primary` is the primary of this term, and knows `others`.
void SetTopology(FakeServer& server, const FakeServer& primary, uint64_t term,
                 const std::vector<const FakeServer*>& others = {}) {
  MutexLock lock(&server.state().mutex);
  v1::GetTopologyResponse& topology = server.state().topology;
  topology.Clear();
  topology.set_term(term);
  topology.set_primary_node_id("p");
  topology.set_primary_address(primary.endpoint());
  for (const FakeServer* other : others) topology.add_members()->set_address(other->endpoint());
}

// Says that it is the primary of term 1.
class Node : public FakeServer {
 public:
  Node() { SetTopology(*this, *this, 1); }
};

std::vector<v1::WriteRequest> WritesOf(FakeServer& server) {
  MutexLock lock(&server.state().mutex);
  return server.state().writes;
}

// --- Options ---

TEST(TowlineClient, BadOptionsAreRefusedBeforeAnythingElse) {
  EXPECT_THAT(Client::Make({}), ReasonIs("invalid_options"));
  EXPECT_THAT(Client::Make(OptionsFor({"nonsense"})), ReasonIs("invalid_endpoint"));
  ClientOptions options = OptionsFor({kNobody});
  options.client_id = "Not A Name";
  EXPECT_THAT(Client::Make(options), ReasonIs("invalid_name"));
  options = OptionsFor({kNobody});
  options.backoff_max = milliseconds(0);
  EXPECT_THAT(Client::Make(options), ReasonIs("invalid_options"));
}

// --- Writes ---

TEST(TowlineClient, WhatIsWrittenIsRead) {
  Node server;
  auto client = Make(OptionsFor({server.endpoint()}));
  const auto written = client->Put("k", "v");
  ASSERT_THAT(written, IsOk());
  EXPECT_EQ(written->position.lsn, 1u);
  EXPECT_EQ(written->endpoint, server.endpoint());
  const auto read = client->Get("k");
  ASSERT_THAT(read, IsOk());
  EXPECT_EQ(read->entry->value, "v");
  EXPECT_FALSE(client->Get("none")->entry.has_value());
  const auto batch = client->BatchGet({"none", "k"});
  ASSERT_THAT(batch, IsOk());
  ASSERT_THAT(batch->entries, SizeIs(1));
  EXPECT_EQ(batch->entries[0].key, "k");
  EXPECT_THAT(client->Delete("k"), IsOk());
  EXPECT_FALSE(client->Get("k")->entry.has_value());
}

TEST(TowlineClient, EveryWriteHasARequestIdOfItsOwn) {
  Node server;
  auto client = Make(OptionsFor({server.endpoint()}));
  for (int i = 0; i < 3; ++i) ASSERT_THAT(client->Put("k", "v"), IsOk());
  std::set<uint64_t> sequences;
  for (const v1::WriteRequest& write : WritesOf(server)) {
    EXPECT_EQ(write.request_id().client_id(), client->client_id());
    sequences.insert(write.request_id().sequence());
  }
  EXPECT_THAT(sequences, SizeIs(3));
  WriteSet mine;
  mine.Put("k", "v").RequestId("job-7", 12);
  ASSERT_THAT(client->Write(std::move(mine)), IsOk());
  EXPECT_EQ(WritesOf(server).back().request_id().client_id(), "job-7");
}

TEST(TowlineClient, AFixedNameGoesOnAboveItsEarlierSequences) {
  Node server;
  ClientOptions options = OptionsFor({server.endpoint()});
  options.client_id = "indexer";
  for (int i = 0; i < 2; ++i) ASSERT_THAT(Make(options)->Put("k", "v"), IsOk());
  const auto writes = WritesOf(server);
  EXPECT_LT(writes[0].request_id().sequence(), writes[1].request_id().sequence());
}

TEST(TowlineClient, ALostAnswerIsAskedForAgainWithTheSameIdAndAppliedOnce) {
  Node server;
  server.state().lose_answers = 2;
  auto client = Make(OptionsFor({server.endpoint()}));
  const auto written = client->Put("k", "v");
  ASSERT_THAT(written, IsOk());
  EXPECT_TRUE(written->duplicate);
  const auto writes = WritesOf(server);
  ASSERT_GE(writes.size(), 3u);
  for (const v1::WriteRequest& write : writes) {
    EXPECT_EQ(write.request_id().sequence(), writes[0].request_id().sequence());
  }
  MutexLock lock(&server.state().mutex);
  EXPECT_EQ(server.state().log.size(), 1u);
}

TEST(TowlineClient, ANodeThatCannotServeForAMomentIsAPause) {
  Node server;
  for (const char* reason : {"switchover", "stale_primary", "not_primary"}) {
    server.state().write_errors.push_back(Refusal(reason));
  }
  server.state().write_errors.push_back(MakeError(absl::StatusCode::kUnavailable, "waiting_for_members", "2 of 3"));
  server.state().write_errors.push_back(MakeError(absl::StatusCode::kResourceExhausted, "queue_full", "64 MiB"));
  auto client = Make(OptionsFor({server.endpoint()}));
  EXPECT_THAT(client->Put("k", "v"), IsOk());
}

TEST(TowlineClient, WhatTheRequestIsToBlameForIsReturnedAtOnce) {
  Node server;
  auto client = Make(OptionsFor({server.endpoint()}));
  WriteSet writes;
  writes.Put("k", "v").IfExists("k");
  const auto refused = client->Write(writes);
  EXPECT_THAT(refused, ReasonIs("condition_failed"));
  EXPECT_EQ(FateOf(refused.status()), WriteFate::kNotLogged);
  ErrorInfo late{"replication_timeout", "0 of 1", "", {{"outcome", "durable_here"}}};
  server.state().write_errors.push_back(MakeError(absl::StatusCode::kDeadlineExceeded, late));
  const auto timeout = client->Put("k", "v");
  EXPECT_THAT(timeout, ReasonIs("replication_timeout"));
  EXPECT_EQ(FateOf(timeout.status()), WriteFate::kDurableHere);
  EXPECT_THAT(WritesOf(server), SizeIs(2));
}

TEST(TowlineClient, TheEndOfTheTimeSaysWhatIsKnown) {
  Node server;
  server.state().refuse_writes = Refusal("switchover");
  ClientOptions options = OptionsFor({server.endpoint()});
  options.timeout = milliseconds(50);
  auto client = Make(options);
  const auto refused = client->Put("k", "v");
  EXPECT_THAT(refused, ReasonIs("switchover"));
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("gave up after"));
  EXPECT_EQ(FateOf(refused.status()), WriteFate::kNotLogged);

  server.state().refuse_writes = absl::OkStatus();
  server.state().lose_answers = 1'000'000;
  EXPECT_EQ(FateOf(client->Put("k", "v").status()), WriteFate::kUnknown);
}

TEST(TowlineClient, OneRoundIsOneAttemptAtALoneNode) {
  Node server;
  server.state().refuse_writes = Refusal("not_primary", "127.0.0.1:2");
  ClientOptions options = OptionsFor({server.endpoint()});
  options.rounds_max = 1;
  options.follow = false;
  EXPECT_THAT(Make(options)->Put("k", "v"), ReasonIs("not_primary"));
  EXPECT_THAT(WritesOf(server), SizeIs(1));
}

TEST(TowlineClient, TheDefaultLevelAndThatOfAWriteAreSent) {
  Node server;
  ClientOptions options = OptionsFor({server.endpoint()});
  options.durability = WriteDurability{1, false, milliseconds(500), true};
  auto client = Make(options);
  ASSERT_THAT(client->Put("k", "v"), IsOk());
  WriteSet writes;
  writes.Put("k", "v").Durability({2, true, milliseconds(0), false});
  ASSERT_THAT(client->Write(writes), IsOk());
  const auto seen = WritesOf(server);
  EXPECT_EQ(seen[0].durability().replicas(), 1u);
  EXPECT_EQ(seen[0].durability().timeout_ms(), 500u);
  EXPECT_EQ(seen[0].durability().on_timeout(), v1::ON_COMMIT_TIMEOUT_ACCEPT);
  EXPECT_EQ(seen[1].durability().replicas(), 2u);
  EXPECT_EQ(seen[1].durability().stage(), v1::COMMIT_STAGE_APPLIED);
}

// --- The primary ---

TEST(TowlineClient, FollowsToThePrimaryThatAReplicaNames) {
  Node primary;
  Node replica;
  replica.state().refuse_writes = Refusal("not_primary", primary.endpoint());
  auto client = Make(OptionsFor({replica.endpoint()}));
  EXPECT_EQ(client->Put("k", "v")->endpoint, primary.endpoint());
  EXPECT_EQ(client->primary(), primary.endpoint());
  ASSERT_THAT(client->Put("k", "w"), IsOk());
  EXPECT_THAT(WritesOf(replica), SizeIs(1));
}

TEST(TowlineClient, FindsThePrimaryBehindADeadEndpoint) {
  Node primary;
  Node replica;
  SetTopology(replica, primary, 1);
  SetTopology(primary, primary, 1);
  auto client = Make(OptionsFor({kNobody, replica.endpoint()}));
  EXPECT_EQ(client->Put("k", "v")->endpoint, primary.endpoint());
}

TEST(TowlineClient, TheHighestTermNamesThePrimary) {
  FakeServer old_primary;
  FakeServer new_primary;
  old_primary.state().refuse_writes = Refusal("stale_primary");
  SetTopology(old_primary, old_primary, 1);
  SetTopology(new_primary, new_primary, 2);
  auto client = Make(OptionsFor({old_primary.endpoint(), new_primary.endpoint()}));
  EXPECT_EQ(client->Put("k", "v")->endpoint, new_primary.endpoint());
}

TEST(TowlineClient, MembersAreLearnedAndFoundAfterAFailover) {
  auto first = std::make_unique<Node>();
  Node second;
  SetTopology(*first, *first, 1, {first.get(), &second});
  auto client = Make(OptionsFor({first->endpoint()}));
  ASSERT_THAT(client->Topology(), IsOk());
  ASSERT_THAT(client->Put("k", "v"), IsOk());
  SetTopology(second, second, 2);
  first.reset();  // only the other member is left, of which the client was told by the first
  const auto written = client->Put("k", "w");
  ASSERT_THAT(written, IsOk());
  EXPECT_EQ(written->endpoint, second.endpoint());
}

TEST(TowlineClient, AnAddressThatCannotBeReachedLeavesTheGivenOnes) {
  Node server;
  {
    MutexLock lock(&server.state().mutex);
    server.state().topology.set_term(1);
    server.state().topology.set_primary_address(kNobody);
  }
  auto client = Make(OptionsFor({server.endpoint()}));
  ASSERT_THAT(client->Topology(), IsOk());
  EXPECT_EQ(client->primary(), kNobody);
  EXPECT_EQ(client->Put("k", "v")->endpoint, server.endpoint());
}

TEST(TowlineClient, WithoutFollowOnlyTheGivenNodesAreUsed) {
  Node primary;
  Node replica;
  replica.state().refuse_writes = Refusal("not_primary", primary.endpoint());
  ClientOptions options = OptionsFor({replica.endpoint(), kNobody});
  options.follow = false;
  options.rounds_max = 1;
  EXPECT_FALSE(Make(options)->Put("k", "v").ok());
  options.endpoints = {kNobody, replica.endpoint(), primary.endpoint()};
  EXPECT_EQ(Make(options)->Put("k", "v")->endpoint, primary.endpoint());
}

TEST(TowlineClient, TwoNodesThatNameEachOtherAreLeftAlone) {
  Node a;
  Node b;
  a.state().refuse_writes = Refusal("not_primary", b.endpoint());
  b.state().refuse_writes = Refusal("not_primary", a.endpoint());
  ClientOptions options = OptionsFor({a.endpoint()});
  options.rounds_max = 3;
  EXPECT_THAT(Make(options)->Put("k", "v"), ReasonIs("not_primary"));
  EXPECT_LE(WritesOf(a).size() + WritesOf(b).size(), 6u);
}

TEST(TowlineClient, ThreadsShareAClient) {
  Node server;
  auto client = Make(OptionsFor({server.endpoint()}));
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&client, t] {
      for (int i = 0; i < 25; ++i) {
        const std::string key = std::to_string(t) + "-" + std::to_string(i);
        EXPECT_THAT(client->Put(key, "v"), IsOk());
        EXPECT_TRUE(client->Get(key)->entry.has_value());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  MutexLock lock(&server.state().mutex);
  EXPECT_EQ(server.state().log.size(), 100u);
  EXPECT_EQ(server.state().request_ids.size(), 100u);
}

// --- Reads ---

TEST(TowlineClient, ReadsAskForWhatTheClientHasSeen) {
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

TEST(TowlineClient, WithoutASessionNothingIsAskedFor) {
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

TEST(TowlineClient, AReplicaThatIsBehindSendsTheReadOnAndIsLeftAlone) {
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

TEST(TowlineClient, ReadsGoToThePrimaryInTheEnd) {
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

TEST(TowlineClient, AnyReadsFromAllInTurn) {
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

TEST(TowlineClient, ADeadNodeIsNoError) {
  Node alive;
  SetTopology(alive, alive, 1);
  ClientOptions options = OptionsFor({kNobody, alive.endpoint()});
  for (const ReadPreference preference :
       {ReadPreference::kPrimary, ReadPreference::kAny, ReadPreference::kLocalFirst}) {
    options.read_preference = preference;
    EXPECT_EQ(Make(options)->Get("k")->endpoint, alive.endpoint());
  }
}

TEST(TowlineClient, ADiscardedPositionIsSaidByThePrimaryAndForgottenByAReset) {
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

TEST(TowlineClient, AWriteOfANewTermTellsThatTheSessionWasDiscarded) {
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

TEST(TowlineClient, ABookmarkOfAnotherClientIsReadWithTheSession) {
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

TEST(TowlineClient, AScanRunsOverAllPages) {
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

TEST(TowlineClient, AScanGoesOnAtAnotherNode) {
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

TEST(TowlineClient, APinnedScanEndsWithItsNode) {
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
