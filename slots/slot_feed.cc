#include <algorithm>
#include <utility>

#include "slots/slot_copies.h"

namespace towline::slots {
namespace {

constexpr size_t kDroppedMax = 256;

// The owner's last sign of life moves with every ack, so it travels with other news only.
bool IsSame(const SlotCopy& a, const SlotCopy& b) {
  return a.kind == b.kind && a.generation == b.generation && a.confirmed_lsn == b.confirmed_lsn &&
         a.invalidated == b.invalidated && a.created_time_ms == b.created_time_ms;
}

}  // namespace

void SlotFeed::Take(const SlotCopies& news) {
  const bool same_node = version_ != 0 && origin_ == news.origin;
  if (!same_node && !news.complete) return;
  term_ = news.term;
  bool changed = false;
  if (!same_node) {
    origin_ = news.origin;
    slots_.clear();
    dropped_.clear();
    parts_from_ = version_ + 1;
    changed = true;
  }
  for (const SlotCopy& copy : news.slots) TakeSlot(copy, &changed);
  std::vector<std::string> gone = news.dropped;
  if (news.complete) {
    const auto by_name = [](const SlotCopy& copy, const std::string& name) { return copy.name < name; };
    for (const auto& [name, entry] : slots_) {
      const auto told = std::lower_bound(news.slots.begin(), news.slots.end(), name, by_name);
      if (told == news.slots.end() || told->name != name) gone.push_back(name);
    }
  }
  for (const std::string& name : gone) DropSlot(name, &changed);
  if (!changed) return;
  ++version_;
  if (dropped_.size() <= kDroppedMax) return;
  dropped_.clear();
  parts_from_ = version_;
}

void SlotFeed::TakeSlot(const SlotCopy& copy, bool* changed) {
  const auto [found, added] = slots_.try_emplace(copy.name);
  Entry& entry = found->second;
  if (added || !IsSame(entry.copy, copy)) {
    entry.version = version_ + 1;
    *changed = true;
  }
  entry.copy = copy;
  dropped_.erase(copy.name);
}

void SlotFeed::DropSlot(const std::string& name, bool* changed) {
  if (slots_.erase(name) == 0) return;
  dropped_[name] = version_ + 1;
  *changed = true;
}

SlotCopies SlotFeed::Since(uint64_t version) const {
  SlotCopies news;
  news.term = term_;
  news.origin = origin_;
  news.complete = version < parts_from_;
  for (const auto& [name, entry] : slots_) {
    if (news.complete || entry.version > version) news.slots.push_back(entry.copy);
  }
  if (news.complete) return news;
  for (const auto& [name, dropped] : dropped_) {
    if (dropped > version) news.dropped.push_back(name);
  }
  return news;
}

}  // namespace towline::slots
