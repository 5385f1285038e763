#include <string>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/ctl/fake_server.h"
#include "tests/ctl/run_verb.h"

namespace towline::ctl {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;
using ::towline::testing::FakeServer;

class TailTest : public ::testing::Test {
 protected:
  TailTest() {
    for (int i = 1; i <= 5; ++i) server_.Put((i % 2 == 0 ? "even/" : "odd/") + std::to_string(i), "v");
  }

  uint64_t LastAck() {
    MutexLock lock(&server_.state().mutex);
    return server_.state().acks.empty() ? 0 : server_.state().acks.back().flushed_lsn();
  }

  FakeServer server_;
  Towctl towctl_{server_.endpoint()};
};

TEST_F(TailTest, FromAnLsnUntilTheCurrentOneWithATemporarySlot) {
  const VerbResult result = towctl_({"tail", "--from", "2", "--until-current"});
  EXPECT_EQ(result.code, 0) << result.err;
  ASSERT_THAT(result.lines(), SizeIs(4));
  const Json first = Json::parse(result.lines()[0]);
  EXPECT_EQ(first["lsn"], 2);
  EXPECT_EQ(first["type"], "batch");
  EXPECT_EQ(first["operations"][0]["put"]["key"], "even/2");
  EXPECT_EQ(LastAck(), 5u);
  MutexLock lock(&server_.state().mutex);
  EXPECT_TRUE(server_.state().slots.empty());
  EXPECT_THAT(server_.state().starts.at(0).slot(), ::testing::StartsWith("tail-"));
  EXPECT_TRUE(server_.state().starts.at(0).temporary());
}

TEST_F(TailTest, UntilCurrentAloneStartsAtTheFirstRetainedRecord) {
  EXPECT_THAT(towctl_({"tail", "--until-current"}).lines(), SizeIs(5));
}

TEST_F(TailTest, ALimitConfirmsOnlyWhatWasPrinted) {
  ASSERT_EQ(towctl_({"slot", "create", "s", "--kind", "consumer", "--confirmed-lsn", "0"}).code, 0);
  EXPECT_THAT(towctl_({"tail", "--slot", "s", "--limit", "2"}).lines(), SizeIs(2));
  EXPECT_EQ(LastAck(), 2u);
  const VerbResult rest = towctl_({"tail", "--slot", "s", "--until-current"});
  ASSERT_THAT(rest.lines(), SizeIs(3));
  EXPECT_EQ(Json::parse(rest.lines()[0])["lsn"], 3);
  EXPECT_EQ(towctl_({"slot", "get", "s", "-o", "json"}).json()["confirmed_lsn"], 5);
}

// The server ends a session that sends nothing for a while.
TEST_F(TailTest, AnIdleTailAnswersHeartbeats) {
  Interrupt interrupt;
  VerbResult result;
  std::thread run([&] { result = RunWith({"--endpoint", server_.endpoint(), "tail"}, interrupt, 0); });
  const auto answered = [this] {
    MutexLock lock(&server_.state().mutex);
    return server_.state().acks.empty() ? 0 : server_.state().acks.back().heartbeat_sequence();
  };
  while (answered() < 4) std::this_thread::yield();
  interrupt.Trigger();
  run.join();
  EXPECT_EQ(result.code, 0) << result.err;
}

TEST_F(TailTest, ThePrefixFiltersButConfirmsEverything) {
  const VerbResult result = towctl_({"tail", "--from", "1", "--prefix", "even/", "--until-current"});
  EXPECT_THAT(result.lines(), SizeIs(2));
  EXPECT_EQ(LastAck(), 5u);
}

TEST_F(TailTest, AnUnknownSlotIsAnErrorUnlessItIsCreated) {
  const VerbResult missing = towctl_({"tail", "--slot", "s", "--until-current"});
  EXPECT_EQ(missing.code, 1);
  EXPECT_THAT(missing.err, HasSubstr("--create"));
  EXPECT_EQ(towctl_({"tail", "--slot", "s", "--create", "--from", "4", "--until-current"}).lines().size(), 2u);
  EXPECT_EQ(towctl_({"slot", "get", "s"}).code, 0);
}

TEST_F(TailTest, ARefusedStartIsExitCodeFourWithTheDecision) {
  v1::PullStarted refused;
  refused.set_decision(v1::RESUME_DECISION_REFUSE);
  refused.set_reason("wal_removed");
  refused.set_message("record 1 is gone, the first is 100");
  refused.set_next_action("start from 100");
  server_.state().decision = refused;
  const VerbResult result = towctl_({"tail", "--from", "1", "-o", "json"});
  EXPECT_EQ(result.code, 4);
  EXPECT_EQ(result.out, "");
  EXPECT_EQ(result.error()["reason"], "wal_removed");
  EXPECT_EQ(result.error()["metadata"]["decision"], "refuse");
  EXPECT_EQ(result.error()["next_action"], "start from 100");
  EXPECT_TRUE(server_.state().slots.empty());
}

TEST_F(TailTest, AnInterruptEndsItCleanlyAndDropsTheTemporarySlot) {
  Interrupt interrupt;
  VerbResult result;
  std::thread run([&] { result = RunWith({"--endpoint", server_.endpoint(), "tail"}, interrupt, 0); });
  const auto connected = [this] {
    MutexLock lock(&server_.state().mutex);
    return !server_.state().starts.empty();
  };
  while (!connected()) std::this_thread::yield();
  server_.Put("new", "v");
  while (LastAck() != 6) std::this_thread::yield();
  interrupt.Trigger();
  run.join();
  EXPECT_EQ(result.code, 0) << result.err;
  ASSERT_THAT(result.lines(), SizeIs(1));
  EXPECT_EQ(Json::parse(result.lines()[0])["lsn"], 6);
  EXPECT_TRUE(server_.state().slots.empty());
}

}  // namespace
}  // namespace towline::ctl
