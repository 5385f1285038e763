// The server's end of the simulated connections, and the model that it is compared with.

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "common/error.h"
#include "tests/primary/session_sim.h"

namespace towline::test {
namespace {

constexpr size_t kWindow = 6;  // messages on their way to an owner

std::string ReasonOf(const absl::Status& status) { return status.ok() ? "" : GetErrorInfo(status).reason; }

std::string KeyOf(const v1::PullStarted& started) {
  switch (started.decision()) {
    case v1::RESUME_DECISION_PARTIAL:
      return "partial/" + started.reason();
    case v1::RESUME_DECISION_REFUSE:
      return "refuse/" + started.reason();
    default:
      return "full/" + started.reason();
  }
}

}  // namespace

void SessionSim::CloseServer(SimLink& link) {
  link.session->Close();
  link.session.reset();
  if (!link.ended) link.end_reason = "closed";
  ++ends_[link.end_reason];
  link.ended = true;
  link.up.clear();
  if (!link.cut) link.down_closes = true;
}

SimLink* SessionSim::AliveLink(const SimOwner& owner) {
  for (const auto& link : links_) {
    if (link->owner == &owner && link->alive()) return link.get();
  }
  return nullptr;
}

// `by` takes the slot from the session of the same process.
void SessionSim::Supersede(const SimOwner& owner, const SimLink* by) {
  SimLink* const old = AliveLink(owner);
  if (old == nullptr || old == by) return;
  ++superseded_;
  old->ended = true;
  old->end_reason = "superseded";
}

// --- Requests ---

void SessionSim::DeliverUp(SimLink& link) {
  if (link.silent || link.session == nullptr) return;
  if (link.up.empty()) {
    if (link.up_closes) CloseServer(link);
    return;
  }
  const v1::PullRequest request = std::move(link.up.front());
  link.up.pop_front();
  const bool was_ended = link.ended;
  if (!was_ended) link.last_request = clock_.MonotonicMicros();
  if (request.has_ack()) return DeliverAck(link, request);
  if (request.has_start()) link.asked = true;
  if (request.has_credit() && !was_ended) link.credit = std::max(link.credit, request.credit().granted_bytes());
  ASSERT_THAT(link.session->OnRequest(request), IsOk());
}

void SessionSim::DeliverAck(SimLink& link, const v1::PullRequest& request) {
  const v1::PullAck& ack = request.ack();
  const absl::Status status = link.session->OnRequest(request);
  if (link.ended) {  // it comes too late, and nothing comes of it
    ASSERT_THAT(status, IsOk());
    return;
  }
  std::string expected;
  if (ack.received_lsn() > link.sent) expected = "ack_ahead";
  if (ack.slot_generation() != link.generation) expected = "stale_generation";
  if (ack.session_id() != link.session_id) expected = "stale_session";
  ASSERT_EQ(ReasonOf(status), expected) << ack.DebugString();
  if (!expected.empty()) {
    link.ended = true;
    link.end_reason = expected;
    return;
  }
  const bool progress = ack.received_lsn() > link.acked_received || ack.flushed_lsn() > link.acked_flushed ||
                        ack.applied_lsn() > link.acked_applied;
  if (progress) {
    link.last_progress = clock_.MonotonicMicros();
    link.stalled = false;
  }
  link.acked_received = std::max(link.acked_received, ack.received_lsn());
  link.acked_flushed = std::max(link.acked_flushed, ack.flushed_lsn());
  link.acked_applied = std::max(link.acked_applied, ack.applied_lsn());
  if (std::exchange(link.counted, true)) return;
  ++(link.owner->consumer ? consumers_counted_ : replicas_counted_)[link.counts_as];
  link.owner->full_reason.clear();
}

// --- Answers ---

void SessionSim::Pump(SimLink& link) {
  if (link.session == nullptr || !link.asked || link.down.size() >= kWindow) return;
  v1::PullResponse response;
  switch (link.session->Next(&response)) {
    case NextResult::kWait:
      ASSERT_FALSE(link.ended);
      return;
    case NextResult::kEnd:
      ASSERT_TRUE(link.ended) << link.session->end_status();
      if (link.session_id != 0 || !link.answered) {
        ASSERT_EQ(ReasonOf(link.session->end_status()), link.end_reason);
      }
      CloseServer(link);
      return;
    case NextResult::kMessage:
      break;
  }
  if (response.has_started()) {
    OnStarted(link, response.started());
  } else {
    OnSent(link, response);
  }
  if (!link.abandoned && !link.cut) link.down.push_back(std::move(response));
}

void SessionSim::OnStarted(SimLink& link, const v1::PullStarted& started) {
  ASSERT_FALSE(link.answered || link.ended);
  link.answered = true;
  SimOwner& owner = *link.owner;
  const SimLink* const alive = AliveLink(owner);
  const bool in_use = alive != nullptr && alive->start.process_instance() != link.start.process_instance();
  const std::string key = KeyOf(started);
  if (started.decision() != v1::RESUME_DECISION_PARTIAL) {
    link.ended = true;  // behind this answer
    if (started.decision() == v1::RESUME_DECISION_FULL) {
      ASSERT_TRUE(link.start.lsn() + 1 < FirstRetained()) << started.DebugString();
      owner.last_refusal.clear();
      return;
    }
    ASSERT_EQ(key, "refuse/slot_in_use");
    ASSERT_TRUE(in_use);
    if (std::exchange(owner.last_refusal, key) == key) return;
    ++(owner.consumer ? consumers_counted_ : replicas_counted_)[key];
    return;
  }
  ASSERT_FALSE(in_use);
  ASSERT_EQ(started.from_lsn(), link.start.lsn() + 1);
  Supersede(owner, &link);
  owner.last_refusal.clear();
  if (started.slot_generation() != owner.generation) {
    owner.generation = started.slot_generation();
    owner.generation_line = link.line;
    owner.confirmed = 0;
    owner.full_reason.clear();
  }
  owner.generation_line = std::max(owner.generation_line, link.line);
  if (link.line + 1 == owner.lines.size()) owner.lost_records = false;
  link.session_id = started.session_id();
  link.generation = started.slot_generation();
  link.sent = link.start.lsn();
  link.counts_as = owner.full_reason.empty() ? key : "full/" + owner.full_reason;
  link.last_progress = clock_.MonotonicMicros();
}

void SessionSim::OnSent(SimLink& link, const v1::PullResponse& response) {
  if (response.has_ended()) {
    ASSERT_TRUE(link.ended);
    ASSERT_EQ(response.ended().reason(), link.end_reason);
    return;
  }
  ASSERT_TRUE(link.alive()) << response.DebugString();
  if (response.has_heartbeat()) {
    ASSERT_GT(response.heartbeat().sequence(), link.heartbeat);
    link.heartbeat = response.heartbeat().sequence();
    return;
  }
  const Lsn first = response.has_frames() ? response.frames().first_lsn() : response.records().records(0).lsn();
  const Lsn last = response.has_frames() ? response.frames().last_lsn() : response.records().records().rbegin()->lsn();
  ASSERT_EQ(first, link.sent + 1);
  ASSERT_LE(last, Durable());
  for (Lsn lsn = first; lsn <= last; ++lsn) link.sent_bytes += shipped_.at(lsn).size();
  ASSERT_LT(link.sent_bytes, link.credit + record_bytes_max_);
  link.sent = last;
}

// --- After every step ---

void SessionSim::Check() {
  for (const auto& owner : owners_) {
    const std::optional<slots::Slot> slot = slots_->Get(owner->slot);
    if (!slot.has_value()) continue;
    ASSERT_EQ(slot->generation, owner->generation) << owner->slot;
    ASSERT_LE(slot->confirmed_lsn, owner->lines[owner->generation_line]) << owner->slot << " never flushed that";
    ASSERT_GE(slot->confirmed_lsn, owner->confirmed) << owner->slot << " fell within a generation";
    owner->confirmed = slot->confirmed_lsn;
    if (owner->lost_records) continue;
    ASSERT_LE(slots_->Floor(1), owner->flushed + 1) << owner->slot << " needs more";
    ASSERT_LE(FirstRetained(), owner->flushed + 1) << owner->slot << " needs more";
  }
  std::map<std::string, int> alive;
  for (const auto& link : links_) {
    if (link->session_id == 0) continue;
    ASSERT_EQ(slots_->HasSession(link->session_id), link->alive()) << link->owner->slot << " " << link->end_reason;
    if (link->alive()) ++alive[link->owner->slot];
    ASSERT_LE(alive[link->owner->slot], 1);
  }
  const ResyncCounters counters = source_->Counters();
  ASSERT_EQ(counters.by_reason, replicas_counted_);
  ASSERT_EQ(counters.consumers_by_reason, consumers_counted_);
  ASSERT_EQ(counters.superseded_sessions, superseded_);
  ASSERT_EQ(counters.stalls, stalls_);
}

// --- The end ---

void SessionSim::Heal() {
  faults_ = false;
  const auto caught_up = [this](const std::unique_ptr<SimOwner>& owner) {
    const PeerStatus peer = PeerOf(owner->slot);
    return owner->applied == Durable() && peer.connected && peer.state == "streaming" &&
           std::all_of(peer.stages.begin(), peer.stages.end(),
                       [](const StageLag& lag) { return lag.records == 0 && lag.seconds == 0; });
  };
  const auto healed = [&] { return std::all_of(owners_.begin(), owners_.end(), caught_up); };
  for (int round = 0; !healed(); ++round) {
    SCOPED_TRACE(absl::StrCat("healing, round ", round));
    ASSERT_LT(round, 2000) << "they do not catch up: " << Story();
    for (const auto& owner : owners_) {
      if (owner->link == nullptr && clock_.MonotonicMicros() >= owner->retry_at) Connect(*owner);
    }
    for (size_t i = 0; i < links_.size(); ++i) {
      const bool more = !links_[i]->up.empty();
      for (int j = 0; j < 20; ++j) DeliverUp(*links_[i]);
      for (int j = 0; j < 20; ++j) Pump(*links_[i]);
      for (int j = 0; j < 20; ++j) DeliverDown(*links_[i]);
      if (more && HasFailure()) return;
    }
    for (const auto& owner : owners_) Act(*owner);
    PassTime(50'000);
    Check();
    if (HasFailure()) return;
  }
  for (const auto& owner : owners_) {
    EXPECT_EQ(owner->flushed, Durable());
    EXPECT_EQ(SlotOf(owner->slot).confirmed_lsn, Durable());
    EXPECT_EQ(SlotOf(owner->slot).state, slots::SlotState::kActive);
  }
}

std::string SessionSim::Story() const {
  const auto pair = [](std::string* out, const auto& entry) { absl::StrAppend(out, entry.first, " ", entry.second); };
  return absl::StrCat(Durable(), " records from ", FirstRetained(), "; ended: ", absl::StrJoin(ends_, ", ", pair),
                      "; counted: ", absl::StrJoin(replicas_counted_, ", ", pair),
                      "; consumers: ", absl::StrJoin(consumers_counted_, ", ", pair), "; stalls ", stalls_);
}

}  // namespace towline::test
