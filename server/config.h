// Configuration of towlined: flag > environment > TOML file > default.
//
// Every key `section.name` is also `--section.name` and TOWLINE_SECTION_NAME. Unknown keys are errors; sizes and
// durations need units. The table in config.cc is the one place that names keys, defaults and help texts.

#ifndef TOWLINE_SERVER_CONFIG_H_
#define TOWLINE_SERVER_CONFIG_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/control.h"

namespace towline {

struct NodeConfig {
  NodeRole role = NodeRole::kPrimary;  // decides only for an empty data directory
  std::string data_dir;
  std::string node_id;
  std::string listen = "127.0.0.1:7700";
  std::string http;       // HOST:PORT; empty = no HTTP
  std::string upstream;   // replicas
  std::string advertise;  // HOST:PORT for others; empty = the listen address
  bool insecure = false;

  uint64_t wal_segment_bytes = 64ull << 20;
  uint64_t wal_keep_bytes = 1ull << 30;
  uint64_t wal_queue_bytes = 64ull << 20;
  int64_t wal_spare_segments = 2;
  uint64_t wal_scrub_rate = 8ull << 20;  // bytes per second; 0 = off
  int64_t wal_scrub_interval_micros = 24ll * 3600 * 1'000'000;
  uint64_t limits_record_bytes = 8ull << 20;
  bool slots_auto_create = true;
  bool members_auto_join = true;
  int64_t start_peer_wait_micros = 5'000'000;  // 0 = members are not asked
  int64_t fence_pause_max_micros = 1'000'000;  // 0 = off
  uint64_t slots_max_retained_bytes = 16ull << 30;
  int64_t slots_consumer_idle_micros = 24ll * 3600 * 1'000'000;
  int64_t slots_replica_idle_micros = 0;
  int64_t slots_persist_interval_micros = 1'000'000;
  uint64_t bootstrap_replay_max_bytes = 64ull << 20;
  int64_t bootstrap_max_snapshots = 2;
  int64_t bootstrap_max_sessions = 4;
  int64_t bootstrap_join_window_micros = 60ll * 1'000'000;
  int64_t bootstrap_max_snapshot_age_micros = 30ll * 60 * 1'000'000;
  uint64_t bootstrap_rate_limit = 0;
  uint64_t bootstrap_busy_rate_limit = 64ull << 20;
  std::string bootstrap_form = "auto";
  bool replication_follow_primary = true;
  int64_t replication_heartbeat_micros = 250'000;
  int64_t replication_stall_timeout_micros = 10'000'000;
  uint64_t replication_credit_bytes = 8ull << 20;
  uint64_t store_flush_bytes = 256ull << 20;
  int64_t store_flush_interval_micros = 60'000'000;
  uint64_t store_cache_bytes = 256ull << 20;
  int64_t rewind_checkpoint_interval_micros = 60'000'000;  // 0 = none are made
  uint64_t rewind_checkpoint_bytes = 256ull << 20;
  int64_t rewind_max_age_micros = 3600ll * 1'000'000;
  uint64_t rewind_max_bytes = 0;  // what wal.keep_bytes keeps may be held anyway
  int64_t expiry_interval_micros = 1'000'000;
  double disk_warn_ratio = 0.80;   // of the data directory's disk; 0 = off
  double disk_guard_ratio = 0.90;  // 0 = off
  int64_t durability_replicas = 0;
  std::string durability_stage = "flushed";  // flushed, applied
  int64_t durability_timeout_micros = 5'000'000;
  std::string durability_on_timeout = "fail";  // fail, accept
  uint64_t flow_max_lag_bytes = 0;             // 0 = off
  int64_t flow_refuse_after_micros = 5'000'000;
  std::string log_level = "info";   // debug, info, warning, error
  std::string log_format = "text";  // text, json
};

// What the command line asks for.
struct Invocation {
  enum class Action {
    kRun,          // start the node
    kCheckConfig,  // `config check FILE`: the file is fine
    kExit,         // help or version was printed, or usage was wrong
  };
  Action action = Action::kExit;
  int exit_code = 0;
  NodeConfig config;
};

// Reads arguments, environment and file. Prints help, version and usage errors itself. Exit code 2 = wrong usage or
// configuration.
Invocation ParseInvocation(int argc, const char* const* argv);

}  // namespace towline

#endif  // TOWLINE_SERVER_CONFIG_H_
