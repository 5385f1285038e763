// import: writes the lines of a file through one stream.

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <fcntl.h>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

#include "client/bookmark_proto.h"
#include "common/error.h"
#include "common/file_system.h"
#include "common/mutex.h"
#include "common/rng.h"
#include "ctl/app.h"
#include "ctl/durability_flags.h"
#include "ctl/import_checkpoint.h"
#include "ctl/import_lines.h"
#include "ctl/import_tracker.h"
#include "towline/bookmark.h"

namespace towline::ctl {
namespace {

using SteadyClock = std::chrono::steady_clock;

// Escapes and base64 make a line longer than its record, which has at most 8 MiB.
constexpr size_t kLineSizeMax = 64u << 20;
constexpr auto kCheckpointInterval = std::chrono::milliseconds(500);
constexpr auto kProgressInterval = std::chrono::milliseconds(200);

struct ImportOptions {
  std::string path;
  std::string format = "auto";
  std::string checkpoint;
  int64_t retry_for_us = 0;
  DurabilityFlags durability;
};

double SecondsSince(SteadyClock::time_point start) {
  return std::chrono::duration<double>(SteadyClock::now() - start).count();
}

// Whether the same lines may succeed on another connection.
bool IsWorthRetrying(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kUnimplemented:
      return false;
    case absl::StatusCode::kFailedPrecondition:
      return GetErrorInfo(status).reason == "not_primary";
    default:
      return true;
  }
}

class Import {
 public:
  Import(Context& context, const ImportOptions& options) : context_(context), options_(options) {}
  ~Import() {
    if (fd_ >= 0 && options_.path != "-") close(fd_);
  }
  Import(const Import&) = delete;
  Import& operator=(const Import&) = delete;

  int Run() {
    absl::Status status = Open();
    if (!status.ok()) return context_.Fail(status);
    auto cluster = context_.ConnectCluster();
    if (!cluster.ok()) return context_.Fail(cluster.status());
    cluster_ = *std::move(cluster);
    status = SendAll();
    const absl::Status saved = SaveProgress();
    if (status.ok()) status = saved;
    return Summarize(status);
  }

 private:
  absl::Status Open();
  absl::Status OpenInput(std::string* name, uint64_t* bytes);
  absl::Status SkipTo(const ImportCheckpoint& start);
  absl::Status SendAll();
  absl::Status SendOnOneStream();
  absl::Status SendLines(client::WriteStream& stream);
  absl::Status TakeLine(client::WriteStream& stream, LineReader::Result result);
  absl::Status SaveProgress();
  void OnAnswer(const client::WriteStreamAnswer& answer);
  void Reject(uint64_t line, const ErrorInfo& error) TOWLINE_EXCLUDES(err_mutex_);
  void ShowProgress() TOWLINE_EXCLUDES(err_mutex_);
  int Summarize(const absl::Status& status);
  absl::Status ReadError() const;

  Context& context_;
  const ImportOptions& options_;
  std::unique_ptr<client::ClusterClient> cluster_;
  std::string endpoint_;  // of the stream
  int fd_ = -1;
  int read_errno_ = 0;
  ImportCheckpoint start_;
  std::unique_ptr<ImportTracker> tracker_;
  std::unique_ptr<LineReader> reader_;
  ImportFormat format_ = ImportFormat::kAuto;
  uint64_t lines_ = 0;
  bool at_end_ = false;
  const SteadyClock::time_point begin_ = SteadyClock::now();
  SteadyClock::time_point last_progress_ = begin_;

  std::atomic<uint64_t> rejected_{0};
  std::atomic<uint64_t> degraded_{0};
  std::atomic<bool> checkpoint_failed_{false};
  SteadyClock::time_point last_checkpoint_ = begin_;  // the stream's reader thread, and after its end
  absl::Status checkpoint_error_;                     // likewise
  std::optional<v1::Position> position_;              // likewise

