#include "server/membership.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/checksum.h"
#include "common/error.h"
#include "common/names.h"
#include "towline/v1/change.pb.h"

namespace towline {
namespace {

std::string Encode(const MemberList& list) {
  v1::Change change;
  v1::Members* const out = change.mutable_members();
  out->set_min_replicas(list.min_replicas);
  for (const MemberInfo& member : list.members) {
    v1::Member* const m = out->add_members();
    m->set_node_id(member.node_id);
    m->set_incarnation(member.incarnation);
    m->set_address(member.address);
    m->set_counting(member.counting);
  }
  return change.SerializeAsString();
}

std::vector<MemberInfo>::iterator Find(MemberList* list, const std::string& node_id) {
  return std::lower_bound(list->members.begin(), list->members.end(), node_id,
                          [](const MemberInfo& member, const std::string& id) { return member.node_id < id; });
}

bool Holds(MemberList list, const std::string& node_id) {
  const auto found = Find(&list, node_id);
  return found != list.members.end() && found->node_id == node_id;
}

absl::Status Busy(const std::string& what, int64_t timeout_micros) {
  return MakeError(absl::StatusCode::kUnavailable, "members_busy",
                   absl::StrCat("the record ", what, " is not durable after ", timeout_micros / 1000, " ms"),
                   "look at towctl member list, then retry");
}

// `list` with `member` put in at its place.
void Upsert(const MemberInfo& member, MemberList* list) {
  const auto found = Find(list, member.node_id);
  if (found != list->members.end() && found->node_id == member.node_id) {
    *found = member;
  } else {
    list->members.insert(found, member);
  }
}

}  // namespace

class Membership::Job final : public WriteJob {
 public:
  Job(Membership* membership, MemberList list) : membership_(membership), list_(std::move(list)) {
    WriteRecord& record = records.emplace_back();
    record.type = wal::RecordType::kMembers;
    record.payload = Encode(list_);
    record.payload_crc = Crc32c(record.payload);
  }

  void OnDone(std::unique_ptr<WriteJob> self) override {
    membership_->OnWritten(list_, records[0].outcome.status.ok() ? records[0].lsn : 0);
    self.reset();
  }

 private:
  Membership* const membership_;
  const MemberList list_;
};

void Membership::OnAttached(const MemberInfo& member, bool knows_members) {
  const bool known = Holds(control_.Get().members, member.node_id);
  MutexLock lock(&mutex_);
  if (!known && !auto_join_) return;
  attached_[member.node_id] = member;
  repeat_ = repeat_ || !knows_members;
}

absl::Status Membership::Remove(const std::string& node_id, int64_t timeout_micros) {
  if (!Holds(control_.Get().members, node_id)) {
    return MakeError(absl::StatusCode::kNotFound, "member_not_found",
                     absl::StrCat("there is no member \"", Printable(node_id), "\""),
                     "list them with: towctl member list");
  }
  const int64_t deadline = clock_.MonotonicMicros() + timeout_micros;
  MutexLock lock(&mutex_);
  attached_.erase(node_id);
  removed_.insert(node_id);
  while (removed_.contains(node_id)) {
    if (written_cv_.WaitFor(&mutex_, deadline - clock_.MonotonicMicros())) continue;
    if (clock_.MonotonicMicros() < deadline) continue;
    removed_.erase(node_id);
    return Busy(absl::StrCat("without ", node_id), timeout_micros);
  }
  return absl::OkStatus();
}

absl::StatusOr<Lsn> Membership::SetMinReplicas(uint32_t min_replicas, int64_t timeout_micros) {
  const int64_t deadline = clock_.MonotonicMicros() + timeout_micros;
  MutexLock lock(&mutex_);
  min_replicas_ = min_replicas;
  while (min_replicas_ == min_replicas) {
    if (written_cv_.WaitFor(&mutex_, deadline - clock_.MonotonicMicros())) continue;
    if (clock_.MonotonicMicros() < deadline) continue;
    min_replicas_.reset();
    return Busy(absl::StrCat("with min_replicas ", min_replicas), timeout_micros);
  }
  return written_lsn_;
}

void Membership::Submit(const MemberInfo& self, Sequencer& sequencer) {
  const MemberList before = control_.Get().members;
  MemberList list = before;
  {
    MutexLock lock(&mutex_);
    if (in_flight_ || (attached_.empty() && removed_.empty() && !min_replicas_)) return;
    Upsert(self, &list);
    list.min_replicas = min_replicas_.value_or(list.min_replicas);
    for (const auto& [id, member] : attached_) Upsert(member, &list);
    attached_.clear();
    for (const std::string& id : removed_) {
      const auto found = Find(&list, id);
      if (found != list.members.end() && found->node_id == id) list.members.erase(found);
    }
    if (list == before && !repeat_) {
      removed_.clear();
      min_replicas_.reset();
      written_cv_.NotifyAll();
      return;
    }
    repeat_ = false;
    in_flight_ = true;
  }
  std::unique_ptr<WriteJob> job = std::make_unique<Job>(this, list);
  if (!sequencer.Submit(&job).ok()) OnWritten(list, 0);
}

void Membership::OnWritten(const MemberList& list, Lsn lsn) {
  if (lsn != 0) {
    const absl::Status saved = control_.Update(true, [&](Control& control) { control.members = list; });
    if (!saved.ok()) on_fatal_(saved);
    on_durable_(list, lsn);
  }
  MutexLock lock(&mutex_);
  in_flight_ = false;
  if (lsn != 0) {
    written_lsn_ = lsn;
    for (auto it = removed_.begin(); it != removed_.end();) {
      it = Holds(list, *it) ? std::next(it) : removed_.erase(it);
    }
    if (min_replicas_ == list.min_replicas) min_replicas_.reset();
    written_cv_.NotifyAll();
    return;
  }
  repeat_ = true;
  for (const MemberInfo& member : list.members) {
    if (!removed_.contains(member.node_id)) attached_.emplace(member.node_id, member);  // try again
  }
}

}  // namespace towline
