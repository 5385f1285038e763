#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <unistd.h>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "ctl/import_checkpoint.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/ctl/fake_server.h"
#include "tests/ctl/run_verb.h"

namespace towline::ctl {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::towline::testing::FakeServer;

std::string WriteTestFile(const std::string& name, const std::string& text) {
  std::string path = ::testing::TempDir() + "/" + name;
  std::ofstream(path, std::ios::binary | std::ios::trunc) << text;
  return path;
}

std::string TsvLines(int first, int last) {
  std::string text;
  for (int i = first; i <= last; ++i) absl::StrAppend(&text, "k", i, "\tv", i, "\n");
  return text;
}

// A file and a checkpoint path without a checkpoint.
std::string FreshCheckpoint(const std::string& name) {
  std::string path = ::testing::TempDir() + "/" + name;
  std::filesystem::remove(path);
  return path;
}

class ImportTest : public ::testing::Test {
 protected:
  FakeServer server_;
  Towctl towctl_{server_.endpoint()};
};

TEST_F(ImportTest, JsonLinesAndTsvByExtensionAndByFirstByte) {
  const std::string json =
      "{\"key\":\"a\",\"value\":\"1\"}\n\n{\"key_base64\":\"Yg==\",\"value\":\"2\",\"expire_at_ms\":99}\n";
  const VerbResult by_extension = towctl_({"import", WriteTestFile("import_a.jsonl", json), "-o", "json"});
  EXPECT_EQ(by_extension.code, 0) << by_extension.err;
  EXPECT_EQ(by_extension.json()["lines"], 3);
  EXPECT_EQ(by_extension.json()["acked"], 2);
  EXPECT_EQ(by_extension.json()["last_acked_line"], 3);
  EXPECT_EQ(by_extension.json()["position"]["lsn"], 2);
  EXPECT_EQ(by_extension.json()["ended"], "end_of_input");
  EXPECT_EQ(server_.Value("b"), "2");
  EXPECT_EQ(towctl_({"import", WriteTestFile("import_b", json)}).code, 0);
  EXPECT_EQ(towctl_({"import", WriteTestFile("import_c", "c\tx\ty")}).code, 0);
  EXPECT_EQ(server_.Value("c"), "x\ty");
  EXPECT_EQ(towctl_({"import", WriteTestFile("import_d", ""), "-o", "json"}).json()["lines"], 0);
}

TEST_F(ImportTest, BadLinesAreReportedWithTheirNumberAndSkipped) {
  server_.state().refused_keys = {"refused"};
  const std::string path = WriteTestFile(
      "import_bad.tsv", absl::StrCat("a\t1\nno tab\n", std::string(65537, 'k'), "\tv\nrefused\tx\nb\t2\n"));
  const VerbResult result = towctl_({"import", path, "-o", "json"});
  EXPECT_EQ(result.code, 1);
  EXPECT_THAT(result.err, HasSubstr("line 2: malformed_line: "));
  EXPECT_THAT(result.err, HasSubstr("line 3: key_too_large: "));
  EXPECT_THAT(result.err, HasSubstr("line 4: record_too_large: "));
  EXPECT_EQ(result.json()["acked"], 2);
  EXPECT_EQ(result.json()["rejected"], 3);
  EXPECT_EQ(result.json()["last_acked_line"], 5);
  EXPECT_EQ(server_.Value("b"), "2");
}

TEST_F(ImportTest, MissingFilesDirectoriesAndServers) {
  EXPECT_EQ(towctl_({"import", "/no/such/file"}).code, 1);
  EXPECT_EQ(towctl_({"import", ::testing::TempDir()}).code, 2);
  const VerbResult result =
      RunVerb({"--endpoint", "127.0.0.1:1", "import", WriteTestFile("import_e.tsv", "a\t1\n"), "-o", "json"});
  EXPECT_EQ(result.code, 1);
  EXPECT_EQ(result.json()["ended"], "failed");
  EXPECT_EQ(result.json()["acked"], 0);
}

TEST_F(ImportTest, StandardInputIsReadUntilItsEnd) {
  int fds[2];
  ASSERT_EQ(pipe(fds), 0);
  const std::string text = TsvLines(1, 100);
  ASSERT_EQ(write(fds[1], text.data(), text.size()), static_cast<ssize_t>(text.size()));
  close(fds[1]);
  Interrupt interrupt;
  const VerbResult result = RunWith({"--endpoint", server_.endpoint(), "import", "-"}, interrupt, fds[0]);
  close(fds[0]);
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.out,
              HasSubstr("end_of_input: 100 lines, 100 acked, 0 rejected, 0 unanswered; last acked line 100"));
}

TEST_F(ImportTest, AnInterruptWhileWaitingForInputEndsWithASummaryOfWhatWasWritten) {
  int fds[2];
  ASSERT_EQ(pipe(fds), 0);
  const std::string text = TsvLines(1, 3);
  ASSERT_EQ(write(fds[1], text.data(), text.size()), static_cast<ssize_t>(text.size()));
  Interrupt interrupt;
  VerbResult result;
  std::thread run([&] {
    result = RunWith({"--endpoint", server_.endpoint(), "import", "-", "-o", "json"}, interrupt, fds[0]);
  });
  while (!server_.Value("k3").has_value()) std::this_thread::yield();
  interrupt.Trigger();
  run.join();
  close(fds[0]);
  close(fds[1]);
  EXPECT_EQ(result.code, 1);
  EXPECT_EQ(result.json()["ended"], "interrupted");
  EXPECT_EQ(result.json()["acked"], 3);
  EXPECT_EQ(result.json()["unanswered"], 0);
}