  Mutex err_mutex_;  // lines on standard error
};

absl::Status Import::OpenInput(std::string* name, uint64_t* bytes) {
  *bytes = 0;
  if (options_.path == "-") {
    *name = "-";
    fd_ = context_.environment().input_fd;
    return absl::OkStatus();
  }
  fd_ = open(options_.path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd_ < 0) return FileError(errno, "open", options_.path);
  struct stat info {};
  if (fstat(fd_, &info) != 0) return FileError(errno, "stat", options_.path);
  if (S_ISDIR(info.st_mode)) return UsageError(absl::StrCat(options_.path, " is a directory"));
  if (S_ISREG(info.st_mode)) *bytes = static_cast<uint64_t>(info.st_size);
  std::error_code ignored;
  *name = std::filesystem::absolute(options_.path, ignored).lexically_normal().string();
  return absl::OkStatus();
}

absl::Status Import::Open() {
  TOWLINE_RETURN_IF_ERROR(OpenInput(&start_.file, &start_.file_bytes));
  start_.client_id = "import-" + HexId(NewId(*SystemRng()));
  if (!options_.checkpoint.empty()) {
    auto saved = LoadCheckpoint(options_.checkpoint);
    if (saved.ok()) {
      TOWLINE_RETURN_IF_ERROR(CheckSameFile(*saved, start_.file, start_.file_bytes));
      start_ = *std::move(saved);
    } else if (!absl::IsNotFound(saved.status())) {
      return saved.status();
    }
  }
  const bool repeats = options_.retry_for_us > 0 || context_.options().follow || context_.endpoints().size() > 1;
  tracker_ = std::make_unique<ImportTracker>(start_, repeats);
  return SkipTo(start_);
}

absl::Status Import::SkipTo(const ImportCheckpoint& start) {
  const auto read_input = [this](char* buffer, size_t size) -> int64_t {
    for (;;) {
      if (!context_.interrupt().WaitReadable(fd_)) return -1;
      const ssize_t count = read(fd_, buffer, size);
      if (count < 0 && errno == EINTR) continue;
      read_errno_ = count < 0 ? errno : 0;
      return count;
    }
  };
  const bool can_seek = start.file_bytes > 0;
  const auto choose_format = [this] {
    if (options_.format == "jsonl") return ImportFormat::kJsonLines;
    if (options_.format == "tsv") return ImportFormat::kTsv;
    return DetectFormat(options_.path, reader_->Peek());
  };
  // The format is a property of the whole input: it shows at its beginning.
  reader_ = std::make_unique<LineReader>(read_input, kLineSizeMax, 0, 0);
  format_ = choose_format();
  if (start.last_acked_line == 0) return absl::OkStatus();
  if (can_seek) {
    if (lseek(fd_, static_cast<off_t>(start.offset), SEEK_SET) < 0) return FileError(errno, "seek", options_.path);
    reader_ = std::make_unique<LineReader>(read_input, kLineSizeMax, start.offset, start.last_acked_line);
    return absl::OkStatus();
  }
  while (reader_->line_number() < start.last_acked_line) {
    const LineReader::Result result = reader_->Next();
    if (result == LineReader::Result::kError) return ReadError();
    if (result == LineReader::Result::kEnd) {
      return MakeError(absl::StatusCode::kFailedPrecondition, "checkpoint_of_another_file",
                       absl::StrCat("the input ends at line ", reader_->line_number(), ", before line ",
                                    start.last_acked_line, " of the checkpoint"),
                       "give the same input again, or remove the checkpoint");
    }
  }
  return absl::OkStatus();
}

absl::Status Import::ReadError() const {
  if (read_errno_ == 0) return absl::CancelledError("interrupted");
  return FileError(read_errno_, "read", options_.path);
}

// Sends everything, over several connections if that was asked for.
absl::Status Import::SendAll() {
  SteadyClock::time_point give_up;
  uint64_t answered_line = 0;
  bool lost = false;
  bool followed = false;
  uint64_t losses = 0;
  int64_t pause_us = 100'000;
  for (;;) {
    endpoint_ = cluster_->StreamEndpoint(losses);
    const absl::Status status = SendOnOneStream();
    if (status.ok() || context_.interrupt().triggered() || checkpoint_failed_) return status;
    // Two nodes that name each other are not followed for ever.
    followed = IsWorthRetrying(status) && cluster_->FollowStream(endpoint_, status) && !followed;
    if (followed) continue;
    ++losses;
    if (options_.retry_for_us == 0 || !IsWorthRetrying(status)) return status;
    const uint64_t line = tracker_->Snapshot().last_acked_line;
    if (!lost || line > answered_line) {
      give_up = SteadyClock::now() + std::chrono::microseconds(options_.retry_for_us);
      pause_us = 100'000;
      losses = 0;
    }
    lost = true;
    answered_line = line;
    if (SteadyClock::now() >= give_up) return Annotate(status, "gave up to reconnect");
    {
      MutexLock lock(&err_mutex_);
      context_.err() << "connection lost behind line " << line << " (" << GetErrorInfo(status).message
                     << "); trying again" << std::endl;
    }
    if (context_.interrupt().WaitFor(pause_us)) return status;
    pause_us = std::min<int64_t>(2 * pause_us, 1'000'000);
  }
}

absl::Status Import::SendOnOneStream() {
  std::vector<v1::WriteRequest> again = tracker_->BeginStream();
  client::WriteStreamOptions stream_options;
  TOWLINE_ASSIGN_OR_RETURN(stream_options.durability, DurabilityOf(options_.durability));
  const auto stream = cluster_->OpenWriteStream(endpoint_, stream_options,
                                                [this](const client::WriteStreamAnswer& answer) { OnAnswer(answer); });
  // After an interrupt what was sent may still be answered, for as long as any other answer may take.
  Interrupt ended;
  absl::Status status;
  {
    InterruptWatch watch(context_.interrupt(), [this, &ended, &stream] {
      if (!ended.WaitFor(context_.options().timeout_us)) stream->Cancel();
    });
    for (v1::WriteRequest& request : again) {
      if (status.ok()) status = stream->Add(std::move(request)).status();
    }
    if (status.ok()) status = SendLines(*stream);
    const absl::Status blocked = tracker_->blocked();
    if (!blocked.ok()) stream->Cancel();
    const absl::Status end = stream->Finish();
    if (!blocked.ok()) {
      status = blocked;
    } else if (status.ok()) {
      status = tracker_->blocked().ok() ? end : tracker_->blocked();
    }
    ended.Trigger();
  }
  if (checkpoint_failed_) return checkpoint_error_;
  return status.ok() ? status : Annotate(status, endpoint_);
}

absl::Status Import::SendLines(client::WriteStream& stream) {
  while (!at_end_ && !context_.interrupt().triggered() && !checkpoint_failed_) {
    if ((lines_ & 255u) == 0) {
      TOWLINE_RETURN_IF_ERROR(tracker_->blocked());
      if (context_.environment().err_is_terminal && SteadyClock::now() - last_progress_ >= kProgressInterval) {
        ShowProgress();
      }
    }
    const LineReader::Result result = reader_->Next();
    if (result == LineReader::Result::kEnd) {
      at_end_ = true;
    } else if (result == LineReader::Result::kError) {
      if (context_.interrupt().triggered()) return absl::OkStatus();
      return ReadError();
    } else {
      TOWLINE_RETURN_IF_ERROR(TakeLine(stream, result));
    }
  }
  return absl::OkStatus();
}

absl::Status Import::TakeLine(client::WriteStream& stream, LineReader::Result result) {
  ++lines_;
  const uint64_t number = reader_->line_number();
  const uint64_t offset = reader_->offset();
  if (result == LineReader::Result::kLine && absl::StripAsciiWhitespace(reader_->line()).empty()) {
    tracker_->Add(ImportTracker::Kind::kBlank, number, offset);
    return absl::OkStatus();
  }
  v1::WriteRequest request;
  v1::Put* put = request.add_operations()->mutable_put();
  absl::Status parsed;
  if (result == LineReader::Result::kTooLong) {
    parsed = MakeError(absl::StatusCode::kInvalidArgument, "line_too_long",
                       absl::StrCat("the line has more than ", kLineSizeMax, " bytes"));
  } else {
    parsed = format_ == ImportFormat::kTsv ? ParseTsvLine(reader_->line(), put) : ParseJsonLine(reader_->line(), put);
  }
  request.mutable_request_id()->set_client_id(start_.client_id);
  request.mutable_request_id()->set_sequence(number);
  if (parsed.ok() && request.ByteSizeLong() > client::kStreamElementSizeMax) {
    parsed = MakeError(absl::StatusCode::kInvalidArgument, "record_too_large",
                       absl::StrCat("the record has ", request.ByteSizeLong(), " bytes; a stream carries at most ",
                                    client::kStreamElementSizeMax));
  }
  if (!parsed.ok()) {
    Reject(number, GetErrorInfo(parsed));
    tracker_->Add(ImportTracker::Kind::kRejected, number, offset);
    return absl::OkStatus();
  }
  tracker_->Add(ImportTracker::Kind::kSent, number, offset, &request);
  return stream.Add(std::move(request)).status();
}

void Import::OnAnswer(const client::WriteStreamAnswer& answer) {
  if (answer.position.has_value()) position_ = answer.position;
  tracker_->OnAnswer(answer, [this](uint64_t line, const ErrorInfo& error) { Reject(line, error); });
  for (const v1::DegradedElements& range : answer.degraded) {
    degraded_ += range.last_sequence() - range.first_sequence() + 1;
  }
  if (!checkpoint_failed_ && SteadyClock::now() - last_checkpoint_ >= kCheckpointInterval) (void)SaveProgress();
}

absl::Status Import::SaveProgress() {
  if (options_.checkpoint.empty() || checkpoint_failed_) return checkpoint_error_;
  checkpoint_error_ = SaveCheckpoint(options_.checkpoint, tracker_->Snapshot());
  checkpoint_failed_ = !checkpoint_error_.ok();
  last_checkpoint_ = SteadyClock::now();
  return checkpoint_error_;
}

void Import::Reject(uint64_t line, const ErrorInfo& error) {
  ++rejected_;
  MutexLock lock(&err_mutex_);
  if (context_.environment().err_is_terminal) context_.err() << "\r\033[K";
  context_.err() << "line " << line << ": " << error.reason << ": " << error.message << "\n";
}

void Import::ShowProgress() {
  last_progress_ = SteadyClock::now();
  const ImportCheckpoint done = tracker_->Snapshot();
  const double seconds = std::max(SecondsSince(begin_), 1e-3);
  const double rate = static_cast<double>(done.acked - start_.acked) / seconds;
  std::string eta;
  if (done.file_bytes > 0 && done.offset > start_.offset) {
    const double byte_rate = static_cast<double>(done.offset - start_.offset) / seconds;
    const double left = static_cast<double>(done.file_bytes - std::min(done.offset, done.file_bytes)) / byte_rate;
    eta = absl::StrFormat("  %3.0f%%  ETA %.0f s",
                          100.0 * static_cast<double>(done.offset) / static_cast<double>(done.file_bytes), left);
  }
  MutexLock lock(&err_mutex_);
  context_.err() << "\r\033[K" << absl::StrFormat("%d records  %.0f/s", done.acked - start_.acked, rate) << eta
                 << std::flush;
}

int Import::Summarize(const absl::Status& status) {
  const ImportCheckpoint done = tracker_->Snapshot();
  const bool interrupted = context_.interrupt().triggered();
  const std::string ended = at_end_ && status.ok() ? "end_of_input" : interrupted ? "interrupted" : "failed";
  const uint64_t acked = done.acked - start_.acked;
  const double seconds = SecondsSince(begin_);
  if (context_.environment().err_is_terminal) context_.err() << "\r\033[K";
  context_.err().flush();
  if (context_.json()) {
    Json json = Json::object();
    json["ended"] = ended;
    json["lines"] = lines_;
    json["acked"] = acked;
    json["rejected"] = rejected_.load();
    json["degraded"] = degraded_.load();
    json["unanswered"] = tracker_->unanswered();
    json["last_acked_line"] = done.last_acked_line;
    json["resumed_behind_line"] = start_.last_acked_line;
    json["position"] = done.lsn == 0 ? Json(nullptr) : Json{{"term", done.term}, {"lsn", done.lsn}};
    json["token"] = position_.has_value() ? Json(ToToken(FromProto(*position_))) : Json(nullptr);
    json["client_id"] = start_.client_id;
    json["seconds"] = seconds;
    json["records_per_second"] = static_cast<double>(acked) / std::max(seconds, 1e-9);
    context_.Print(json);
  } else {
    context_.out() << ended << ": " << lines_ << " lines, " << acked << " acked, " << rejected_.load() << " rejected, "
                   << tracker_->unanswered() << " unanswered; last acked line " << done.last_acked_line
                   << ", position term " << done.term << " lsn " << done.lsn << ", "
                   << absl::StrFormat("%.0f records/s", static_cast<double>(acked) / std::max(seconds, 1e-9)) << "\n";
    if (degraded_ > 0) context_.out() << degraded_.load() << " lines have not reached their commit level in time\n";
    if (ended != "end_of_input" && options_.checkpoint.empty()) {
      context_.out() << "lines behind the last acked one may or may not have been written\n";
    }
  }
  (void)context_.FlushOut();
  if (!status.ok() && !interrupted) return context_.Fail(status);
  return ended == "end_of_input" && rejected_ == 0 ? kExitOk : kExitError;
}

}  // namespace

