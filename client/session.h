// What a client has seen: the position that its reads must cover.

#ifndef TOWLINE_CLIENT_SESSION_H_
#define TOWLINE_CLIENT_SESSION_H_

#include <optional>

#include "common/mutex.h"
#include "towline/v1/admin_service.pb.h"
#include "towline/v1/types.pb.h"

namespace towline::client {

// Whether `a` comes behind `b`: by term, then by LSN.
bool IsLater(const v1::Position& a, const v1::Position& b);

// Whether `history` is of a line on which `position` was kept.
bool KeepsPosition(const google::protobuf::RepeatedPtrField<v1::HistoryEntry>& history, const v1::Position& position);

// Threads: all methods from any thread.
class Session {
 public:
  // A position of a state that covers the session's, such as a read answers that asked for it.
  void Cover(const v1::Position& position) TOWLINE_EXCLUDES(mutex_);

  // Of a record that was written now: true if it is of a newer term than the session's position, so that nothing says
  // whether its line keeps that. Then Settle is to be called; else it is taken.
  bool NeedsProof(const v1::Position& position) TOWLINE_EXCLUDES(mutex_);

  // `kept`: whether the line of `position` keeps the session's. If not, the session stays where it is, and reads are
  // told that it was discarded.
  void Settle(const v1::Position& position, bool kept) TOWLINE_EXCLUDES(mutex_);

  // Absent: nothing was seen yet.
  std::optional<v1::Position> Get() const TOWLINE_EXCLUDES(mutex_);

  // Whether Settle found it discarded.
  bool discarded() const TOWLINE_EXCLUDES(mutex_);

  // Goes on from the newest position that was settled, or from nothing.
  void Reset() TOWLINE_EXCLUDES(mutex_);

 private:
  mutable Mutex mutex_;
  std::optional<v1::Position> seen_ TOWLINE_GUARDED_BY(mutex_);
  std::optional<v1::Position> other_line_ TOWLINE_GUARDED_BY(mutex_);  // newest one that does not keep seen_
};

}  // namespace towline::client

#endif  // TOWLINE_CLIENT_SESSION_H_
