// status, history, topology, digest, ping.

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "common/error.h"
#include "common/names.h"
#include "ctl/app.h"
#include "ctl/status_table.h"
#include "towline/bookmark.h"

namespace towline::ctl {
namespace {

struct StatusOptions {
  bool check = false;
  uint64_t max_lag_records = UINT64_MAX;
};

// Why the node is not healthy; empty = it is.
std::vector<std::string> Complaints(const v1::GetStatusResponse& status, const StatusOptions& options) {
  std::vector<std::string> complaints;
  const bool good = status.state() == "writable" || status.state() == "streaming" || status.state() == "catching_up";
  if (options.check && !good) {
    complaints.push_back(
        absl::StrCat("the node is ", status.state(), status.state_reason().empty() ? "" : ": ", status.state_reason()));
  }
  if (options.check && !status.exact()) complaints.push_back("the node's state is not exact");
  for (const v1::Slot& slot : status.slots()) {
    if (options.check && slot.health() == v1::SLOT_HEALTH_LOST) {
      complaints.push_back(absl::StrCat("slot ", slot.name(), " is lost"));
    }
  }
  for (const v1::ReplicaStatus& replica : status.replicas()) {
    if (replica.lag_records() > options.max_lag_records) {
      complaints.push_back(absl::StrCat("replica ", replica.node_id(), " lags by ", replica.lag_records(),
                                        " records, more than ", options.max_lag_records));
    }
  }
  return complaints;
}

// The node's applied position; the status has no chain. Null = it has no state yet.
Json AppliedToken(const v1::GetStatusResponse& status) {
  const uint64_t lsn = status.store().applied_lsn();
  Bookmark bookmark{status.cluster_id(), 0, 0, 0, 0};
  for (const v1::HistoryEntry& entry : status.history()) {
    if (lsn == 0 || entry.start_lsn() > lsn) continue;
    bookmark.term = entry.term();
    bookmark.term_id = entry.term_id();
    bookmark.lsn = lsn;
  }
  return bookmark.empty() ? Json(nullptr) : Json(ToToken(bookmark));
}

int RunStatus(Context& context, const StatusOptions& options) {
  auto client = context.Connect();
  if (!client.ok()) return context.Fail(client.status());
  const auto status = (*client)->GetStatus();
  if (!status.ok()) return context.Fail(status.status());
  if (context.json()) {
    Json json = ProtoToJson(*status);
    json["token"] = AppliedToken(*status);
    context.Print(json);
  } else {
    PrintStatusTable(context.out(), *status);
  }
  const std::vector<std::string> complaints = Complaints(*status, options);
  if (complaints.empty()) return kExitOk;
  (void)context.FlushOut();
  context.Fail(MakeError(absl::StatusCode::kUnavailable, "unhealthy", absl::StrJoin(complaints, "; ")));
  return kExitUnhealthy;
}

int RunHistory(Context& context) {
  auto client = context.Connect();
  if (!client.ok()) return context.Fail(client.status());
  const auto history = (*client)->GetHistory();
  if (!history.ok()) return context.Fail(history.status());
  if (context.json()) {
    context.Print(ProtoToJson(*history));
    return kExitOk;
  }
  context.out() << "cluster " << (history->cluster_id().empty() ? "-" : history->cluster_id()) << "\n";
  PrintHistoryTable(context.out(), history->history());
  return kExitOk;
}

int RunTopology(Context& context) {
  auto client = context.Connect();
  if (!client.ok()) return context.Fail(client.status());
  const auto topology = (*client)->GetTopology();
  if (!topology.ok()) return context.Fail(topology.status());
  if (context.json()) {
    context.Print(ProtoToJson(*topology));
    return kExitOk;
  }
  const auto or_dash = [](const std::string& text) { return text.empty() ? std::string("-") : text; };
  context.out() << "cluster " << or_dash(topology->cluster_id()) << "\n"
                << "term    " << topology->term() << "\n"
                << "primary " << or_dash(topology->primary_node_id()) << " at " << or_dash(topology->primary_address())
                << "\n";
  PrintMembersTable(context.out(), topology->members());
  return kExitOk;
}

int RunDigest(Context& context, uint64_t at_lsn) {
  auto client = context.Connect();
  if (!client.ok()) return context.Fail(client.status());
  v1::GetDigestRequest request;
  request.set_at_lsn(at_lsn);
  const int64_t timeout_ms = context.options().timeout_us / 1000;
  if (timeout_ms < 1 || timeout_ms > 600'000) return context.Fail(UsageError("--timeout must be from 1ms to 10m here"));
  request.set_timeout_ms(static_cast<uint32_t>(timeout_ms));
  const auto digest = (*client)->GetDigest(request);
  if (!digest.ok()) return context.Fail(digest.status());
  if (context.json()) {
    context.Print(ProtoToJson(*digest));
  } else {
    context.out() << digest->digest() << "  " << digest->keys() << " keys  lsn " << digest->position().lsn() << " term "
                  << digest->position().term() << "\n";
  }
  return kExitOk;
}

int RunPing(Context& context, uint64_t count, uint64_t payload_bytes) {
  if (payload_bytes > (1u << 20)) return context.Fail(UsageError("--payload-size must be at most 1MiB"));
  auto client = context.Connect();
  if (!client.ok()) return context.Fail(client.status());
  v1::PingRequest request;
  request.set_payload(std::string(payload_bytes, 'p'));
  std::vector<double> seconds;
  for (uint64_t i = 0; i < count && !context.interrupt().triggered(); ++i) {
    const auto start = std::chrono::steady_clock::now();
    const auto response = (*client)->Ping(request);
    if (!response.ok()) return context.Fail(response.status());
    if (response->payload() != request.payload()) return context.Fail(absl::InternalError("the answer differs"));
    seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  if (seconds.empty()) return context.Fail(absl::CancelledError("interrupted"));
  std::sort(seconds.begin(), seconds.end());
  if (context.json()) {
    Json result = Json::object();
    result["endpoint"] = (*client)->endpoint();
    result["count"] = seconds.size();
    result["min_seconds"] = seconds.front();
    result["median_seconds"] = seconds[seconds.size() / 2];
    result["max_seconds"] = seconds.back();
    context.Print(result);
  } else {
    context.out() << (*client)->endpoint() << " answered " << seconds.size() << " of " << count << ": min "
                  << FormatSeconds(seconds.front()) << ", median " << FormatSeconds(seconds[seconds.size() / 2])
                  << ", max " << FormatSeconds(seconds.back()) << "\n";
  }
  return kExitOk;
}

void AddStatus(CLI::App& app, Selection& selection) {
  auto options = std::make_shared<StatusOptions>();
  CLI::App* status = app.add_subcommand("status", "Show the node's state, log, replicas, slots and resync counters");
  status->add_flag("--check", options->check, "Exit code 3 unless the node is healthy and no slot is lost");
  AddNumber(*status, "--max-lag-records", &options->max_lag_records, "Exit code 3 if a replica lags by more");
  status->footer(
      "Examples:\n  towctl status\n  towctl status -o json\n  towctl status --check --max-lag-records 10000");
  OnSelected(*status, selection, [options](Context& context) { return RunStatus(context, *options); });
}

}  // namespace

void AddStatusCommands(CLI::App& app, Selection& selection) {
  AddStatus(app, selection);
  CLI::App* history = app.add_subcommand("history", "Show the node's terms and where they began");
  OnSelected(*history, selection, RunHistory);
  CLI::App* topology = app.add_subcommand("topology", "Show the cluster as the node knows it");
  OnSelected(*topology, selection, RunTopology);

  auto at_lsn = std::make_shared<uint64_t>(0);
  CLI::App* digest = app.add_subcommand("digest", "Print a digest of the state; equal at one position = equal states");
  AddNumber(*digest, "--at-lsn", at_lsn.get(), "Take it when exactly this LSN is applied, and wait for that", 1);
  digest->footer("Example:\n  towctl digest --at-lsn 1000 --timeout 30s");
  OnSelected(*digest, selection, [at_lsn](Context& context) { return RunDigest(context, *at_lsn); });

  auto count = std::make_shared<uint64_t>(5);
  auto payload_bytes = std::make_shared<uint64_t>(0);
  CLI::App* ping = app.add_subcommand("ping", "Measure round trips that do nothing");
  AddNumber(*ping, "--count", count.get(), "Round trips (default 5)", 1, 1'000'000);
  AddBytes(*ping, "--payload-size", payload_bytes.get(), "Bytes in each direction, at most 1MiB (default 0)");
  OnSelected(*ping, selection,
             [count, payload_bytes](Context& context) { return RunPing(context, *count, *payload_bytes); });
}

}  // namespace towline::ctl
