#include "server/config.h"

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <limits>
#include <map>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include <CLI/CLI.hpp>
#include <toml++/toml.h>

#include "common/error.h"
#include "common/names.h"
#include "server/endpoint.h"
#include "server/version.h"

namespace towline {
namespace {

using Setter = std::function<absl::Status(NodeConfig&, const std::string&)>;

struct Key {
  const char* name;  // as on the command line, without the dashes
  const char* help;
  Setter set;
};

absl::Status Bad(absl::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, "invalid_config", message);
}

Setter Text(std::string NodeConfig::*field) {
  return [field](NodeConfig& config, const std::string& value) {
    config.*field = value;
    return absl::OkStatus();
  };
}

Setter OneOf(std::string NodeConfig::*field, std::set<std::string> allowed) {
  return [field, allowed](NodeConfig& config, const std::string& value) {
    if (allowed.count(value) == 0) return Bad(absl::StrCat("\"", value, "\" is not an allowed value"));
    config.*field = value;
    return absl::OkStatus();
  };
}

Setter Bytes(uint64_t NodeConfig::*field, uint64_t min) {
  return [field, min](NodeConfig& config, const std::string& value) -> absl::Status {
    TOWLINE_ASSIGN_OR_RETURN(const uint64_t bytes, ParseBytes(value));
    if (bytes < min) return Bad(absl::StrCat(value, " is below the least value ", FormatBytes(min)));
    config.*field = bytes;
    return absl::OkStatus();
  };
}

Setter Micros(int64_t NodeConfig::*field, int64_t min, int64_t max = std::numeric_limits<int64_t>::max()) {
  return [field, min, max](NodeConfig& config, const std::string& value) -> absl::Status {
    TOWLINE_ASSIGN_OR_RETURN(const int64_t micros, ParseDurationMicros(value));
    if (micros < min) return Bad(absl::StrCat(value, " is below the least value ", min / 1000, "ms"));
    if (micros > max) return Bad(absl::StrCat(value, " is above the highest value ", max / 1'000'000, "s"));
    config.*field = micros;
    return absl::OkStatus();
  };
}

Setter Flag(bool NodeConfig::*field) {
  return [field](NodeConfig& config, const std::string& value) {
    if (value != "true" && value != "false") return Bad("expected true or false");
    config.*field = value == "true";
    return absl::OkStatus();
  };
}

Setter Ratio(double NodeConfig::*field) {
  return [field](NodeConfig& config, const std::string& value) {
    double number = 0;
    // Written so that NaN is refused as well.
    if (!absl::SimpleAtod(value, &number) || !(number >= 0 && number <= 1)) {
      return Bad("expected a number from 0 to 1, such as 0.85");
    }
    config.*field = number;
    return absl::OkStatus();
  };
}

Setter Count(int64_t NodeConfig::*field, int64_t min, int64_t max) {
  return [field, min, max](NodeConfig& config, const std::string& value) {
    int64_t number = 0;
    if (!absl::SimpleAtoi(value, &number) || number < min || number > max) {
      return Bad(absl::StrCat("expected a number from ", min, " to ", max));
    }
    config.*field = number;
    return absl::OkStatus();
  };
}

const std::vector<Key>& Keys() {
  using C = NodeConfig;
  static const std::vector<Key>* const keys = new std::vector<Key>{
      {"data-dir", "directory of this node's data; created if absent", Text(&C::data_dir)},
      {"node-id", "identity of this node: [a-z0-9][a-z0-9_-]{0,62}", Text(&C::node_id)},
      {"listen", "HOST:PORT of gRPC (127.0.0.1:7700)", Text(&C::listen)},
      {"http", "HOST:PORT of /metrics, /livez, /readyz, /status (off)", Text(&C::http)},
      {"upstream", "HOST:PORT that a replica pulls from", Text(&C::upstream)},
      {"advertise", "HOST:PORT under which others reach this node (the listen address)", Text(&C::advertise)},
      {"wal.segment_bytes", "size of a log segment (64MiB)", Bytes(&C::wal_segment_bytes, 64 << 10)},
      {"wal.keep_bytes", "log kept behind the head for whoever comes back (1GiB)", Bytes(&C::wal_keep_bytes, 0)},
      {"wal.queue_bytes", "writes in flight before RESOURCE_EXHAUSTED (64MiB)", Bytes(&C::wal_queue_bytes, 1 << 20)},
      {"wal.spare_segments", "segments prepared ahead (2)", Count(&C::wal_spare_segments, 0, 64)},
      {"wal.scrub_rate", "bytes a second read to verify sealed segments (8MiB; 0B = off)",
       Bytes(&C::wal_scrub_rate, 0)},
      {"wal.scrub_interval", "from the start of a verification pass to the next (24h)",
       Micros(&C::wal_scrub_interval_micros, 1'000'000)},
      {"limits.record_bytes", "largest encoded record (8MiB)", Bytes(&C::limits_record_bytes, 1 << 10)},
      {"slots.auto_create", "create a slot for an owner that has none (true)", Flag(&C::slots_auto_create)},
      {"members.auto_join", "a replica that attaches becomes a member (true)", Flag(&C::members_auto_join)},
      {"start.peer_wait", "a primary waits so long for its members before it opens writes (5s; 0 = does not ask)",
       Micros(&C::start_peer_wait_micros, 0)},
      {"fence.pause_max",
       "a primary that stood still for longer asks its members before it answers anything (1s; 0 = off)",
       Micros(&C::fence_pause_max_micros, 0)},
      {"slots.max_retained_bytes", "log that one slot may hold back (16GiB)", Bytes(&C::slots_max_retained_bytes, 1)},
      {"slots.consumer_idle", "a consumer's slot is invalidated after (24h; 0 = never)",
       Micros(&C::slots_consumer_idle_micros, 0)},
      {"slots.replica_idle", "a replica's slot is invalidated after (0 = never)",
       Micros(&C::slots_replica_idle_micros, 0)},
      {"slots.persist_interval", "slot progress is saved at most every (1s)",
       Micros(&C::slots_persist_interval_micros, 10'000)},
      {"bootstrap.replay_max_bytes", "an empty replica replays at most this much log (64MiB)",
       Bytes(&C::bootstrap_replay_max_bytes, 0)},
      {"bootstrap.max_snapshots", "snapshots of the store that may be live at a time (2)",
       Count(&C::bootstrap_max_snapshots, 1, 64)},
      {"bootstrap.max_sessions", "snapshots that are sent at a time; others are told to come again (4)",
       Count(&C::bootstrap_max_sessions, 1, 1000)},
      {"bootstrap.join_window", "a live snapshot that is younger is shared by whoever needs one (60s)",
       Micros(&C::bootstrap_join_window_micros, 0)},
      {"bootstrap.max_snapshot_age", "an older snapshot is given up; what it was for goes on from a newer one (30m)",
       Micros(&C::bootstrap_max_snapshot_age_micros, 1'000'000)},
      {"bootstrap.form", "how a snapshot travels: auto (as store files if both ends can, else RDB) or rdb (auto)",
       OneOf(&C::bootstrap_form, {"auto", "rdb"})},
      {"bootstrap.rate_limit", "bytes a second of all snapshots that are sent (0B = no limit)",
       Bytes(&C::bootstrap_rate_limit, 0)},
      {"bootstrap.busy_rate_limit", "the same while 1 MiB or more is written a second (64MiB; 0B = no limit)",
       Bytes(&C::bootstrap_busy_rate_limit, 0)},
      {"replication.follow_primary",
       "a replica leaves an upstream that is gone, stale or not served for the primary (true)",
       Flag(&C::replication_follow_primary)},
      {"replication.heartbeat_interval", "heartbeats on pull streams (250ms)",
       Micros(&C::replication_heartbeat_micros, 50'000)},
      {"replication.stall_timeout", "behind and no progress for so long = stalled (10s)",
       Micros(&C::replication_stall_timeout_micros, 100'000)},
      {"replication.credit_bytes", "records that may be on their way to a replica (8MiB)",
       Bytes(&C::replication_credit_bytes, 64 << 10)},
      {"store.flush_bytes", "log behind the store that makes it flush (256MiB)", Bytes(&C::store_flush_bytes, 1 << 20)},
      {"store.flush_interval", "time behind the store that makes it flush (60s)",
       Micros(&C::store_flush_interval_micros, 100'000)},
      {"store.cache_bytes", "block cache of the store (256MiB)", Bytes(&C::store_cache_bytes, 1 << 20)},
      {"rewind.checkpoint_interval", "from one rewind checkpoint to the next while the log grows (60s; 0 = none)",
       Micros(&C::rewind_checkpoint_interval_micros, 0)},
      {"rewind.checkpoint_bytes", "... or so much log, if that is sooner (256MiB)",
       Bytes(&C::rewind_checkpoint_bytes, 1 << 20)},
      {"rewind.max_age", "a rewind checkpoint behind which newer ones are is given up after (1h)",
       Micros(&C::rewind_max_age_micros, 1'000'000)},
      {"rewind.max_bytes", "log that may be held for rewind, if that is more than wal.keep_bytes (0B)",
       Bytes(&C::rewind_max_bytes, 0)},
      {"expiry.interval", "expired keys are looked for every (1s)", Micros(&C::expiry_interval_micros, 10'000)},
      {"disk.warn_ratio", "share of the disk in use from which on a warning is logged (0.80; 0 = off)",
       Ratio(&C::disk_warn_ratio)},
      {"disk.guard_ratio", "share of the disk in use from which on slots are invalidated, one by one (0.90; 0 = off)",
       Ratio(&C::disk_guard_ratio)},
      {"durability.replicas", "replicas that must hold a write that does not say before it is answered (0)",
       Count(&C::durability_replicas, 0, 1000)},
      {"durability.stage", "what of them counts: flushed or applied (flushed)",
       OneOf(&C::durability_stage, {"flushed", "applied"})},
      {"durability.timeout", "how long a write waits for them (5s; at most 600s)",
       Micros(&C::durability_timeout_micros, 1'000, 600'000'000)},
      {"durability.on_timeout", "then: fail, or accept the lower level (fail)",
       OneOf(&C::durability_on_timeout, {"fail", "accept"})},
      {"flow.max_lag_bytes", "writes are slowed down, then refused, while replicas are further behind (0B = off)",
       Bytes(&C::flow_max_lag_bytes, 0)},
      {"flow.refuse_after", "slowed down for so long without effect = refused (5s)",
       Micros(&C::flow_refuse_after_micros, 0)},
      {"log.level", "debug, info, warning or error (info)",
       OneOf(&C::log_level, {"debug", "info", "warning", "error"})},
      {"log.format", "text or json (text)", OneOf(&C::log_format, {"text", "json"})},
  };
  return *keys;
}

const Key* FindKey(absl::string_view name) {
  for (const Key& key : Keys()) {
    if (name == key.name) return &key;
  }
  return nullptr;
}

std::string EnvironmentName(absl::string_view key) {
  return absl::StrCat("TOWLINE_", absl::AsciiStrToUpper(absl::StrReplaceAll(key, {{".", "_"}, {"-", "_"}})));
}

// Values by key name, lowest precedence first.
using Values = std::map<std::string, std::string>;

absl::StatusOr<std::string> TomlText(const toml::node& node, const std::string& key) {
  if (const auto* text = node.as_string()) return text->get();
  if (const auto* flag = node.as_boolean()) return std::string(flag->get() ? "true" : "false");
  if (const auto* number = node.as_integer()) return absl::StrCat(number->get());
  return Bad(absl::StrCat("key ", key, " has a value that is no string, number or boolean"));
}

absl::Status ReadToml(const std::string& path, Values* values) {
  toml::table table;
  try {
    table = toml::parse_file(path);
  } catch (const toml::parse_error& error) {
    return Bad(absl::StrCat(path, ":", error.source().begin.line, ": ", std::string(error.description())));
  }
  for (const auto& [name, node] : table) {
    const std::string outer(name.str());
    const toml::table* const section = node.as_table();
    if (section == nullptr) {
      const std::string key = absl::StrReplaceAll(outer, {{"_", "-"}});
      if (FindKey(key) == nullptr && key != "insecure") return Bad(absl::StrCat(path, ": unknown key ", outer));
      TOWLINE_ASSIGN_OR_RETURN((*values)[key], TomlText(node, outer));
      continue;
    }
    for (const auto& [inner, value] : *section) {
      const std::string key = absl::StrCat(outer, ".", std::string(inner.str()));
      if (FindKey(key) == nullptr) return Bad(absl::StrCat(path, ": unknown key ", key));
      TOWLINE_ASSIGN_OR_RETURN((*values)[key], TomlText(value, key));
    }
  }
  return absl::OkStatus();
}

absl::Status ReadEnvironment(Values* values) {
  for (const Key& key : Keys()) {
    if (const char* value = std::getenv(EnvironmentName(key.name).c_str())) (*values)[key.name] = value;
  }
  if (const char* value = std::getenv("TOWLINE_INSECURE")) (*values)["insecure"] = value;
  return absl::OkStatus();
}

absl::Status ApplyValues(const Values& values, NodeConfig* config) {
  for (const auto& [name, value] : values) {
    if (name == "insecure") {
      if (value != "true" && value != "false") return Bad("insecure: expected true or false");
      config->insecure = value == "true";
      continue;
    }
    if (const absl::Status status = FindKey(name)->set(*config, value); !status.ok()) {
      return Bad(absl::StrCat(name, ": ", GetErrorInfo(status).message));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckListen(const char* what, const std::string& address, bool insecure) {
  TOWLINE_ASSIGN_OR_RETURN(const Endpoint endpoint, ParseEndpoint(what, address));
  if (!insecure && !IsLoopback(endpoint.host)) {
    return Bad(
        absl::StrCat("--", what, " ", address,
                     " is not a loopback address and there is no TLS: everybody who reaches the port may read and "
                     "write. Add --insecure if that is what you want"));
  }
  return absl::OkStatus();
}

absl::Status CheckConfig(const NodeConfig& config) {
  if (config.data_dir.empty()) return Bad("--data-dir is required");
  if (config.node_id.empty()) return Bad("--node-id is required");
  TOWLINE_RETURN_IF_ERROR(ValidateName("--node-id", config.node_id));
  TOWLINE_RETURN_IF_ERROR(CheckListen("listen", config.listen, config.insecure));
  if (!config.http.empty()) TOWLINE_RETURN_IF_ERROR(CheckListen("http", config.http, config.insecure));
  if (!config.http.empty() && config.http == config.listen) return Bad("--listen and --http are the same address");
  if (config.role == NodeRole::kReplica) {
    if (config.upstream.empty()) return Bad("--upstream is required for a replica");
    TOWLINE_RETURN_IF_ERROR(ParseEndpoint("upstream", config.upstream).status());
    if (config.upstream == config.listen) return Bad("--upstream is this node's own --listen address");
  } else if (!config.upstream.empty()) {
    return Bad("--upstream is for replicas");
  }
  if (!config.advertise.empty()) TOWLINE_RETURN_IF_ERROR(ParseEndpoint("advertise", config.advertise).status());
  return absl::OkStatus();
}

void AddNodeOptions(CLI::App* app, std::string* config_file, Values* flags) {
  app->add_option("--config", *config_file, "TOML file; flags and environment win over it");
  for (const Key& key : Keys()) {
    const std::string name = key.name;
    app->add_option_function<std::string>(
           absl::StrCat("--", name), [flags, name](const std::string& value) { (*flags)[name] = value; }, key.help)
        ->type_name("")
        ->take_last();
  }
  app->add_flag_callback(
      "--insecure", [flags] { (*flags)["insecure"] = "true"; }, "allow addresses that are not loopback, without TLS");
}

absl::StatusOr<NodeConfig> BuildConfig(NodeRole role, const std::string& config_file, const Values& flags) {
  Values values;
  if (!config_file.empty()) TOWLINE_RETURN_IF_ERROR(ReadToml(config_file, &values));
  TOWLINE_RETURN_IF_ERROR(ReadEnvironment(&values));
  for (const auto& [name, value] : flags) values[name] = value;
  NodeConfig config;
  config.role = role;
  TOWLINE_RETURN_IF_ERROR(ApplyValues(values, &config));
  TOWLINE_RETURN_IF_ERROR(CheckConfig(config));
  return config;
}

absl::Status CheckFile(const std::string& file) {
  Values values;
  TOWLINE_RETURN_IF_ERROR(ReadToml(file, &values));
  NodeConfig config;
  return ApplyValues(values, &config);
}

Invocation Usage(const absl::Status& status) {
  std::fprintf(stderr, "towlined: %s\nTry --help.\n", GetErrorInfo(status).message.c_str());
  return Invocation{Invocation::Action::kExit, 2, {}};
}

}  // namespace

Invocation ParseInvocation(int argc, const char* const* argv) {
  CLI::App app{
      "towlined: a durable, replicated key-value log\n\n"
      "  towlined primary --data-dir D --node-id p1 --listen 127.0.0.1:7700 --http 127.0.0.1:7780\n"
      "  towlined replica --data-dir D --node-id r1 --listen 127.0.0.1:7701 --http 127.0.0.1:7781 "
      "--upstream 127.0.0.1:7700\n\n"
      "Every --section.name is also TOWLINE_SECTION_NAME and a key of the TOML file.\n"
      "Exit codes: 0 stopped, 1 start failure, 2 configuration, 10 directory locked, 11 corrupt, 13 I/O error"};
  app.set_version_flag("--version", std::string("towlined ") + kVersion);
  app.require_subcommand(1);

  std::string config_file;
  Values flags;
  CLI::App* const primary = app.add_subcommand("primary", "start a node that takes writes");
  CLI::App* const replica = app.add_subcommand("replica", "start a node that follows another one");
  AddNodeOptions(primary, &config_file, &flags);
  AddNodeOptions(replica, &config_file, &flags);
  CLI::App* const config = app.add_subcommand("config", "work with configuration files");
  config->require_subcommand(1);
  CLI::App* const check = config->add_subcommand("check", "check a TOML file");
  std::string checked_file;
  check->add_option("file", checked_file, "the file")->required();

  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& success) {
    return Invocation{Invocation::Action::kExit, app.exit(success), {}};
  } catch (const CLI::ParseError& error) {
    app.exit(error);
    return Invocation{Invocation::Action::kExit, 2, {}};
  }

  if (check->parsed()) {
    if (const absl::Status status = CheckFile(checked_file); !status.ok()) return Usage(status);
    std::printf("%s: ok\n", checked_file.c_str());
    return Invocation{Invocation::Action::kCheckConfig, 0, {}};
  }
  const NodeRole role = replica->parsed() ? NodeRole::kReplica : NodeRole::kPrimary;
  auto built = BuildConfig(role, config_file, flags);
  if (!built.ok()) return Usage(built.status());
  return Invocation{Invocation::Action::kRun, 0, *std::move(built)};
}

}  // namespace towline
