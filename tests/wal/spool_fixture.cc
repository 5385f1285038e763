#include "tests/wal/spool_fixture.h"

#include <cstdio>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "common/checksum.h"
#include "common/error.h"

namespace towline::wal::test {

SpoolOptions SmallOptions() {
  SpoolOptions options;
  options.segment_bytes = 64 << 10;
  options.spare_segments = 0;
  options.index_interval_bytes = 4 << 10;
  return options;
}

RecoveryInputs Inputs(Lsn watermark) {
  RecoveryInputs inputs;
  inputs.cluster_id = kClusterId;
  if (watermark > 0) inputs.watermarks.push_back({"control", watermark});
  return inputs;
}

std::string SegmentPath(Lsn first_lsn) {
  char name[64];
  std::snprintf(name, sizeof name, "%s/%020llu.seg", kDirectory, static_cast<unsigned long long>(first_lsn));
  return name;
}

std::string IndexPath(Lsn first_lsn) {
  char name[64];
  std::snprintf(name, sizeof name, "%s/%020llu.idx", kDirectory, static_cast<unsigned long long>(first_lsn));
  return name;
}

std::string PayloadOf(Lsn lsn, size_t size) {
  std::string payload = absl::StrCat("record ", lsn, " ");
  SeededRng noise(lsn);
  while (payload.size() < size) payload.push_back(static_cast<char>(noise.Next()));
  payload.resize(size);
  return payload;
}

std::shared_ptr<FrameGroup> MakeGroup(const LogEnd& end, const std::vector<size_t>& sizes, Term term) {
  GroupBuilder builder(end);
  for (const size_t size : sizes) {
    const Lsn lsn = builder.end().lsn + 1;
    const std::string payload = PayloadOf(lsn, size);
    builder.Add(RecordType::kBatch, term, static_cast<int64_t>(lsn) * 1000, payload, Crc32c(payload));
  }
  return builder.Finish();
}

Node::Node(SimFileSystem& sim, uint64_t seed) : Node(sim, kDirectory, kQuarantine, seed) {}

Node::Node(FileSystem& file_system, std::string directory_path, std::string quarantine_path, uint64_t seed)
    : fs(file_system),
      directory(std::move(directory_path)),
      quarantine(std::move(quarantine_path)),
      rng(seed),
      executor(&clock, seed) {}

absl::Status Node::Open(const SpoolOptions& options, const RecoveryInputs& inputs) {
  spool.reset();
  SpoolEnvironment env{fs, clock, rng, executor, *NullLogger()};
  absl::StatusOr<std::unique_ptr<Spool>> opened = OpenSpool(env, directory, quarantine, options, inputs, &report);
  if (!opened.ok()) return opened.status();
  spool = *std::move(opened);
  WatchAcknowledgements();
  return absl::OkStatus();
}

void Node::WatchAcknowledgements() {
  auto* const sim = dynamic_cast<SimFileSystem*>(&fs);
  if (sim == nullptr) return;
  spool->AddDurableListener([this, sim](Lsn lsn) {
    std::string newest;  // names sort as LSNs do
    for (const std::string& name : sim->Names(directory)) {
      if (absl::StartsWith(name, "0") && absl::EndsWith(name, ".seg")) newest = JoinPath(directory, name);
    }
    if (!sim->IsDurable(newest)) {
      sim->AddOrderViolation(absl::StrCat("LSN ", lsn, " is acknowledged before ", newest, " is durable"));
    }
  });
}

absl::Status Node::Append(const std::vector<size_t>& sizes) {
  const LogEnd end = spool->end();
  return spool->Append(MakeGroup(end, sizes, end.term == 0 ? 1 : end.term));
}

absl::StatusOr<std::vector<ReadRecord>> ReadAll(Spool& spool, Lsn from, size_t max_bytes) {
  TOWLINE_ASSIGN_OR_RETURN(const std::unique_ptr<Cursor> cursor, spool.NewCursor(from));
  std::vector<ReadRecord> records;
  LogEnd end;
  for (bool first = true;; first = false) {
    TOWLINE_ASSIGN_OR_RETURN(const ShippedBatch batch, cursor->Next(max_bytes));
    if (!first && batch.before != end) return absl::InternalError("a batch does not continue the one before it");
    if (batch.empty()) return records;
    end = batch.before;
    TOWLINE_RETURN_IF_ERROR(ForEachShipped(batch.bytes, [&](const ShippedFrame& frame) {
      const ShippedHeader& header = frame.header;
      if (header.lsn != end.lsn + 1 || header.prev_chain != end.chain) {
        return absl::InternalError(absl::StrCat("LSN ", header.lsn, " does not continue LSN ", end.lsn));
      }
      end = {header.lsn, header.term, frame.chain(), header.commit_time_us};
      records.push_back({header.lsn, header.term, header.type, std::string(frame.payload)});
      return absl::OkStatus();
    }));
    if (end != batch.after) return absl::InternalError("a batch does not end where it says");
  }
}

}  // namespace towline::wal::test
