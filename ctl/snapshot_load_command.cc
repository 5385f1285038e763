// snapshot load: the strings of an RDB file as ordinary writes to a running primary.
//
// The file is read twice: the first pass verifies all of it, so that nothing is written from a bad one.

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

#include "common/clock.h"
#include "common/error.h"
#include "common/names.h"
#include "ctl/app.h"
#include "ctl/batch_loader.h"
#include "ctl/progress_line.h"
#include "ctl/snapshot_file.h"
#include "ctl/snapshot_load.h"
#include "store/rdb_load_plan.h"

namespace towline::ctl {
namespace {

// OK if the node takes writes now. Sends none.
absl::Status AskWritable(Context& context, client::Client& client) {
  for (;;) {
    // A call with a time limit first: a stream has none, and waits as long as the node does.
    TOWLINE_RETURN_IF_ERROR(client.GetStatus().status());
    const auto stream = client.OpenWriteStream(client::WriteStreamOptions(), nullptr);
    InterruptWatch watch(context.interrupt(), [&stream] { stream->Cancel(); });
    const absl::Status status = stream->Finish();
    if (status.ok() || !client.Follow(status)) return status;
  }
}

absl::Status NothingWritten(const absl::Status& status) {
  ErrorInfo info = GetErrorInfo(status);
  absl::StrAppend(&info.next_action, info.next_action.empty() ? "" : "; ", "nothing was written");
  return MakeError(status.code(), info);
}

class Load {
 public:
  Load(Context& context, const LoadOptions& options) : context_(context), options_(options) {}

  int Run() {
    auto client = context_.Connect();
    if (!client.ok()) return context_.Fail(client.status());
    const absl::Status prepared = Prepare(**client);
    if (!prepared.ok()) return context_.Fail(prepared);
    const absl::Status status = Send(**client);
    return Summarize(status);
  }

 private:
  absl::Status Prepare(client::Client& client);
  absl::Status Send(client::Client& client);
  absl::Status Walk(BatchLoader& loader, ProgressLine& line);
  absl::Status ToldHowFar(const absl::Status& status) const;
  void PrintJson(absl::string_view ended, double seconds);
  void PrintText(absl::string_view ended, double seconds);
  int Summarize(const absl::Status& status);

