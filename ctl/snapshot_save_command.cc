// snapshot save: the state of a running node at one LSN, as a file.
//
// The file has its name only when it is whole and durable; before that it is FILE.partial.

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/names.h"
#include "ctl/app.h"
#include "ctl/progress_line.h"
#include "ctl/snapshot_file.h"
#include "ctl/snapshot_receiver.h"

namespace towline::ctl {
namespace {

constexpr int kRestartsMax = 3;
constexpr int64_t kReconnectMicros = 500'000;
constexpr int64_t kLimitWaitMicros = 1'000'000;  // of a node that does not say
constexpr int64_t kLimitWaitMaxMicros = 60'000'000;

struct SaveOptions {
  std::string path;
  bool force = false;
  int64_t retry_for_us = 30'000'000;
};

int64_t RetryAfterMicros(const ErrorInfo& info) {
  const auto it = info.metadata.find("retry_after_ms");
  int64_t ms = 0;
  if (it == info.metadata.end() || !absl::SimpleAtoi(it->second, &ms) || ms <= 0) return kLimitWaitMicros;
  return std::min(ms * 1000, kLimitWaitMaxMicros);
}

// Whether a later stream to the same node may do better.
bool IsCut(const absl::Status& status) { return absl::IsUnavailable(status) || absl::IsAborted(status); }

class Save {
 public:
  Save(Context& context, const SaveOptions& options)
      : context_(context), options_(options), partial_path_(options.path + ".partial") {}

  int Run() {
    const absl::Status checked = CheckTarget();
    if (!checked.ok()) return context_.Fail(checked);
    auto client = context_.Connect();
    if (!client.ok()) return context_.Fail(client.status());
    // A call with a time limit first: a stream has none.
    const auto status = (*client)->GetStatus();
    if (!status.ok()) return context_.Fail(status.status());
    const absl::Status opened = OpenPartial();
    if (!opened.ok()) return context_.Fail(opened);
    absl::Status saved = Receive(**client);
    if (saved.ok()) saved = Publish();
    line_.reset();
    if (saved.ok()) return Print();
    (void)fs_.Remove(partial_path_);
    return context_.Fail(Explained(saved));
  }

 private:
  using SteadyClock = std::chrono::steady_clock;

  absl::Status CheckTarget() const;
  absl::Status OpenPartial();
  absl::Status Receive(client::Client& client);
  absl::Status RunStream(client::Client& client);
  absl::Status BeforeNext(const absl::Status& ended);
  absl::Status BeginAgain(const absl::Status& why);
  absl::Status Wait(int64_t micros) const;
  absl::Status Publish();
  absl::Status Explained(const absl::Status& status) const;
  void Say(const std::string& what);
  int Print();

