// Tests of the configuration: precedence, units, and that nothing unknown or unsafe passes.

#include "server/config.h"

#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/temp_dir.h"

namespace towline {
namespace {

class ConfigTest : public ::testing::Test {
 protected:
  ~ConfigTest() override {
    for (const std::string& name : set_) unsetenv(name.c_str());
  }

  void SetEnvironment(const std::string& name, const std::string& value) {
    setenv(name.c_str(), value.c_str(), 1);
    set_.push_back(name);
  }

  std::string WriteFile(const std::string& text) {
    const std::string path = directory_.path() + "/towline.toml";
    std::ofstream(path) << text;
    return path;
  }

  static Invocation Parse(std::vector<std::string> arguments) {
    std::vector<const char*> argv = {"towlined"};
    for (const std::string& argument : arguments) argv.push_back(argument.c_str());
    return ParseInvocation(static_cast<int>(argv.size()), argv.data());
  }

  // A primary with the required flags and `more`.
  static Invocation Primary(std::vector<std::string> more) {
    std::vector<std::string> arguments = {"primary", "--data-dir", "d", "--node-id", "p1"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return Parse(arguments);
  }

  static void ExpectUsageError(const Invocation& invocation) {
    EXPECT_EQ(invocation.action, Invocation::Action::kExit);
    EXPECT_EQ(invocation.exit_code, 2);
  }

  test::TempDir directory_;
  std::vector<std::string> set_;
};

TEST_F(ConfigTest, DefaultsAreThoseOfTheContract) {
  const Invocation invocation = Primary({});
  ASSERT_EQ(invocation.action, Invocation::Action::kRun);
  EXPECT_EQ(invocation.config.role, NodeRole::kPrimary);
  EXPECT_EQ(invocation.config.wal_segment_bytes, 64ull << 20);
  EXPECT_EQ(invocation.config.wal_keep_bytes, 1ull << 30);
  EXPECT_EQ(invocation.config.wal_queue_bytes, 64ull << 20);
  EXPECT_EQ(invocation.config.slots_max_retained_bytes, 16ull << 30);
  EXPECT_EQ(invocation.config.replication_credit_bytes, 8ull << 20);
  EXPECT_EQ(invocation.config.replication_heartbeat_micros, 250'000);
}

TEST_F(ConfigTest, FlagWinsOverEnvironmentWinsOverFile) {
  const std::string file =
      WriteFile("[wal]\nsegment_bytes = \"1MiB\"\nkeep_bytes = \"2MiB\"\nqueue_bytes = \"3MiB\"\n");
  SetEnvironment("TOWLINE_WAL_KEEP_BYTES", "4MiB");
  SetEnvironment("TOWLINE_WAL_QUEUE_BYTES", "5MiB");
  const Invocation invocation = Primary({"--config", file, "--wal.queue_bytes", "6MiB"});
  ASSERT_EQ(invocation.action, Invocation::Action::kRun);
  EXPECT_EQ(invocation.config.wal_segment_bytes, 1u << 20);
  EXPECT_EQ(invocation.config.wal_keep_bytes, 4u << 20);
  EXPECT_EQ(invocation.config.wal_queue_bytes, 6u << 20);
}

TEST_F(ConfigTest, TopLevelKeysMayStandInTheFile) {
  const std::string file =
      WriteFile("data_dir = \"d\"\nnode_id = \"r1\"\nupstream = \"127.0.0.1:7700\"\nlisten = \"127.0.0.1:7701\"\n");
  const Invocation invocation = Parse({"replica", "--config", file});
  ASSERT_EQ(invocation.action, Invocation::Action::kRun);
  EXPECT_EQ(invocation.config.role, NodeRole::kReplica);
  EXPECT_EQ(invocation.config.node_id, "r1");
  EXPECT_EQ(invocation.config.upstream, "127.0.0.1:7700");
}

TEST_F(ConfigTest, UnknownAndUnitlessAreErrors) {
  ExpectUsageError(Primary({"--wal.no_such_key", "1"}));
  ExpectUsageError(Primary({"--wal.segment_bytes", "67108864"}));
  ExpectUsageError(Primary({"--replication.heartbeat_interval", "250"}));
  ExpectUsageError(Primary({"--wal.segment_bytes", "1KiB"}));  // below the least
  ExpectUsageError(Primary({"--config", WriteFile("[wal]\nno_such = 1\n")}));
  ExpectUsageError(Primary({"--config", WriteFile("[wal]\nsegment_bytes = 67108864\n")}));
  ExpectUsageError(Primary({"--config", WriteFile("[wal\n")}));
  ExpectUsageError(Primary({"--config", directory_.path() + "/absent.toml"}));
  SetEnvironment("TOWLINE_WAL_SEGMENT_BYTES", "12");
  ExpectUsageError(Primary({}));
}

TEST_F(ConfigTest, MissingAndContradictingFlagsAreErrors) {
  ExpectUsageError(Parse({}));
  ExpectUsageError(Parse({"leader"}));
  ExpectUsageError(Parse({"primary", "--node-id", "p1"}));
  ExpectUsageError(Parse({"primary", "--data-dir", "d"}));
  ExpectUsageError(Parse({"primary", "--data-dir", "d", "--node-id", "Not A Name"}));
  ExpectUsageError(Parse({"replica", "--data-dir", "d", "--node-id", "r1"}));
  ExpectUsageError(Primary({"--upstream", "127.0.0.1:7700"}));
  ExpectUsageError(Primary({"--listen", "127.0.0.1:1", "--http", "127.0.0.1:1"}));
  ExpectUsageError(Parse(
      {"replica", "--data-dir", "d", "--node-id", "r1", "--listen", "127.0.0.1:7700", "--upstream", "127.0.0.1:7700"}));
}

TEST_F(ConfigTest, OnlyLoopbackWithoutInsecure) {
  ExpectUsageError(Primary({"--listen", "0.0.0.0:7700"}));
  ExpectUsageError(Primary({"--http", "[::]:7780"}));
  EXPECT_EQ(Primary({"--listen", "0.0.0.0:7700", "--insecure"}).action, Invocation::Action::kRun);
  EXPECT_EQ(Primary({"--listen", "[::1]:7700", "--http", "localhost:7780"}).action, Invocation::Action::kRun);
}

TEST_F(ConfigTest, ConfigCheckReadsAFile) {
  EXPECT_EQ(Parse({"config", "check", WriteFile("[log]\nlevel = \"debug\"\n")}).exit_code, 0);
  EXPECT_EQ(Parse({"config", "check", WriteFile("[log]\nlevel = \"loud\"\n")}).exit_code, 2);
}

}  // namespace
}  // namespace towline
