// Arguments: what is refused before anything is sent, and how results and errors are printed.

#include <cstdlib>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/ctl/fake_server.h"
#include "tests/ctl/run_verb.h"

namespace towline::ctl {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;
using ::towline::testing::FakeServer;

TEST(Arguments, HelpAndVersionAreNoErrors) {
  EXPECT_EQ(RunVerb({"--help"}).code, 0);
  EXPECT_THAT(RunVerb({"--help"}).out, HasSubstr("Examples:"));
  EXPECT_THAT(RunVerb({"put", "--help"}).out, HasSubstr("towctl put greeting hello"));
  EXPECT_THAT(RunVerb({"slot", "create", "--help"}).out, HasSubstr("--confirmed-lsn"));
  EXPECT_THAT(RunVerb({"--version"}).out, StartsWith("towctl 0."));
}

TEST(Arguments, MistakesAreUsageErrors) {
  const std::vector<std::vector<std::string>> mistakes = {
      {},
      {"no-such-verb"},
      {"put", "k"},
      {"put", "k", "v", "extra"},
      {"put", "k", "v", "--no-such-option"},
      {"put", "", "v"},
      {"put", std::string(65537, 'k'), "v"},
      {"put", "k", "v", "--ttl", "10"},
      {"put", "k", "v", "--ttl", "10parsecs"},
      {"put", "k", "v", "--ttl", "5us"},
      {"put", "k", "v", "--if-absent", "--if-exists"},
      {"put", "k", "v", "--if-modified-lsn", "0"},
      {"put", "k", "v", "--if-modified-lsn", "-1"},
      {"put", "k", "v", "--request-id", "Client:1"},
      {"put", "k", "v", "--request-id", "client"},
      {"put", "k", "v", "--request-id", "client:0"},
      {"put", "!", "v", "--base64"},
      {"get"},
      {"get", ""},
      {"del"},
      {"del", "k", "--all"},
      {"del", "--begin", "", "--end", ""},
      {"del", "--begin", "b", "--end", "a"},
      {"del", "--all", "--if-exists"},
      {"scan", "--limit", "0"},
      {"scan", "--limit", "1e3"},
      {"scan", "--limit", "18446744073709551616"},
      {"status", "-o", "yaml"},
      {"--timeout", "10", "status"},
      {"--timeout", "-5s", "status"},
      {"slot"},
      {"slot", "get", "../etc"},
      {"slot", "create", "s"},
      {"slot", "create", "s", "--kind", "leader"},
      {"slot", "create", "UPPER", "--kind", "consumer"},
      {"slot", "explain", "r1", "--chain", "ff"},
      {"tail", "--create"},
      {"tail", "--slot", "Not Valid"},
      {"tail", "--from", "0"},
      {"wal", "stat"},
      {"wal", "seek", "--data-dir", "/tmp"},
      {"bench", "--mode", "magic"},
      {"bench", "--value-size", "256"},
      {"bench", "--value-size", "1GiB"},
      {"bench", "--in-flight", "0"},
      {"bench", "--mode", "stream", "--batch", "65536", "--value-size", "1KiB"},
      {"import"},
      {"import", "f", "--format", "xml"},
  };
  for (const std::vector<std::string>& arguments : mistakes) {
    const VerbResult result = RunVerb(arguments);
    EXPECT_EQ(result.code, 2) << ::testing::PrintToString(arguments) << result.err;
    EXPECT_THAT(result.err, StartsWith("error: usage: ")) << ::testing::PrintToString(arguments);
    EXPECT_EQ(result.out, "");
  }
}

TEST(Arguments, ErrorsAreJsonWhenAskedFor) {
  const VerbResult usage = RunVerb({"put", "k", "-o", "json"});
  EXPECT_EQ(usage.code, 2);
  EXPECT_EQ(usage.error()["reason"], "usage");
  const VerbResult unreachable = RunVerb({"--endpoint", "127.0.0.1:1", "status", "-o", "json"});
  EXPECT_EQ(unreachable.code, 1);
  EXPECT_EQ(unreachable.error()["reason"], "unavailable");
  EXPECT_EQ(unreachable.error()["metadata"]["endpoint"], "127.0.0.1:1");
}

TEST(Arguments, BadEndpointsAreNamed) {
  const VerbResult result = RunVerb({"--endpoint", "nowhere", "status"});
  EXPECT_EQ(result.code, 1);
  EXPECT_THAT(result.err, HasSubstr("invalid_endpoint"));
}

TEST(Arguments, GlobalOptionsStandBeforeOrAfterTheVerb) {
  FakeServer server;
  const std::vector<std::vector<std::string>> forms = {
      {"--endpoint", server.endpoint(), "-o", "json", "slot", "list"},
      {"slot", "list", "-o", "json", "--endpoint", server.endpoint()},
      {"slot", "--endpoint=" + server.endpoint(), "list", "-o", "json"}};
  for (const std::vector<std::string>& arguments : forms) {
    const VerbResult result = RunVerb(arguments);
    EXPECT_EQ(result.code, 0) << result.err;
    EXPECT_EQ(result.out, "{\"slots\":[],\"unknown\":false}\n");
  }
}

TEST(Arguments, TheEndpointComesFromTheEnvironmentUnlessItIsGiven) {
  FakeServer server;
  setenv("TOWLINE_ENDPOINT", server.endpoint().c_str(), 1);
  EXPECT_EQ(RunVerb({"ping", "--count", "1"}).code, 0);
  setenv("TOWLINE_ENDPOINT", "127.0.0.1:1", 1);
  EXPECT_EQ(RunVerb({"ping", "--count", "1"}).code, 1);
  EXPECT_EQ(RunVerb({"ping", "--count", "1", "--endpoint", server.endpoint()}).code, 0);
  unsetenv("TOWLINE_ENDPOINT");
}

}  // namespace
}  // namespace towline::ctl