TEST_F(ImportTest, ALostConnectionEndsWithASummaryAndTheCheckpointContinues) {
  const std::string path = WriteTestFile("import_lost.tsv", TsvLines(1, 50));
  const std::string checkpoint = FreshCheckpoint("import_lost.ckpt");
  server_.state().cut_stream_after = 20;
  const VerbResult lost = towctl_({"import", path, "--checkpoint", checkpoint, "-o", "json"});
  EXPECT_EQ(lost.code, 1);
  EXPECT_EQ(lost.json()["ended"], "failed");
  EXPECT_EQ(lost.json()["last_acked_line"], 20);
  EXPECT_EQ(LoadCheckpoint(checkpoint)->last_acked_line, 20u);

  const VerbResult rest = towctl_({"import", path, "--checkpoint", checkpoint, "-o", "json"});
  EXPECT_EQ(rest.code, 0) << rest.err;
  EXPECT_EQ(rest.json()["resumed_behind_line"], 20);
  EXPECT_EQ(rest.json()["acked"], 30);
  EXPECT_EQ(rest.json()["client_id"], lost.json()["client_id"]);
  const VerbResult again = towctl_({"import", path, "--checkpoint", checkpoint, "-o", "json"});
  EXPECT_EQ(again.code, 0);
  EXPECT_EQ(again.json()["lines"], 0);
  MutexLock lock(&server_.state().mutex);
  EXPECT_EQ(server_.state().log.size(), 50u);
}

TEST_F(ImportTest, WithRetryForALostConnectionIsMadeAgainAndNothingIsAppliedTwice) {
  const std::string path = WriteTestFile("import_retry.tsv", TsvLines(1, 200));
  server_.state().cut_stream_after = 70;
  server_.state().busy_key = "k150";
  const VerbResult result = towctl_({"import", path, "--retry-for", "30s", "-o", "json"});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.err, HasSubstr("connection lost behind line 70"));
  EXPECT_EQ(result.json()["acked"], 200);
  MutexLock lock(&server_.state().mutex);
  EXPECT_EQ(server_.state().streams, 3u);
  EXPECT_EQ(server_.state().log.size(), 200u);
}

TEST_F(ImportTest, ACheckpointOfStandardInputSkipsLines) {
  const std::string checkpoint = FreshCheckpoint("import_stdin.ckpt");
  ImportCheckpoint saved;
  saved.file = "-";
  saved.client_id = "import-1";
  saved.last_acked_line = 2;
  ASSERT_TRUE(SaveCheckpoint(checkpoint, saved).ok());
  int fds[2];
  ASSERT_EQ(pipe(fds), 0);
  const std::string text = TsvLines(1, 3);
  ASSERT_EQ(write(fds[1], text.data(), text.size()), static_cast<ssize_t>(text.size()));
  close(fds[1]);
  Interrupt interrupt;
  const VerbResult result =
      RunWith({"--endpoint", server_.endpoint(), "import", "-", "--checkpoint", checkpoint}, interrupt, fds[0]);
  close(fds[0]);
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_FALSE(server_.Value("k2").has_value());
  EXPECT_TRUE(server_.Value("k3").has_value());
}

TEST_F(ImportTest, ACheckpointOfAnotherFileIsRefused) {
  const std::string checkpoint = FreshCheckpoint("import_other.ckpt");
  ASSERT_EQ(towctl_({"import", WriteTestFile("import_x.tsv", "a\t1\n"), "--checkpoint", checkpoint}).code, 0);
  const VerbResult other =
      towctl_({"import", WriteTestFile("import_y.tsv", "a\t1\n"), "--checkpoint", checkpoint, "-o", "json"});
  EXPECT_EQ(other.code, 4);
  EXPECT_EQ(other.error()["reason"], "checkpoint_of_another_file");
  EXPECT_EQ(towctl_({"import", WriteTestFile("import_x.tsv", "a\t1\nb\t2\n"), "--checkpoint", checkpoint}).code, 4);
}

TEST_F(ImportTest, NotThePrimaryIsExitCodeFiveOrFollowed) {
  FakeServer replica;
  replica.state().refuse_writes =
      MakeError(absl::StatusCode::kFailedPrecondition,
                ErrorInfo{"not_primary", "r1 is a replica", "", {{"primary_address", server_.endpoint()}}});
  const std::string path = WriteTestFile("import_follow.tsv", TsvLines(1, 10));
  EXPECT_EQ(Towctl(replica.endpoint())({"import", path}).code, 5);
  EXPECT_EQ(Towctl(replica.endpoint())({"import", path, "--follow"}).code, 0);
  EXPECT_EQ(server_.Value("k10"), "v10");
}

}  // namespace
}  // namespace towline::ctl
