// The planner against a model that knows both logs record by record, over every combination of a small world.
//
// The model is DESIGN's table read aloud: no histories are compared, only which records two logs hold.

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "primary/resync_planner.h"

namespace towline {
namespace {

constexpr char kCluster[] = "0123456789abcdef01234567";
constexpr uint64_t kReplayMax = 300;
constexpr uint64_t kBytesPerRecord = 100;

// A record by the start of its term. What it holds follows from that and the LSN.
using Start = std::pair<Term, uint64_t>;
using Records = std::vector<Start>;  // LSN 1 first

History HistoryOf(const Records& records) {
  History history;
  for (size_t i = 0; i < records.size(); ++i) {
    if (i == 0 || records[i] != records[i - 1]) history.push_back({records[i].first, i + 1, records[i].second});
  }
  return history;
}

// All lines: term 1 up to somewhere, then term 2 or 3 in one of two starts.
std::vector<Records> Lines(size_t length_max) {
  std::vector<Records> lines;
  for (size_t length = 0; length <= length_max; ++length) {
    lines.emplace_back(length, Start{1, 0x1});
    for (size_t own = 1; own < length; ++own) {
      for (const Start& later : {Start{2, 0x2}, Start{2, 0x22}, Start{3, 0x3}}) {
        Records records(own, Start{1, 0x1});
        records.resize(length, later);
        lines.push_back(records);
      }
    }
  }
  return lines;
}

struct World {
  Records ours;
  Records theirs;
  Lsn first_lsn = 1;  // of our log
  bool is_primary = true;
  Term our_term = 1;
  bool consumer = false;
  Term promised = 0;
  bool chain_damaged = false;
  std::optional<Lsn> exact_from;  // of their line
  bool has_slot = true;
  bool auto_create = true;
  bool temporary = false;       // a temporary slot is asked for
  bool slot_temporary = false;  // there is one of that name
  const char* cause = "";       // of an invalidated slot
  Lsn oldest_rewind = 0;
  bool requested = false;  // an operator wants a snapshot
};

struct Verdict {
  Decision decision;
  std::string reason;

