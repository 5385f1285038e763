#include "tests/primary/session_sim.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "common/error.h"

namespace towline::test {
namespace {

constexpr int64_t kTick = 50'000;
constexpr int64_t kOwnerPatience = 15'000'000;  // an owner gives up a connection on which it hears nothing

}  // namespace

void SessionSim::SetUp() {
  options_.follow_bytes = 2'000;
  options_.batch_bytes_max = 4'000;
  SourceTest::SetUp();
  for (const char* slot : {"r1", "r2", "r3", "c1"}) {
    owners_.push_back(std::make_unique<SimOwner>());
    owners_.back()->slot = slot;
    owners_.back()->consumer = *slot == 'c';
    owners_.back()->process = ++last_process_;
  }
  shipped_[1] = Shipped(1, 1);
  // A consumer has no snapshot to fall back on: its log must stay from the beginning.
  TOWLINE_ASSERT_OK_AND_ASSIGN(const slots::Slot slot, slots_->Create("c1", slots::SlotKind::kConsumer, 1, 0));
  owners_.back()->generation = slot.generation;
}

void SessionSim::TearDown() {
  links_.clear();
  SourceTest::TearDown();
}

void SessionSim::Run(uint64_t seed, int count) {
  dice_ = std::make_unique<SeededRng>(seed);
  for (int step = 1; step <= count && !HasFailure(); ++step) {
    SCOPED_TRACE(absl::StrCat("seed ", seed, ", step ", step));
    Step();
    Check();
  }
}

SimLink& SessionSim::RandomLink() { return *links_[dice_->Below(links_.size())]; }

// --- Steps ---

void SessionSim::Step() {
  for (const auto& owner : owners_) {
    if (owner->link == nullptr && clock_.MonotonicMicros() >= owner->retry_at) Connect(*owner);
  }
  const uint64_t die = dice_->Below(100);
  if (links_.empty() || die < 8) return WriteSome(1 + static_cast<int>(dice_->Below(4)));
  if (die < 24) {
    const uint64_t jump = dice_->Below(400);
    return PassTime(jump == 0 ? 17'000'000 : jump < 10 ? 2'000'000 : kTick);
  }
  if (die < 42) return DeliverUp(RandomLink());
  if (die < 64) return Pump(RandomLink());
  if (die < 82) return DeliverDown(RandomLink());
  SimOwner& owner = *owners_[dice_->Below(owners_.size())];
  if (die < 97 || !dice_->OneIn(8)) return Act(owner);
  if (die == 97) return Fault(RandomLink());
  if (die == 98) return Restart(owner);
  if (owner.link != nullptr) Abandon(*owner.link, dice_->OneIn(2));  // it opens another one
}

void SessionSim::WriteSome(int count) {
  for (int i = 0; i < count; ++i) {
    Write(1, 50 + dice_->Below(400));
    std::string& bytes = shipped_[Durable()];
    bytes = Shipped(Durable(), Durable());
    record_bytes_max_ = std::max<uint64_t>(record_bytes_max_, bytes.size());
  }
}

void SessionSim::PassTime(int64_t micros) {
  clock_.Advance(micros);
  Tick();
  const int64_t now = clock_.MonotonicMicros();
  for (const auto& link : links_) {
    if (link->session == nullptr || link->ended) continue;
    if (now - link->last_request > options_.session_timeout_micros) {
      link->ended = true;
      link->end_reason = "session_timeout";
    } else if (link->alive()) {
      const Lsn applied = link->acked_received == 0 ? link->start.lsn() : link->acked_applied;
      if (applied >= Durable()) {
        link->last_progress = now;
        link->stalled = false;
      } else if (!link->stalled && now - link->last_progress >= options_.stall_timeout_micros) {
        link->stalled = true;
        ++stalls_;
      }
    }
  }
  if (dice_->OneIn(20)) FlushStore();
  for (const auto& owner : owners_) {
    SimLink* const link = owner->link;
    if (link != nullptr && now - link->last_message > kOwnerPatience) Abandon(*link, /*tell=*/false);
  }
  DropOldLinks();
}

// Loses what is on its way from some message on.
void SessionSim::Fault(SimLink& link) {
  if (dice_->OneIn(3)) {
    link.silent = true;
    return;
  }
  link.up.resize(dice_->Below(link.up.size() + 1));
  link.down.resize(dice_->Below(link.down.size() + 1));
  link.up_closes = dice_->OneIn(2);
  link.down_closes = dice_->OneIn(2);
  link.cut = true;
}

void SessionSim::Restart(SimOwner& owner) {
  if (owner.link != nullptr) Abandon(*owner.link, dice_->OneIn(2));
  owner.process = ++last_process_;
  owner.applied = owner.flushed;
  const Lsn oldest = std::max<Lsn>(FirstRetained(), 100) - 100;  // the log of some copies is gone
  if (owner.consumer || owner.flushed <= oldest || !dice_->OneIn(3)) return;
  owner.flushed = oldest + dice_->Below(owner.flushed - oldest + 1);  // an older copy of its disk
  owner.applied = owner.flushed;
  owner.lines.push_back(owner.flushed);
  owner.lost_records = true;
}

// Those that both ends have forgotten, and on which nothing is under way.
void SessionSim::DropOldLinks() {
  std::erase_if(links_,
                [](const std::unique_ptr<SimLink>& link) { return link->abandoned && link->session == nullptr; });
}

// --- The owner's end ---

void SessionSim::Connect(SimOwner& owner) {
  SimLink& link = *links_.emplace_back(std::make_unique<SimLink>());
  link.owner = &owner;
  link.line = owner.lines.size() - 1;
  link.start = owner.consumer ? ConsumerStart(owner.slot, owner.flushed) : ReplicaStart(owner.slot, owner.flushed);
  link.start.set_process_instance(owner.process);
  link.granted = 1'000 + dice_->Below(10'000);
  link.start.set_credit_bytes(link.granted);
  link.credit = link.granted;
  link.last_message = link.last_request = clock_.MonotonicMicros();
  link.session = source_->NewPullSession([] {});
  v1::PullRequest request;
  *request.mutable_start() = link.start;
  Send(link, request);
  owner.link = &link;
}

