#include "ctl/status_table.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

#include "client/proto_json.h"
#include "common/names.h"
#include "ctl/output.h"

namespace towline::ctl {
namespace {

std::string OrDash(const std::string& text) { return text.empty() ? "-" : text; }

void PrintNode(std::ostream& out, const v1::GetStatusResponse& status) {
  out << "node      " << OrDash(status.node_id()) << "  " << status.role() << "  " << status.state();
  if (!status.state_reason().empty()) out << " (" << status.state_reason() << ")";
  out << (status.exact() ? "  exact" : "  NOT EXACT") << "\n"
      << "cluster   " << OrDash(status.cluster_id()) << "  term " << status.term() << "\n"
      << "version   " << OrDash(status.version()) << "  up " << FormatSeconds(status.uptime_seconds()) << "\n";
}

void PrintLog(std::ostream& out, const v1::WalStatus& wal, const v1::StoreStatus& store) {
  out << "wal       lsn " << wal.first_lsn() << " to " << wal.durable_lsn() << " durable, committed "
      << wal.committed_lsn() << ", " << FormatBytes(wal.retained_bytes()) << " in " << wal.segments() << " segments\n";
  out << "fsync     " << wal.fsync_total() << " calls";
  if (wal.has_fsync_mean_seconds()) out << ", mean " << FormatSeconds(wal.fsync_mean_seconds());
  if (wal.has_fsync_p50_seconds()) out << ", p50 " << FormatSeconds(wal.fsync_p50_seconds());
  if (wal.has_fsync_p99_seconds()) out << ", p99 " << FormatSeconds(wal.fsync_p99_seconds());
  if (wal.scrub().has_last_pass_end_seconds()) {
    out << "\nscrub     " << wal.scrub().passes() << " passes, the last over "
        << FormatBytes(wal.scrub().last_pass_bytes()) << " in "
        << FormatSeconds(wal.scrub().last_pass_duration_seconds());
  }
  for (const v1::WalDamage& damage : wal.damaged()) {
    out << "\nDAMAGED   lsn " << damage.first_lsn() << " to " << damage.last_lsn()
        << (damage.readable() ? " (can be read, not opened again): " : ": ") << damage.what();
  }
  out << "\nstore     applied " << store.applied_lsn() << ", persisted " << store.persisted_lsn() << ", about "
      << store.estimated_keys() << " keys\n";
}

void PrintReplicas(std::ostream& out, const google::protobuf::RepeatedPtrField<v1::ReplicaStatus>& replicas) {
  out << "replicas  " << replicas.size() << "\n";
  if (replicas.empty()) return;
  Table table({"NODE", "STATE", "SENT", "RECEIVED", "FLUSHED", "APPLIED", "LAG", "LAG_BYTES", "LAG_TIME"});
  for (const v1::ReplicaStatus& r : replicas) {
    table.Add({r.node_id(), r.state(), absl::StrCat(r.sent_lsn()), absl::StrCat(r.received_lsn()),
               absl::StrCat(r.flushed_lsn()), absl::StrCat(r.applied_lsn()), absl::StrCat(r.lag_records()),
               FormatBytes(r.lag_bytes()), r.has_lag_seconds() ? FormatSeconds(r.lag_seconds()) : "-"});
  }
  table.Print(out, "  ");
}

// What writes wait for, and what is answered without it.
void PrintCommit(std::ostream& out, const v1::CommitStatus& commit, uint32_t min_replicas) {
  out << "commit    default " << commit.default_replicas() << " " << commit.default_stage() << ", min_replicas "
      << min_replicas << "; " << commit.acking_members() << " of " << commit.counting_members()
      << " counting members acknowledge, " << commit.waiters() << " writes wait, " << commit.timeouts_total()
      << " timeouts\n";
  if (commit.degraded() || commit.degraded_last_lsn() > 0) {
    out << (commit.degraded() ? "DEGRADED  " : "          was degraded: ") << "lsn " << commit.degraded_first_lsn()
        << " to " << commit.degraded_last_lsn() << " answered below the level that was asked for\n";
  }
  if (commit.exposed_bytes() > 0) {
    out << "exposed   " << FormatBytes(commit.exposed_bytes()) << " for " << FormatSeconds(commit.exposed_seconds())
        << ": answered, and not yet where the default level asks for\n";
  }
  if (commit.flow() != "off") {
    out << "flow      " << commit.flow() << ", replicas " << FormatBytes(commit.flow_lag_bytes()) << " behind\n";
  }
}

std::string LagText(const v1::StageLag& lag) {
  if (lag.records() == 0 && lag.seconds() == 0) return "0";
  std::string text = absl::StrCat(lag.records(), ", ", FormatBytes(lag.bytes()));
  if (lag.has_seconds()) absl::StrAppend(&text, ", ", FormatSeconds(lag.seconds()));
  return text;
}

// How far each stage is behind: records, bytes, time.
void PrintLag(std::ostream& out, const v1::GetStatusResponse& status) {
  if (status.replicas_size() + status.consumers_size() == 0) return;
  Table table({"SLOT", "STATE", "SENT", "RECEIVED", "FLUSHED", "APPLIED"});
  const auto add = [&table](const v1::ReplicaStatus& peer) {
    std::vector<std::string> row = {peer.slot(), peer.state()};
    for (const v1::StageLag& lag : peer.stages()) row.push_back(LagText(lag));
    row.resize(6, "-");
    table.Add(std::move(row));
  };
  for (const v1::ReplicaStatus& replica : status.replicas()) add(replica);
  for (const v1::ReplicaStatus& consumer : status.consumers()) add(consumer);
  out << "lag       by stage\n";
  table.Print(out, "  ");
}

void PrintCounts(std::ostream& out, absl::string_view before, const google::protobuf::Map<std::string, uint64_t>& map) {
  const std::map<std::string, uint64_t> sorted(map.begin(), map.end());
  for (const auto& [key, count] : sorted) out << "  " << before << key << " " << count << "\n";
}

void PrintResync(std::ostream& out, const v1::ResyncStatus& resync) {
  out << "resync    partial " << resync.partial_total() << ", full " << resync.full_total() << ", rewind "
      << resync.rewind_total() << ", refused " << resync.refused_total() << ", superseded "
      << resync.superseded_sessions() << ", stalls " << resync.stalls() << "\n";
  PrintCounts(out, "", resync.by_reason());
  PrintCounts(out, "consumer ", resync.consumers_by_reason());
  PrintCounts(out, "invalidated ", resync.invalidations());
}

void PrintRewind(std::ostream& out, const v1::RewindStatus& rewind) {
  if (rewind.checkpoint_lsns().empty() && rewind.rewinds_total() == 0) return;
  out << "rewind    ";
  if (rewind.checkpoint_lsns().empty()) {
    out << "no checkpoint";
  } else {
    out << "back to LSN " << rewind.checkpoint_lsns(0) << " or later";
  }
  out << ", made " << rewind.rewinds_total() << ", records given up " << rewind.discarded_records_total() << "\n";
  if (rewind.has_last()) {
    out << "  last from LSN " << rewind.last().old_lsn() << " to " << rewind.last().common_lsn() << ", "
        << rewind.last().discarded_records() << " records in quarantine/" << rewind.last().quarantine_file() << "\n";
  }
}

// Of an estimate, which may be short.
double Percent(uint64_t done, uint64_t estimated) {
  return 100 * std::min(1.0, static_cast<double>(done) / static_cast<double>(estimated));
}

// "1.2 GiB of about 3 GiB (40 %)".
std::string ShareText(uint64_t bytes, uint64_t estimated) {
  if (estimated == 0) return FormatBytes(bytes);
  return absl::StrFormat("%s of about %s (%.0f %%)", FormatBytes(bytes), FormatBytes(estimated),
                         Percent(bytes, estimated));
}

// "1200 keys, "; nothing if none are counted, as in a transfer of files.
std::string KeysText(uint64_t keys) { return keys == 0 ? "" : absl::StrCat(keys, " keys, "); }

void PrintSnapshots(std::ostream& out, const google::protobuf::RepeatedPtrField<v1::SnapshotSendStatus>& snapshots) {
  for (const v1::SnapshotSendStatus& s : snapshots) {
    out << "sends     snapshot at lsn " << s.lsn() << " to " << (s.slot().empty() ? "a file" : s.slot()) << ": "
        << KeysText(s.keys()) << ShareText(s.bytes(), s.estimated_bytes()) << ", " << FormatRate(s.bytes_per_second());
    if (s.has_eta_seconds()) out << ", ETA " << FormatSeconds(s.eta_seconds());
    if (s.resumed()) out << ", gone on from a cursor";
    out << "\n";
  }
}

}  // namespace

std::string BootstrapText(const v1::BootstrapStatus& bootstrap) {
  std::string text = absl::StrCat(bootstrap.phase(), ", ", KeysText(bootstrap.keys()),
                                  ShareText(bootstrap.bytes(), bootstrap.estimated_bytes()));
  // The bytes of a store that was never flushed are not known; its keys are.
  if (bootstrap.estimated_bytes() == 0 && bootstrap.estimated_keys() > 0) {
    text += absl::StrFormat(" (%.0f %%)", Percent(bootstrap.keys(), bootstrap.estimated_keys()));
  }
  if (bootstrap.bytes_per_second() > 0) absl::StrAppend(&text, ", ", FormatRate(bootstrap.bytes_per_second()));
  if (bootstrap.has_eta_seconds()) absl::StrAppend(&text, ", ETA ", FormatSeconds(bootstrap.eta_seconds()));
  absl::StrAppend(&text, ", ", bootstrap.resumes(), " resumes");
  if (bootstrap.bytes_again() > 0) absl::StrAppend(&text, ", ", FormatBytes(bootstrap.bytes_again()), " again");
  return text;
}

void PrintHistoryTable(std::ostream& out, const google::protobuf::RepeatedPtrField<v1::HistoryEntry>& history,
                       absl::string_view indent) {
  Table table({"TERM", "START_LSN", "TERM_ID"});
  for (const v1::HistoryEntry& entry : history) {
    table.Add({absl::StrCat(entry.term()), absl::StrCat(entry.start_lsn()), HexId(entry.term_id())});
  }
  table.Print(out, indent);
}

void PrintMembersTable(std::ostream& out, const google::protobuf::RepeatedPtrField<v1::Member>& members,
                       absl::string_view indent) {
  Table table({"MEMBER", "ADDRESS", "COUNTING", "INCARNATION"});
  for (const v1::Member& member : members) {
    table.Add(
        {member.node_id(), OrDash(member.address()), member.counting() ? "yes" : "no", HexId(member.incarnation())});
  }
  table.Print(out, indent);
}

void PrintSlotsTable(std::ostream& out, const google::protobuf::RepeatedPtrField<v1::Slot>& slots,
                     absl::string_view indent) {
  Table table({"SLOT", "KIND", "STATE", "HEALTH", "CONFIRMED", "RETAINED", "HEADROOM", "HEADROOM_TIME", "CAUSE"});
  for (const v1::Slot& slot : slots) {
    const Json json = ProtoToJson(slot);
    const std::string sort = slot.origin().empty() ? "" : absl::StrCat("/copy of ", slot.origin());
    table.Add({slot.name(), EnumText(json["kind"]) + (slot.temporary() ? "/temporary" : sort), EnumText(json["state"]),
               EnumText(json["health"]), absl::StrCat(slot.confirmed_lsn()), FormatBytes(slot.retained_bytes()),
               FormatBytes(slot.headroom_bytes()),
               slot.has_headroom_seconds() ? FormatSeconds(slot.headroom_seconds()) : "-",
               slot.has_invalidation() ? OrDash(slot.invalidation().cause()) : "-"});
  }
  table.Print(out, indent);
}

void PrintDisk(std::ostream& out, const v1::DiskStatus& disk) {
  out << "disk      " << FormatBytes(disk.available_bytes()) << " of " << FormatBytes(disk.total_bytes()) << " free, "
      << absl::StrFormat("%.1f %% in use", 100 * disk.used_ratio());
  if (disk.has_growth_bytes_per_second_1m()) {
    out << ", grows by " << FormatRate(disk.growth_bytes_per_second_1m()) << " (1 min), "
        << FormatRate(disk.growth_bytes_per_second_15m()) << " (15 min)";
  }
  if (disk.guard_ratio() > 0) {
    out << ", guard at " << absl::StrFormat("%g %%", 100 * disk.guard_ratio()) << ": "
        << FormatSecondsOrNever(disk.has_seconds_to_guard(), disk.seconds_to_guard());
  }
  out << ", full: " << FormatSecondsOrNever(disk.has_seconds_to_full(), disk.seconds_to_full()) << "\n";
}

void PrintStatusTable(std::ostream& out, const v1::GetStatusResponse& status) {
  PrintNode(out, status);
  PrintLog(out, status.wal(), status.store());
  if (status.has_commit()) PrintCommit(out, status.commit(), status.min_replicas());
  if (status.has_disk()) PrintDisk(out, status.disk());
  if (status.has_upstream()) {
    out << "upstream  " << OrDash(status.upstream().endpoint()) << "  " << status.upstream().state();
    if (!status.upstream().message().empty()) out << "  " << status.upstream().message();
    out << "\n";
    if (status.upstream().path_size() > 0) out << "path      " << absl::StrJoin(status.upstream().path(), ", ") << "\n";
  }
  if (status.has_bootstrap()) {
    const v1::BootstrapStatus& bootstrap = status.bootstrap();
    out << "bootstrap " << OrDash(bootstrap.reason()) << ": " << BootstrapText(bootstrap) << ", "
        << FormatSeconds(bootstrap.elapsed_seconds()) << " so far\n";
  }
  PrintSnapshots(out, status.snapshots());
  out << "history   " << status.history_size() << " terms\n";
  if (status.history_size() > 0) PrintHistoryTable(out, status.history(), "  ");
  out << "members   " << status.members_size() << "\n";
  if (status.members_size() > 0) PrintMembersTable(out, status.members(), "  ");
  PrintReplicas(out, status.replicas());
  PrintLag(out, status);
  out << "slots     " << status.slots_size() << "\n";
  if (status.slots_size() > 0) PrintSlotsTable(out, status.slots(), "  ");
  PrintResync(out, status.resync());
  PrintRewind(out, status.rewind());
}

}  // namespace towline::ctl