  friend bool operator==(const Verdict&, const Verdict&) = default;
};

size_t Common(const World& w) {
  size_t common = 0;
  while (common < w.ours.size() && common < w.theirs.size() && w.ours[common] == w.theirs[common]) ++common;
  return common;
}

Verdict Behind(const World& w, const char* as_primary) {
  return w.is_primary ? Verdict{Decision::kRefuse, as_primary} : Verdict{Decision::kRetryAfter, "upstream_behind"};
}

Verdict Model(const World& w) {
  const Lsn durable = w.ours.size();
  const Lsn lsn = w.theirs.size();
  const Lsn common = Common(w);
  const Term last = w.theirs.empty() ? 0 : w.theirs.back().first;
  const Decision full = w.consumer ? Decision::kRefuse : Decision::kFull;

  if (last > w.our_term || w.promised > w.our_term) return Behind(w, "stale_primary");
  if (last > (w.ours.empty() ? 0 : w.ours.back().first)) return Behind(w, "stale_upstream");
  if (!w.has_slot && !w.auto_create && !w.temporary) return {Decision::kRefuse, "slot_not_found"};
  if (w.has_slot && w.slot_temporary != w.temporary) {
    return {Decision::kRefuse, w.temporary ? "slot_exists" : "slot_in_use"};
  }
  if (w.exact_from.has_value()) {
    const Start& exact = w.theirs[*w.exact_from - 1];
    // Our line goes on beyond its end with the term that it ends in.
    const bool on_our_line =
        !w.ours.empty() && (*w.exact_from <= durable ? w.ours[*w.exact_from - 1] == exact : w.ours.back() == exact);
    if (!on_our_line) return {full, "inexact"};
    if (*w.exact_from > durable) return Behind(w, w.consumer ? "ahead" : "replica_ahead");
  }
  if (lsn == 0) {
    if (w.consumer)
      return w.first_lsn == 1 ? Verdict{Decision::kPartial, "new_consumer"} : Verdict{full, "wal_removed"};
    const bool small = (durable - w.first_lsn + 1) * kBytesPerRecord <= kReplayMax;
    return {w.first_lsn == 1 && small ? Decision::kPartial : full, "new_replica"};
  }
  if (lsn > durable && common == durable) return Behind(w, w.consumer ? "ahead" : "replica_ahead");
  if (w.requested && !w.consumer) return {full, "requested"};
  if (common < lsn) {
    const bool rewind = !w.consumer && w.first_lsn <= common + 1 && w.oldest_rewind != 0 && w.oldest_rewind <= common;
    return {rewind ? Decision::kRewind : full, "diverged"};
  }
  if (w.chain_damaged && lsn + 1 >= w.first_lsn) return {Decision::kRefuse, "diverged_same_term"};
  const std::string cause = w.cause;
  if (lsn + 1 < w.first_lsn) return {full, cause.empty() ? "wal_removed" : cause};
  return {Decision::kPartial, cause.empty() ? "resumed" : "revived"};
}

Plan Real(const World& w) {
  NodeView node;
  node.node_id = "p1";
  node.incarnation = 1;
  node.cluster_id = kCluster;
  node.is_primary = w.is_primary;
  node.term = w.our_term;
  node.history = HistoryOf(w.ours);
  LogFacts log;
  log.first_lsn = w.first_lsn;
  log.durable_lsn = w.ours.size();
  log.bytes_from_first = (w.ours.size() - w.first_lsn + 1) * kBytesPerRecord;
  ResumeRequest request;
  request.protocol_version = kPullProtocolVersion;
  request.slot = "r1";
  request.kind = w.consumer ? slots::SlotKind::kConsumer : slots::SlotKind::kReplica;
  request.incarnation = 2;
  request.cluster_id = kCluster;
  request.history = HistoryOf(w.theirs);
  request.lsn = w.theirs.size();
  request.first_retained_lsn = 1;
  request.oldest_rewind_lsn = w.oldest_rewind;
  request.promised_term = w.promised;
  request.temporary = w.temporary;
  request.snapshot_requested = w.requested;
  if (request.lsn != 0) request.chain = 7;
  // We know chains of what we hold, and of the position before it.
  if (request.lsn <= log.durable_lsn && request.lsn + 1 >= w.first_lsn) {
    log.chain_at_request = w.chain_damaged ? 8 : 7;
  }
  if (w.exact_from.has_value()) {
    const Start& exact = w.theirs[*w.exact_from - 1];
    request.exact_from = Position{exact.first, exact.second, *w.exact_from, 9};
    if (*w.exact_from <= log.durable_lsn) log.chain_at_exact_from = 9;
  }
  std::optional<slots::Slot> slot;
  if (w.has_slot) {
    slot.emplace().name = "r1";
    slot->kind = request.kind;
    slot->temporary = w.slot_temporary;
    if (*w.cause != '\0') {
      slot->state = slots::SlotState::kInvalidated;
      slot->invalidation.emplace().cause = w.cause;
    }
  }
  return PlanResume(request, slot, node, log, {w.auto_create, kReplayMax});
}

class PlannerModelTest : public ::testing::Test {
 protected:
  void Check(const World& w) {
    const Plan plan = Real(w);
    const Verdict expected = Model(w);
    ++checked_;
    if (Verdict{plan.decision, plan.reason} == expected) {
      ASSERT_EQ(plan.from_lsn, plan.decision == Decision::kPartial ? w.theirs.size() + 1 : 0);
      ASSERT_EQ(plan.common_lsn, Common(w) < w.theirs.size() ? Common(w) : 0);
      return;
    }
    FAIL() << "planner: row " << plan.row << " " << DecisionName(plan.decision) << "/" << plan.reason
           << ", model: " << DecisionName(expected.decision) << "/" << expected.reason << "\nours " << w.ours.size()
           << " from " << w.first_lsn << ", theirs " << w.theirs.size() << ": " << plan.message;
  }

  // All worlds that differ in what has nothing to do with the logs.
  void CheckAround(World w) {
    for (const bool is_primary : {true, false}) {
      for (const bool consumer : {true, false}) {
        for (const Term ahead : {0, 1}) {  // our term may be above that of our log
          for (const bool requested : {false, true}) {
            w.is_primary = is_primary;
            w.consumer = consumer;
            w.requested = requested;
            w.our_term = (w.ours.empty() ? 1 : w.ours.back().first) + ahead;
            Check(w);
            if (HasFatalFailure()) return;
          }
        }
      }
    }
  }

