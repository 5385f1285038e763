// tail: follows the log as a consumer and prints records as JSON Lines.

#include <algorithm>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/names.h"
#include "common/rng.h"
#include "ctl/app.h"
#include "ctl/record_json.h"

namespace towline::ctl {
namespace {

constexpr uint64_t kCreditBytes = 8u << 20;
constexpr int64_t kEndWaitMicros = 2'000'000;

struct TailOptions {
  std::string slot;
  bool create = false;
  bool has_from = false;
  uint64_t from = 0;
  std::string prefix;
  uint64_t limit = UINT64_MAX;
  bool until_current = false;
};

// One session: start, records, acks.
class Tail {
 public:
  Tail(Context& context, const TailOptions& options, client::PullStream& stream)
      : context_(context), options_(options), stream_(stream) {}

  absl::Status Run(const v1::PullStart& start) {
    v1::PullRequest request;
    *request.mutable_start() = start;
    (void)stream_.Write(request);  // the reason of a failure comes from Finish
    absl::Status status = Follow();
    // Cancelling could overtake the last ack: the caller closes, and waits for the server's end.
    if (started_ && acked_lsn_ != printed_lsn_) Ack();
    stream_.CloseSending();
    return status;
  }

  // Whether everything that was asked for has been printed, or an interrupt came.
  bool Done() const {
    if (!started_) return false;
    return context_.interrupt().triggered() || printed_records_ >= options_.limit ||
           (options_.until_current && printed_lsn_ >= until_lsn_);
  }

 private:
  absl::Status Follow() {
    v1::PullResponse response;
    while (!Done() && stream_.Read(&response)) {
      switch (response.kind_case()) {
        case v1::PullResponse::kStarted:
          TOWLINE_RETURN_IF_ERROR(Start(response.started()));
          break;
        case v1::PullResponse::kRecords:
          TOWLINE_RETURN_IF_ERROR(PrintBatch(response.records()));
          break;
        case v1::PullResponse::kHeartbeat:
          heartbeat_ = response.heartbeat();
          Ack();  // also without news: the server ends a session that stays silent
          break;
        case v1::PullResponse::kEnded: {
          const v1::ErrorDetail& ended = response.ended();
          return MakeError(absl::StatusCode::kAborted, ended.reason(), ended.message(), ended.next_action());
        }
        default:
          return absl::InternalError("the server sent something that is not for a consumer");
      }
    }
    return absl::OkStatus();
  }

  absl::Status Start(const v1::PullStarted& started) {
    if (started.decision() != v1::RESUME_DECISION_PARTIAL) {
      const Json json = ProtoToJson(started);
      ErrorInfo info;
      info.reason = started.reason();
      info.message = absl::StrCat("decision ", EnumText(json["decision"]), ": ", started.message());
      info.next_action = started.next_action();
      info.metadata["decision"] = EnumText(json["decision"]);
      info.metadata["first_retained_lsn"] = absl::StrCat(started.first_retained_lsn());
      info.metadata["durable_lsn"] = absl::StrCat(started.durable_lsn());
      return MakeError(absl::StatusCode::kFailedPrecondition, std::move(info));
    }
    started_ = true;
    session_ = started;
    until_lsn_ = started.durable_lsn();
    printed_lsn_ = acked_lsn_ = std::max<uint64_t>(1, started.from_lsn()) - 1;
    return absl::OkStatus();
  }

