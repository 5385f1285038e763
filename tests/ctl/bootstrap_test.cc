// bootstrap, and how the status shows loads and snapshots that are sent.

#include <string>

#include "common/error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/ctl/fake_server.h"
#include "tests/ctl/run_verb.h"

namespace towline::ctl {
namespace {

using ::testing::HasSubstr;
using ::towline::testing::FakeServer;

v1::GetStatusResponse StatusOf(const std::string& state, double uptime) {
  v1::GetStatusResponse status;
  status.set_state(state);
  status.set_uptime_seconds(uptime);
  return status;
}

v1::GetStatusResponse Loading(double uptime) {
  v1::GetStatusResponse status = StatusOf("bootstrapping", uptime);
  v1::BootstrapStatus* const bootstrap = status.mutable_bootstrap();
  bootstrap->set_reason("requested");
  bootstrap->set_phase("loading");
  bootstrap->set_keys(1200);
  bootstrap->set_bytes(3 << 20);
  bootstrap->set_estimated_bytes(12 << 20);
  bootstrap->set_bytes_per_second(9 << 20);
  bootstrap->set_eta_seconds(1);
  bootstrap->set_resumes(2);
  bootstrap->set_bytes_again(1 << 20);
  return status;
}

class BootstrapTest : public ::testing::Test {
 protected:
  VerbResult Watch(std::vector<std::string> more = {}) {
    more.insert(more.begin(), {"bootstrap", server_.endpoint(), "--watch"});
    return RunVerb(more);
  }

  FakeServer server_;
  Towctl towctl_{server_.endpoint()};
};

TEST_F(BootstrapTest, AsksOnceAndSaysWhetherALoadRan) {
  EXPECT_THAT(towctl_({"bootstrap", server_.endpoint()}).out, HasSubstr("is asked to load a snapshot"));
  EXPECT_THAT(towctl_({"bootstrap", server_.endpoint()}).out, HasSubstr("loads a snapshot already"));
  EXPECT_EQ(towctl_({"bootstrap", server_.endpoint(), "-o", "json"}).json()["already_running"], true);
}

TEST_F(BootstrapTest, RefusalsAndUnknownNodes) {
  server_.state().refuse_bootstrap =
      MakeError(absl::StatusCode::kFailedPrecondition, "not_replica", "node p1 is the primary");
  EXPECT_EQ(towctl_({"bootstrap", server_.endpoint()}).code, 4);
  const VerbResult unknown = towctl_({"bootstrap", "r9", "-o", "json"});
  EXPECT_EQ(unknown.code, 1);
  EXPECT_EQ(unknown.error()["reason"], "member_not_found");
  EXPECT_EQ(towctl_({"bootstrap", "R 9"}).code, 2);
  EXPECT_EQ(towctl_({"bootstrap"}).code, 2);
}

TEST_F(BootstrapTest, WatchEndsWhenTheNodeStreamsWithoutALoad) {
  v1::GetStatusResponse asked = StatusOf("streaming", 10);
  asked.mutable_bootstrap()->set_phase("waiting");
  server_.state().statuses = {asked, Loading(11), StatusOf("catching_up", 12), StatusOf("streaming", 13)};
  const VerbResult result = Watch({"-o", "json"});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(result.json()["ended"], "streaming");
  EXPECT_EQ(result.json()["bootstrap"]["keys"], 1200);
  EXPECT_TRUE(server_.state().statuses.empty());
}

TEST_F(BootstrapTest, WatchAsksANodeAgainThatForgot) {
  server_.state().statuses = {Loading(10), StatusOf("streaming", 1), Loading(2), StatusOf("streaming", 3)};
  EXPECT_EQ(Watch().code, 0);
  EXPECT_EQ(server_.state().bootstraps, 2u);
}

TEST_F(BootstrapTest, WatchOfAHaltedNodeIsExitCodeThree) {
  v1::GetStatusResponse halted = StatusOf("halted", 11);
  halted.set_state_reason("chain_mismatch");
  server_.state().statuses = {Loading(10), halted};
  const VerbResult result = Watch();
  EXPECT_EQ(result.code, 3);
  EXPECT_THAT(result.err, HasSubstr("chain_mismatch"));
  EXPECT_THAT(result.err,
              HasSubstr("loading, 1200 keys, 3 MiB of about 12 MiB (25 %), 9 MiB/s, ETA 1.00 s, 2 resumes"));
}

TEST_F(BootstrapTest, TheStatusTableShowsLoadsAndSnapshots) {
  *server_.state().status.mutable_bootstrap() = Loading(1).bootstrap();
  v1::SnapshotSendStatus* const sent = server_.state().status.add_snapshots();
  sent->set_slot("r1");
  sent->set_lsn(42);
  sent->set_keys(7);
  sent->set_bytes(1 << 20);
  sent->set_estimated_bytes(2 << 20);
  sent->set_bytes_per_second(1 << 20);
  sent->set_eta_seconds(1);
  sent->set_resumed(true);
  server_.state().status.add_snapshots()->set_lsn(43);
  const std::string table = towctl_({"status"}).out;
  EXPECT_THAT(table, HasSubstr("bootstrap requested: loading, 1200 keys, 3 MiB of about 12 MiB (25 %)"));
  EXPECT_THAT(table, HasSubstr("2 resumes, 1 MiB again"));
  EXPECT_THAT(table, HasSubstr("snapshot at lsn 42 to r1: 7 keys, 1 MiB of about 2 MiB (50 %)"));
  EXPECT_THAT(table, HasSubstr("gone on from a cursor"));
  EXPECT_THAT(table, HasSubstr("snapshot at lsn 43 to a file: "));
  EXPECT_EQ(towctl_({"status", "-o", "json"}).json()["snapshots"].size(), 2u);
}

}  // namespace
}  // namespace towline::ctl
