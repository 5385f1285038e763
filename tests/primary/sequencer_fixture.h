// A sequencer over a group sink that a test holds back and releases, with real state over MemoryStore.

#ifndef TOWLINE_TESTS_PRIMARY_SEQUENCER_FIXTURE_H_
#define TOWLINE_TESTS_PRIMARY_SEQUENCER_FIXTURE_H_

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "primary/sequencer.h"
#include "primary/write_intake.h"
#include "store/memory_store.h"
#include "tests/support/fake_clock.h"
#include "tests/support/sim_executor.h"
#include "tests/support/status_matchers.h"
#include "towline/v1/kv_service.pb.h"

namespace towline::test {

inline constexpr Term kTerm = 3;
inline constexpr uint64_t kTermId = 77;

// Appends at once, applies when told.
class HeldSink final : public GroupSink {
 public:
  explicit HeldSink(StateStore& state) : state_(state) {}

  wal::LogEnd End() override { return end_; }

  absl::Status AppendAndApply(std::shared_ptr<wal::FrameGroup> group, std::function<void()> applied) override {
    if (on_append_) on_append_();
    if (!next_error_.ok()) return std::exchange(next_error_, absl::OkStatus());
    EXPECT_EQ(group->before.lsn, end_.lsn);
    end_ = group->after;
    ++groups_;
    pending_.push_back({std::move(group), std::move(applied)});
    if (!held_) Release();
    return absl::OkStatus();
  }

  // Calls `fn` while a group is not durable yet.
  void OnAppend(std::function<void()> fn) { on_append_ = std::move(fn); }
  void Hold() { held_ = true; }
  // What is held will not be applied any more.
  void Drop() { pending_.clear(); }
  void FailNext(absl::Status error) { next_error_ = std::move(error); }
  void Release() {
    held_ = false;
    while (!pending_.empty()) ApplyOne();
  }
  void ApplyOne() {
    const auto [group, applied] = std::move(pending_.front());
    pending_.pop_front();
    std::vector<ApplyRecord> records;
    for (size_t i = 0; i < group->frames.size(); ++i) {
      const auto frame = wal::DecodeShipped(group->shipped(i));
      ASSERT_THAT(frame.status(), IsOk());
      records.push_back({Position{frame->header.term, kTermId, frame->header.lsn, frame->chain()}, frame->payload});
    }
    ASSERT_THAT(state_.Apply(records), IsOk());
    applied();
  }
  int groups() const { return groups_; }

 private:
  StateStore& state_;
  wal::LogEnd end_;
  bool held_ = false;
  int groups_ = 0;
  absl::Status next_error_;
  std::function<void()> on_append_;
  std::deque<std::pair<std::shared_ptr<wal::FrameGroup>, std::function<void()>>> pending_;
};

// A job of one request, whose outcome lands in `*out`.
class TestJob final : public WriteJob {
 public:
  TestJob(v1::WriteRequest request, uint64_t now_ms, std::optional<WriteOutcome>* out)
      : request_(std::move(request)), out_(out) {
    EXPECT_THAT(BuildWriteRecord(request_, now_ms, kRecordSizeMaxDefault, &records.emplace_back()), IsOk());
  }
  void OnDone(std::unique_ptr<WriteJob> self) override {
    EXPECT_FALSE(out_->has_value()) << "answered twice";
    *out_ = records[0].outcome;
    self.reset();
  }

 private:
  const v1::WriteRequest request_;
  std::optional<WriteOutcome>* const out_;
};

inline v1::WriteRequest Put(const std::string& key, const std::string& value, uint64_t expire_at_ms = 0) {
  v1::WriteRequest request;
  v1::Put* put = request.add_operations()->mutable_put();
  put->set_key(key);
  put->set_value(value);
  put->set_expire_at_ms(expire_at_ms);
  return request;
}

inline v1::WriteRequest Delete(const std::string& key) {
  v1::WriteRequest request;
  request.add_operations()->mutable_delete_()->set_key(key);
  return request;
}

inline v1::WriteRequest DeleteRange(const std::string& begin, const std::string& end) {
  v1::WriteRequest request;
  request.add_operations()->mutable_delete_range()->set_begin(begin);
  request.mutable_operations(0)->mutable_delete_range()->set_end(end);
  return request;
}

inline v1::WriteRequest IfExists(v1::WriteRequest request, const std::string& key, bool exists) {
  v1::Condition* condition = request.add_conditions();
  condition->set_key(key);
  condition->set_exists(exists);
  return request;
}

inline v1::WriteRequest IfModified(v1::WriteRequest request, const std::string& key, Lsn lsn) {
  v1::Condition* condition = request.add_conditions();
  condition->set_key(key);
  condition->set_modified_lsn(lsn);
  return request;
}

inline v1::WriteRequest WithId(v1::WriteRequest request, const std::string& client, uint64_t sequence) {
  request.mutable_request_id()->set_client_id(client);
  request.mutable_request_id()->set_sequence(sequence);
  return request;
}

class SequencerTest : public ::testing::Test {
 protected:
  SequencerTest() {
    auto store = stores_.Open("db");
    EXPECT_THAT(store.status(), IsOk());
    auto state = StateStore::Open(*std::move(store));
    EXPECT_THAT(state.status(), IsOk());
    state_ = *std::move(state);
    sink_ = std::make_unique<HeldSink>(*state_);
    MakeSequencer({});
  }
  ~SequencerTest() override {
    sink_->Release();
    executor_.RunUntilIdle();
    sequencer_->Stop();
  }

  void MakeSequencer(SequencerOptions options) {
    sequencer_.reset();
    sequencer_ = std::make_unique<Sequencer>(*sink_, *state_, executor_, clock_, kTerm, kTermId, options,
                                             [this](absl::Status status) { fatal_ = std::move(status); });
  }

  uint64_t NowMs() const { return static_cast<uint64_t>(clock_.WallMicros()) / 1000; }

  // Queues a request; its outcome appears in outcomes_[index].
  size_t Submit(v1::WriteRequest request) {
    outcomes_.emplace_back();
    std::unique_ptr<WriteJob> job = std::make_unique<TestJob>(std::move(request), NowMs(), &outcomes_.back());
    EXPECT_THAT(sequencer_->Submit(&job), IsOk());
    return outcomes_.size() - 1;
  }
  WriteOutcome Write(v1::WriteRequest request) {
    const size_t index = Submit(std::move(request));
    executor_.RunUntilIdle();
    EXPECT_TRUE(outcomes_[index].has_value());
    return outcomes_[index].value_or(WriteOutcome{});
  }

  FakeClock clock_;
  SimExecutor executor_{&clock_};
  MemoryStoreFactory stores_;
  std::unique_ptr<StateStore> state_;
  std::unique_ptr<HeldSink> sink_;
  std::unique_ptr<Sequencer> sequencer_;
  absl::Status fatal_;
  std::deque<std::optional<WriteOutcome>> outcomes_;
};

}  // namespace towline::test

#endif  // TOWLINE_TESTS_PRIMARY_SEQUENCER_FIXTURE_H_