  absl::Status PrintBatch(const v1::RecordBatch& batch) {
    std::string lines;
    uint64_t batch_bytes = 0;
    for (const v1::Record& record : batch.records()) {
      if (Done()) break;
      batch_bytes += record.ByteSizeLong() + 64;  // never less than what the server counts for it
      v1::Change change = record.change();
      printed_lsn_ = record.lsn();
      if (!options_.prefix.empty() && !KeepPrefix(options_.prefix, &change)) continue;
      lines += JsonText(RecordJson(record.lsn(), record.term(), record.commit_time_us(), record.chain(), change));
      lines += '\n';
      ++printed_records_;
    }
    context_.out() << lines;
    const absl::Status flushed = context_.FlushOut();
    if (!flushed.ok()) {
      printed_lsn_ = acked_lsn_;  // not known to be out
      return flushed;
    }
    consumed_bytes_ += batch_bytes;
    if (consumed_bytes_ - granted_bytes_ > kCreditBytes / 4) Grant();
    return absl::OkStatus();
  }

  void Grant() {
    Ack();
    granted_bytes_ = consumed_bytes_;
    v1::PullRequest request;
    request.mutable_credit()->set_granted_bytes(kCreditBytes + consumed_bytes_);
    (void)stream_.Write(request);
  }

  // What has been written to standard output is no longer needed.
  void Ack() {
    acked_lsn_ = printed_lsn_;
    v1::PullRequest request;
    v1::PullAck* ack = request.mutable_ack();
    ack->set_session_id(session_.session_id());
    ack->set_slot_generation(session_.slot_generation());
    ack->set_term(session_.term());
    ack->set_received_lsn(printed_lsn_);
    ack->set_flushed_lsn(printed_lsn_);
    ack->set_applied_lsn(printed_lsn_);
    ack->set_heartbeat_sequence(heartbeat_.sequence());
    if (heartbeat_.durable_lsn() <= printed_lsn_) covered_heartbeat_ = heartbeat_.sequence();
    ack->set_heartbeat_applied_sequence(covered_heartbeat_);
    (void)stream_.Write(request);
  }

