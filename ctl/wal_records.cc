#include "ctl/wal_records.h"

#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"

#include "common/clock.h"
#include "common/error.h"
#include "common/file_system.h"
#include "common/names.h"
#include "ctl/record_json.h"
#include "towline/v1/change.pb.h"
#include "wal/inspect.h"
#include "wal/quarantine_reader.h"

namespace towline::ctl {
namespace {

Json FrameJson(const wal::DumpedFrame& dumped) {
  const wal::ShippedHeader& header = dumped.frame.header;
  v1::Change change;
  const bool parsed = change.ParseFromArray(dumped.frame.payload.data(), static_cast<int>(dumped.frame.payload.size()));
  Json json =
      RecordJson(header.lsn, header.term, static_cast<uint64_t>(header.commit_time_us), dumped.frame.chain(), change);
  if (!parsed) json["type"] = "unreadable";
  json["prev_chain"] = HexId(header.prev_chain);
  json["payload_bytes"] = header.payload_size;
  json["stamp"] = dumped.stamp;
  json["file"] = dumped.file;
  json["offset"] = dumped.offset;
  return json;
}

absl::StatusOr<wal::DumpRange> RangeOf(const WalOptions& options) {
  wal::DumpRange range;
  range.first = options.from;
  if (options.to > 0) range.last = options.to;
  const int64_t now = SystemClock()->WallMicros();
  if (!options.since.empty()) {
    TOWLINE_ASSIGN_OR_RETURN(range.since_us, ParseTimeMicros(options.since, now));
  }
  if (!options.until.empty()) {
    TOWLINE_ASSIGN_OR_RETURN(range.until_us, ParseTimeMicros(options.until, now));
  }
  if (range.last < range.first) return UsageError("--to is below --from");
  if (range.until_us <= range.since_us) return UsageError("--until is not after --since");
  return range;
}

bool Contains(const wal::DumpRange& range, const wal::ShippedHeader& header) {
  return range.first <= header.lsn && header.lsn <= range.last && range.since_us <= header.commit_time_us &&
         header.commit_time_us < range.until_us;
}

absl::Status DumpQuarantine(Context& context, const WalOptions& options, const wal::DumpRange& range,
                            const std::function<absl::Status(const wal::DumpedFrame&)>& print) {
  FileSystem& fs = *PosixFileSystem();
  TOWLINE_ASSIGN_OR_RETURN(const std::vector<wal::QuarantineFile> files,
                           wal::ListQuarantine(fs, QuarantineOf(options)));
  for (const wal::QuarantineFile& file : files) {
    TOWLINE_ASSIGN_OR_RETURN(const uint64_t skipped,
                             wal::DumpQuarantineFile(fs, file, [&](const wal::DumpedFrame& dumped) {
                               return Contains(range, dumped.frame.header) ? print(dumped) : absl::OkStatus();
                             }));
    if (skipped > 0) context.err() << file.path << ": " << skipped << " bytes belong to no whole record\n";
  }
  return absl::OkStatus();
}

}  // namespace

std::string QuarantineOf(const WalOptions& options) { return JoinPath(options.data_dir, "quarantine"); }

absl::StatusOr<int64_t> ParseTimeMicros(absl::string_view text, int64_t now_us) {
  int64_t number = 0;
  if (absl::SimpleAtoi(text, &number)) return number;
  absl::Time time;
  std::string error;
  if (absl::ParseTime(absl::RFC3339_full, text, &time, &error)) return absl::ToUnixMicros(time);
  const absl::StatusOr<int64_t> ago = ParseDurationMicros(text);
  if (ago.ok()) return now_us - *ago;
  return UsageError(absl::StrCat(
      "\"", text, "\" is not a time: give 2026-11-21T14:00:00Z, Unix microseconds, or how long ago (15m)"));
}

int RunDump(Context& context, const WalOptions& options, const std::string& directory) {
  const absl::StatusOr<wal::DumpRange> range = RangeOf(options);
  if (!range.ok()) return context.Fail(range.status());
  const auto print = [&context](const wal::DumpedFrame& dumped) {
    context.out() << JsonText(FrameJson(dumped)) << "\n";
    if (context.interrupt().triggered()) return absl::CancelledError("interrupted");
    return context.out().good() ? absl::OkStatus() : context.FlushOut();
  };
  const absl::Status status = options.quarantine ? DumpQuarantine(context, options, *range, print)
                                                 : wal::DumpSpool(*PosixFileSystem(), directory, *range, print);
  return status.ok() ? kExitOk : context.Fail(status);
}

int RunSeek(Context& context, const WalOptions& options, const std::string& directory) {
  wal::DumpRange range;
  if (options.lsn > 0) {
    range.first = options.lsn;
    range.last = options.lsn;
  } else {
    const absl::StatusOr<int64_t> time = ParseTimeMicros(options.time, SystemClock()->WallMicros());
    if (!time.ok()) return context.Fail(time.status());
    range.since_us = *time;
  }
  bool found = false;
  const absl::Status status = wal::DumpSpool(*PosixFileSystem(), directory, range, [&](const wal::DumpedFrame& dumped) {
    found = true;
    if (context.json()) {
      context.Print(FrameJson(dumped));
    } else {
      const wal::ShippedHeader& header = dumped.frame.header;
      context.out() << "lsn " << header.lsn << " term " << header.term << " time "
                    << absl::FormatTime(absl::RFC3339_full, absl::FromUnixMicros(header.commit_time_us),
                                        absl::UTCTimeZone())
                    << " in " << dumped.file << " at offset " << dumped.offset << ", " << header.payload_size
                    << " bytes, chain " << HexId(dumped.frame.chain()) << "\n";
    }
    return absl::CancelledError("found");
  });
  if (found) return kExitOk;
  if (!status.ok()) return context.Fail(status);
  const std::string wanted =
      options.lsn > 0 ? absl::StrCat("lsn ", options.lsn) : absl::StrCat("a record from ", options.time, " on");
  return context.Fail(MakeError(absl::StatusCode::kNotFound, "lsn_not_found",
                                absl::StrCat("the log in ", directory, " does not hold ", wanted),
                                "see the range with wal stat"));
}

}  // namespace towline::ctl
