// Tests of the path to the primary: what a session tells of it, and that nobody is served who is on it.

#include <string>
#include <vector>

#include "tests/primary/source_fixture.h"

namespace towline::test {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

using Path = std::vector<std::string>;

// The node is a replica now, p1 by name, and has an upstream.
class UpstreamPathTest : public SourceTest {
 protected:
  void SetUp() override {
    SourceTest::SetUp();
    host_.view.is_primary = false;
  }

  void Follow(const Path& path) {
    host_.view.upstream_path = path;
    source_->OnPathChanged();
  }

  static Path PathOf(const v1::PullStarted& started) {
    return {started.upstream_path().begin(), started.upstream_path().end()};
  }
};

TEST_F(UpstreamPathTest, EveryAnswerTellsIt) {
  Follow({"r9", "p0"});
  EXPECT_THAT(PathOf(Ask(ReplicaStart("r1", 1))), ElementsAre("p1", "r9", "p0"));
  const v1::PullStarted refused = Ask(ReplicaStart("r9", 1));
  EXPECT_EQ(refused.decision(), v1::RESUME_DECISION_REFUSE);
  EXPECT_EQ(refused.reason(), "loop");
  EXPECT_THAT(PathOf(refused), ElementsAre("p1", "r9", "p0"));
  EXPECT_FALSE(slots_->Get("r9").has_value());
  EXPECT_EQ(source_->Counters().by_reason.at("refuse/loop"), 1u);
  EXPECT_EQ(Ask(ConsumerStart("r9", 1)).decision(), v1::RESUME_DECISION_PARTIAL);
}

TEST_F(UpstreamPathTest, AnotherPathIsToldDuringTheStream) {
  auto owner = Attach(ReplicaStart("r1", 1));
  EXPECT_THAT(PathOf(owner->started), ElementsAre("p1"));
  auto consumer = Attach(ConsumerStart("c1", 1));
  owner->Receive();
  EXPECT_THAT(owner->paths, IsEmpty());
  const int wakes = owner->wakes;
  Follow({"r9", "p0"});
  EXPECT_GT(owner->wakes, wakes);
  owner->Receive();
  Follow({"p0"});
  owner->Receive();
  owner->Receive();
  EXPECT_THAT(owner->paths, ElementsAre(Path{"p1", "r9", "p0"}, Path{"p1", "p0"}));
  EXPECT_FALSE(owner->ended);
  consumer->Receive();
  EXPECT_THAT(consumer->paths, IsEmpty());
}

// It closes last: the owner was served before, and is on the new path.
TEST_F(UpstreamPathTest, ASessionOfANodeOnThePathEndsAndTellsWhy) {
  auto bystander = Attach(ReplicaStart("r2", 1));
  auto owner = Attach(ReplicaStart("r1", 1));
  Follow({"r9", "r1", "p1"});
  Write(1);
  owner->Receive();
  EXPECT_THAT(owner->paths, ElementsAre(Path{"p1", "r9", "r1", "p1"}));
  EXPECT_TRUE(owner->ended);
  EXPECT_EQ(owner->EndReason(), "loop");
  ASSERT_EQ(owner->ends.size(), 1u);
  EXPECT_EQ(owner->ends[0].reason(), "loop");
  EXPECT_EQ(owner->last_lsn, 1u);  // nothing more
  EXPECT_EQ(SlotOf("r1").state, slots::SlotState::kInactive);
  bystander->Receive();
  EXPECT_FALSE(bystander->ended);
  EXPECT_EQ(bystander->last_lsn, 2u);

  Follow({"p0"});  // the loop is gone
  EXPECT_EQ(Ask(ReplicaStart("r1", 1)).reason(), "resumed");
}

// A primary that takes back what it has lost: its replica's records come from it, and that is no loop.
TEST_F(UpstreamPathTest, APrimaryInRecoveryIsServed) {
  Follow({"p0"});
  Write(3);
  v1::PullStart start = ReplicaStart("p0", 1);
  start.set_temporary(true);
  auto owner = Attach(start);
  Follow({"r9", "p0"});
  owner->Receive();
  EXPECT_THAT(owner->paths, IsEmpty());
  EXPECT_FALSE(owner->ended);
  EXPECT_EQ(owner->last_lsn, Durable());
}

// The path changes between the decision and the first message behind it.
TEST_F(UpstreamPathTest, AChangeRightBehindTheStartIsNotLost) {
  auto owner = std::make_unique<Owner>(*source_, ReplicaStart("r1", 1));
  ASSERT_THAT(owner->Connect(), IsOk());
  Follow({"r1"});
  owner->Receive();
  EXPECT_EQ(owner->EndReason(), "loop");
}

}  // namespace
}  // namespace towline::test
