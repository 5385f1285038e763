// Tests of the durable watermark in control.

#include "replica/watermark.h"

#include "gtest/gtest.h"
#include "tests/replica/replica_node.h"
#include "tests/support/status_matchers.h"

namespace towline::test {
namespace {

class WatermarkTest : public ::testing::Test {
 protected:
  WatermarkTest() {
    log_.StartTerm(1, 11);
    log_.Puts(9);
    EXPECT_THAT(node_.Open(), IsOk());
    EXPECT_THAT(node_.control().Update(true,
                                       [](Control& control) {
                                         control.cluster_id = kCluster;
                                         control.generation = 1;
                                       }),
                IsOk());
    EXPECT_THAT(node_.Open(), IsOk());
  }

  void Append(Lsn first, Lsn last) {
    ASSERT_THAT(node_.live->AppendAndApply(log_.Group(first, last), log_.history(), nullptr), IsOk());
  }
  Lsn Saved() { return node_.control().Get().watermark; }

  LogMaker log_;
  ReplicaNode node_;
};

TEST_F(WatermarkTest, IsSavedOnceTheLogIsIdle) {
  WatermarkSaver saver(node_.control(), node_.clock);
  Append(1, 5);
  ASSERT_THAT(saver.MaybeSaveWatermark(*node_.live), IsOk());
  EXPECT_EQ(Saved(), 0u);
  node_.clock.Advance(900'000);
  Append(6, 10);
  ASSERT_THAT(saver.MaybeSaveWatermark(*node_.live), IsOk());
  node_.clock.Advance(900'000);
  ASSERT_THAT(saver.MaybeSaveWatermark(*node_.live), IsOk());
  EXPECT_EQ(Saved(), 0u);
  node_.clock.Advance(100'000);
  ASSERT_THAT(saver.MaybeSaveWatermark(*node_.live), IsOk());
  EXPECT_EQ(Saved(), 10u);

  // Nothing new: nothing is written.
  node_.fs.ClearLog();
  node_.clock.Advance(10'000'000);
  ASSERT_THAT(saver.MaybeSaveWatermark(*node_.live), IsOk());
  EXPECT_TRUE(node_.fs.log().empty());
}

TEST_F(WatermarkTest, IsSavedAtACleanStopAndHoldsAtTheNextStart) {
  WatermarkSaver saver(node_.control(), node_.clock);
  Append(1, 10);
  ASSERT_THAT(saver.SaveWatermark(*node_.live), IsOk());
  const std::unique_ptr<SimFileSystem> crashed = node_.fs.CloneAfterCrash(CrashProfile::kStrict, 1);
  ReplicaNode after(crashed.get());
  ASSERT_THAT(after.Open(), IsOk());
  EXPECT_EQ(after.control().Get().watermark, 10u);
  EXPECT_EQ(after.durable_lsn(), 10u);
}

TEST_F(WatermarkTest, SaysNothingAboutAGenerationThatIsNotLive) {
  WatermarkSaver saver(node_.control(), node_.clock);
  Append(1, 10);
  ASSERT_THAT(node_.control().Update(true, [](Control& control) { control.generation = 2; }), IsOk());
  ASSERT_THAT(saver.SaveWatermark(*node_.live), IsOk());
  EXPECT_EQ(Saved(), 0u);
}

TEST_F(WatermarkTest, AFailedWriteIsReported) {
  WatermarkSaver saver(node_.control(), node_.clock);
  Append(1, 10);
  node_.fs.FailNext(SimCall::kSync, absl::DataLossError("injected"), "control");
  EXPECT_THAT(saver.SaveWatermark(*node_.live), StatusIs(absl::StatusCode::kDataLoss));
}

}  // namespace
}  // namespace towline::test
