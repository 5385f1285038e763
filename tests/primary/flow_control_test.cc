#include "primary/flow_control.h"

#include <memory>
#include <string>
#include <vector>

#include "common/error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/fake_clock.h"
#include "tests/support/recording_logger.h"

namespace towline::test {
namespace {

using Admission = FlowControl::Admission;

class FlowControlTest : public ::testing::Test {
 protected:
  FlowControlTest() { Open(1000); }

  void Open(uint64_t max_lag_bytes) {
    FlowOptions options;
    options.max_lag_bytes = max_lag_bytes;
    options.refuse_after_micros = 1'000'000;
    options.queue_bytes_max = 500;
    flow_ = std::make_unique<FlowControl>(clock_, logger_, options);
  }

  Admission Admit(uint64_t bytes) {
    return flow_->Admit(
        bytes,
        [this] {
          return [this](const absl::Status& status) {
            resumed_.push_back(status.ok() ? "ok" : GetErrorInfo(status).reason);
          };
        },
        &refused_);
  }

  void Tick(uint64_t head, uint64_t lag, int64_t micros = 50'000) {
    clock_.Advance(micros);
    flow_->Tick({head, lag});
  }

  FakeClock clock_;
  RecordingLogger logger_;
  std::unique_ptr<FlowControl> flow_;
  std::vector<std::string> resumed_;
  absl::Status refused_;
};

TEST_F(FlowControlTest, OffLetsEverythingGo) {
  Open(0);
  Tick(1 << 30, 1 << 30);
  EXPECT_EQ(Admit(100), Admission::kGo);
  EXPECT_EQ(flow_->stats().state, FlowState::kOff);
}

TEST_F(FlowControlTest, SlowsToThePaceOfTheReplicas) {
  Tick(5000, 1000);
  EXPECT_EQ(Admit(100), Admission::kGo);
  Tick(5100, 1001);
  EXPECT_EQ(flow_->stats().state, FlowState::kSlowed);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Admit(100), Admission::kWait);
  Tick(5100, 1001);  // the replicas have not moved
  EXPECT_TRUE(resumed_.empty());
  Tick(5100, 961);  // 40 bytes on
  EXPECT_EQ(resumed_.size(), 1);
  Tick(5200, 1021);  // 40 more, but more has gone than was to go
  EXPECT_EQ(resumed_.size(), 1);
  Tick(5200, 740);  // below three quarters
  EXPECT_EQ(flow_->stats().state, FlowState::kOpen);
  EXPECT_THAT(resumed_, ::testing::ElementsAre("ok", "ok", "ok"));
  EXPECT_EQ(Admit(100), Admission::kGo);
  EXPECT_EQ(flow_->stats().waiting_bytes, 0);
  EXPECT_EQ(flow_->stats().slowed_total, 3);
}

TEST_F(FlowControlTest, RefusesWhenSlowingIsOfNoUse) {
  Tick(5000, 1001);
  EXPECT_EQ(Admit(100), Admission::kWait);
  Tick(5000, 1001, 999'999);
  EXPECT_EQ(flow_->stats().state, FlowState::kSlowed);
  Tick(5000, 1001);
  EXPECT_EQ(flow_->stats().state, FlowState::kRefused);
  EXPECT_THAT(resumed_, ::testing::ElementsAre("replicas_behind"));
  EXPECT_EQ(Admit(100), Admission::kRefused);
  EXPECT_EQ(GetErrorInfo(refused_).reason, "replicas_behind");
  EXPECT_EQ(flow_->stats().refused_total, 2);
  Tick(5000, 800);  // hysteresis
  EXPECT_EQ(Admit(100), Admission::kRefused);
  Tick(5000, 750);
  EXPECT_EQ(Admit(100), Admission::kGo);
  EXPECT_EQ(logger_.Events("flow_changed").size(), 3);
}

TEST_F(FlowControlTest, AQueueHasALimit) {
  Tick(5000, 1001);
  EXPECT_EQ(Admit(600), Admission::kWait);  // alone it may be larger
  EXPECT_EQ(Admit(1), Admission::kRefused);
  EXPECT_EQ(GetErrorInfo(refused_).reason, "queue_full");
}

TEST_F(FlowControlTest, CloseLetsEverythingGo) {
  Tick(5000, 1001);
  EXPECT_EQ(Admit(100), Admission::kWait);
  flow_->Close();
  EXPECT_EQ(resumed_.size(), 1);
  EXPECT_EQ(Admit(100), Admission::kGo);
}

}  // namespace
}  // namespace towline::test
