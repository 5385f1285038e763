#include "ctl/drill_audit.h"

#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "client/proto_json.h"
#include "common/error.h"
#include "common/file_system.h"
#include "common/rng.h"
#include "ctl/drill_load.h"
#include "towline/v1/change.pb.h"
#include "wal/quarantine_reader.h"

namespace towline::ctl {
namespace {

constexpr uint64_t kCreditBytes = 8u << 20;

// Counts the drill's keys that the change puts.
void CountKeys(const v1::Change& change, const std::string& prefix, std::map<std::string, uint64_t>* keys) {
  for (const v1::Operation& operation : change.batch().operations()) {
    if (operation.has_put() && absl::StartsWith(operation.put().key(), prefix)) ++(*keys)[operation.put().key()];
  }
}

// Reads the log as a consumer of its own, up to what is durable at the start.
class LogReader {
 public:
  LogReader(client::PullStream& stream, const std::string& prefix) : stream_(stream), prefix_(prefix) {}

  // Absent: the server does not serve it from there.
  absl::StatusOr<std::optional<std::map<std::string, uint64_t>>> Read(const v1::PullStart& start) {
    v1::PullRequest request;
    *request.mutable_start() = start;
    (void)stream_.Write(request);  // the reason of a failure comes from Finish
    v1::PullResponse response;
    bool partial = true;
    while (partial && lsn_ < until_lsn_ && stream_.Read(&response)) {
      if (response.has_started()) {
        partial = response.started().decision() == v1::RESUME_DECISION_PARTIAL;
        until_lsn_ = response.started().durable_lsn();
        lsn_ = start.lsn();
      } else if (response.has_records()) {
        Take(response.records());
      } else if (response.has_ended()) {
        break;
      }
    }
    stream_.Cancel();
    if (!partial) return std::optional<std::map<std::string, uint64_t>>();
    if (lsn_ >= until_lsn_) return std::optional(std::move(keys_));
    return MakeError(absl::StatusCode::kUnavailable, "log_not_read",
                     absl::StrCat("the log was read up to LSN ", lsn_, " instead of ", until_lsn_));
  }

 private:
  void Take(const v1::RecordBatch& batch) {
    for (const v1::Record& record : batch.records()) {
      CountKeys(record.change(), prefix_, &keys_);
      lsn_ = record.lsn();
      bytes_ += record.ByteSizeLong() + 64;  // never less than what the server counts for it
    }
    v1::PullRequest request;
    request.mutable_credit()->set_granted_bytes(kCreditBytes + bytes_);
    (void)stream_.Write(request);
  }

  client::PullStream& stream_;
  const std::string prefix_;
  std::map<std::string, uint64_t> keys_;
  uint64_t lsn_ = 0;
  uint64_t until_lsn_ = UINT64_MAX;
  uint64_t bytes_ = 0;
};

}  // namespace

absl::Status ReadPresent(client::Client& client, DrillHistory* history) {
  v1::ScanRequest request;
  request.set_prefix(DrillPrefix(history->id));
  request.set_pinned(true);
  do {
    TOWLINE_ASSIGN_OR_RETURN(const v1::ScanResponse page, client.Scan(request));
    for (const v1::Entry& entry : page.entries()) {
      const bool right = entry.value() == DrillValue(entry.key(), history->value_bytes);
      (right ? history->present : history->wrong)[entry.key()] = entry.modified_lsn();
    }
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  return absl::OkStatus();
}

absl::Status ReadLogged(client::Client& client, uint64_t behind_lsn, DrillHistory* history) {
  v1::PullStart start;
  start.set_protocol_version(1);
  start.set_slot(absl::StrCat("drill-", HexId(NewId(*SystemRng()))));
  start.set_kind(v1::SLOT_KIND_CONSUMER);
  start.set_format(v1::RECORD_FORMAT_RECORDS);
  start.set_process_instance(NewId(*SystemRng()));
  start.set_credit_bytes(kCreditBytes);
  start.set_temporary(true);
  start.set_lsn(behind_lsn);
  if (behind_lsn > 0) start.set_cluster_id(history->cluster_id);
  const std::unique_ptr<client::PullStream> stream = client.OpenPull();
  TOWLINE_ASSIGN_OR_RETURN(history->logged, LogReader(*stream, DrillPrefix(history->id)).Read(start));
  return absl::OkStatus();
}

absl::Status ReadQuarantine(const std::string& data_dir, DrillHistory* history) {
  FileSystem& fs = *PosixFileSystem();
  if (!history->quarantine) history->quarantine.emplace();
  DrillQuarantine& found = *history->quarantine;
  TOWLINE_ASSIGN_OR_RETURN(const std::vector<wal::QuarantineFile> files,
                           wal::ListQuarantine(fs, JoinPath(data_dir, "quarantine")));
  for (const wal::QuarantineFile& file : files) {
    const auto skipped = wal::DumpQuarantineFile(fs, file, [&](const wal::DumpedFrame& dumped) {
      v1::Change change;
      ++found.records;
      const absl::string_view payload = dumped.frame.payload;
      if (change.ParseFromArray(payload.data(), static_cast<int>(payload.size()))) {
        CountKeys(change, DrillPrefix(history->id), &found.keys);
      }
      return absl::OkStatus();
    });
    TOWLINE_RETURN_IF_ERROR(skipped.status());
  }
  return absl::OkStatus();
}

absl::StatusOr<ResyncCounts> ReadResyncs(client::Client& client) {
  TOWLINE_ASSIGN_OR_RETURN(const v1::GetStatusResponse status, client.GetStatus());
  ResyncCounts counts;
  counts.uptime_seconds = status.uptime_seconds();
  for (const auto& [key, count] : status.resync().by_reason()) counts.by_reason[key] = count;
  return counts;
}

}  // namespace towline::ctl
