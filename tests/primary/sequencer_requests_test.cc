// Tests of request ids in the sequencer: a write is taken once, whatever is in flight, and whoever was the primary.

#include <algorithm>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "gtest/gtest.h"
#include "tests/primary/sequencer_fixture.h"

namespace towline {
namespace {

using test::IsOk;
using test::Put;
using test::SequencerTest;
using test::WithId;

TEST_F(SequencerTest, ARequestIdIsWrittenOnceInFlightAndAfterwards) {
  sink_->Hold();
  const size_t first = Submit(WithId(Put("a", "1"), "c1", 5));
  const size_t retry = Submit(WithId(Put("a", "1"), "c1", 5));
  executor_.RunUntilIdle();
  sink_->Release();
  EXPECT_FALSE(outcomes_[first].value().duplicate);
  EXPECT_TRUE(outcomes_[retry].value().duplicate);
  EXPECT_EQ(outcomes_[retry].value().position.lsn, 1u);
  const WriteOutcome late = Write(WithId(Put("a", "1"), "c1", 5));
  EXPECT_TRUE(late.duplicate);
  EXPECT_EQ(late.position.lsn, 1u);
  EXPECT_FALSE(Write(WithId(Put("a", "1"), "c1", 6)).duplicate);
  EXPECT_EQ(sink_->End().lsn, 2u);
}

// A retry may come late, behind newer writes of its client, and to a primary that has not seen the first try.
TEST_F(SequencerTest, ANewPrimaryKnowsTheRequestsOfTheOneBefore) {
  for (uint64_t i = 1; i <= 10; ++i) {
    if (i == 8) continue;
    EXPECT_FALSE(Write(WithId(Put("a", "1"), "c1", i)).duplicate);
  }
  sequencer_->Stop();
  MakeSequencer({});
  EXPECT_TRUE(Write(WithId(Put("a", "1"), "c1", 9)).duplicate);
  EXPECT_FALSE(Write(WithId(Put("a", "1"), "c1", 11)).duplicate);
  for (uint64_t i = 1; i <= 11; ++i) {
    const WriteOutcome outcome = Write(WithId(Put("a", "1"), "c1", i));
    EXPECT_EQ(outcome.duplicate, i != 8) << i;
    if (i < 8) {
      EXPECT_EQ(outcome.position.lsn, i);
    }
  }
  EXPECT_EQ(sink_->End().lsn, 11u);
}

// More sequences above the first one than are looked through.
TEST_F(SequencerTest, ARetryFromFarBehindIsRecognised) {
  constexpr uint64_t kCount = 5000;
  for (uint64_t i = 1; i <= kCount; ++i) Submit(WithId(Put("a", "1"), "c1", i));
  executor_.RunUntilIdle();
  sequencer_->Stop();
  MakeSequencer({});
  EXPECT_EQ(Write(WithId(Put("a", "1"), "c1", 2)).position.lsn, 2u);
  EXPECT_EQ(Write(WithId(Put("a", "1"), "c1", kCount)).position.lsn, kCount);
  EXPECT_FALSE(Write(WithId(Put("a", "1"), "c1", kCount + 1)).duplicate);
  EXPECT_EQ(Write(WithId(Put("a", "1"), "c1", kCount + 1)).position.lsn, kCount + 1);
}

TEST_F(SequencerTest, RequestsAreWrittenOnceWhateverTheirOrder) {
  std::mt19937 random(31);
  std::map<std::pair<std::string, uint64_t>, Lsn> written;
  uint64_t at = 1;
  for (int round = 0; round < 400; ++round) {
    if (random() % 3 == 0) sink_->Hold();
    std::vector<std::pair<size_t, std::pair<std::string, uint64_t>>> submitted;
    for (int i = 0; i < 10; ++i) {
      at += random() % 4 == 0 ? 1 : 0;
      if (random() % 200 == 0) at += random() % 2000;
      const uint64_t back = random() % 50 == 0 ? random() % 3000 : random() % 20;
      const std::pair<std::string, uint64_t> id(absl::StrCat("c", random() % 3), at - std::min(at - 1, back));
      submitted.emplace_back(Submit(WithId(Put("a", "1"), id.first, id.second)), id);
    }
    executor_.RunUntilIdle();
    sink_->Release();
    executor_.RunUntilIdle();
    for (const auto& [index, id] : submitted) {
      const WriteOutcome& outcome = outcomes_[index].value();
      ASSERT_THAT(outcome.status, IsOk());
      const auto [first, fresh] = written.emplace(id, outcome.position.lsn);
      ASSERT_EQ(outcome.duplicate, !fresh) << id.first << ":" << id.second << " in round " << round;
      ASSERT_EQ(outcome.position.lsn, first->second);
    }
    if (random() % 40 == 0) {
      sequencer_->Stop();
      MakeSequencer({});
    }
  }
  EXPECT_EQ(sink_->End().lsn, written.size());
}

}  // namespace
}  // namespace towline