void AddImportCommand(CLI::App& app, Selection& selection) {
  auto options = std::make_shared<ImportOptions>();
  CLI::App* verb = app.add_subcommand("import", "Write the lines of a file, one record per line");
  verb->add_option("file", options->path, "The file, or - for standard input")->required();
  verb->add_option("--format", options->format, "auto, jsonl or tsv; auto goes by the extension or the first byte")
      ->check(CLI::IsMember({"auto", "jsonl", "tsv"}))
      ->capture_default_str();
  verb->add_option("--checkpoint", options->checkpoint, "Save here how far it is, and go on from there");
  AddDuration(*verb, "--retry-for", &options->retry_for_us,
              "Reconnect for this long after a lost connection (default: end); delivery is at least once");
  verb->footer(
      "JSON Lines: {\"key\" | \"key_base64\", \"value\" | \"value_base64\", \"expire_at_ms\"}. TSV: KEY<TAB>VALUE, raw "
      "bytes.\n"
      "Examples:\n  towctl import users.jsonl --checkpoint users.ckpt --retry-for 30s\n"
      "  zcat users.tsv.gz | towctl import - --format tsv\n"
      "A bad line is reported with its number and skipped; the exit code is then 1. Lines carry request ids, so that "
      "a\n"
      "line that is sent again is not applied again, as long as the server remembers the id.");
  AddDurabilityFlags(*verb, &options->durability);
  OnSelected(*verb, selection, [options](Context& context) { return Import(context, *options).Run(); });
}

}  // namespace towline::ctl
