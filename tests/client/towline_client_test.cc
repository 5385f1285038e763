#include <set>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "tests/client/cluster_nodes.h"
#include "towline/client.h"
#include "towline/client_error.h"

namespace towline {
namespace {

using std::chrono::milliseconds;
using test::IsOk;
using test::ReasonIs;
using testing::FakeServer;
using ::testing::HasSubstr;
using testing::kNobody;
using testing::Make;
using testing::Node;
using testing::OptionsFor;
using testing::Refusal;
using testing::SetTopology;
using ::testing::SizeIs;
using testing::WritesOf;

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

TEST(TowlineClient, TheDeadlineEndsTheAttempts) {
  Node server;
  server.state().refuse_writes = Refusal("switchover");
  ClientOptions options = OptionsFor({server.endpoint()});
  options.timeout = milliseconds(50);
  EXPECT_FALSE(Make(options)->Put("k", "v").ok());
}

TEST(TowlineClient, TheLastErrorSaysWhatIsKnown) {
  Node server;
  server.state().refuse_writes = Refusal("switchover");
  ClientOptions options = OptionsFor({server.endpoint()});
  options.rounds_max = 3;
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

}  // namespace
}  // namespace towline
