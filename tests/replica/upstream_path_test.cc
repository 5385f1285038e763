// Tests of a replica that hears of the path over which its records come.

#include "replica/upstream_path.h"

#include <string>

#include "absl/strings/str_cat.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/replica/streaming_fixture.h"
#include "tests/support/status_matchers.h"

namespace towline::test {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

google::protobuf::RepeatedPtrField<std::string> Told(const UpstreamPath& path) { return {path.begin(), path.end()}; }

TEST(PathFromProtoTest, IsCutBehindTheOwnId) {
  EXPECT_THAT(*PathFromProto(Told({}), "r1"), IsEmpty());
  EXPECT_THAT(*PathFromProto(Told({"r2", "p1"}), "r1"), ElementsAre("r2", "p1"));
  EXPECT_THAT(*PathFromProto(Told({"r2", "r1", "r2", "r1"}), "r1"), ElementsAre("r2", "r1"));
  EXPECT_THAT(CheckPath({"r2", "p1"}, "r1"), IsOk());
  EXPECT_THAT(CheckPath({"r2", "r1"}, "r1"), ReasonIs("loop"));
}

TEST(PathFromProtoTest, BadPathsAreRefused) {
  EXPECT_THAT(PathFromProto(Told({"r2", "../x"}), "r1").status(), ReasonIs("malformed"));
  UpstreamPath path;
  for (size_t i = 0; i < kUpstreamPathMax; ++i) path.push_back(absl::StrCat("n", i));
  EXPECT_THAT(*PathFromProto(Told(path), "r1"), SizeIs(kUpstreamPathMax));
  path.push_back("p1");
  EXPECT_THAT(PathFromProto(Told(path), "r1").status(), ReasonIs("path_too_long"));
}

class UpstreamPathTest : public StreamingTest {
 protected:
  // The answer of an upstream that serves us, with its path.
  void Answer(const UpstreamPath& path) {
    node_->upstream.on_pull = [this, path](FakePull& pull) {
      pull.upstream_path = path;
      pull.SendPartial(log_);
      if (pull.start().lsn() < log_.end_lsn()) pull.SendFrames(log_.Batch(pull.start().lsn() + 1, log_.end_lsn()));
    };
  }

  void SendPath(const UpstreamPath& path) {
    v1::PullResponse response;
    for (const std::string& node_id : path) response.mutable_upstream_path()->add_node_ids(node_id);
    node_->pull().inbox.Send(response);
  }

  bool RunUntilHalted(const std::string& reason) {
    return node_->RunUntil([&] { return node_->status().state == "halted" && node_->status().halt_reason == reason; });
  }
};

TEST_F(UpstreamPathTest, IsToldToTheHost) {
  Answer({"r2", "p1"});
  node_->Start();
  ASSERT_TRUE(RunUntilApplied(10));
  EXPECT_THAT(node_->paths, ElementsAre(UpstreamPath{"r2", "p1"}));
  SendPath({"r2", "r3", "p1"});
  ASSERT_TRUE(node_->RunUntil([&] { return node_->paths.size() == 2; }));
  EXPECT_THAT(node_->paths.back(), ElementsAre("r2", "r3", "p1"));
  node_->RunSteps(5);
  EXPECT_EQ(node_->upstream.pulls.size(), 1u);
}

// An upstream that would serve us although its records are ours: nothing of it is taken.
TEST_F(UpstreamPathTest, APathOverUsIsNotFollowed) {
  Answer({"r2", "r1", "r2"});
  node_->Start();
  ASSERT_TRUE(RunUntilHalted("loop"));
  EXPECT_EQ(node_->LiveGeneration(), nullptr);
  EXPECT_THAT(node_->paths.front(), ElementsAre("r2", "r1"));

  Answer({"r2", "p1"});  // somebody set it right
  ASSERT_TRUE(RunUntilApplied(10));
  node_->pull().SendHeartbeat(1, 10);
  ASSERT_TRUE(node_->RunUntil([&] { return node_->status().state == "streaming"; }));
  EXPECT_EQ(node_->status().halt_reason, "");
  EXPECT_EQ(node_->status().full_resyncs, 0u);
}

TEST_F(UpstreamPathTest, ALoopThatClosesDuringTheStreamEndsIt) {
  Answer({"r2", "p1"});
  node_->Start();
  ASSERT_TRUE(RunUntilApplied(10));
  Answer({"r2", "r3", "r1"});
  SendPath({"r2", "r3", "r1", "r2"});
  ASSERT_TRUE(RunUntilHalted("loop"));
  EXPECT_THAT(node_->paths.back(), ElementsAre("r2", "r3", "r1"));
  EXPECT_EQ(node_->applied_lsn(), 10u);
}

TEST_F(UpstreamPathTest, TheUpstreamsWordForALoopHaltsToo) {
  Answer({"r2"});
  node_->Start();
  ASSERT_TRUE(RunUntilApplied(10));
  node_->upstream.on_pull = [this](FakePull& pull) {
    pull.SendDecision(log_, v1::RESUME_DECISION_REFUSE, "loop", 1000);
  };
  node_->pull().SendEnded("loop");
  ASSERT_TRUE(RunUntilHalted("loop"));
  ASSERT_TRUE(node_->RunUntil([&] { return node_->upstream.pulls.size() > 2; }));  // it goes on asking
  EXPECT_EQ(node_->status().halt_reason, "loop");
}

}  // namespace
}  // namespace towline::test
