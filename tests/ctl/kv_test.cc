#include <filesystem>
#include <string>
#include <vector>

#include "common/error.h"
#include "common/file_system.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/ctl/fake_server.h"
#include "tests/ctl/run_verb.h"

namespace towline::ctl {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::towline::testing::FakeServer;

class KvTest : public ::testing::Test {
 protected:
  FakeServer server_;
  Towctl towctl_{server_.endpoint()};
};

TEST_F(KvTest, PutThenGetPrintsTheRawValue) {
  const VerbResult put = towctl_({"put", "k", "v"});
  EXPECT_EQ(put.code, 0);
  EXPECT_EQ(put.out, "ok lsn 1 term 1\n");
  const VerbResult get = towctl_({"get", "k"});
  EXPECT_EQ(get.code, 0);
  EXPECT_EQ(get.out, "v");
}

TEST_F(KvTest, ValuesThatLookLikeSyntaxArriveAsTheyAre) {
  for (const std::string& value :
       {std::string("[1,2]"), std::string("{}"), std::string(), std::string("a,b"), std::string("\"quoted\""),
        std::string("%%"), std::string("a=b"), std::string("[]"), std::string("\n"), std::string("\xff\xfe")}) {
    ASSERT_EQ(towctl_({"put", "k", value}).code, 0) << value;
    EXPECT_EQ(server_.Value("k"), value);
  }
  ASSERT_EQ(towctl_({"put", "--", "-k", "--v"}).code, 0);
  EXPECT_EQ(server_.Value("-k"), "--v");
}

TEST_F(KvTest, JsonFormsHaveTheFieldsOfTheProtocol) {
  const Json put = towctl_({"put", "k", "v", "--ttl", "2s", "-o", "json"}).json();
  EXPECT_EQ(put["position"]["lsn"], 1);
  EXPECT_EQ(put["duplicate"], false);
  EXPECT_EQ(towctl_({"get", "k", "-o", "json"}).out,
            "{\"key\":\"k\",\"value\":\"v\",\"expire_at_ms\":2000,\"modified_lsn\":1,\"token\":" + put["token"].dump() +
                "}\n");
}

TEST_F(KvTest, TokensOfWritesAreReadAt) {
  const std::string line = towctl_({"put", "k", "v", "--token"}).out;
  const std::string token = line.substr(line.rfind(' ') + 1, 67);
  EXPECT_EQ(line, "ok lsn 1 term 1 " + token + "\n");
  EXPECT_EQ(towctl_({"get", "k", "--at", token, "--wait", "20ms"}).out, "v");
  EXPECT_THAT(towctl_({"scan", "--at", token}).lines(), ElementsAre("k\tv"));
  EXPECT_EQ(towctl_({"del", "k", "-o", "json"}).json()["token"].get<std::string>().size(), 67u);
  {
    MutexLock lock(&server_.state().mutex);
    EXPECT_EQ(server_.state().gets[0].min_position().lsn(), 1u);
    EXPECT_EQ(server_.state().gets[0].wait_ms(), 20u);
    EXPECT_EQ(server_.state().scans[0].min_position().lsn(), 1u);
    server_.state().refuse_bookmarks = MakeError(absl::StatusCode::kUnavailable, "behind", "not there yet");
  }
  const VerbResult behind = towctl_({"get", "k", "--at", token, "-o", "json"});
  EXPECT_EQ(behind.code, 1);
  EXPECT_EQ(behind.error()["reason"], "behind");
  const VerbResult broken = towctl_({"get", "k", "--at", "t1.oops"});
  EXPECT_EQ(broken.code, 2);
  EXPECT_THAT(broken.err, HasSubstr("not a position token"));
}

TEST_F(KvTest, OfSeveralEndpointsThePrimaryIsWrittenAndTheFirstThatAnswersRead) {
  FakeServer replica;
  replica.Put("k", "old");
  replica.state().refuse_writes = MakeError(absl::StatusCode::kFailedPrecondition,
                                            ErrorInfo{"not_primary", "a replica", "", {{"primary_address", ""}}});
  const Towctl several("127.0.0.1:1," + replica.endpoint() + "," + server_.endpoint());
  EXPECT_EQ(several({"put", "k", "new"}).code, 0);
  EXPECT_EQ(server_.Value("k"), "new");
  EXPECT_EQ(several({"get", "k"}).out, "old");
  const Towctl nobody("127.0.0.1:1," + replica.endpoint());
  EXPECT_EQ(nobody({"put", "k", "new"}).code, 5);
}

TEST_F(KvTest, WithFollowAPauseOfThePrimaryIsNoError) {
  for (int i = 0; i < 3; ++i) {
    server_.state().write_errors.push_back(MakeError(absl::StatusCode::kUnavailable, "switchover", "a moment"));
  }
  EXPECT_EQ(towctl_({"put", "k", "v"}).code, 1);
  EXPECT_EQ(towctl_({"--follow", "put", "k", "v"}).code, 0);
  EXPECT_EQ(server_.Value("k"), "v");
}

TEST_F(KvTest, AMissingKeyIsExitCodeOne) {
  const VerbResult get = towctl_({"get", "none"});
  EXPECT_EQ(get.code, 1);
  EXPECT_EQ(get.out, "");
  EXPECT_THAT(get.err, HasSubstr("key_not_found"));
  EXPECT_EQ(towctl_({"get", "none", "-o", "json"}).error()["reason"], "key_not_found");
}

TEST_F(KvTest, ConditionsThatDoNotHoldAreExitCodeFour) {
  EXPECT_EQ(towctl_({"put", "k", "v", "--if-exists"}).code, 4);
  EXPECT_EQ(towctl_({"put", "k", "v", "--if-absent"}).code, 0);
  EXPECT_EQ(towctl_({"put", "k", "w", "--if-absent"}).code, 4);
  EXPECT_EQ(towctl_({"put", "k", "w", "--if-modified-lsn", "9"}).code, 4);
  EXPECT_EQ(towctl_({"put", "k", "w", "--if-modified-lsn", "1"}).code, 0);
  EXPECT_EQ(server_.Value("k"), "w");
}

TEST_F(KvTest, ARetryWithTheSameRequestIdIsADuplicate) {
  EXPECT_EQ(towctl_({"put", "k", "v", "--request-id", "job:1"}).out, "ok lsn 1 term 1\n");
  EXPECT_EQ(towctl_({"put", "k", "v", "--request-id", "job:1"}).out, "duplicate of lsn 1 term 1\n");
}

TEST_F(KvTest, DeletesOfAKeyAPrefixARangeAndAll) {
  for (const char* key : {"a", "b1", "b2", "c", "d"}) server_.Put(key, "v");
  EXPECT_EQ(towctl_({"del", "a"}).code, 0);
  EXPECT_EQ(towctl_({"del", "none"}).code, 0);
  EXPECT_EQ(towctl_({"del", "b", "--prefix-range"}).code, 0);
  EXPECT_THAT(towctl_({"scan"}).lines(), ElementsAre("c\tv", "d\tv"));
  EXPECT_EQ(towctl_({"del", "--begin", "d"}).code, 0);
  EXPECT_THAT(towctl_({"scan"}).lines(), ElementsAre("c\tv"));
  EXPECT_EQ(towctl_({"del", "--all"}).code, 0);
  EXPECT_THAT(towctl_({"scan"}).lines(), ElementsAre());
}

TEST_F(KvTest, MessagesAreLoggedAndLeaveTheStateAlone) {
  EXPECT_EQ(towctl_({"message", "topic", "payload"}).code, 0);
  MutexLock lock(&server_.state().mutex);
  EXPECT_TRUE(server_.state().entries.empty());
  EXPECT_EQ(server_.state().log[0].change().batch().operations(0).message().payload(), "payload");
}

TEST_F(KvTest, ScanReadsAllPagesUpToTheLimit) {
  for (int i = 0; i < 7; ++i) server_.Put("k" + std::to_string(i), "v");
  EXPECT_EQ(towctl_({"scan"}).lines().size(), 7u);
  EXPECT_EQ(towctl_({"scan", "--limit", "5"}).lines().size(), 5u);
  EXPECT_THAT(towctl_({"scan", "--begin", "k2", "--end", "k4"}).lines(), ElementsAre("k2\tv", "k3\tv"));
  EXPECT_THAT(towctl_({"scan", "--prefix", "k6"}).lines(), ElementsAre("k6\tv"));
}

TEST_F(KvTest, ScanEscapesInTablesAndUsesBase64InJson) {
  server_.Put("k\xff", "line\nbreak");
  EXPECT_EQ(towctl_({"scan"}).out, "k\\xff\tline\\x0abreak\n");
  EXPECT_EQ(towctl_({"scan", "-o", "json"}).out,
            "{\"key_base64\":\"a/8=\",\"value\":\"line\\nbreak\",\"expire_at_ms\":0,\"modified_lsn\":1}\n");
  EXPECT_EQ(towctl_({"get", "a/8=", "--base64"}).out, "line\nbreak");
}

TEST_F(KvTest, NotThePrimaryIsExitCodeFiveUnlessItIsFollowed) {
  FakeServer replica;
  replica.state().refuse_writes =
      MakeError(absl::StatusCode::kFailedPrecondition,
                ErrorInfo{"not_primary", "r1 is a replica", "write to p1", {{"primary_address", server_.endpoint()}}});
  const VerbResult refused = Towctl(replica.endpoint())({"put", "k", "v"});
  EXPECT_EQ(refused.code, 5);
  EXPECT_EQ(refused.err, "error: not_primary: r1 is a replica\n  next: write to p1\n");
  EXPECT_EQ(Towctl(replica.endpoint())({"put", "k", "v", "--follow"}).code, 0);
  EXPECT_EQ(server_.Value("k"), "v");
}

TEST_F(KvTest, ExportIsPinnedAndImportsBack) {
  server_.Put("a", "1");
  server_.Put("b\xff", std::string("\0\xff", 2));
  server_.state().page_limit = 1000;
  const std::string path = ::testing::TempDir() + "/export_is_pinned.jsonl";
  const VerbResult exported = towctl_({"export", path});
  EXPECT_EQ(exported.code, 0) << exported.err;
  EXPECT_EQ(exported.out, "");
  EXPECT_THAT(exported.err, HasSubstr("exported 2 entries at lsn 2"));
  EXPECT_TRUE(server_.state().scans.at(0).pinned());
  EXPECT_EQ(*ReadFile(*PosixFileSystem(), path), towctl_({"export"}).out);

  FakeServer other;
  EXPECT_EQ(Towctl(other.endpoint())({"import", path}).code, 0);
  EXPECT_EQ(other.Value("a"), "1");
  EXPECT_EQ(other.Value("b\xff"), std::string("\0\xff", 2));
}

TEST_F(KvTest, AFailedExportLeavesNoFile) {
  const std::string directory = ::testing::TempDir() + "/failed_export";
  std::filesystem::remove_all(directory);
  std::filesystem::create_directory(directory);
  EXPECT_EQ(RunVerb({"--endpoint", "127.0.0.1:1", "export", directory + "/out"}).code, 1);
  EXPECT_TRUE(std::filesystem::is_empty(directory));
  EXPECT_EQ(towctl_({"export", directory + "/none/out"}).code, 1);
}

}  // namespace
}  // namespace towline::ctl
