#include "primary/overlay.h"

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

}  // namespace

void Overlay::Add(Lsn lsn, const WriteRecord* record) {
  in_flight_.push_back({lsn, record});
  if (!indexed_) return;
  Index(in_flight_.back());
  if (++adds_since_question_ > kDropIndexAfter) DropIndex();
}

void Overlay::Retire(Lsn applied) {
  while (!in_flight_.empty() && in_flight_.front().lsn <= applied) {
    if (indexed_) {
      const Entry& entry = in_flight_.front();
      for (const KeyEffect& effect : entry.record->effects) {
        if (effect.kind == KeyEffect::Kind::kDeleteRange) continue;
        const auto it = keys_.find(effect.key);
        if (it == keys_.end()) continue;
        if (it->second.modified_lsn <= applied) {
          keys_.erase(it);
        }
      }
      if (entry.record->request) {
        requests_.erase(RequestMapKey(entry.record->request->client_id, entry.record->request->sequence));
      }
    }
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
  // A range inside a record stands behind the puts in front of it and before those behind it. Find takes a key's own
  // effect of the same LSN first, so a range must erase what it covers.
  for (const KeyEffect& effect : entry.record->effects) {
    if (effect.kind == KeyEffect::Kind::kDeleteRange) {
      ranges_.push_back({entry.lsn, effect.key, effect.end});
      for (const KeyEffect& earlier : entry.record->effects) {
        if (&earlier == &effect) break;
        if (earlier.kind != KeyEffect::Kind::kDeleteRange && Covers(effect.key, effect.end, earlier.key)) {
          keys_.erase(earlier.key);
          keys_.emplace(earlier.key, KeyState{false, 0, entry.lsn});
        }
      }
      continue;
    }
    const KeyState state{effect.kind == KeyEffect::Kind::kPut, effect.expire_at_ms, entry.lsn};
    // The map's key must point into the newest record, which is retired last.
    keys_.erase(effect.key);
    keys_.emplace(effect.key, state);
  }
  if (entry.record->request) {
    requests_.emplace(RequestMapKey(entry.record->request->client_id, entry.record->request->sequence), entry.lsn);
  }
}

void Overlay::DropIndex() {
  indexed_ = false;
  keys_.clear();
  ranges_.clear();
  requests_.clear();
}

}  // namespace towline