  Context& context_;
  const LoadOptions& options_;
  SnapshotFile file_;
  uint64_t record_bytes_max_ = 0;
  std::optional<RdbLoadPlan> plan_;
  BatchLoader::Acked acked_;
  uint64_t sent_ = 0;  // keys
  double seconds_ = 0;
};

// Everything that can be known before the first write.
absl::Status Load::Prepare(client::Client& client) {
  TOWLINE_ASSIGN_OR_RETURN(file_, OpenSnapshotFile(options_.path));
  TOWLINE_RETURN_IF_ERROR(AskWritable(context_, client));
  TOWLINE_ASSIGN_OR_RETURN(const v1::GetStatusResponse status, client.GetStatus());
  record_bytes_max_ = status.record_bytes_max() == 0 ? kDefaultRecordBytes : status.record_bytes_max();
  record_bytes_max_ = std::min<uint64_t>(record_bytes_max_, client::kStreamElementSizeMax);

  const auto report = PlanLoad(context_, options_, record_bytes_max_, file_, &plan_);
  return report.ok() ? absl::OkStatus() : NothingWritten(report.status());
}

absl::Status Load::Walk(BatchLoader& loader, ProgressLine& line) {
  const RdbVisitor visit = [&](const RdbEvent& event, const RdbPlace& place) {
    if (!plan_->Loads(event, place)) return absl::OkStatus();
    ++sent_;
    return loader.Add(event.key, event.value, event.expire_at_ms, place.offset);
  };
  const RdbProgress progress = [&](uint64_t) {
    const BatchLoader::Acked acked = loader.acked();
    line.Show(acked.offset, absl::StrCat(acked.keys, " keys"));
    return context_.interrupt().triggered() ? absl::CancelledError("interrupted") : absl::OkStatus();
  };
  TOWLINE_RETURN_IF_ERROR(WalkRdb(*file_.file, RdbCheckOptions(), visit, progress).status());
  if (sent_ == plan_->counts().keys) return absl::OkStatus();
  return FileChanged(file_, plan_->counts().keys, sent_);
}

absl::Status Load::Send(client::Client& client) {
  ProgressLine line(context_, "loading", file_.bytes);
  BatchLoader loader(client, record_bytes_max_);
  // After an interrupt what was sent may still be answered, for as long as any other answer may take.
  Interrupt ended;
  absl::Status status;
  {
    InterruptWatch watch(context_.interrupt(), [this, &ended, &loader] {
      if (!ended.WaitFor(context_.options().timeout_us)) loader.Cancel();
    });
    status = Walk(loader, line);
    const absl::Status end = loader.Finish();
    if (status.ok()) status = end;
    ended.Trigger();
  }
  acked_ = loader.acked();
  seconds_ = std::max(line.seconds(), 1e-9);
  return status.ok() ? status : ToldHowFar(status);
}

// `status` with what it means for a load.
absl::Status Load::ToldHowFar(const absl::Status& status) const {
  ErrorInfo info = GetErrorInfo(status);
  absl::StrAppend(&info.message, "; ", acked_.keys, " of ", plan_->counts().keys,
                  " keys are known to be written, others may be");
  if (!info.next_action.empty()) info.next_action += "; ";
  info.next_action += "then load the file again: that is safe, it writes the same keys with the same values";
  return MakeError(status.code(), info);
}

void Load::PrintJson(absl::string_view ended, double seconds) {
  const RdbLoadCounts& counts = plan_->counts();
  Json json = Json::object();
  json["ended"] = std::string(ended);
  json["file"] = file_.path;
  json["file_bytes"] = file_.bytes;
  json["db"] = plan_->db();
  json["keys"] = acked_.keys;
  json["bytes"] = acked_.bytes;
  json["keys_to_load"] = counts.keys;
  AddLeftOut(*plan_, &json);
  json["position"] = acked_.position ? ProtoToJson(*acked_.position) : Json(nullptr);
  json["seconds"] = seconds;
  json["keys_per_second"] = static_cast<double>(acked_.keys) / seconds;
  json["bytes_per_second"] = static_cast<double>(acked_.bytes) / seconds;
  context_.Print(json);
}

void Load::PrintText(absl::string_view ended, double seconds) {
  const RdbLoadCounts& counts = plan_->counts();
  std::ostream& out = context_.out();
  out << ended << ": " << acked_.keys << " of " << counts.keys << " keys, " << FormatBytes(acked_.bytes) << " in "
      << FormatSeconds(seconds) << ", " << absl::StrFormat("%.0f", static_cast<double>(acked_.keys) / seconds)
      << " keys/s, " << FormatRate(static_cast<double>(acked_.bytes) / seconds) << "\n";
  out << "left out: " << LeftOutText(*plan_) << "\n";
  if (acked_.position) out << "position: term " << acked_.position->term() << " lsn " << acked_.position->lsn() << "\n";
}

int Load::Summarize(const absl::Status& status) {
  const bool interrupted = context_.interrupt().triggered();
  const absl::string_view ended = status.ok() ? "end_of_file" : interrupted ? "interrupted" : "failed";
  if (context_.json()) {
    PrintJson(ended, seconds_);
  } else {
    PrintText(ended, seconds_);
  }
  (void)context_.FlushOut();
  return status.ok() ? kExitOk : context_.Fail(status);
}

}  // namespace

absl::StatusOr<RdbReport> PlanLoad(Context& context, const LoadOptions& options, uint64_t record_bytes_max,
                                   const SnapshotFile& file, std::optional<RdbLoadPlan>* plan) {
  RdbLoadOptions load;
  if (options.has_db) load.db = options.db;
  load.skip_other_types = options.skip_other_types;
  load.record_bytes_max = record_bytes_max;
  load.now_ms = static_cast<uint64_t>(SystemClock()->WallMicros()) / 1000;
  plan->emplace(load);
  TOWLINE_ASSIGN_OR_RETURN(RdbReport report,
                           VerifySnapshotFile(context, file, [plan](const RdbEvent& event, const RdbPlace& place) {
                             (*plan)->Take(event, place);
                             return absl::OkStatus();
                           }));
  TOWLINE_RETURN_IF_ERROR((*plan)->Decide());
  return report;
}

absl::Status FileChanged(const SnapshotFile& file, uint64_t planned, uint64_t found) {
  return MakeError(
      absl::StatusCode::kDataLoss, "file_changed",
      absl::StrCat(file.path, " changed while it was loaded: it held ", planned, " keys to load, and then ", found));
}

std::string LeftOutText(const RdbLoadPlan& plan) {
  const auto skipped = plan.SkippedTypes();
  std::string text = absl::StrCat(plan.counts().expired, " expired");
  if (!skipped.empty()) absl::StrAppend(&text, ", ", CountsText(skipped));
  if (plan.keys_elsewhere() > 0) absl::StrAppend(&text, ", ", plan.keys_elsewhere(), " keys in other databases");
  return text;
}

void AddLeftOut(const RdbLoadPlan& plan, Json* json) {
  (*json)["expired"] = plan.counts().expired;
  (*json)["skipped"] = CountsJson(plan.SkippedTypes());
  (*json)["keys_in_other_databases"] = plan.keys_elsewhere();
}

void AddSnapshotLoadCommand(CLI::App& snapshot, Selection& selection) {
  auto options = std::make_shared<LoadOptions>();
  CLI::App* verb = snapshot.add_subcommand(
      "load", "Load the string keys of an RDB file into a running primary, or into a new data directory");
  verb->add_option("file", options->path, "A dump of Redis or Valkey, or a snapshot of Towline")->required();
  verb->add_flag("--skip-other-types", options->skip_other_types,
                 "Leave out what is not a string (lists, hashes, functions, ...) instead of refusing the file");
  CLI::Option* const db = AddNumber(*verb, "--db", &options->db, "Load this database of a file that holds several");
  CLI::Option* const data_dir = verb->add_option(
      "--data-dir", options->data_dir, "Build this data directory, absent or empty, instead of asking a node");
  CLI::Option* const node_id =
      verb->add_option("--node-id", options->node_id, "Node id of the primary that it is for; needed with --data-dir");
  data_dir->needs(node_id);
  node_id->needs(data_dir);
  AddBytes(*verb, "--record-bytes", &options->record_bytes, "limits.record_bytes of that primary (default 8MiB)")
      ->needs(data_dir);
  verb->footer(
      "The whole file is verified before the first write. Keys become ordinary writes: a key of the same name is\n"
      "overwritten, other keys stay, and the cluster keeps its identity and its log. Expiries stay the absolute times "
      "that\n"
      "they are; keys that have expired are left out. Loading a file again, after a lost connection for example, is "
      "safe.\n"
      "With --data-dir no node is asked: the directory becomes that of the first primary of a NEW cluster, with an\n"
      "identity, a term and a log of its own; no node of the old cluster can follow it. A snapshot is never a copy of "
      "a\n"
      "node: to have one more node of a cluster, start an empty replica.\n"
      "Refused with counts, before anything is written: keys in several databases, other types, keys of 0 bytes or "
      "more\n"
      "than 64 KiB, records above limits.record_bytes of the primary.\n"
      "Examples:\n  redis-cli --rdb dump.rdb && towctl snapshot load dump.rdb\n"
      "  towctl snapshot load dump.rdb --db 3 --skip-other-types\n"
      "  towctl snapshot load backup.rdb --data-dir /srv/towline --node-id p1");
  OnSelected(*verb, selection, [options, db](Context& context) {
    options->has_db = db->count() > 0;
    return options->data_dir.empty() ? Load(context, *options).Run() : LoadIntoDirectory(context, *options);
  });
}

}  // namespace towline::ctl
