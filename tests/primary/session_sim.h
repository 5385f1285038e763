// One source with several owners over a simulated network, in an order that a seed decides.
//
// Method   The source, its slot table and its log are the real ones. Messages of one direction of one connection keep
//          their order and take any time; connections are cut at any message, with or without word of it to either end,
//          or go silent; a process opens a second session while its first lives; acks of dead sessions still arrive;
//          processes restart, and come back from an older copy of their disk. A model that knows only what crossed the
//          wire says which session is alive, what was counted and what each owner really holds; it is compared with the
//          source after every step.

#ifndef TOWLINE_TESTS_PRIMARY_SESSION_SIM_H_
#define TOWLINE_TESTS_PRIMARY_SESSION_SIM_H_

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/primary/source_fixture.h"

namespace towline::test {

struct SimOwner;

// One connection. Its server end is gone once `session` is null.
struct SimLink {
  SimOwner* owner = nullptr;
  v1::PullStart start;
  size_t line = 0;  // of the owner, when it asked

  // --- The network ---
  std::unique_ptr<PullSession> session;
  std::deque<v1::PullRequest> up;
  std::deque<v1::PullResponse> down;
  bool silent = false;       // nothing passes any more, and nobody is told
  bool cut = false;          // nothing new goes in
  bool up_closes = false;    // the server hears of the end behind `up`
  bool down_closes = false;  // the owner hears of the end behind `down`

  // --- The owner's end ---
  bool abandoned = false;
  bool streams = false;  // started, with PARTIAL
  v1::PullStarted started;
  Lsn received = 0;
  uint64_t received_bytes = 0;
  uint64_t granted = 0;
  int64_t last_message = 0;

  // --- The model of the server's end ---
  bool asked = false;  // the start has arrived
  bool answered = false;
  bool ended = false;
  std::string end_reason;
  uint64_t session_id = 0;  // 0 = the decision was not PARTIAL
  uint64_t generation = 0;
  Lsn sent = 0;
  Lsn acked_received = 0, acked_flushed = 0, acked_applied = 0;
  std::string counts_as;
  bool counted = false;
  uint64_t sent_bytes = 0;
  uint64_t credit = 0;
  uint64_t heartbeat = 0;
  int64_t last_request = 0;
  int64_t last_progress = 0;
  bool stalled = false;

  bool alive() const { return session_id != 0 && !ended; }
};

// A replica or consumer with its disk.
struct SimOwner {
  std::string slot;
  bool consumer = false;
  uint64_t process = 0;
  SimLink* link = nullptr;  // the one that it believes in
  int64_t retry_at = 0;
  Lsn flushed = 0;
  Lsn applied = 0;
  std::vector<Lsn> lines = {0};  // most that was ever flushed, before each loss of its newest records and behind it
  bool lost_records = false;     // and has not attached since
  std::vector<v1::PullAck> old_acks;

  // --- The model of its slot ---
  uint64_t generation = 0;
  size_t generation_line = 0;
  Lsn confirmed = 0;
  std::string full_reason;  // of a full resync that is not counted yet
  std::string last_refusal;
};

class SessionSim : public SourceTest {
 protected:
  void SetUp() override;
  void TearDown() override;

  // Makes `count` random steps, and checks after each.
  void Run(uint64_t seed, int count);
  // No more faults: everybody catches up.
  void Heal();

  std::string Story() const;  // what happened, in numbers

 private:
  // --- Steps ---
  void Step();
  void WriteSome(int count);
  void PassTime(int64_t micros);
  void Fault(SimLink& link);
  void Restart(SimOwner& owner);
  void DropOldLinks();

  // --- The owner's end ---
  void Connect(SimOwner& owner);
  void Abandon(SimLink& link, bool tell);
  void Act(SimOwner& owner);
  void Send(SimLink& link, const v1::PullRequest& request);
  void DeliverDown(SimLink& link);
  void TakeRecords(SimLink& link, const v1::PullResponse& response);
  void TakeDecision(SimLink& link, const v1::PullStarted& started);
  void LoadSnapshot(SimLink& link);

  // --- The server's end, and its model ---
  void DeliverUp(SimLink& link);
  void DeliverAck(SimLink& link, const v1::PullRequest& request);
  void Pump(SimLink& link);
  void OnStarted(SimLink& link, const v1::PullStarted& started);
  void OnSent(SimLink& link, const v1::PullResponse& response);
  void CloseServer(SimLink& link);
  void Supersede(const SimOwner& owner, const SimLink* by);
  SimLink* AliveLink(const SimOwner& owner);
  void Check();

  SimLink& RandomLink();

  std::unique_ptr<SeededRng> dice_;
  bool faults_ = true;
  std::vector<std::unique_ptr<SimOwner>> owners_;
  std::vector<std::unique_ptr<SimLink>> links_;
  std::map<Lsn, std::string> shipped_;  // every record as it was written
  uint64_t record_bytes_max_ = 0;
  uint64_t last_process_ = 100;

  // --- What the source must have counted ---
  std::map<std::string, uint64_t> replicas_counted_;
  std::map<std::string, uint64_t> consumers_counted_;
  uint64_t superseded_ = 0;
  uint64_t stalls_ = 0;
  std::map<std::string, uint64_t> ends_;  // of sessions, by reason; for the story
};

}  // namespace towline::test

#endif  // TOWLINE_TESTS_PRIMARY_SESSION_SIM_H_
