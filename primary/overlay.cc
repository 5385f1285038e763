#include "primary/overlay.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace towline {
namespace {

// Without a question for this many records the index is dropped.
constexpr uint64_t kDropIndexAfter = 1 << 16;

std::string RequestMapKey(absl::string_view client_id, uint64_t sequence) {
  return absl::StrCat(client_id, absl::string_view("\0", 1), sequence);
}

bool Covers(absl::string_view begin, absl::string_view end, absl::string_view key) {
  return key >= begin && (end.empty() || key < end);
}

bool OfOneKey(const ChangeOperation& operation) {
  return operation.kind == ChangeOperation::Kind::kPut || operation.kind == ChangeOperation::Kind::kDelete;
}

// What a record does. The sequencer logs nothing that cannot be read.
ChangeHead Read(absl::string_view payload, Lsn lsn, std::vector<ChangeOperation>* operations) {
  ChangeHead head;
  operations->clear();
  ReadChange(payload, lsn, &head, operations).IgnoreError();
  return head;
}

}  // namespace

void Overlay::Add(Lsn lsn, std::string payload) {
  in_flight_.push_back({lsn, std::move(payload)});
  if (!indexed_) return;
  Index(in_flight_.back());
  if (++adds_since_question_ > kDropIndexAfter) DropIndex();
}

void Overlay::Retire(Lsn applied) {
  while (!in_flight_.empty() && in_flight_.front().lsn <= applied) {
    if (indexed_) Unindex(in_flight_.front(), applied);
    in_flight_.pop_front();
  }
  while (!ranges_.empty() && ranges_.front().lsn <= applied) ranges_.pop_front();
}

void Overlay::Discard(Lsn last) {
  while (!in_flight_.empty() && in_flight_.back().lsn > last) in_flight_.pop_back();
  DropIndex();
}

std::optional<Overlay::KeyState> Overlay::Find(absl::string_view key) {
  BuildIndex();
  std::optional<KeyState> found;
  if (const auto it = keys_.find(key); it != keys_.end()) found = it->second;
  for (auto it = ranges_.rbegin(); it != ranges_.rend(); ++it) {
    if (found && found->modified_lsn >= it->lsn) break;
    if (Covers(it->begin, it->end, key)) return KeyState{false, 0, it->lsn};
  }
  return found;
}

Lsn Overlay::FindRequest(absl::string_view client_id, uint64_t sequence) {
  BuildIndex();
  const auto it = requests_.find(RequestMapKey(client_id, sequence));
  return it == requests_.end() ? 0 : it->second;
}

void Overlay::BuildIndex() {
  adds_since_question_ = 0;
  if (indexed_) return;
  indexed_ = true;
  for (const Entry& entry : in_flight_) Index(entry);
}

void Overlay::Index(const Entry& entry) {
  const ChangeHead head = Read(entry.payload, entry.lsn, &scratch_);
  // A range inside a record stands behind the puts in front of it and before those behind it. Find takes a key's own
  // effect of the same LSN first, so a range must erase what it covers.
  for (const ChangeOperation& operation : scratch_) {
    if (operation.kind == ChangeOperation::Kind::kMessage) continue;
    if (operation.kind == ChangeOperation::Kind::kDeleteRange) {
      ranges_.push_back({entry.lsn, operation.key, operation.value});
      for (const ChangeOperation& earlier : scratch_) {
        if (&earlier == &operation) break;
        if (OfOneKey(earlier) && Covers(operation.key, operation.value, earlier.key)) {
          keys_.erase(earlier.key);
          keys_.emplace(earlier.key, KeyState{false, 0, entry.lsn});
        }
      }
      continue;
    }
    const KeyState state{operation.kind == ChangeOperation::Kind::kPut, operation.expire_at_ms, entry.lsn};
    // The map's key must point into the newest record, which is retired last.
    keys_.erase(operation.key);
    keys_.emplace(operation.key, state);
  }
  if (head.sequence != 0) requests_.emplace(RequestMapKey(head.client_id, head.sequence), entry.lsn);
}

void Overlay::Unindex(const Entry& entry, Lsn applied) {
  const ChangeHead head = Read(entry.payload, entry.lsn, &scratch_);
  for (const ChangeOperation& operation : scratch_) {
    if (!OfOneKey(operation)) continue;
    const auto it = keys_.find(operation.key);
    if (it != keys_.end() && it->second.modified_lsn <= applied) keys_.erase(it);
  }
  if (head.sequence != 0) requests_.erase(RequestMapKey(head.client_id, head.sequence));
}

void Overlay::DropIndex() {
  indexed_ = false;
  keys_.clear();
  ranges_.clear();
  requests_.clear();
}

}  // namespace towline
