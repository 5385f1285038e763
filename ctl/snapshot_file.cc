#include "ctl/snapshot_file.h"

#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"

#include "common/error.h"
#include "common/history.h"
#include "common/names.h"
#include "ctl/progress_line.h"
#include "store/rdb_format.h"

namespace towline::ctl {
namespace {

std::string UnixTime(uint64_t seconds) {
  return absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", absl::FromUnixSeconds(static_cast<int64_t>(seconds)),
                          absl::UTCTimeZone());
}

// A field of the head as text; empty if there is none.
std::string HeadField(const RdbReport& report, absl::string_view name) {
  const auto it = report.head.find(std::string(name));
  return it == report.head.end() ? "" : it->second;
}

// "Redis 7.0.15"; empty if the file does not say.
std::string Writer(const RdbReport& report) {
  if (const std::string version = HeadField(report, "valkey-ver"); !version.empty()) {
    return absl::StrCat("Valkey ", Printable(version));
  }
  if (const std::string version = HeadField(report, "redis-ver"); !version.empty()) {
    return absl::StrCat("Redis ", Printable(version));
  }
  return "";
}

// 0 = not known.
uint64_t CreatedUnixSeconds(const RdbReport& report) {
  uint64_t seconds = 0;
  return absl::SimpleAtoi(HeadField(report, kAuxCreated), &seconds) ? seconds : 0;
}

}  // namespace

absl::StatusOr<SnapshotFile> OpenSnapshotFile(const std::string& path) {
  SnapshotFile file;
  file.path = path;
  TOWLINE_ASSIGN_OR_RETURN(file.file, PosixFileSystem()->Open(path, OpenMode::kRead));
  TOWLINE_ASSIGN_OR_RETURN(file.bytes, file.file->Size());
  return file;
}

absl::StatusOr<RdbReport> VerifySnapshotFile(Context& context, const SnapshotFile& file, const RdbVisitor& also) {
  ProgressLine line(context, "verifying", file.bytes);
  const RdbProgress progress = [&](uint64_t bytes) {
    line.Show(bytes);
    return context.interrupt().triggered() ? absl::CancelledError("interrupted") : absl::OkStatus();
  };
  return CheckRdb(*file.file, also, progress);
}

std::string FormatName(const RdbFileInfo& info) {
  return info.valkey ? absl::StrFormat("VALKEY%03d", info.version) : absl::StrFormat("REDIS%04d", info.version);
}

Json PositionJson(const Position& position) {
  return {{"lsn", position.lsn},
          {"term", position.term},
          {"term_id", HexId(position.term_id)},
          {"chain", HexId(position.chain)}};
}

Json SnapshotJson(const SnapshotMeta& meta, const std::string& digest) {
  Json json = Json::object();
  json["cluster_id"] = meta.cluster_id;
  json["node_id"] = meta.node_id;
  json["position"] = PositionJson(meta.position);
  Json history = Json::array();
  for (const HistoryEntry& entry : meta.history) {
    history.push_back({{"term", entry.term}, {"start_lsn", entry.start_lsn}, {"term_id", HexId(entry.term_id)}});
  }
  json["history"] = std::move(history);
  json["digest"] = digest;
  return json;
}

void PrintSnapshotMeta(std::ostream& out, const SnapshotMeta& meta, const std::string& digest) {
  out << "cluster   " << meta.cluster_id << "  node " << meta.node_id << "\n"
      << "position  lsn " << meta.position.lsn << " term " << meta.position.term << " chain "
      << HexId(meta.position.chain) << "\n"
      << "history   " << FormatHistory(meta.history) << "\n"
      << "digest    " << digest << "\n";
}

Json CountsJson(const std::map<std::string, uint64_t>& counts) {
  Json json = Json::object();
  for (const auto& [name, count] : counts) json[name] = count;
  return json;
}

std::string CountsText(const std::map<std::string, uint64_t>& counts) {
  return absl::StrJoin(
      counts, ", ", [](std::string* out, const auto& entry) { absl::StrAppend(out, entry.second, " ", entry.first); });
}

Json ReportJson(const SnapshotFile& file, const RdbReport& report) {
  Json json = Json::object();
  const uint64_t created = CreatedUnixSeconds(report);
  const std::string writer = Writer(report);
  json["valid"] = true;
  json["file"] = file.path;
  json["format"] = FormatName(report.file);
  json["written_by"] = report.towline ? Json("Towline") : writer.empty() ? Json(nullptr) : Json(writer);
  json["created_unix_s"] = created == 0 ? Json(nullptr) : Json(created);
  json["bytes"] = report.file.bytes;
  json["checksum"] = report.file.had_checksum ? "valid" : "not_computed";
  json["keys"] = report.keys;
  json["strings"] = report.strings;
  json["expiring"] = report.expiring;
  json["key_bytes"] = report.key_bytes;
  json["value_bytes"] = report.value_bytes;
  json["types"] = CountsJson(report.types);
  Json databases = Json::array();
  for (const auto& [db, counts] : report.databases) {
    databases.push_back(
        {{"db", db}, {"keys", counts.keys}, {"strings", counts.strings}, {"expiring", counts.expiring}});
  }
  json["databases"] = std::move(databases);
  json["snapshot"] = report.towline ? SnapshotJson(*report.towline, report.digest) : Json(nullptr);
  return json;
}

void PrintReport(std::ostream& out, const SnapshotFile& file, const RdbReport& report) {
  const uint64_t created = CreatedUnixSeconds(report);
  const std::string writer = Writer(report);
  out << "valid     " << file.path << "\n"
      << "format    " << FormatName(report.file);
  if (report.towline) {
    out << " by Towline";
  } else if (!writer.empty()) {
    out << " by " << writer;
  }
  if (created != 0) out << ", created " << UnixTime(created);
  out << "\nbytes     " << report.file.bytes << " (" << FormatBytes(report.file.bytes) << "), "
      << (report.file.had_checksum ? "CRC-64 holds" : "its writer computed no CRC-64") << "\n"
      << "keys      " << report.keys << ", " << report.expiring << " expiring; " << FormatBytes(report.key_bytes)
      << " of keys and " << FormatBytes(report.value_bytes) << " of values in strings\n";
  if (!report.types.empty()) out << "types     " << CountsText(report.types) << "\n";
  if (report.towline) {
    PrintSnapshotMeta(out, *report.towline, report.digest);
    return;
  }
  if (report.databases.empty()) return;
  Table table({"DB", "KEYS", "STRINGS", "EXPIRING"});
  for (const auto& [db, counts] : report.databases) {
    table.Add(
        {absl::StrCat(db), absl::StrCat(counts.keys), absl::StrCat(counts.strings), absl::StrCat(counts.expiring)});
  }
  out << "databases\n";
  table.Print(out, "  ");
}

}  // namespace towline::ctl
