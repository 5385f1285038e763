#include "ctl/drill_report.h"

#include <algorithm>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"

#include "common/error.h"
#include "ctl/output.h"

namespace towline::ctl {
namespace {

constexpr char kKind[] = "towline_drill_report";
constexpr size_t kLostShown = 20;

// A time behind the injection.
struct Phase {
  std::string name;
  int64_t at_us;
};

double Millis(int64_t us) { return static_cast<double>(us) / 1000; }

// Of the writes at level replicas: the longest time without an answer that ended behind the injection.
int64_t WritePause(const DrillHistory& history) {
  std::vector<int64_t> answers;
  for (const DrillWrite& write : history.writes) {
    if (write.level == DrillLevel::kReplicas && write.answered_us != 0) answers.push_back(write.answered_us);
  }
  answers.push_back(history.ended_us);
  std::sort(answers.begin(), answers.end());
  int64_t longest = 0;
  int64_t before = history.injected_us;
  for (const int64_t at : answers) {
    if (at > history.injected_us && at <= history.ended_us) longest = std::max(longest, at - before);
    before = at;
  }
  return longest;
}

void Earliest(const std::string& name, int64_t at, std::vector<Phase>* phases) {
  for (Phase& phase : *phases) {
    if (phase.name == name) {
      phase.at_us = std::min(phase.at_us, at);
      return;
    }
  }
  phases->push_back({name, at});
}

std::vector<Phase> Phases(const DrillHistory& history) {
  std::vector<Phase> phases;
  if (history.injected_us == 0) return phases;
  for (const DrillMark& mark : history.marks) phases.push_back({mark.phase, mark.at_us});
  for (const DrillWrite& write : history.writes) {
    if (history.new_term_from == 0) continue;
    if (write.failed_us > history.injected_us) Earliest("detected", write.failed_us, &phases);
    if (write.level == DrillLevel::kReplicas && write.answered_us > history.injected_us &&
        write.position.term() >= history.new_term_from) {
      Earliest("first_write", write.answered_us, &phases);
    }
  }
  for (Phase& phase : phases) phase.at_us -= history.injected_us;
  std::stable_sort(phases.begin(), phases.end(), [](const Phase& a, const Phase& b) { return a.at_us < b.at_us; });
  return phases;
}

// From rto_from to rto_until; if that was never reached, to the end.
int64_t TimeBetween(const std::vector<Phase>& phases, const DrillHistory& history) {
  int64_t from = 0;
  int64_t until = history.ended_us - history.injected_us;
  for (const Phase& phase : phases) {
    if (phase.name == history.rto_from) from = phase.at_us;
    if (phase.name == history.rto_until) until = phase.at_us;
  }
  return until - from;
}

struct LevelCounts {
  uint64_t answered = 0;
  uint64_t unanswered = 0;  // may be there or not
  uint64_t lost = 0;
};

// Answered, and at the end it is not there.
bool IsLost(const DrillHistory& history, const DrillWrite& write) {
  return write.answered_us != 0 && !history.present.contains(write.key);
}

LevelCounts Count(const DrillHistory& history, DrillLevel level) {
  LevelCounts counts;
  for (const DrillWrite& write : history.writes) {
    if (write.level != level) continue;
    ++(write.answered_us != 0 ? counts.answered : counts.unanswered);
    if (IsLost(history, write)) ++counts.lost;
  }
  return counts;
}

Json LevelJson(const LevelCounts& counts) {
  Json json = Json::object();
  json["answered"] = counts.answered;
  json["unanswered"] = counts.unanswered;
  return json;
}

const char* LevelName(DrillLevel level) { return level == DrillLevel::kLocal ? "local" : "replicas"; }

Json LostJson(const DrillHistory& history) {
  Json list = Json::array();
  for (const DrillWrite& write : history.writes) {
    if (list.size() == kLostShown) break;
    if (!IsLost(history, write)) continue;
    Json json = Json::object();
    json["key"] = write.key;
    json["level"] = LevelName(write.level);
    json["term"] = write.position.term();
    json["lsn"] = write.position.lsn();
    json["answered_ms"] = Millis(write.answered_us - history.injected_us);
    list.push_back(std::move(json));
  }
  return list;
}

// Copies of records behind the first; null if the log does not go back far enough.
Json Duplicates(const DrillHistory& history) {
  if (!history.logged) return Json(nullptr);
  uint64_t duplicates = 0;
  for (const auto& [key, times] : *history.logged) duplicates += times - 1;
  return Json(duplicates);
}

Json QuarantineJson(const DrillHistory& history) {
  if (!history.quarantine) return Json(nullptr);
  uint64_t kept = 0;
  for (const DrillWrite& write : history.writes) {
    if (IsLost(history, write) && history.quarantine->keys.contains(write.key)) ++kept;
  }
  Json json = Json::object();
  json["records"] = history.quarantine->records;
  json["lost_writes"] = kept;
  return json;
}

Json ResyncsJson(const DrillHistory& history) {
  Json list = Json::array();
  for (const auto& [key, count] : history.resyncs) {
    const std::vector<std::string> parts = absl::StrSplit(key, absl::MaxSplits('/', 1));
    Json json = Json::object();
    json["decision"] = parts[0];
    json["reason"] = parts.size() > 1 ? parts[1] : "";
    json["count"] = count;
    list.push_back(std::move(json));
  }
  return list;
}

Json StringsJson(const std::vector<std::string>& strings) {
  Json list = Json::array();
  for (const std::string& text : strings) list.push_back(text);
  return list;
}

// What is over its threshold, in words.
std::vector<std::string> Judge(const DrillHistory& history, const LevelCounts& local, const LevelCounts& replicas,
                               const Json& duplicates, double rto_ms) {
  std::vector<std::string> failures = history.failures;
  const DrillThresholds& thresholds = history.thresholds;
  if (replicas.lost > thresholds.rpo_replicas) {
    failures.push_back(absl::StrCat(replicas.lost, " writes that a replica had confirmed are lost, at most ",
                                    thresholds.rpo_replicas, " may be"));
  }
  if (thresholds.rpo_local && local.lost > *thresholds.rpo_local) {
    failures.push_back(
        absl::StrCat(local.lost, " writes of level local are lost, at most ", *thresholds.rpo_local, " may be"));
  }
  if (!history.wrong.empty()) {
    failures.push_back(absl::StrCat(history.wrong.size(), " keys have a value that was not written to them"));
  }
  if (duplicates.is_number() && duplicates.get<uint64_t>() > 0) {
    failures.push_back(absl::StrCat(duplicates.get<uint64_t>(), " writes are in the log more than once"));
  }
  if (history.injected_us != 0 && rto_ms > Millis(thresholds.rto_us)) {
    failures.push_back(absl::StrFormat("the service was away for %.1f ms, at most %.1f ms are allowed", rto_ms,
                                       Millis(thresholds.rto_us)));
  }
  const auto resynced = [&history](const std::string& decision) {
    const auto first = history.resyncs.lower_bound(decision + "/");
    return first != history.resyncs.end() && absl::StartsWith(first->first, decision + "/");
  };
  if (!history.resync_expected.empty() && !resynced(history.resync_expected)) {
    failures.push_back(absl::StrCat("no resync of kind ", history.resync_expected, " was counted"));
  }
  if (!history.resync_forbidden.empty() && resynced(history.resync_forbidden)) {
    failures.push_back(
        absl::StrCat("a resync of kind ", history.resync_forbidden, " was counted, none should be needed"));
  }
  if (history.injected_us != 0 && replicas.answered == 0)
    failures.push_back("not one write was confirmed by a replica");
  return failures;
}

std::string RtoName(const DrillHistory& history) {
  if (history.rto_until.empty()) return "write_pause";
  return absl::StrCat(history.rto_from.empty() ? "injection" : history.rto_from, " to ", history.rto_until);
}

Json ThresholdsJson(const DrillThresholds& thresholds) {
  Json json = Json::object();
  json["rpo_replicas"] = thresholds.rpo_replicas;
  json["rpo_local"] = thresholds.rpo_local ? Json(*thresholds.rpo_local) : Json(nullptr);
  json["rto_ms"] = Millis(thresholds.rto_us);
  return json;
}

std::string MillisText(const Json& ms) {
  return ms.is_number() ? absl::StrFormat("%.1f ms", ms.get<double>()) : std::string("-");
}

std::string NumberText(const Json& number) { return number.is_number() ? JsonText(number) : std::string("not known"); }

}  // namespace

std::string DrillValue(const std::string& key, uint64_t bytes) {
  return key + std::string(bytes > key.size() ? bytes - key.size() : 0, '.');
}

Json MakeDrillReport(const DrillHistory& history) {
  const LevelCounts local = Count(history, DrillLevel::kLocal);
  const LevelCounts replicas = Count(history, DrillLevel::kReplicas);
  const Json duplicates = Duplicates(history);
  const int64_t pause_us = history.injected_us == 0 ? 0 : WritePause(history);
  const std::vector<Phase> steps = Phases(history);
  const double rto_ms = Millis(history.rto_until.empty() ? pause_us : TimeBetween(steps, history));
  Json phases = Json::array();
  int64_t before = 0;
  for (const Phase& phase : steps) {
    Json json = Json::object();
    json["phase"] = phase.name;
    json["at_ms"] = Millis(phase.at_us);
    json["took_ms"] = Millis(phase.at_us - before);
    before = phase.at_us;
    phases.push_back(std::move(json));
  }
  const std::vector<std::string> failures = Judge(history, local, replicas, duplicates, rto_ms);
  Json report = Json::object();
  report["kind"] = kKind;
  report["version"] = 1;
  report["id"] = history.id;
  report["scenario"] = history.scenario;
  report["started"] =
      absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::FromUnixMillis(history.started_ms), absl::UTCTimeZone());
  report["started_ms"] = history.started_ms;
  report["cluster"] = Json::object();
  report["cluster"]["id"] = history.cluster_id;
  report["cluster"]["nodes"] = StringsJson(history.nodes);
  report["cluster"]["directory"] = history.directory.empty() ? Json(nullptr) : Json(history.directory);
  report["writes"] = Json::object();
  report["writes"]["local"] = LevelJson(local);
  report["writes"]["replicas"] = LevelJson(replicas);
  report["phases"] = std::move(phases);
  report["rpo_records"] = Json::object();
  report["rpo_records"]["local"] = local.lost;
  report["rpo_records"]["replicas"] = replicas.lost;
  report["lost"] = LostJson(history);
  report["quarantine"] = QuarantineJson(history);
  report["duplicates"] = duplicates;
  report["write_pause_ms"] = Millis(pause_us);
  report["rto_ms"] = rto_ms;
  report["rto_of"] = RtoName(history);
  report["resyncs"] = ResyncsJson(history);
  report["thresholds"] = ThresholdsJson(history.thresholds);
  report["passed"] = failures.empty();
  report["failures"] = StringsJson(failures);
  report["notes"] = StringsJson(history.notes);
  return report;
}