  Context& context_;
  const SaveOptions& options_;
  FileSystem& fs_ = *PosixFileSystem();
  const std::string partial_path_;
  std::unique_ptr<File> file_;
  std::unique_ptr<SnapshotReceiver> receiver_;
  std::optional<ProgressLine> line_;
  SteadyClock::time_point begin_ = SteadyClock::now();
  SteadyClock::time_point progress_ = begin_;  // when something arrived last
  bool began_ = false;                         // a header came
  bool heard_ = false;                         // something came on the present stream
  bool limit_told_ = false;
  int resumes_ = 0;
  int restarts_ = 0;
};

absl::Status Save::CheckTarget() const {
  if (options_.path == "-") {
    return UsageError(
        "a snapshot cannot be written to standard output: after a lost connection the last bytes are written again, "
        "and only a file that is whole gets its name; give a FILE");
  }
  if (options_.path.empty() || options_.path.back() == '/') return UsageError("FILE must be the name of a file");
  if (fs_.List(options_.path).ok()) return UsageError(absl::StrCat(options_.path, " is a directory; give a FILE"));
  if (options_.force || !Exists(fs_, options_.path)) return absl::OkStatus();
  return MakeError(absl::StatusCode::kFailedPrecondition, "file_exists", absl::StrCat(options_.path, " exists"),
                   "give another name, or --force to replace it");
}

absl::Status Save::OpenPartial() {
  TOWLINE_ASSIGN_OR_RETURN(file_, fs_.Open(partial_path_, OpenMode::kCreateOrOpen));
  if (!file_->Lock().ok()) {
    return MakeError(absl::StatusCode::kUnavailable, "file_locked",
                     absl::StrCat("another towctl writes ", partial_path_), "wait for it, or give another name");
  }
  TOWLINE_RETURN_IF_ERROR(file_->Truncate(0));
  receiver_ = std::make_unique<SnapshotReceiver>(*file_);
  return absl::OkStatus();
}

absl::Status Save::Receive(client::Client& client) {
  for (;;) {
    const absl::Status ended = RunStream(client);
    if (ended.ok()) return ended;
    if (context_.interrupt().triggered()) return absl::CancelledError("interrupted");
    TOWLINE_RETURN_IF_ERROR(BeforeNext(ended));
  }
}

// One stream, to the end of the snapshot or to an error.
absl::Status Save::RunStream(client::Client& client) {
  const auto stream = client.OpenSave(receiver_->NextRequest());
  InterruptWatch watch(context_.interrupt(), [&stream] { stream->Cancel(); });
  v1::SaveSnapshotResponse response;
  heard_ = false;
  while (stream->Read(&response)) {
    heard_ = true;
    TOWLINE_RETURN_IF_ERROR(receiver_->Take(response));
    progress_ = SteadyClock::now();
    if (response.has_header()) {
      began_ = true;
      if (!line_) line_.emplace(context_, "saving", receiver_->header().estimated_bytes());
      if (receiver_->begun_anew()) TOWLINE_RETURN_IF_ERROR(BeginAgain(absl::OkStatus()));
    }
    line_->Show(receiver_->bytes(), absl::StrCat(receiver_->keys(), " keys"));
  }
  TOWLINE_RETURN_IF_ERROR(stream->Finish());
  if (receiver_->complete()) return absl::OkStatus();
  return absl::UnavailableError("the stream ended before the snapshot did");
}

// What is to be done about the error of a stream; OK = open the next one.
absl::Status Save::BeforeNext(const absl::Status& ended) {
  const ErrorInfo info = GetErrorInfo(ended);
  if (receiver_->file_failed()) return ended;
  if (info.reason == "snapshot_limit") {
    if (!limit_told_) Say(absl::StrCat(info.message, "; waiting for a place"));
    limit_told_ = true;
    progress_ = SteadyClock::now();
    return Wait(RetryAfterMicros(info));
  }
  if (began_ && (info.reason == "snapshot_gone" || absl::IsDataLoss(ended))) {
    TOWLINE_RETURN_IF_ERROR(BeginAgain(ended));
    receiver_->Reset();
    return absl::OkStatus();
  }
  const bool patient = SteadyClock::now() - progress_ < std::chrono::microseconds(options_.retry_for_us);
  if (!began_ || !IsCut(ended) || !patient) return ended;
  if (heard_) {
    ++resumes_;
    Say(absl::StrCat("cut at ", FormatBytes(receiver_->bytes()), ": ", info.message, "; going on"));
  }
  return Wait(kReconnectMicros);
}

// Counts one more beginning. `why` = the server did so by itself.
absl::Status Save::BeginAgain(const absl::Status& why) {
  const std::string reason = why.ok() ? "the node sends another snapshot" : GetErrorInfo(why).message;
  if (restarts_ == kRestartsMax) {
    return MakeError(
        absl::StatusCode::kUnavailable, "save_gave_up",
        absl::StrCat("the snapshot was begun ", 1 + kRestartsMax, " times, and each time it ended: ", reason),
        "save from another node, or over a better connection");
  }
  ++restarts_;
  if (line_) line_.emplace(context_, "saving", receiver_->header().estimated_bytes());
  Say(absl::StrCat(reason, "; begins the file again (", restarts_, " of ", kRestartsMax, ")"));
  return absl::OkStatus();
}

absl::Status Save::Wait(int64_t micros) const {
  return context_.interrupt().WaitFor(micros) ? absl::CancelledError("interrupted") : absl::OkStatus();
}

// Makes the file durable and gives it its name.
absl::Status Save::Publish() {
  TOWLINE_RETURN_IF_ERROR(file_->SyncData());
  if (!options_.force && Exists(fs_, options_.path)) return CheckTarget();
  TOWLINE_RETURN_IF_ERROR(fs_.Rename(partial_path_, options_.path));
  return fs_.SyncDirectory(ParentDirectory(options_.path));
}

absl::Status Save::Explained(const absl::Status& status) const {
  ErrorInfo info = GetErrorInfo(status);
  absl::StrAppend(&info.next_action, info.next_action.empty() ? "" : "; ", "no file was left");
  return MakeError(status.code(), std::move(info));
}

void Save::Say(const std::string& what) {
  if (line_) line_->Clear();
  if (!context_.json()) context_.err() << what << std::endl;
}

int Save::Print() {
  const double seconds = std::max(std::chrono::duration<double>(SteadyClock::now() - begin_).count(), 1e-9);
  const SnapshotMeta& meta = receiver_->meta();
  const double rate = static_cast<double>(receiver_->bytes()) / seconds;
  if (context_.json()) {
    Json json = Json::object();
    json["file"] = options_.path;
    json["bytes"] = receiver_->bytes();
    json["keys"] = receiver_->keys();
    json["chunks"] = receiver_->chunks();
    json["snapshot"] = SnapshotJson(meta, receiver_->digest());
    json["resumes"] = resumes_;
    json["restarts"] = restarts_;
    json["seconds"] = seconds;
    json["bytes_per_second"] = rate;
    context_.Print(json);
    return kExitOk;
  }
  context_.out() << "saved     " << options_.path << "\n";
  PrintSnapshotMeta(context_.out(), meta, receiver_->digest());
  context_.out() << "keys      " << receiver_->keys() << "\n"
                 << "bytes     " << receiver_->bytes() << " (" << FormatBytes(receiver_->bytes()) << ") in "
                 << FormatSeconds(seconds) << ", " << FormatRate(rate) << "\n";
  if (resumes_ + restarts_ > 0) {
    context_.out() << "streams   went on " << resumes_ << " times, begun again " << restarts_ << " times\n";
  }
  return kExitOk;
}

}  // namespace

void AddSnapshotSaveCommand(CLI::App& snapshot, Selection& selection) {
  auto options = std::make_shared<SaveOptions>();
  CLI::App* verb = snapshot.add_subcommand("save", "Write the state of a running node at one LSN to an RDB file");
  verb->add_option("file", options->path, "Written as FILE.partial until it is whole and durable")->required();
  verb->add_flag("--force", options->force, "Replace a file of that name");
  AddDuration(*verb, "--retry-for", &options->retry_for_us,
              "Reconnect for this long without progress after a lost connection (default 30s)");
  verb->footer(
      "Any node whose state is exact can be asked, replicas too; writes go on meanwhile. Each chunk, the totals and "
      "the\n"
      "digest are checked. After a lost connection the stream goes on where it was cut while the node still has that\n"
      "snapshot; else the file is begun again, three times at most.\n"
      "The file is one that redis-check-rdb accepts and redis-server loads; snapshot load takes it.\n"
      "Examples:\n  towctl --endpoint 127.0.0.1:7701 snapshot save backup.rdb\n"
      "  towctl snapshot save backup.rdb && towctl snapshot verify backup.rdb");
  OnSelected(*verb, selection, [options](Context& context) { return Save(context, *options).Run(); });
}

}  // namespace towline::ctl
