// What a node tells of its slots, so that others keep copies of them: the slots themselves, and who was told what.

#ifndef TOWLINE_SLOTS_SLOT_COPIES_H_
#define TOWLINE_SLOTS_SLOT_COPIES_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "common/types.h"
#include "slots/slot_table.h"

namespace towline::slots {

// A slot as it is saved by the node that serves it.
struct SlotCopy {
  std::string name;
  SlotKind kind = SlotKind::kReplica;
  uint64_t generation = 0;
  Lsn confirmed_lsn = 0;
  bool invalidated = false;  // it holds nothing there
  uint64_t created_time_ms = 0;
  uint64_t last_active_time_ms = 0;  // may be older than what is known there: alone it is no news

  friend bool operator==(const SlotCopy&, const SlotCopy&) = default;
};

// One telling.
struct SlotCopies {
  Term term = 0;                     // of the stream on which it arrived; 0 = it is told by this node
  std::string origin;                // node id of the node that serves the slots
  bool complete = false;             // what is not among the slots is gone
  std::vector<SlotCopy> slots;       // ordered by name
  std::vector<std::string> dropped;  // ordered; empty if complete

  friend bool operator==(const SlotCopies&, const SlotCopies&) = default;
};

// All slots of one node as they were told last, with a version of each, so that a reader gets only what is new to it.
// Memory: bounded by what is told; names that were dropped are forgotten from 256 on, after which readers get all.
// Threads: external synchronization.
class SlotFeed {
 public:
  // Takes a telling over. A part is ignored if what it is a part of is not known: nothing yet, or another node's slots.
  void Take(const SlotCopies& news);

  // Rises with every change; 0 = nothing is known.
  uint64_t version() const { return version_; }

  // What is new to who knows `version`; everything, complete, to who knows nothing (0).
  SlotCopies Since(uint64_t version) const;

 private:
  struct Entry {
    SlotCopy copy;
    uint64_t version = 0;
  };

  void TakeSlot(const SlotCopy& copy, bool* changed);
  void DropSlot(const std::string& name, bool* changed);

  uint64_t version_ = 0;
  uint64_t parts_from_ = 0;  // who knows less than this version gets everything
  Term term_ = 0;
  std::string origin_;
  std::map<std::string, Entry> slots_;
  std::map<std::string, uint64_t> dropped_;  // name -> version
};

}  // namespace towline::slots

#endif  // TOWLINE_SLOTS_SLOT_COPIES_H_