absl::Status CheckDrillReport(const Json& report) {
  const bool valid = report.is_object() && report.contains("kind") && report["kind"] == kKind &&
                     report.contains("version") && report["version"] == 1 && report.contains("passed") &&
                     report["passed"].is_boolean();
  if (valid) return absl::OkStatus();
  return MakeError(absl::StatusCode::kInvalidArgument, "not_a_report", "this is no report of a drill, version 1",
                   "give a file that towctl drill run has written");
}

int DrillExitCode(const Json& report) { return report["passed"].get<bool>() ? kExitOk : kExitUnhealthy; }

void PrintDrillReport(std::ostream& out, const Json& report) {
  out << "drill      " << report["scenario"].get<std::string>() << ", " << report["started"].get<std::string>()
      << ", cluster " << report["cluster"]["id"].get<std::string>() << "\n";
  for (const Json& node : report["cluster"]["nodes"]) out << "node       " << node.get<std::string>() << "\n";
  Table phases({"PHASE", "AFTER", "TOOK"});
  for (const Json& phase : report["phases"]) {
    phases.Add({phase["phase"].get<std::string>(), MillisText(phase["at_ms"]), MillisText(phase["took_ms"])});
  }
  phases.Print(out);
  Table levels({"LEVEL", "ANSWERED", "LOST", "AT_MOST"});
  for (const char* level : {"replicas", "local"}) {
    const Json& at_most = report["thresholds"][absl::StrCat("rpo_", level)];
    levels.Add({level, NumberText(report["writes"][level]["answered"]), NumberText(report["rpo_records"][level]),
                at_most.is_null() ? "-" : NumberText(at_most)});
  }
  levels.Print(out);
  out << "duplicates " << NumberText(report["duplicates"]) << "\n"
      << "pause      " << MillisText(report["write_pause_ms"]) << " without a write that a replica confirmed\n"
      << "rto        " << MillisText(report["rto_ms"]) << " (" << report["rto_of"].get<std::string>() << "), at most "
      << MillisText(report["thresholds"]["rto_ms"]) << "\n";
  for (const Json& resync : report["resyncs"]) {
    out << "resync     " << resync["decision"].get<std::string>() << "/" << resync["reason"].get<std::string>() << " "
        << JsonText(resync["count"]) << "\n";
  }
  if (report["quarantine"].is_object()) {
    out << "quarantine " << JsonText(report["quarantine"]["records"]) << " records, "
        << JsonText(report["quarantine"]["lost_writes"]) << " of the lost writes among them\n";
  }
  for (const Json& note : report["notes"]) out << "note       " << note.get<std::string>() << "\n";
  for (const Json& failure : report["failures"]) out << "FAILED     " << failure.get<std::string>() << "\n";
  if (report["passed"].get<bool>()) out << "passed\n";
}

}  // namespace towline::ctl
