#include "tests/primary/source_fixture.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

#include "common/checksum.h"
#include "common/error.h"
#include "common/history.h"
#include "towline/v1/change.pb.h"
#include "wal/frame.h"

namespace towline::test {
namespace {

constexpr uint64_t kCredit = 8 << 20;

}  // namespace

FakeGeneration::FakeGeneration(uint64_t number, std::unique_ptr<wal::Spool> spool, std::unique_ptr<StateStore> state,
                               Executor& executor, Clock& clock, Logger& logger)
    : number_(number),
      spool_(std::move(spool)),
      state_(std::move(state)),
      applier_(*state_, executor, clock, logger, {}, [](const absl::Status& status) { FAIL() << status; }) {}

// --- Owner ---

Owner::Owner(ReplicationSource& source, v1::PullStart pull_start) : start(std::move(pull_start)), source_(source) {}

absl::Status Owner::Connect() {
  session.reset();  // so that none of its wakes is under way any more
  session = source_.NewPullSession([this] {
    ++wakes;
    if (on_wake) on_wake();
  });
  ended = false;
  v1::PullRequest request;
  *request.mutable_start() = start;
  TOWLINE_RETURN_IF_ERROR(session->OnRequest(request));
  if (ReceiveOne() != NextResult::kMessage) return session->end_status();
  last_lsn = std::max<Lsn>(1, started.from_lsn()) - 1;
  return absl::OkStatus();
}

void Owner::Receive() {
  while (!ended && ReceiveOne() == NextResult::kMessage) {
  }
}

NextResult Owner::ReceiveOne() {
  v1::PullResponse response;
  const NextResult result = session->Next(&response);
  if (result == NextResult::kMessage) Take(response);
  if (result == NextResult::kEnd) ended = true;
  return result;
}

void Owner::Take(const v1::PullResponse& response) {
  switch (response.kind_case()) {
    case v1::PullResponse::kStarted:
      started = response.started();
      return;
    case v1::PullResponse::kFrames: {
      v1::FrameBatch batch = response.frames();
      EXPECT_EQ(batch.first_lsn(), last_lsn + 1);
      frames += batch.frames();
      batch_sizes.push_back(batch.frames().size());
      const bool whole = batch.fragment_offset() + batch.frames().size() == batch.fragment_total();
      if (batch.fragment_total() == 0 || whole) last_lsn = batch.last_lsn();
      batch.clear_frames();
      batches.push_back(std::move(batch));
      return;
    }
    case v1::PullResponse::kRecords:
      for (const v1::Record& record : response.records().records()) {
        EXPECT_EQ(record.lsn(), ++last_lsn);
        records.push_back(record);
      }
      return;
    case v1::PullResponse::kHeartbeat:
      heartbeats.push_back(response.heartbeat());
      return;
    case v1::PullResponse::kEnded:
      ends.push_back(response.ended());
      return;
    case v1::PullResponse::kUpstreamPath:
      paths.emplace_back(response.upstream_path().node_ids().begin(), response.upstream_path().node_ids().end());
      return;
    case v1::PullResponse::KIND_NOT_SET:
      ADD_FAILURE() << "empty message";
      return;
  }
}

v1::PullAck Owner::MakeAck(Lsn received, Lsn flushed, Lsn applied) const {
  v1::PullAck ack;
  ack.set_session_id(started.session_id());
  ack.set_slot_generation(started.slot_generation());
  ack.set_term(started.term());
  ack.set_received_lsn(received);
  ack.set_flushed_lsn(flushed);
  ack.set_applied_lsn(applied);
  return ack;
}

absl::Status Owner::Ack(Lsn received, Lsn flushed, Lsn applied) { return Send(MakeAck(received, flushed, applied)); }

absl::Status Owner::Send(const v1::PullAck& ack) {
  v1::PullRequest request;
  *request.mutable_ack() = ack;
  return session->OnRequest(request);
}

absl::Status Owner::Grant(uint64_t granted_bytes) {
  v1::PullRequest request;
  request.mutable_credit()->set_granted_bytes(granted_bytes);
  return session->OnRequest(request);
}

std::string Owner::EndReason() const {
  if (!ended) return "";
  const absl::Status status = session->end_status();
  return status.ok() ? "ok" : GetErrorInfo(status).reason;
}

// --- Node ---

void SourceTest::SetUp() {
  spool_options_.segment_bytes = kSegmentBytes;
  spool_options_.spare_segments = 0;
  spool_options_.index_interval_bytes = 1 << 10;
  options_.wal_keep_bytes = 0;
  options_.follow_bytes = 0;
  OpenNode();
  StartTerm(1, kTermId);
}

void SourceTest::TearDown() { CloseNode(); }

void SourceTest::OpenNode(uint64_t number) {
  CloseNode();
  absl::StatusOr<std::unique_ptr<slots::SlotTable>> table =
      slots::SlotTable::Open(fs_, "/", clock_, rng_, logger_, limits_);
  ASSERT_THAT(table, IsOk());
  slots_ = *std::move(table);

  const std::string directory = absl::StrCat("/wal-", number);
  wal::RecoveryInputs inputs;
  inputs.cluster_id = kCluster;
  inputs.generation = number;
  inputs.first_retained = slots_->first_retained(number);
  wal::RecoveryReport report;
  absl::StatusOr<std::unique_ptr<wal::Spool>> spool = wal::OpenSpool({fs_, clock_, rng_, executor_, logger_}, directory,
                                                                     "/quarantine", spool_options_, inputs, &report);
  ASSERT_THAT(spool, IsOk());
  absl::StatusOr<std::unique_ptr<Store>> store = stores_.Open(absl::StrCat("/db-", number));
  ASSERT_THAT(store, IsOk());
  absl::StatusOr<std::unique_ptr<StateStore>> state = StateStore::Open(*std::move(store));
  ASSERT_THAT(state, IsOk());
  host_.live =
      std::make_shared<FakeGeneration>(number, *std::move(spool), *std::move(state), executor_, clock_, logger_);

  host_.view.node_id = "p1";
  host_.view.incarnation = 0xbeef;
  host_.view.cluster_id = kCluster;
  host_.view.is_primary = true;
  host_.view.data_generation = number;
  source_ = NewReplicationSource(host_, *slots_, clock_, rng_, logger_, options_);
}

void SourceTest::CloseNode() {
  source_.reset();
  host_.live.reset();
  slots_.reset();
}

void SourceTest::Append(wal::RecordType type, const std::string& payload) {
  wal::Spool& spool = host_.live->spool();
  wal::GroupBuilder builder(spool.end());
  clock_.Advance(1);
  builder.Add(type, host_.view.term, clock_.WallMicros(), payload, Crc32c(payload));
  const std::shared_ptr<wal::FrameGroup> group = builder.Finish();
  ASSERT_THAT(spool.Append(group), IsOk());
  const HistoryEntry* entry = EntryAt(host_.view.history, group->last_lsn());
  const Position position{entry->term, entry->term_id, group->last_lsn(), group->after.chain};
  const ApplyRecord record{position, group->payload(0)};
  ASSERT_THAT(host_.live->state().Apply({&record, 1}), IsOk());
}

void SourceTest::Write(int count, size_t value_size) {
  for (int i = 0; i < count; ++i) {
    v1::Change change;
    v1::Put* put = change.mutable_batch()->add_operations()->mutable_put();
    put->set_key(absl::StrCat("key-", Durable() + 1));
    put->set_value(std::string(value_size, static_cast<char>('a' + Durable() % 26)));
    Append(wal::RecordType::kBatch, change.SerializeAsString());
  }
}

void SourceTest::StartTerm(Term term, uint64_t term_id) {
  host_.view.term = term;
  host_.view.history.push_back({term, Durable() + 1, term_id});
  v1::Change change;
  change.mutable_term_start()->set_term(term);
  change.mutable_term_start()->set_term_id(term_id);
  change.mutable_term_start()->set_cluster_id(kCluster);
  change.mutable_term_start()->set_node_id("p1");
  Append(wal::RecordType::kTermStart, change.SerializeAsString());
}

uint64_t SourceTest::ChainAt(Lsn lsn) const {
  const absl::StatusOr<wal::LogEnd> end = host_.live->spool().EndAt(lsn);
  return end.ok() ? end->chain : 1;  // not retained: any value
}

std::string SourceTest::Shipped(Lsn from, Lsn to) const {
  std::string bytes;
  absl::StatusOr<std::unique_ptr<wal::Cursor>> cursor = host_.live->spool().NewCursor(from);
  EXPECT_THAT(cursor, IsOk());
  while ((*cursor)->next_lsn() <= to) {
    absl::StatusOr<wal::ShippedBatch> batch = (*cursor)->Next(1);
    EXPECT_THAT(batch, IsOk());
    EXPECT_EQ(batch->after.lsn, batch->before.lsn + 1);
    bytes += batch->bytes;
  }
  return bytes;
}

v1::PullStart SourceTest::ReplicaStart(const std::string& slot, Lsn lsn) const {
  v1::PullStart start;
  start.set_protocol_version(kPullProtocolVersion);
  start.set_slot(slot);
  start.set_kind(v1::SLOT_KIND_REPLICA);
  start.set_format(v1::RECORD_FORMAT_FRAMES);
  start.set_advertised_address(absl::StrCat(slot, ":7700"));
  start.set_incarnation(20);
  start.set_process_instance(30);
  start.set_credit_bytes(kCredit);
  if (lsn == 0) return start;
  start.set_cluster_id(kCluster);
  start.set_lsn(lsn);
  start.set_chain(ChainAt(lsn));
  start.set_first_retained_lsn(1);
  for (const HistoryEntry& entry : CutAt(host_.view.history, lsn)) {
    v1::HistoryEntry* encoded = start.add_history();
    encoded->set_term(entry.term);
    encoded->set_start_lsn(entry.start_lsn);
    encoded->set_term_id(entry.term_id);
  }
  return start;
}

v1::PullStart SourceTest::ConsumerStart(const std::string& slot, Lsn lsn) const {
  v1::PullStart start;
  start.set_protocol_version(kPullProtocolVersion);
  start.set_slot(slot);
  start.set_kind(v1::SLOT_KIND_CONSUMER);
  start.set_format(v1::RECORD_FORMAT_RECORDS);
  start.set_process_instance(40);
  start.set_credit_bytes(kCredit);
  start.set_lsn(lsn);
  if (lsn != 0) start.set_cluster_id(kCluster);
  return start;
}

std::unique_ptr<Owner> SourceTest::Attach(const v1::PullStart& start) {
  auto owner = std::make_unique<Owner>(*source_, start);
  EXPECT_THAT(owner->Connect(), IsOk());
  EXPECT_EQ(owner->started.decision(), v1::RESUME_DECISION_PARTIAL) << owner->started.DebugString();
  return owner;
}

v1::PullStarted SourceTest::Ask(const v1::PullStart& start) {
  Owner owner(*source_, start);
  EXPECT_THAT(owner.Connect(), IsOk());
  return owner.started;
}

void SourceTest::Pass(int64_t micros) {
  constexpr int64_t kStep = 50'000;
  for (int64_t passed = 0; passed < micros; passed += kStep) {
    clock_.Advance(std::min(kStep, micros - passed));
    Tick();
  }
}

void SourceTest::FlushStore() { ASSERT_THAT(host_.live->state().store().Flush(true), IsOk()); }

slots::Slot SourceTest::SlotOf(const std::string& name) const {
  const std::optional<slots::Slot> slot = slots_->Get(name);
  EXPECT_TRUE(slot.has_value()) << name;
  return slot.value_or(slots::Slot{});
}

PeerStatus SourceTest::PeerOf(const std::string& slot) const {
  for (const PeerStatus& peer : source_->Peers()) {
    if (peer.slot == slot) return peer;
  }
  ADD_FAILURE() << "no peer " << slot;
  return {};
}

}  // namespace towline::test