  Context& context_;
  const TailOptions& options_;
  client::PullStream& stream_;
  v1::PullStarted session_;
  v1::Heartbeat heartbeat_;
  bool started_ = false;
  uint64_t until_lsn_ = 0;
  uint64_t printed_lsn_ = 0;  // also counts records that the prefix filters out
  uint64_t acked_lsn_ = 0;
  uint64_t printed_records_ = 0;
  uint64_t consumed_bytes_ = 0;
  uint64_t granted_bytes_ = 0;
  uint64_t covered_heartbeat_ = 0;
};

// Makes sure that the slot exists. A start that cannot be reserved is left to the server's decision, which explains it.
absl::Status PrepareSlot(client::Client& client, const TailOptions& options, const std::string& slot, bool* created) {
  if (!options.create) {
    v1::GetSlotRequest request;
    request.set_name(slot);
    const absl::Status status = client.GetSlot(request).status();
    if (!absl::IsNotFound(status)) return status;
    ErrorInfo info = GetErrorInfo(status);
    info.next_action = "create it with --create, or with towctl slot create";
    return MakeError(status.code(), std::move(info));
  }
  v1::CreateSlotRequest request;
  request.set_name(slot);
  request.set_kind(v1::SLOT_KIND_CONSUMER);
  if (options.has_from) request.set_confirmed_lsn(options.from - 1);
  const absl::Status status = client.CreateSlot(request).status();
  *created = status.ok();
  if (absl::IsAlreadyExists(status) || absl::IsOutOfRange(status)) return absl::OkStatus();
  return status;
}

absl::StatusOr<v1::PullStart> BuildStart(client::Client& client, const TailOptions& options, const std::string& slot,
                                         bool temporary, bool created) {
  v1::PullStart start;
  start.set_protocol_version(1);
  start.set_slot(slot);
  start.set_kind(v1::SLOT_KIND_CONSUMER);
  start.set_format(v1::RECORD_FORMAT_RECORDS);
  start.set_process_instance(NewId(*SystemRng()));
  start.set_credit_bytes(kCreditBytes);
  start.set_temporary(temporary);
  if (created || !options.has_from) {
    start.set_from_slot(true);
    return start;
  }
  start.set_lsn(options.from - 1);
  if (start.lsn() == 0) return start;
  const auto history = client.GetHistory();
  if (!history.ok()) return history.status();
  start.set_cluster_id(history->cluster_id());
  return start;
}

// Reads what is left until the server ends its side; one that does not is cut off.
void Drain(client::PullStream& stream) {
  Interrupt ended;
  std::thread guard([&ended, &stream] {
    if (!ended.WaitFor(kEndWaitMicros)) stream.Cancel();
  });
  v1::PullResponse response;
  while (stream.Read(&response)) {
  }
  ended.Trigger();
  guard.join();
}

absl::Status RunSession(Context& context, const TailOptions& options, client::Client& client,
                        const v1::PullStart& start) {
  const std::unique_ptr<client::PullStream> stream = client.OpenPull();
  Tail tail(context, options, *stream);
  absl::Status status;
  {
    // After an interrupt the next heartbeat ends the loop in order; a silent server is cut off.
    Interrupt ended;
    InterruptWatch watch(context.interrupt(), [&ended, &stream] {
      if (!ended.WaitFor(kEndWaitMicros)) stream->Cancel();
    });
    status = tail.Run(start);
    Drain(*stream);
    ended.Trigger();
  }
  const absl::Status end = stream->Finish();
  if (!status.ok()) return status;
  if (tail.Done() || context.interrupt().triggered()) return absl::OkStatus();
  if (!end.ok()) return end;
  return MakeError(absl::StatusCode::kUnavailable, "stream_ended", "the server ended the stream", "start tail again");
}

int RunTail(Context& context, TailOptions options) {
  const bool temporary = options.slot.empty();
  const std::string slot = temporary ? absl::StrCat("tail-", HexId(NewId(*SystemRng()))) : options.slot;
  const absl::Status valid = ValidateName("slot name", slot);
  if (!valid.ok()) return context.Fail(UsageError(GetErrorInfo(valid).message));
  auto client = context.Connect();
  if (!client.ok()) return context.Fail(client.status());
  if (temporary && options.until_current && !options.has_from) {
    const auto status = (*client)->GetStatus();
    if (!status.ok()) return context.Fail(status.status());
    options.has_from = true;
    options.from = std::max<uint64_t>(1, status->wal().first_lsn());
  }
  bool created = false;
  absl::Status status = temporary ? absl::OkStatus() : PrepareSlot(**client, options, slot, &created);
  if (!status.ok()) return context.Fail(status);
  auto start = BuildStart(**client, options, slot, temporary, created);
  status = start.status();
  if (status.ok()) status = RunSession(context, options, **client, *start);
  return status.ok() ? kExitOk : context.Fail(status);
}

}  // namespace

void AddTailCommand(CLI::App& app, Selection& selection) {
  auto options = std::make_shared<TailOptions>();
  CLI::App* tail = app.add_subcommand("tail", "Follow the log: one JSON line per record");
  tail->add_option("--slot", options->slot, "Go on behind this slot and confirm to it what was printed");
  tail->add_flag("--create", options->create, "Create the slot if it does not exist")->needs("--slot");
  CLI::Option* from = AddNumber(*tail, "--from", &options->from, "First LSN (default: the slot's, else the next)", 1);
  tail->add_option("--prefix", options->prefix, "Only operations on keys that start with this");
  AddNumber(*tail, "--limit", &options->limit, "End after this many records", 1);
  tail->add_flag("--until-current", options->until_current,
                 "End at the record that is the last one now; without --slot and --from, start at the first retained");
  tail->footer(
      "Examples:\n  towctl tail --slot indexer --create\n  towctl tail --from 1 --until-current\n"
      "  towctl tail --prefix user/ --limit 10\n"
      "Without --slot a temporary slot holds the log as long as the session lives. A refused start is exit code 4.");
  OnSelected(*tail, selection, [options, from](Context& context) {
    options->has_from = from->count() > 0;
    return RunTail(context, *options);
  });
}

}  // namespace towline::ctl
