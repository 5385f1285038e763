#include "ctl/import_tracker.h"

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace towline::ctl {
namespace {

using ::testing::ElementsAre;
using ::testing::SizeIs;
using Kind = ImportTracker::Kind;

client::WriteStreamAnswer Answer(uint64_t first, uint64_t last,
                                 std::vector<client::WriteStreamAnswer::Refusal> refused = {}) {
  client::WriteStreamAnswer answer;
  answer.first_sequence = first;
  answer.last_sequence = last;
  answer.refused = std::move(refused);
  return answer;
}

class ImportTrackerTest : public ::testing::Test {
 protected:
  void Add(Kind kind, uint64_t line) {
    v1::WriteRequest request;
    request.mutable_request_id()->set_sequence(line);
    tracker_.Add(kind, line, line * 10, &request);
  }
  void OnAnswer(const client::WriteStreamAnswer& answer) {
    tracker_.OnAnswer(answer, [this](uint64_t line, const ErrorInfo&) { refused_lines_.push_back(line); });
  }
  uint64_t done() const { return tracker_.Snapshot().last_acked_line; }

  ImportTracker tracker_{ImportCheckpoint(), /*keep_requests=*/true};
  std::vector<uint64_t> refused_lines_;
};

TEST_F(ImportTrackerTest, LinesAreDoneInOrderAcrossSkippedOnes) {
  Add(Kind::kRejected, 1);
  EXPECT_EQ(done(), 1u);
  Add(Kind::kSent, 2);
  Add(Kind::kBlank, 3);
  Add(Kind::kSent, 4);
  Add(Kind::kRejected, 5);
  EXPECT_EQ(done(), 1u);
  OnAnswer(Answer(1, 1));
  EXPECT_EQ(done(), 3u);
  EXPECT_EQ(tracker_.Snapshot().offset, 30u);
  OnAnswer(Answer(2, 2));
  const ImportCheckpoint end = tracker_.Snapshot();
  EXPECT_EQ(end.last_acked_line, 5u);
  EXPECT_EQ(end.acked, 2u);
  EXPECT_EQ(end.rejected, 2u);
  EXPECT_EQ(tracker_.unanswered(), 0u);
}

TEST_F(ImportTrackerTest, RefusalsNameTheLine) {
  for (uint64_t line = 1; line <= 4; ++line) Add(Kind::kSent, line);
  OnAnswer(Answer(1, 4, {{2, {"record_too_large", "", "", {}}}, {4, {"invalid_key", "", "", {}}}}));
  EXPECT_THAT(refused_lines_, ElementsAre(2, 4));
  EXPECT_EQ(done(), 4u);
  EXPECT_EQ(tracker_.Snapshot().acked, 2u);
  EXPECT_EQ(tracker_.Snapshot().rejected, 2u);
}

TEST_F(ImportTrackerTest, ARefusalForTheNodesConditionStopsBeforeThatLine) {
  for (uint64_t line = 1; line <= 3; ++line) Add(Kind::kSent, line);
  OnAnswer(Answer(1, 3, {{2, {"queue_full", "", "", {}}}}));
  EXPECT_FALSE(tracker_.blocked().ok());
  EXPECT_EQ(done(), 1u);
  const std::vector<v1::WriteRequest> again = tracker_.BeginStream();
  EXPECT_TRUE(tracker_.blocked().ok());
  ASSERT_THAT(again, SizeIs(2));
  EXPECT_EQ(again[0].request_id().sequence(), 2u);
  OnAnswer(Answer(1, 2));
  EXPECT_EQ(done(), 3u);
}

}  // namespace
}  // namespace towline::ctl
