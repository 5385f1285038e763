// snapshot save against scripted streams: what is refused, gone on with, begun again. The stream is the golden file.

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

#include "absl/strings/str_cat.h"

#include "common/checksum.h"
#include "common/error.h"
#include "common/file_system.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/ctl/fake_server.h"
#include "tests/ctl/run_verb.h"
#include "tests/support/format_doc.h"

namespace towline::ctl {
namespace {

using ::testing::HasSubstr;
using ::towline::testing::FakeSave;
using ::towline::testing::FakeServer;

constexpr uint64_t kSnapshotId = 77;
constexpr char kDigest[] = "99b471521ba1bd46f25671adb92cca55";

std::string Golden() { return test::ReadGolden("tests/golden/rdb_v9.hex"); }

v1::SaveSnapshotResponse Header() {
  v1::SaveSnapshotResponse response;
  v1::SnapshotHeader* const header = response.mutable_header();
  header->mutable_position()->set_lsn(3);
  header->mutable_position()->set_term(1);
  header->mutable_position()->set_chain(0xbbf);
  header->set_snapshot_id(kSnapshotId);
  header->set_estimated_bytes(1000);
  return response;
}

v1::SaveSnapshotResponse Chunk() {
  v1::SaveSnapshotResponse response;
  v1::SnapshotChunk* const chunk = response.mutable_chunk();
  chunk->set_sequence(1);
  chunk->set_first_key("a");
  chunk->set_last_key("bb");
  chunk->set_keys(2);
  chunk->set_data(Golden());
  chunk->set_crc32c(Crc32c(Golden()));
  chunk->set_snapshot_id(kSnapshotId);
  return response;
}

v1::SaveSnapshotResponse End() {
  v1::SaveSnapshotResponse response;
  v1::SnapshotEnd* const end = response.mutable_end();
  end->set_keys(2);
  end->set_bytes(Golden().size());
  end->set_chunks(1);
  end->set_digest(kDigest);
  return response;
}

FakeSave Good() { return {{Header(), Chunk(), End()}, absl::OkStatus()}; }

class SnapshotSaveTest : public ::testing::Test {
 protected:
  SnapshotSaveTest() { (void)PosixFileSystem()->Remove(path_); }

  void Script(std::vector<FakeSave> saves) { server_.state().saves.assign(saves.begin(), saves.end()); }
  VerbResult Save(std::vector<std::string> more = {"-o", "json"}) {
    more.insert(more.begin(), {"snapshot", "save", path_});
    return towctl_(more);
  }
  std::string Content() const {
    std::ostringstream content;
    content << std::ifstream(path_, std::ios::binary).rdbuf();
    return content.str();
  }
  bool Left() const {
    return Exists(*PosixFileSystem(), path_) || Exists(*PosixFileSystem(), absl::StrCat(path_, ".partial"));
  }

  const std::string path_ =
      absl::StrCat(::testing::TempDir(), ::testing::UnitTest::GetInstance()->current_test_info()->name(), ".save.rdb");
  FakeServer server_;
  Towctl towctl_{server_.endpoint()};
};

TEST_F(SnapshotSaveTest, WritesTheBytesThatCame) {
  Script({Good()});
  const VerbResult result = Save({});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(Content(), Golden());
  EXPECT_FALSE(Exists(*PosixFileSystem(), absl::StrCat(path_, ".partial")));
  for (const char* text : {"lsn 3 term 1 chain 0000000000000bbf", "keys      2", kDigest, "node p1"}) {
    EXPECT_THAT(result.out, HasSubstr(text));
  }
  EXPECT_FALSE(server_.state().save_requests.front().has_cursor());
}

TEST_F(SnapshotSaveTest, AnExistingFileIsReplacedWithForceOnly) {
  std::ofstream(path_) << "mine";
  const VerbResult refused = Save();
  EXPECT_EQ(refused.code, 4);
  EXPECT_EQ(refused.error()["reason"], "file_exists");
  EXPECT_EQ(Content(), "mine");
  EXPECT_TRUE(server_.state().save_requests.empty());
  Script({Good()});
  EXPECT_EQ(Save({"--force"}).code, 0);
  EXPECT_EQ(Content(), Golden());
}

TEST_F(SnapshotSaveTest, StandardOutputAndDirectoriesAreNoTargets) {
  const VerbResult dash = towctl_({"snapshot", "save", "-", "-o", "json"});
  EXPECT_EQ(dash.code, 2);
  EXPECT_THAT(dash.error()["message"].get<std::string>(), HasSubstr("lost connection"));
  EXPECT_EQ(towctl_({"snapshot", "save", ::testing::TempDir(), "--force"}).code, 2);
  EXPECT_EQ(towctl_({"snapshot", "save"}).code, 2);
}

TEST_F(SnapshotSaveTest, ACutBehindTheLastEntriesIsAskedForAgain) {
  FakeSave cut = Good();
  cut.answers.pop_back();
  cut.end = absl::UnavailableError("cut");
  Script({cut, Good()});
  const VerbResult result = Save();
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(result.json()["resumes"], 1);
  EXPECT_EQ(result.json()["restarts"], 0);
  EXPECT_EQ(Content(), Golden());
}

TEST_F(SnapshotSaveTest, WhatDoesNotHoldBeginsTheFileAgainThreeTimes) {
  FakeSave bad_crc = Good();
  bad_crc.answers[1].mutable_chunk()->set_crc32c(1);
  FakeSave other_snapshot = Good();
  other_snapshot.answers[1].mutable_chunk()->set_snapshot_id(78);
  FakeSave bad_end = Good();
  bad_end.answers[2].mutable_end()->set_digest("00000000000000000000000000000000");
  const FakeSave gone{{}, MakeError(absl::StatusCode::kFailedPrecondition, "snapshot_gone", "it is gone")};
  Script({bad_crc, other_snapshot, gone, Good()});
  const VerbResult saved = Save({});
  EXPECT_EQ(saved.code, 0) << saved.err;
  EXPECT_THAT(saved.err, HasSubstr("begins the file again (3 of 3)"));
  EXPECT_EQ(Content(), Golden());

  (void)PosixFileSystem()->Remove(path_);
  Script({bad_crc, bad_end, bad_end, bad_crc});
  const VerbResult failed = Save();
  EXPECT_EQ(failed.code, 1);
  EXPECT_EQ(failed.error()["reason"], "save_gave_up");
  EXPECT_THAT(failed.error()["message"].get<std::string>(), HasSubstr("CRC-32C"));
  EXPECT_FALSE(Left());
}

TEST_F(SnapshotSaveTest, AFullHouseIsWaitedFor) {
  const FakeSave full{
      {},
      MakeError(absl::StatusCode::kResourceExhausted,
                ErrorInfo{"snapshot_limit", "4 are being sent already", "", {{"retry_after_ms", "1"}}})};
  Script({full, full, Good()});
  const VerbResult result = Save({});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.err, HasSubstr("4 are being sent already; waiting for a place"));
}

TEST_F(SnapshotSaveTest, RefusalsEndItAndLeaveNothing) {
  Script({{{}, MakeError(absl::StatusCode::kUnavailable, "not_exact", "not exact yet", "ask another node")}});
  const VerbResult refused = Save();
  EXPECT_EQ(refused.code, 1);
  EXPECT_EQ(refused.error()["reason"], "not_exact");
  EXPECT_EQ(Towctl("127.0.0.1:1")({"snapshot", "save", path_}).code, 1);
  EXPECT_FALSE(Left());
}

}  // namespace
}  // namespace towline::ctl
