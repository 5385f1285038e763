// Which members count for a commit level: by the Members records of the log and by what replicas have confirmed.

#ifndef TOWLINE_PRIMARY_COMMIT_MEMBERS_H_
#define TOWLINE_PRIMARY_COMMIT_MEMBERS_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "common/types.h"
#include "primary/commit_level.h"

namespace towline {

// A Members record takes effect only when nodes that have flushed it meet every quorum that could promote somebody
// under the records before it (docs/adr/0014-commit-levels.md). Until then the stricter of all of them holds: a member
// counts if every one of them counts it, and the least level is the highest of theirs. Threads: external
// synchronization.
class CommitMembers {
 public:
  // `list` is in the log up to `opened_lsn`, the end of the log at the opening. `self` never counts.
  CommitMembers(std::string self, MemberList list, Lsn opened_lsn);

  // The Members record at `lsn` is durable.
  void Add(const MemberList& list, Lsn lsn);

  // What an incarnation of a node holds. Positions of one incarnation only rise; another one begins anew.
  void Confirm(const std::string& node_id, uint64_t incarnation, Lsn flushed_lsn, Lsn applied_lsn);

  // Highest LSN that `replicas` counting members hold; 0 if fewer do. Requires replicas > 0.
  Lsn Watermark(uint32_t replicas, CommitStage stage) const;

  // Of the counting members, those that hold `lsn`.
  AchievedLevel HoldersOf(Lsn lsn) const;

  // Least level that a write may ask for.
  uint32_t min_replicas() const { return min_replicas_; }
  // Counting members of the newest record.
  uint32_t counting() const { return counting_; }
  // Whether `node_id` is one of them, in this incarnation.
  bool Counts(const std::string& node_id, uint64_t incarnation) const;
  // Records that do not have their full effect yet.
  size_t pending() const { return rules_.size() - 1; }

 private:
  struct Rule {
    MemberList list;
    Lsn lsn = 0;
  };
  struct Holder {
    uint64_t incarnation = 0;
    Lsn flushed_lsn = 0;
    Lsn applied_lsn = 0;
  };
  struct Counted {
    const Holder* holder;
    uint64_t incarnation;
    Lsn admitted_lsn;
  };

  void Settle();
  void Rebuild();
  bool Holds(const MemberInfo& member, Lsn lsn) const;
  bool Replaced(const MemberInfo& member) const;
  bool QuorumWithout(const Rule& rule, Lsn lsn) const;
  static Lsn PositionOf(const Counted& member, CommitStage stage);

  const std::string self_;
  std::deque<Rule> rules_;                 // the first has its full effect
  std::map<std::string, Holder> holders_;  // by node id
  // Counting members of the newest record: LSN of the record that admitted this incarnation.
  std::map<std::string, std::pair<uint64_t, Lsn>> admitted_;
  std::vector<Counted> counted_;  // what counts now
  uint32_t min_replicas_ = 0;
  uint32_t counting_ = 0;
};

}  // namespace towline

#endif  // TOWLINE_PRIMARY_COMMIT_MEMBERS_H_
