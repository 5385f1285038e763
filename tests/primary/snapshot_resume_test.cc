// Tests of snapshot streams that are cut, shared, or outlived by what they read.

#include <map>
#include <string>
#include <vector>

#include "common/error.h"
#include "common/history.h"
#include "tests/primary/snapshot_fixture.h"

namespace towline::test {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;
using Counts = std::map<std::string, uint64_t>;

class SnapshotResumeTest : public SnapshotSessionTest {
 protected:
  void SetUp() override {
    SnapshotSessionTest::SetUp();
    Write(200, 20'000);  // four chunks
  }

  // Header and `chunks` chunks, then the stream is cut.
  Received TakeSome(const v1::PullStart& start, size_t chunks) {
    Received received;
    auto session = Open(start);
    while (received.chunks.size() < chunks) EXPECT_EQ(TakeOne(*session, &received), NextResult::kMessage);
    return received;
  }

  Received Take(const v1::PullStart& start) {
    Received received;
    auto session = Open(start);
    if (session != nullptr) TakeAll(*session, &received);
    EXPECT_TRUE(received.end.has_value());
    return received;
  }

  static EncodedChunk Decode(const v1::SnapshotChunk& chunk) {
    return {chunk.sequence(), chunk.first_key(), chunk.last_key(), chunk.keys(), chunk.crc32c(), chunk.data()};
  }

  // The cursor of who received so much, as a replica works it out.
  v1::SnapshotCursor CursorOf(const Received& received) {
    auto loader = stores_.NewBulkLoader("/cursor" + std::to_string(++loads_));
    EXPECT_THAT(loader, IsOk());
    SnapshotInstaller installer(*std::move(loader));
    for (const v1::SnapshotChunk& chunk : received.chunks) EXPECT_THAT(installer.AddChunk(Decode(chunk)), IsOk());
    const SnapshotCursor& at = installer.RewindToCursor();
    v1::SnapshotCursor cursor;
    cursor.set_snapshot_id(received.header.snapshot_id());
    *cursor.mutable_position() = received.header.position();
    *cursor.mutable_read_position() = received.header.read_position();
    cursor.set_sequence(at.sequence);
    cursor.set_last_key(at.last_key);
    cursor.set_keys(at.keys);
    cursor.set_bytes(at.bytes);
    cursor.set_crc64(at.crc64);
    cursor.set_digest(at.digest.Hex());
    return cursor;
  }

  v1::PullStart StartBehind(const std::string& slot, const Received& received) {
    v1::PullStart start = ReplicaStart(slot, 0);
    *start.mutable_snapshot_cursor() = CursorOf(received);
    return start;
  }

  // What was received by both streams, in one.
  static Received Join(const Received& first, const Received& second) {
    Received both = second;
    both.chunks = first.chunks;
    both.chunks.insert(both.chunks.end(), second.chunks.begin(), second.chunks.end());
    return both;
  }

  // Replays the log of this node up to `lsn`.
  void Replay(StateStore& state, Lsn lsn) {
    auto cursor = host_.live->spool().NewCursor(state.applied().lsn + 1);
    ASSERT_THAT(cursor, IsOk());
    while (state.applied().lsn < lsn) {
      absl::StatusOr<wal::ShippedBatch> batch = (*cursor)->Next(1);
      ASSERT_THAT(batch, IsOk());
      const HistoryEntry* entry = EntryAt(host_.view.history, batch->after.lsn);
      const Position position{entry->term, entry->term_id, batch->after.lsn, batch->after.chain};
      const ApplyRecord record{position, absl::string_view(batch->bytes).substr(wal::kShippedHeaderSize)};
      ASSERT_THAT(state.Apply({&record, 1}), IsOk());
    }
  }

  Counts Streams() const { return source_->Counters().snapshot_streams; }

  int loads_ = 0;
};

TEST_F(SnapshotResumeTest, ReplicasShareASnapshotEachAtItsOwnPace) {
  auto first = Open(ReplicaStart("r1", 0));
  Received a;
  Received b;
  for (int i = 0; i < 3; ++i) ASSERT_EQ(TakeOne(*first, &a), NextResult::kMessage);
  Write(10);
  v1::PullStart other = ReplicaStart("r2", 0);
  other.set_incarnation(21);
  auto second = Open(other);
  EXPECT_EQ(source_->Snapshots().pool.live, 1u);
  EXPECT_EQ(source_->Snapshots().pool.sessions, 2u);
  TakeAll(*second, &b);
  TakeAll(*first, &a);
  EXPECT_EQ(b.header.snapshot_id(), a.header.snapshot_id());
  EXPECT_EQ(b.header.position().lsn(), a.header.position().lsn());
  EXPECT_EQ(SlotOf("r2").confirmed_lsn, a.header.position().lsn());
  EXPECT_EQ(SlotOf("r2").state, slots::SlotState::kBootstrapping);
  ASSERT_EQ(a.chunks.size(), b.chunks.size());
  for (size_t i = 0; i < a.chunks.size(); ++i) EXPECT_EQ(a.chunks[i].data(), b.chunks[i].data());
  EXPECT_EQ(Streams(), (Counts{{"new", 1}, {"joined", 1}}));
}

TEST_F(SnapshotResumeTest, ACutStreamGoesOnFromTheSameSnapshotAndKeepsItsSlotGeneration) {
  const std::string digest = DigestOf(host_.live->state());
  const Received cut = TakeSome(ReplicaStart("r1", 0), 2);
  const slots::Slot before = SlotOf("r1");
  Write(20, 20'000);
  const Received rest = Take(StartBehind("r1", cut));
  EXPECT_EQ(rest.header.resumed_sequence(), 2u);
  EXPECT_EQ(rest.header.snapshot_id(), cut.header.snapshot_id());
  EXPECT_EQ(rest.header.position().lsn(), cut.header.position().lsn());
  EXPECT_EQ(rest.header.read_position().lsn(), cut.header.position().lsn());
  EXPECT_EQ(rest.header.slot_generation(), cut.header.slot_generation());
  EXPECT_EQ(rest.header.reason(), "new_replica");
  EXPECT_EQ(SlotOf("r1").generation, before.generation);
  EXPECT_EQ(SlotOf("r1").confirmed_lsn, before.confirmed_lsn);
  EXPECT_EQ(rest.chunks[0].sequence(), 3u);
  const std::unique_ptr<StateStore> state = Install(Join(cut, rest), "/copy");
  EXPECT_EQ(DigestOf(*state), digest);
  EXPECT_EQ(Streams(), (Counts{{"new", 1}, {"resumed", 1}}));
}

// Also after a restart of the source, which forgets all of them.
TEST_F(SnapshotResumeTest, AfterItsSnapshotIsGoneAStreamGoesOnFromANewerOne) {
  for (const bool restart : {false, true}) {
    SCOPED_TRACE(restart);
    const std::string slot = restart ? "r2" : "r1";
    const Received cut = TakeSome(ReplicaStart(slot, 0), 2);
    const Lsn position = cut.header.position().lsn();
    const uint64_t generation = SlotOf(slot).generation;
    if (restart) {
      Pass(options_.slots_persist_micros);
      FlushStore();
      OpenNode();
    } else {
      Pass(options_.snapshots.linger_micros + 2'000'000);
    }
    EXPECT_EQ(source_->Snapshots().pool.live, 0u);
    Write(7, 20'000);
    const Received rest = Take(StartBehind(slot, cut));
    const Lsn read = rest.header.read_position().lsn();
    EXPECT_EQ(rest.header.resumed_sequence(), 2u);
    EXPECT_NE(rest.header.snapshot_id(), cut.header.snapshot_id());
    EXPECT_EQ(rest.header.position().lsn(), position);
    EXPECT_EQ(rest.header.position().chain(), cut.header.position().chain());
    EXPECT_EQ(read, Durable());
    EXPECT_EQ(rest.header.read_position().chain(), ChainAt(read));
    EXPECT_EQ(SlotOf(slot).generation, generation);
    EXPECT_EQ(SlotOf(slot).confirmed_lsn, position);
    EXPECT_EQ(Streams().at("rolled"), 1u);

    const std::unique_ptr<StateStore> state = Install(Join(cut, rest), "/rolled-" + slot);
    EXPECT_EQ(state->applied().lsn, position);
    Replay(*state, read);
    EXPECT_EQ(DigestOf(*state), DigestOf(host_.live->state()));
  }
}

// It replays the log and is nobody to count on before its state is exact.
TEST_F(SnapshotResumeTest, AnOwnerIsCountedOnceItIsExact) {
  const Received cut = TakeSome(ReplicaStart("r1", 0), 2);
  Pass(options_.snapshots.linger_micros + 2'000'000);
  Write(7);
  const Received rest = Take(StartBehind("r1", cut));
  const Lsn position = rest.header.position().lsn();
  const Lsn read = rest.header.read_position().lsn();
  v1::PullStart start = ReplicaStart("r1", position);
  *start.mutable_exact_from() = rest.header.read_position();
  auto owner = Attach(start);
  owner->Receive();
  ASSERT_EQ(owner->last_lsn, read);
  ASSERT_THAT(owner->Ack(read, 0, 0), IsOk());
  Pass(2 * options_.slots_persist_micros);
  EXPECT_EQ(SlotOf("r1").state, slots::SlotState::kBootstrapping);
  EXPECT_EQ(SlotOf("r1").confirmed_lsn, position);
  EXPECT_EQ(source_->Counters().full_total, 0u);
  owner->Close();
  // It has switched.
  v1::PullStart exact = ReplicaStart("r1", read);
  *exact.mutable_exact_from() = rest.header.read_position();
  auto again = Attach(exact);
  again->Receive();
  ASSERT_THAT(again->AckAll(read), IsOk());
  again->Receive();
  Pass(options_.slots_persist_micros);
  EXPECT_EQ(SlotOf("r1").state, slots::SlotState::kActive);
  EXPECT_EQ(SlotOf("r1").confirmed_lsn, read);
  EXPECT_EQ(source_->Counters().by_reason, (Counts{{"full/new_replica", 1}}));
}

TEST_F(SnapshotResumeTest, ACursorOffTheLineBeginsAnew) {
  const Received cut = TakeSome(ReplicaStart("r1", 0), 2);
  const uint64_t generation = SlotOf("r1").generation;
  v1::PullStart start = StartBehind("r1", cut);
  start.mutable_snapshot_cursor()->mutable_position()->set_chain(1);
  start.mutable_snapshot_cursor()->mutable_read_position()->set_chain(1);
  const Received again = Take(start);
  EXPECT_EQ(again.header.resumed_sequence(), 0u);
  EXPECT_EQ(again.chunks[0].sequence(), 1u);
  EXPECT_NE(SlotOf("r1").generation, generation);
  EXPECT_EQ(Streams(), (Counts{{"new", 1}, {"restarted", 1}}));
  const auto events = logger_.Events("snapshot_cursor_dropped");
  ASSERT_THAT(events, SizeIs(1));
  EXPECT_EQ(events[0].fields.at("reason"), "cursor_off_line");
}

TEST_F(SnapshotResumeTest, ACursorWhoseLogIsRemovedBeginsAnew) {
  const Received cut = TakeSome(ReplicaStart("r1", 0), 2);
  ASSERT_THAT(slots_->Drop("r1", true), IsOk());
  Write(40, 4000);
  FlushStore();
  Pass(2 * options_.slots_persist_micros);
  ASSERT_GT(FirstRetained(), cut.header.position().lsn() + 1);
  const Received again = Take(StartBehind("r1", cut));
  EXPECT_EQ(again.header.resumed_sequence(), 0u);
  EXPECT_GE(again.header.position().lsn() + 1, FirstRetained());
  EXPECT_EQ(Streams().at("restarted"), 1u);
  const auto events = logger_.Events("snapshot_cursor_dropped");
  ASSERT_THAT(events, SizeIs(1));
  EXPECT_EQ(events[0].fields.at("reason"), "cursor_log_removed");
}

TEST_F(SnapshotResumeTest, ASnapshotThatIsTooOldEndsItsStreamsWhichGoOnFromANewerOne) {
  auto session = Open(ReplicaStart("r1", 0));
  Received cut;
  for (int i = 0; i < 3; ++i) ASSERT_EQ(TakeOne(*session, &cut), NextResult::kMessage);
  clock_.Advance(options_.snapshots.age_max_micros + 1);
  TakeAll(*session, &cut);
  EXPECT_THAT(cut.status, ReasonIs("snapshot_expired"));
  EXPECT_EQ(cut.chunks.size(), 2u);
  session.reset();
  Write(3);
  const Received rest = Take(StartBehind("r1", cut));
  EXPECT_EQ(rest.header.resumed_sequence(), 2u);
  EXPECT_EQ(rest.header.read_position().lsn(), Durable());
  EXPECT_EQ(Streams().at("rolled"), 1u);
}

TEST_F(SnapshotResumeTest, ASnapshotThatTheLogWouldOutrunIsRefusedWithTheNumbers) {
  limits_.max_retained_bytes = 500'000;
  options_.snapshots.bytes_per_second = 100'000;
  FlushStore();
  OpenNode();
  for (int i = 0; i < 90; ++i) {
    Write(2, 10'000);
    Pass(1'000'000);
  }
  FlushStore();
  const absl::Status refused = source_->NewSnapshotSession(Request(ReplicaStart("r1", 0)), [] {}).status();
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kResourceExhausted));
  ASSERT_THAT(refused, ReasonIs("snapshot_outruns_log"));
  const ErrorInfo info = GetErrorInfo(refused);
  EXPECT_EQ(info.metadata.at("headroom_bytes"), "500000");
  EXPECT_GT(std::stoull(info.metadata.at("growth_bytes_per_second")), 10'000u);
  EXPECT_GT(std::stoull(info.metadata.at("estimated_bytes")), 3'000'000u);
  EXPECT_GT(std::stoull(info.metadata.at("retry_after_ms")), 0u);
  EXPECT_THAT(info.next_action, HasSubstr("slots.max_retained_bytes"));
  EXPECT_FALSE(slots_->Get("r1").has_value());
  EXPECT_EQ(source_->Snapshots().pool.sessions, 0u);
}

TEST_F(SnapshotResumeTest, ASlotThatIsInvalidatedEndsItsStream) {
  limits_.max_retained_bytes = 100'000;
  FlushStore();
  OpenNode();
  auto session = Open(ReplicaStart("r1", 0));
  Received cut;
  for (int i = 0; i < 2; ++i) ASSERT_EQ(TakeOne(*session, &cut), NextResult::kMessage);
  for (int i = 0; i < 4; ++i) {
    Write(40, 4000);
    FlushStore();
    Pass(2 * options_.slots_persist_micros);
  }
  EXPECT_EQ(SlotOf("r1").state, slots::SlotState::kInvalidated);
  TakeAll(*session, &cut);
  EXPECT_THAT(cut.status, ReasonIs("snapshot_outrun"));
  EXPECT_THAT(GetErrorInfo(cut.status).next_action, HasSubstr("slots.max_retained_bytes"));
  EXPECT_FALSE(cut.end.has_value());
}

TEST_F(SnapshotResumeTest, AStreamWaitsForTheRateLimitAndIsWoken) {
  options_.snapshots.bytes_per_second = 1 << 20;
  FlushStore();
  OpenNode();
  int wakes = 0;
  auto opened = source_->NewSnapshotSession(Request(ReplicaStart("r1", 0)), [&] { ++wakes; });
  ASSERT_THAT(opened, IsOk());
  Received received;
  int64_t waited = 0;
  for (;;) {
    const NextResult result = TakeOne(**opened, &received);
    if (result == NextResult::kEnd) break;
    if (result != NextResult::kWait) continue;
    const int before = wakes;
    Pass(50'000);
    ASSERT_EQ(wakes, before + 1);
    waited += 50'000;
  }
  ASSERT_TRUE(received.end.has_value());
  const double seconds = static_cast<double>(received.end->bytes()) / (1 << 20);
  EXPECT_GT(static_cast<double>(waited) / 1e6, seconds - 1.2);  // but for the burst and the last chunk
  EXPECT_LT(static_cast<double>(waited) / 1e6, seconds + 0.2);
}

TEST_F(SnapshotResumeTest, StreamsGiveWayWhileWritersAreAtWork) {
  options_.snapshots.busy_bytes_per_second = 1 << 20;
  FlushStore();
  OpenNode();
  // Pieces that a stream sends within a second, with so many bytes written every 250 ms.
  const auto send = [&](size_t written) {
    size_t sent = 0;
    auto session = Open(ReplicaStart("r1", 0));
    for (int i = 0; i < 4; ++i) {
      if (written != 0) Write(1, written);
      Pass(250'000);
    }
    Received received;
    while (TakeOne(*session, &received) == NextResult::kMessage) sent = received.chunks.size();
    return sent;
  };
  const size_t all = send(0);
  EXPECT_GT(all, 4u);
  EXPECT_GE(send(200'000), all);  // less than 1 MiB a second
  EXPECT_LE(send(300'000), 2u);   // a tenth of a second's worth, and what goes over it
  EXPECT_GE(send(0), all);
}

TEST_F(SnapshotResumeTest, TooManySnapshotsAreRefusedUnlessOneCanBeShared) {
  options_.snapshots.snapshots_max = 1;
  FlushStore();
  OpenNode();
  auto first = Open(ReplicaStart("r1", 0));
  auto joined = Open(ReplicaStart("r2", 0));
  clock_.Advance(options_.snapshots.join_micros + 1);
  const absl::Status refused = source_->NewSnapshotSession(Request(ReplicaStart("r3", 0)), [] {}).status();
  EXPECT_THAT(refused, ReasonIs("snapshot_limit"));
  EXPECT_EQ(GetErrorInfo(refused).metadata.count("retry_after_ms"), 1u);
  EXPECT_EQ(source_->Snapshots().pool.sessions, 2u);
  first.reset();
  joined.reset();
  EXPECT_THAT(source_->NewSnapshotSession(Request(ReplicaStart("r3", 0)), [] {}), IsOk());
}

TEST_F(SnapshotResumeTest, ASavedSnapshotHasNoSlotAndNeverGoesOnFromAnother) {
  const std::string digest = DigestOf(host_.live->state());
  const auto save = [&](const v1::SnapshotCursor* cursor) {
    v1::SaveSnapshotRequest request;
    if (cursor != nullptr) *request.mutable_cursor() = *cursor;
    return source_->NewSaveSession(request, [] {});
  };
  Received cut;
  {
    auto session = save(nullptr);
    ASSERT_THAT(session, IsOk());
    for (int i = 0; i < 3; ++i) ASSERT_EQ(TakeOne(**session, &cut), NextResult::kMessage);
  }
  EXPECT_TRUE(slots_->List().empty());
  EXPECT_EQ(cut.header.slot_generation(), 0u);
  EXPECT_EQ(cut.header.reason(), "");
  Write(5);
  const v1::SnapshotCursor cursor = CursorOf(cut);
  Received rest;
  {
    auto session = save(&cursor);
    ASSERT_THAT(session, IsOk());
    TakeAll(**session, &rest);
  }
  EXPECT_EQ(rest.header.resumed_sequence(), 2u);
  EXPECT_EQ(rest.header.read_position().lsn(), cut.header.position().lsn());
  EXPECT_EQ(DigestOf(*Install(Join(cut, rest), "/saved")), digest);
  EXPECT_EQ(Streams(), (Counts{{"saved", 2}}));
  Pass(options_.snapshots.linger_micros + 2'000'000);
  EXPECT_THAT(save(&cursor), ReasonIs("snapshot_gone"));
  host_.view.exact = false;
  EXPECT_THAT(save(nullptr), ReasonIs("not_exact"));
  EXPECT_EQ(source_->Snapshots().pool.sessions, 0u);
}

}  // namespace
}  // namespace towline::test