// `tell`: the server hears of it, behind what is on its way.
void SessionSim::Abandon(SimLink& link, bool tell) {
  link.abandoned = true;
  link.down.clear();
  if (tell && !link.cut) link.up_closes = true;
  if (link.owner->link == &link) link.owner->link = nullptr;
}

void SessionSim::Act(SimOwner& owner) {
  SimLink* const link = owner.link;
  if (link == nullptr || !link->streams) return;
  const auto some = [this](Lsn from, Lsn to) { return faults_ ? from + dice_->Below(to - from + 1) : to; };
  owner.flushed = some(owner.flushed, link->received);
  owner.lines.back() = std::max(owner.lines.back(), owner.flushed);
  owner.applied = owner.consumer ? owner.flushed : some(owner.applied, owner.flushed);
  v1::PullRequest request;
  v1::PullAck& ack = *request.mutable_ack();
  ack.set_session_id(link->started.session_id());
  ack.set_slot_generation(link->started.slot_generation());
  ack.set_term(1);
  ack.set_received_lsn(link->received);
  ack.set_flushed_lsn(owner.flushed);
  ack.set_applied_lsn(owner.applied);
  owner.old_acks.push_back(ack);
  if (faults_ && dice_->OneIn(150)) ack.set_received_lsn(uint64_t{1} << 63);
  if (faults_ && dice_->OneIn(150)) ack = owner.old_acks[dice_->Below(owner.old_acks.size())];
  Send(*link, request);
  if (link->received_bytes + 4'000 <= link->granted) return;
  link->granted = link->received_bytes + 5'000 + dice_->Below(10'000);
  request.mutable_credit()->set_granted_bytes(link->granted);
  Send(*link, request);
}

void SessionSim::Send(SimLink& link, const v1::PullRequest& request) {
  if (!link.cut) link.up.push_back(request);
}

void SessionSim::DeliverDown(SimLink& link) {
  if (link.silent || link.abandoned) return;
  if (link.down.empty()) {
    if (link.down_closes) Abandon(link, /*tell=*/true);
    return;
  }
  const v1::PullResponse response = std::move(link.down.front());
  link.down.pop_front();
  link.last_message = clock_.MonotonicMicros();
  if (response.has_started()) return TakeDecision(link, response.started());
  if (response.has_ended()) return Abandon(link, /*tell=*/true);
  if (!response.has_heartbeat()) TakeRecords(link, response);
}

void SessionSim::TakeRecords(SimLink& link, const v1::PullResponse& response) {
  std::string expected;
  if (response.has_frames()) {
    const v1::FrameBatch& batch = response.frames();
    ASSERT_EQ(batch.first_lsn(), link.received + 1);
    for (Lsn lsn = batch.first_lsn(); lsn <= batch.last_lsn(); ++lsn) expected += shipped_.at(lsn);
    ASSERT_EQ(batch.frames(), expected);
    link.received = batch.last_lsn();
    link.received_bytes += expected.size();
    return;
  }
  ASSERT_TRUE(response.has_records());
  for (const v1::Record& record : response.records().records()) {
    ASSERT_EQ(record.lsn(), ++link.received);
    ASSERT_EQ(record.chain(), host_.live->spool().EndAt(record.lsn())->chain);
    link.received_bytes += shipped_.at(record.lsn()).size();
  }
}

void SessionSim::TakeDecision(SimLink& link, const v1::PullStarted& started) {
  SimOwner& owner = *link.owner;
  link.started = started;
  if (started.decision() == v1::RESUME_DECISION_PARTIAL) {
    ASSERT_EQ(started.from_lsn(), owner.flushed + 1);
    link.streams = true;
    link.received = owner.flushed;
    return;
  }
  Abandon(link, /*tell=*/true);
  owner.retry_at = clock_.MonotonicMicros() + started.retry_after_ms() * 1000;
  if (started.decision() == v1::RESUME_DECISION_FULL) LoadSnapshot(link);
}

// In one step: what may happen to a snapshot is tested elsewhere. It ends where a pull begins.
void SessionSim::LoadSnapshot(SimLink& link) {
  SimOwner& owner = *link.owner;
  v1::FetchSnapshotRequest request;
  *request.mutable_start() = link.start;
  const SimLink* const alive = AliveLink(owner);
  absl::StatusOr<std::unique_ptr<SnapshotSession>> session = source_->NewSnapshotSession(request, [] {});
  if (!session.ok()) {
    const std::string reason = GetErrorInfo(session.status()).reason;
    ASSERT_TRUE(reason == "plan_changed" || (reason == "slot_in_use" && alive != nullptr)) << session.status();
    return;
  }
  Supersede(owner, nullptr);
  v1::FetchSnapshotResponse response;
  while ((*session)->Next(&response) == NextResult::kMessage) {
    if (!response.has_header()) continue;
    owner.flushed = owner.applied = response.header().position().lsn();
    owner.generation = response.header().slot_generation();
    owner.full_reason = response.header().reason();
  }
  ASSERT_THAT((*session)->end_status(), IsOk());
  ++ends_["snapshot"];
  owner.lines.push_back(owner.flushed);
  owner.generation_line = owner.lines.size() - 1;
  owner.confirmed = 0;
  owner.lost_records = false;
}

}  // namespace towline::test
