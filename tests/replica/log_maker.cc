#include "tests/replica/log_maker.h"

#include "absl/strings/str_cat.h"

#include "common/check.h"
#include "common/checksum.h"
#include "common/history.h"
#include "towline/v1/change.pb.h"

namespace towline::test {
namespace {

constexpr int64_t kFirstCommitMicros = int64_t{1700000000} * 1000000;

}  // namespace

Lsn LogMaker::StartTerm(Term term, uint64_t term_id) {
  v1::Change change;
  v1::TermStart& start = *change.mutable_term_start();
  start.set_term(term);
  start.set_term_id(term_id);
  start.set_cluster_id(cluster_id_);
  start.set_node_id("p1");
  const Lsn lsn = Add(wal::RecordType::kTermStart, term, change.SerializeAsString());
  history_.push_back({term, lsn, term_id});
  return lsn;
}

Lsn LogMaker::Put(const std::string& key, const std::string& value) {
  v1::Change change;
  v1::Put& put = *change.mutable_batch()->add_operations()->mutable_put();
  put.set_key(key);
  put.set_value(value);
  return Add(wal::RecordType::kBatch, term(), change.SerializeAsString());
}

Lsn LogMaker::Puts(int count) {
  for (int i = 0; i < count; ++i) {
    const Lsn lsn = end_lsn() + 1;
    Put(absl::StrCat("key-", lsn), absl::StrCat("value-", lsn));
  }
  return end_lsn();
}

Lsn LogMaker::Members(const std::vector<std::string>& node_ids) {
  v1::Change change;
  change.mutable_members()->set_min_replicas(0);
  uint64_t incarnation = 1;
  for (const std::string& node_id : node_ids) {
    v1::Member& member = *change.mutable_members()->add_members();
    member.set_node_id(node_id);
    member.set_incarnation(incarnation++);
    member.set_counting(true);
  }
  return Add(wal::RecordType::kMembers, term(), change.SerializeAsString());
}

Lsn LogMaker::Add(wal::RecordType type, Term term, const std::string& payload) {
  wal::GroupBuilder builder(EndAt(end_lsn()));
  builder.Add(type, term, kFirstCommitMicros + static_cast<int64_t>(end_lsn()) * 1000, payload, Crc32c(payload));
  const std::shared_ptr<wal::FrameGroup> group = builder.Finish();
  records_.push_back({std::string(group->shipped(0)), group->after});
  return end_lsn();
}

wal::LogEnd LogMaker::EndAt(Lsn lsn) const { return lsn == 0 ? wal::LogEnd{} : records_[lsn - 1].after; }

Position LogMaker::PositionAt(Lsn lsn) const {
  if (lsn == 0) return {};
  const wal::LogEnd end = EndAt(lsn);
  return {end.term, EntryAt(history_, lsn)->term_id, lsn, end.chain};
}

v1::FrameBatch LogMaker::Batch(Lsn first, Lsn last) const {
  v1::FrameBatch batch;
  batch.set_first_lsn(first);
  batch.set_last_lsn(last);
  batch.set_chain_after(EndAt(last).chain);
  for (Lsn lsn = first; lsn <= last; ++lsn) batch.mutable_frames()->append(shipped(lsn));
  return batch;
}

std::shared_ptr<wal::FrameGroup> LogMaker::Group(Lsn first, Lsn last) const {
  wal::GroupBuilder builder(EndAt(first - 1));
  for (Lsn lsn = first; lsn <= last; ++lsn) TOWLINE_CHECK(builder.AddShipped(shipped(lsn)).ok());
  return builder.Finish();
}

}  // namespace towline::test
