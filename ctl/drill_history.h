// What a drill records while it runs: every write and every step, by one monotonic clock.

#ifndef TOWLINE_CTL_DRILL_HISTORY_H_
#define TOWLINE_CTL_DRILL_HISTORY_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "towline/v1/types.pb.h"

namespace towline::ctl {

// Who must have confirmed a write before it is answered.
enum class DrillLevel {
  kLocal,     // the primary alone
  kReplicas,  // a replica besides it
};

// One write with all its attempts. Times in microseconds; 0 = has not happened.
struct DrillWrite {
  std::string key;  // of its own; DrillValue(key) is the value
  DrillLevel level = DrillLevel::kLocal;
  int64_t sent_us = 0;      // first attempt
  int64_t failed_us = 0;    // end of the first attempt that failed
  int64_t answered_us = 0;  // the answer that says it is written
  uint32_t attempts = 0;
  v1::Position position;  // as answered
};

// The value of a drill's key, of `bytes` bytes or as many as the key has.
std::string DrillValue(const std::string& key, uint64_t bytes);

// A step that the drill took or saw. Those that the writes tell (detected, first_write) are not marked.
struct DrillMark {
  std::string phase;
  int64_t at_us = 0;
};

struct DrillThresholds {
  uint64_t rpo_replicas = 0;          // lost writes that a replica had confirmed
  std::optional<uint64_t> rpo_local;  // lost writes that only the primary had confirmed; absent = not judged
  int64_t rto_us = 30'000'000;
};

// What nodes gave up and keep in their quarantine.
struct DrillQuarantine {
  uint64_t records = 0;
  std::map<std::string, uint64_t> keys;  // of the drill, with how often
};

// All that the report is made of.
struct DrillHistory {
  std::string id;
  std::string scenario;
  std::string cluster_id;
  std::vector<std::string> nodes;  // "p1 127.0.0.1:7700"
  std::string directory;           // of a local cluster that was kept; empty otherwise
  int64_t started_ms = 0;          // Unix time
  uint64_t value_bytes = 0;

  int64_t injected_us = 0;     // 0 = it did not come to that
  int64_t ended_us = 0;        // writes after this are not judged for pauses
  uint64_t new_term_from = 0;  // lowest term of writes behind a change of primary; 0 = there is none
  std::string rto_until;       // the phase at which the service is back; empty = the pause of writes is the RTO
  std::string rto_from;        // the phase from which on that counts; empty = the injection
  std::vector<DrillMark> marks;
  std::vector<DrillWrite> writes;

  // At the end, on the primary.
  std::map<std::string, uint64_t> present;                // keys with the right value, and the LSN that wrote them
  std::map<std::string, uint64_t> wrong;                  // keys with another value
  std::optional<std::map<std::string, uint64_t>> logged;  // how often the log holds each key; absent = it begins later
  std::optional<DrillQuarantine> quarantine;              // absent = not looked at
  std::map<std::string, uint64_t> resyncs;                // since the injection: "partial/resumed", by all nodes
  std::vector<std::string> failures;                      // what did not go as it should, in words
  std::vector<std::string> notes;
  std::string resync_expected;   // a decision that must have been counted: "full"; empty = none in particular
  std::string resync_forbidden;  // one that must not
  DrillThresholds thresholds;
};

}  // namespace towline::ctl

#endif  // TOWLINE_CTL_DRILL_HISTORY_H_
