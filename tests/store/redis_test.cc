// Snapshots against a real Redis: it loads what we write, and we read what it writes.
//
// Every server runs in a directory of its own, listens on a Unix socket only and is ended by its process id. Without
// the programs the tests are skipped with a notice.

#include <fcntl.h>
#include <map>
#include <memory>
#include <signal.h>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "common/file_system.h"
#include "store/memory_store.h"
#include "store/rdb_format.h"
#include "store/rdb_reader.h"
#include "store/rdb_writer.h"
#include "store/snapshot_codec.h"
#include "tests/store/child_process.h"
#include "tests/store/state_test_util.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace towline::test {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kFarFuture = 4'000'000'000'000;  // the year 2096, in milliseconds

class RedisTest : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const char* program : {"redis-server", "redis-cli", "redis-check-rdb"}) {
      if (!HaveProgram(program)) GTEST_SKIP();
    }
  }

  std::string DumpPath() const { return dir_.Join("dump.rdb"); }

  void WriteDump(absl::string_view data) {
    ASSERT_THAT(WriteFileDurably(*PosixFileSystem(), dir_.path(), "dump.rdb", data), IsOk());
  }

  // Starts a server that loads dump.rdb, if there is one, and waits until it answers.
  void StartServer() {
    server_ = std::make_unique<ChildProcess>(
        std::vector<std::string>{"redis-server", "--port", "0", "--unixsocket", SocketPath(), "--dir", dir_.path(),
                                 "--save", "", "--appendonly", "no", "--daemonize", "no", "--dbfilename", "dump.rdb"},
        dir_.Join("server.log"));
    ASSERT_TRUE(server_->started());
    ASSERT_TRUE(WaitUntil(30, [this] { return !server_->Running() || absl::StrContains(Cli({"PING"}), "PONG"); }));
    ASSERT_TRUE(server_->Running()) << *ReadFile(*PosixFileSystem(), dir_.Join("server.log"));
  }

  void StopServer() {
    server_->Kill(SIGTERM);
    EXPECT_EQ(server_->Wait(30), 0);
  }

  // One command; the raw answer with a newline behind it.
  std::string Cli(std::vector<std::string> arguments) {
    std::vector<std::string> command = {"redis-cli", "-s", SocketPath()};
    command.insert(command.end(), arguments.begin(), arguments.end());
    std::string output;
    RunCommand(command, dir_.Join("cli.out"), &output);
    return output;
  }

  std::string SocketPath() const { return dir_.Join("redis.sock"); }

  // The whole content of dump.rdb by our own reader.
  absl::StatusOr<Model> ReadDump(size_t piece) {
    TOWLINE_ASSIGN_OR_RETURN(const std::string data, ReadFile(*PosixFileSystem(), DumpPath()));
    RdbReader reader({});
    Model model;
    size_t fed = 0;
    for (;;) {
      TOWLINE_ASSIGN_OR_RETURN(const RdbEvent event, reader.Next());
      if (event.kind == RdbEvent::Kind::kEnd) return model;
      if (event.kind == RdbEvent::Kind::kEntry) {
        model[std::string(event.key)] = {std::string(event.value), event.expire_at_ms, 0};
      }
      if (event.kind != RdbEvent::Kind::kNeedMore) continue;
      if (fed == data.size()) return absl::OutOfRangeError("cut short");
      const absl::string_view next = absl::string_view(data).substr(fed, piece);
      fed += next.size();
      reader.Feed(next);
    }
  }

  TempDir dir_;
  std::unique_ptr<ChildProcess> server_;
};

// A state with every shape of key and value, as a concatenated snapshot.
std::string EncodeAll(const TestLog& log, size_t chunk_bytes) {
  MemoryStoreFactory factory;
  auto state = StateStore::Open(*factory.Open("db"));
  EXPECT_THAT(ApplyRest(**state, log, 100), IsOk());
  SnapshotMeta meta;
  meta.cluster_id = "0123456789abcdef01234567";
  meta.node_id = "p1";
  meta.history = {{1, 1, 42}};
  meta.estimated_keys = 100;
  SnapshotEncoder encoder(*(*state)->Snapshot(), meta, chunk_bytes);
  std::string all;
  for (;;) {
    auto chunk = encoder.Next();
    EXPECT_THAT(chunk, IsOk());
    if (!chunk->has_value()) return all;
    all += (*chunk)->data;
  }
}

TestLog ManyKeys(int count) {
  TestLog log;
  log.Append(TermStartPayload());
  SeededRng rng(5);
  for (int i = 0; i < count; ++i) {
    std::string value(rng.Below(300), '\0');
    for (char& byte : value) byte = static_cast<char>(rng.Below(256));
    const uint64_t expire_at_ms = rng.OneIn(4) ? kFarFuture + rng.Below(1000) : 0;
    log.Append(
        ChangeBuilder().Put(absl::StrCat("key:", i), value, expire_at_ms).Request("client", log.last()).Encode());
  }
  for (const size_t size : {63, 64, 16383, 16384}) {
    log.Append(ChangeBuilder().Put(std::string(size, 'k'), std::string(size, 'v')).Encode());
  }
  log.Append(ChangeBuilder().Put("number", "12345").Put("empty", "").Put(std::string("nul\0\xff\n", 6), "x").Encode());
  return log;
}

