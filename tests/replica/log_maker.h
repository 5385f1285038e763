// Makes logs as a primary would, record by record.

#ifndef TOWLINE_TESTS_REPLICA_LOG_MAKER_H_
#define TOWLINE_TESTS_REPLICA_LOG_MAKER_H_

#include <memory>
#include <string>
#include <vector>

#include "common/types.h"
#include "towline/v1/replication_service.pb.h"
#include "wal/frame.h"

namespace towline::test {

inline constexpr char kCluster[] = "0123456789abcdef01234567";
inline constexpr char kOtherCluster[] = "76543210fedcba9876543210";

// Copies share nothing: a copy is a log that may go another way from here.
// Threads: external synchronization.
class LogMaker {
 public:
  explicit LogMaker(ClusterId cluster_id = kCluster) : cluster_id_(std::move(cluster_id)) {}

  Lsn StartTerm(Term term, uint64_t term_id);
  Lsn Put(const std::string& key, const std::string& value);
  Lsn Puts(int count);  // key-<lsn> = value-<lsn>; returns the last LSN
  Lsn Members(const std::vector<std::string>& node_ids);

  // Adds a record whose payload is not checked.
  Lsn Add(wal::RecordType type, Term term, const std::string& payload);

  Lsn end_lsn() const { return records_.size(); }
  Term term() const { return history_.empty() ? 0 : history_.back().term; }
  const History& history() const { return history_; }
  const ClusterId& cluster_id() const { return cluster_id_; }

  wal::LogEnd EndAt(Lsn lsn) const;  // {} at 0
  Position PositionAt(Lsn lsn) const;
  const std::string& shipped(Lsn lsn) const { return records_[lsn - 1].shipped; }

  v1::FrameBatch Batch(Lsn first, Lsn last) const;
  std::shared_ptr<wal::FrameGroup> Group(Lsn first, Lsn last) const;

 private:
  struct Record {
    std::string shipped;
    wal::LogEnd after;
  };

  ClusterId cluster_id_;
  History history_;
  std::vector<Record> records_;
};

}  // namespace towline::test

#endif  // TOWLINE_TESTS_REPLICA_LOG_MAKER_H_
