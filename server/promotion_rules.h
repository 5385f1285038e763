// May a node become the primary, and of which term? Pure functions over what the members say of themselves.
//
// The rule: grants must cover a majority of the members, so that two candidates never win at the same time, and at
// least N - k + 1 of the N counting replicas, k = max(1, min_replicas), so that they meet every set of k replicas that
// may have acknowledged a write. The primary of the newest term holds everything that it has acknowledged: its own
// grant stands in for the second part.

#ifndef TOWLINE_SERVER_PROMOTION_RULES_H_
#define TOWLINE_SERVER_PROMOTION_RULES_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/types.h"
#include "towline/v1/failover_service.pb.h"

namespace towline {

// What one member said.
struct PeerAnswer {
  std::string node_id;
  std::string address;  // empty = not known, so that it could not be asked
  absl::StatusOr<v1::Standing> standing;
};

struct PromotionInput {
  v1::Standing self;
  std::vector<PeerAnswer> peers;  // the other members
};

struct QuorumCount {
  uint32_t needed = 0;
  uint32_t present = 0;
  uint32_t total = 0;
  bool met() const { return present >= needed; }
};

struct PromotionVerdict {
  Term term = 0;                        // the one to promise: above everything that was seen
  QuorumCount members;                  // those that answered, with the node itself
  QuorumCount counting;                 // of them, replicas that count
  bool has_primary = false;             // the primary of the newest term is among them
  std::optional<std::string> ahead;     // the peer that holds most, if that is more than the node holds
  std::optional<std::string> diverged;  // a peer that is ahead on a line that the node is not on
  std::optional<std::string> alive;     // a primary that takes writes
  std::vector<std::string> granted;     // node ids, ordered, with the node itself
  std::vector<std::string> absent;      // "node_id: why", ordered
  std::vector<std::string> uncounted;   // of those that answered: "node_id, why", ordered
  uint64_t known_lost_records = 0;      // the primary's newest durable LSN, as told, beyond what anybody here holds

  bool has_quorum() const { return members.met() && (counting.met() || has_primary); }
};

// The members' list that counts is that of the longest log. Requires an input of one cluster.
PromotionVerdict JudgePromotion(const PromotionInput& input);

// Why the node must not even ask, or OK. `force` leaves out the quorum and a primary that is alive.
// FAILED_PRECONDITION, reasons not_exact, not_a_member, no_quorum, peer_diverged, primary_alive.
absl::Status CheckPromotion(const PromotionInput& input, const PromotionVerdict& verdict, bool force);

// Whether `a` holds more than `b`: by last log term, then LSN.
bool IsAhead(const v1::Standing& a, const v1::Standing& b);

History HistoryOf(const v1::Standing& standing);
Term LastTermOf(const v1::Standing& standing);

// Members that are to be asked, as the node `self` knows them.
std::vector<v1::Member> OtherMembers(const v1::Standing& self);

// What a promotion with this verdict may lose, in words.
std::vector<std::string> LossOf(const PromotionInput& input, const PromotionVerdict& verdict);

}  // namespace towline

#endif  // TOWLINE_SERVER_PROMOTION_RULES_H_