TEST_F(RedisTest, CheckAcceptsASnapshotOfManyChunks) {
  for (const size_t chunk_bytes : {300, 1 << 20}) {
    WriteDump(EncodeAll(ManyKeys(3000), chunk_bytes));
    std::string output;
    EXPECT_EQ(RunCommand({"redis-check-rdb", DumpPath()}, dir_.Join("check.out"), &output), 0)
        << output.substr(0, 4000);
    EXPECT_THAT(output, HasSubstr("RDB looks OK"));
    EXPECT_THAT(output, HasSubstr("3007 keys read"));
  }
}

TEST_F(RedisTest, CheckAcceptsAnEmptySnapshot) {
  WriteDump(EncodeAll(TestLog(), 1 << 20));
  std::string output;
  EXPECT_EQ(RunCommand({"redis-check-rdb", DumpPath()}, dir_.Join("check.out"), &output), 0) << output;
}

TEST_F(RedisTest, AServerLoadsASnapshot) {
  const TestLog log = ManyKeys(3000);
  WriteDump(EncodeAll(log, 20'000));
  StartServer();
  const Model model = ModelAt(log, log.last());
  EXPECT_EQ(Cli({"DBSIZE"}), absl::StrCat(model.size(), "\n"));

  // The server writes its content out again: keys, values and expiries must be what the log made.
  EXPECT_EQ(Cli({"SAVE"}), "OK\n");
  StopServer();
  TOWLINE_ASSERT_OK_AND_ASSIGN(const Model saved, ReadDump(1 << 16));
  ASSERT_EQ(saved.size(), model.size());
  for (const auto& [key, entry] : model) {
    const auto it = saved.find(key);
    ASSERT_NE(it, saved.end()) << key;
    ASSERT_EQ(it->second.value, entry.value) << key;
    ASSERT_EQ(it->second.expire_at_ms, entry.expire_at_ms) << key;
  }
}

TEST_F(RedisTest, AServerRefusesADamagedSnapshot) {
  std::string data = EncodeAll(ManyKeys(50), 1 << 20);
  data[data.size() / 2] = static_cast<char>(data[data.size() / 2] ^ 1);
  WriteDump(data);
  std::string output;
  EXPECT_NE(RunCommand({"redis-check-rdb", DumpPath()}, dir_.Join("check.out"), &output), 0);
}

TEST_F(RedisTest, ReadsWhatAServerSaves) {
  StartServer();
  std::map<std::string, std::string> expected;
  const auto set = [&](const std::string& key, const std::string& value) {
    ASSERT_EQ(Cli({"SET", key, value}), "OK\n");
    expected[key] = value;
  };
  for (const char* number : {"0", "-1", "127", "128", "-129", "32768", "-32769", "2147483647", "2147483648", "007"}) {
    set(absl::StrCat("n", number), number);
  }
  set("lzf-run", std::string(5000, 'a'));
  std::string pattern;
  for (int i = 0; i < 400; ++i) absl::StrAppend(&pattern, "field-", i % 10, "=", i, ";");
  set("lzf-pattern", pattern);
  set("12345", "integer key");
  set("empty", "");
  for (const size_t size : {63, 64, 16383, 16384}) set(absl::StrCat("len", size), std::string(size, 'q') + "w");
  set("expiring", "soon");
  EXPECT_EQ(Cli({"PEXPIREAT", "expiring", absl::StrCat(kFarFuture)}), "1\n");

  for (const char* compression : {"yes", "no"}) {
    EXPECT_EQ(Cli({"CONFIG", "SET", "rdbcompression", compression}), "OK\n");
    ASSERT_EQ(Cli({"SAVE"}), "OK\n");
    for (const size_t piece : {7, 1 << 20}) {
      TOWLINE_ASSERT_OK_AND_ASSIGN(const Model read, ReadDump(piece));
      ASSERT_EQ(read.size(), expected.size());
      for (const auto& [key, value] : expected) EXPECT_EQ(read.at(key).value, value) << key;
      EXPECT_EQ(read.at("expiring").expire_at_ms, kFarFuture);
    }
  }

  EXPECT_EQ(Cli({"RPUSH", "queue", "element"}), "1\n");
  ASSERT_EQ(Cli({"SAVE"}), "OK\n");
  EXPECT_THAT(ReadDump(1 << 20), ReasonIs("rdb_type_unsupported"));
  StopServer();
}

}  // namespace
}  // namespace towline::test