  size_t checked_ = 0;
};

TEST_F(PlannerModelTest, EveryPairOfShortLogsAndEveryFirstLsn) {
  for (const Records& ours : Lines(5)) {
    for (const Records& theirs : Lines(6)) {
      World w;
      w.ours = ours;
      w.theirs = theirs;
      for (w.first_lsn = 1; w.first_lsn <= ours.size() + 1; ++w.first_lsn) {
        for (const Lsn rewind : {0, 1, 3}) {
          w.oldest_rewind = rewind;
          CheckAround(w);
          if (HasFatalFailure()) return;
        }
      }
    }
  }
  EXPECT_GT(checked_, 100'000u);
}

TEST_F(PlannerModelTest, EveryExactPointOfEveryPairOfShortLogs) {
  for (const Records& ours : Lines(4)) {
    for (const Records& theirs : Lines(5)) {
      World w;
      w.ours = ours;
      w.theirs = theirs;
      for (Lsn exact = 1; exact <= theirs.size(); ++exact) {
        w.exact_from = exact;
        for (w.first_lsn = 1; w.first_lsn <= ours.size() + 1; ++w.first_lsn) {
          CheckAround(w);
          if (HasFatalFailure()) return;
        }
      }
    }
  }
  EXPECT_GT(checked_, 50'000u);
}

TEST_F(PlannerModelTest, EverySlotPromiseAndChainOfEveryPairOfShortLogs) {
  for (const Records& ours : Lines(3)) {
    for (const Records& theirs : Lines(4)) {
      World w;
      w.ours = ours;
      w.theirs = theirs;
      for (w.first_lsn = 1; w.first_lsn <= ours.size() + 1; ++w.first_lsn) {
        for (const Term promised : {0, 1, 2, 3, 4}) {
          for (const char* slot : {"", "none", "refused", "retained_bytes"}) {
            w.promised = promised;
            w.has_slot = slot[0] == '\0' || slot[0] == 'r';
            w.auto_create = true;
            w.cause = "";
            if (std::string(slot) == "refused") w.has_slot = w.auto_create = false;
            if (std::string(slot) == "retained_bytes") w.cause = slot;
            for (const bool damaged : {false, true}) {
              w.chain_damaged = damaged;
              for (const int temporary : {0, 1, 2, 3}) {
                w.temporary = (temporary & 1) != 0;
                w.slot_temporary = (temporary & 2) != 0;
                CheckAround(w);
                if (HasFatalFailure()) return;
              }
            }
          }
        }
      }
    }
  }
  EXPECT_GT(checked_, 50'000u);
}

// Who follows whom, in every way that five nodes can: node 0 is asked by node 1. It is a loop iff the records that node
// 0 would send come, however far back, from node 1.
TEST(PlannerLoopTest, EveryWayInWhichNodesFollowEachOther) {
  constexpr int kNodes = 5;
  constexpr int kNobody = kNodes;
  int loops = 0;
  int ways = 1;
  for (int i = 0; i < kNodes; ++i) ways *= kNodes + 1;
  for (int way = 0; way < ways; ++way) {
    int upstream[kNodes];
    for (int i = 0, rest = way; i < kNodes; ++i, rest /= kNodes + 1) upstream[i] = rest % (kNodes + 1);
    std::vector<std::string> path;
    bool loop = false;
    // Longer than any way without a repetition.
    for (int at = upstream[0]; at != kNobody && path.size() < 2 * kNodes; at = upstream[at]) {
      path.push_back("n" + std::to_string(at));
      loop = loop || at == 1;
    }
    NodeView node;
    node.node_id = "n0";
    node.incarnation = 1;
    node.cluster_id = kCluster;
    node.term = 1;
    node.history = {{1, 1, 0x1}};
    node.upstream_path = path;
    ResumeRequest request;
    request.protocol_version = kPullProtocolVersion;
    request.slot = "n1";
    request.incarnation = 2;
    request.cluster_id = kCluster;
    request.history = node.history;
    request.lsn = 3;
    LogFacts log;
    log.first_lsn = 1;
    log.durable_lsn = 3;
    const Plan plan = PlanResume(request, std::nullopt, node, log, {});
    ASSERT_EQ(plan.reason, loop ? "loop" : "resumed") << way;
    ASSERT_EQ(plan.decision == Decision::kRefuse, loop);
    loops += loop ? 1 : 0;
  }
  EXPECT_GT(loops, 1000);
}

}  // namespace
}  // namespace towline
