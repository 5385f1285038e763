#include "client/session.h"

#include <tuple>
#include <utility>

namespace towline::client {

bool IsLater(const v1::Position& a, const v1::Position& b) {
  return std::tuple(a.term(), a.lsn()) > std::tuple(b.term(), b.lsn());
}

bool KeepsPosition(const google::protobuf::RepeatedPtrField<v1::HistoryEntry>& history, const v1::Position& position) {
  const v1::HistoryEntry* entry = nullptr;
  for (const v1::HistoryEntry& candidate : history) {
    if (candidate.start_lsn() <= position.lsn()) entry = &candidate;
  }
  // A history that begins later says nothing of what lies before it.
  return entry == nullptr || (entry->term() == position.term() && entry->term_id() == position.term_id());
}

void Session::Cover(const v1::Position& position) {
  if (position.lsn() == 0) return;
  MutexLock lock(&mutex_);
  if (!seen_.has_value() || IsLater(position, *seen_)) seen_ = position;
}

bool Session::NeedsProof(const v1::Position& position) {
  MutexLock lock(&mutex_);
  if (!seen_.has_value() || position.cluster_id() != seen_->cluster_id()) {
    seen_ = position;
    return false;
  }
  if (other_line_.has_value() && position.term() <= other_line_->term()) {
    if (IsLater(position, *other_line_)) other_line_ = position;
    return false;
  }
  if (position.term() > seen_->term()) return true;
  if (IsLater(position, *seen_)) seen_ = position;
  return false;
}

void Session::Settle(const v1::Position& position, bool kept) {
  MutexLock lock(&mutex_);
  std::optional<v1::Position>& to = kept ? seen_ : other_line_;
  if (!to.has_value() || IsLater(position, *to)) to = position;
}

std::optional<v1::Position> Session::Get() const {
  MutexLock lock(&mutex_);
  return seen_;
}

bool Session::discarded() const {
  MutexLock lock(&mutex_);
  return other_line_.has_value();
}

void Session::Reset() {
  MutexLock lock(&mutex_);
  seen_ = std::exchange(other_line_, std::nullopt);
}

}  // namespace towline::client
