// snapshot verify and load, against files that the store's encoder and writer make, and the fake server.

#include <cstdlib>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"

#include "common/checksum.h"
#include "common/error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "store/rdb_writer.h"
#include "tests/ctl/fake_server.h"
#include "tests/ctl/run_verb.h"
#include "tests/support/format_doc.h"

namespace towline::ctl {
namespace {

using ::testing::HasSubstr;
using ::towline::testing::FakeServer;

std::string WriteTestFile(const std::string& name, const std::string& content) {
  const std::string path = ::testing::TempDir() + name;
  std::ofstream(path, std::ios::binary) << content;
  return path;
}

std::string WithEof(std::string stream) {
  RdbAppendEof(Crc64JonesExtend(0, stream), &stream);
  return stream;
}

// A dump with keys k0, k1, ... whose values have `value_size` bytes.
std::string Dump(int keys, size_t value_size) {
  std::string stream = "REDIS0010";
  for (int i = 0; i < keys; ++i) RdbAppendEntry(absl::StrCat("k", i), std::string(value_size, 'v'), 0, &stream);
  return WithEof(stream);
}

class SnapshotTest : public ::testing::Test {
 protected:
  FakeServer server_;
  Towctl towctl_{server_.endpoint()};
};

TEST_F(SnapshotTest, VerifyPrintsWhatASnapshotOfTowlineSays) {
  const std::string path = WriteTestFile("golden.rdb", test::ReadGolden("tests/golden/rdb_v9.hex"));
  const VerbResult table = RunVerb({"snapshot", "verify", path});
  EXPECT_EQ(table.code, 0) << table.err;
  for (const char* text : {"REDIS0009 by Towline, created 2023-11-14T22:13:20Z", "CRC-64 holds", "2, 1 expiring",
                           "2 string", "cluster   0123456789abcdef01234567  node p1",
                           "lsn 3 term 1 chain 0000000000000bbf", "1@1:", "99b471521ba1bd46f25671adb92cca55"}) {
    EXPECT_THAT(table.out, HasSubstr(text));
  }
  const Json json = RunVerb({"snapshot", "verify", path, "-o", "json"}).json();
  EXPECT_EQ(json["valid"], true);
  EXPECT_EQ(json["format"], "REDIS0009");
  EXPECT_EQ(json["keys"], 2);
  EXPECT_EQ(json["snapshot"]["cluster_id"], "0123456789abcdef01234567");
  EXPECT_EQ(json["snapshot"]["node_id"], "p1");
  EXPECT_EQ(json["snapshot"]["position"]["lsn"], 3);
  EXPECT_EQ(json["snapshot"]["position"]["chain"], "0000000000000bbf");
  EXPECT_EQ(json["snapshot"]["history"][0]["term_id"], "000000000000002a");
  EXPECT_EQ(json["snapshot"]["digest"], "99b471521ba1bd46f25671adb92cca55");
}

TEST_F(SnapshotTest, VerifyNamesWhatIsWrongAndWhere) {
  std::string stream = "REDIS0010";
  RdbAppendEntry("twice", "1", 0, &stream);
  const size_t second = stream.size();
  RdbAppendEntry("twice", "2", 0, &stream);
  const VerbResult twice = RunVerb({"snapshot", "verify", WriteTestFile("twice.rdb", WithEof(stream)), "-o", "json"});
  EXPECT_EQ(twice.code, 1);
  EXPECT_EQ(twice.error()["reason"], "rdb_duplicate_key");
  EXPECT_THAT(twice.error()["message"].get<std::string>(), HasSubstr(absl::StrCat("at byte ", second)));
  EXPECT_EQ(RunVerb({"snapshot", "verify", "/no/such/file"}).code, 1);
  EXPECT_EQ(RunVerb({"snapshot", "verify"}).code, 2);
}

TEST_F(SnapshotTest, LoadWritesBatchesWithoutRequestIds) {
  const std::string path = WriteTestFile("many.rdb", Dump(5'000, 100));
  const VerbResult result = towctl_({"snapshot", "load", path});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("end_of_file: 5000 of 5000 keys"));
  EXPECT_THAT(result.out, HasSubstr("left out: 0 expired\n"));
  EXPECT_EQ(server_.Value("k4999"), std::string(100, 'v'));
  MutexLock lock(&server_.state().mutex);
  EXPECT_EQ(server_.state().entries.size(), 5'000u);
  EXPECT_LT(server_.state().log.size(), 50u);
  EXPECT_TRUE(server_.state().request_ids.empty());
}

TEST_F(SnapshotTest, LoadTakesASnapshotOfTowlineWithoutItsExpiredKeys) {
  const std::string path = WriteTestFile("golden_load.rdb", test::ReadGolden("tests/golden/rdb_v9.hex"));
  const VerbResult result = towctl_({"snapshot", "load", path, "-o", "json"});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(result.json()["keys"], 1);
  EXPECT_EQ(result.json()["expired"], 1);
  EXPECT_EQ(server_.Value("a"), "one");
  EXPECT_FALSE(server_.Value("bb").has_value());
}

TEST_F(SnapshotTest, BatchesKeepToTheLimitOfThePrimary) {
  server_.state().status.set_record_bytes_max(2'000);
  EXPECT_EQ(towctl_({"snapshot", "load", WriteTestFile("fits.rdb", Dump(100, 900))}).code, 0);
  {
    MutexLock lock(&server_.state().mutex);
    EXPECT_EQ(server_.state().log.size(), 50u) << "two keys to a record";
  }
  const VerbResult large = towctl_({"snapshot", "load", WriteTestFile("large.rdb", Dump(3, 2'000)), "-o", "json"});
  EXPECT_EQ(large.code, 4);
  EXPECT_EQ(large.error()["reason"], "not_loadable");
  EXPECT_THAT(large.error()["message"].get<std::string>(), HasSubstr("3 records would have more than 2000 bytes"));
}

TEST_F(SnapshotTest, ALostConnectionTellsHowFarItWas) {
  const std::string path = WriteTestFile("lost.rdb", Dump(200, 10'000));  // six keys to a record
  server_.state().cut_stream_after = 20;
  const VerbResult lost = towctl_({"snapshot", "load", path, "-o", "json"});
  EXPECT_EQ(lost.code, 1);
  EXPECT_EQ(lost.json()["ended"], "failed");
  EXPECT_EQ(lost.json()["keys"], 120);
  EXPECT_EQ(lost.json()["keys_to_load"], 200);
  EXPECT_THAT(lost.error()["message"].get<std::string>(), HasSubstr("120 of 200 keys are known to be written"));
  EXPECT_THAT(lost.error()["next_action"].get<std::string>(), HasSubstr("load the file again: that is safe"));
  EXPECT_EQ(towctl_({"snapshot", "load", path}).code, 0);
  MutexLock lock(&server_.state().mutex);
  EXPECT_EQ(server_.state().entries.size(), 200u);
}

TEST_F(SnapshotTest, ARefusedRecordEndsTheLoad) {
  server_.state().refused_keys = {"k0"};
  const VerbResult refused =
      towctl_({"snapshot", "load", WriteTestFile("refused.rdb", Dump(200, 10'000)), "-o", "json"});
  EXPECT_EQ(refused.code, 1);
  EXPECT_EQ(refused.json()["ended"], "failed");
  EXPECT_EQ(refused.error()["reason"], "record_too_large");
}

TEST_F(SnapshotTest, NotThePrimaryIsExitCodeFiveOrFollowed) {
  FakeServer replica;
  replica.state().refuse_writes =
      MakeError(absl::StatusCode::kFailedPrecondition,
                ErrorInfo{"not_primary", "r1 is a replica", "", {{"primary_address", server_.endpoint()}}});
  const std::string path = WriteTestFile("follow.rdb", Dump(10, 10));
  EXPECT_EQ(Towctl(replica.endpoint())({"snapshot", "load", path}).code, 5);
  EXPECT_EQ(Towctl(replica.endpoint())({"snapshot", "load", path, "--follow"}).code, 0);
  EXPECT_TRUE(server_.Value("k9").has_value());
  EXPECT_EQ(RunVerb({"--endpoint", "127.0.0.1:1", "snapshot", "load", path}).code, 1);
}

TEST_F(SnapshotTest, AnInterruptEndsBothVerbs) {
  const std::string path = WriteTestFile("interrupted.rdb", Dump(10, 10));
  Interrupt interrupt;
  interrupt.Trigger();
  EXPECT_EQ(RunWith({"snapshot", "verify", path}, interrupt, 0).code, 1);
  EXPECT_EQ(RunWith({"--endpoint", server_.endpoint(), "snapshot", "load", path}, interrupt, 0).code, 1);
  MutexLock lock(&server_.state().mutex);
  EXPECT_TRUE(server_.state().entries.empty());
}

}  // namespace
}  // namespace towline::ctl
