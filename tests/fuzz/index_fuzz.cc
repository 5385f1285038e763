// Index files: whatever they hold, the answers are those of a full scan.
//
// Input: flags, an LSN, a time and the length of the first index file; then both index files. A spool of three segments
// is opened anew for each kind of question, so that each one meets the files first.

#include <algorithm>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/bytes.h"
#include "common/check.h"
#include "common/checksum.h"
#include "tests/fuzz/checksums.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/recovery_model.h"
#include "tests/support/format_doc.h"
#include "tests/wal/spool_fixture.h"

namespace towline::fuzz {
namespace {

using test::SimFileSystem;
using wal::LogEnd;
using wal::Spool;
using wal::test::Node;

constexpr size_t kPrefix = 5;  // of the input: flags, LSN, time, length of the first file
constexpr uint8_t kSecondAbsent = 1;
constexpr uint8_t kOtherInterval = 2;
constexpr uint8_t kAskMany = 4;

wal::SpoolOptions Options() {
  wal::SpoolOptions options = wal::test::SmallOptions();
  options.tail_cache_bytes = 0;
  return options;
}

// The log that the index files are put beside, and what a full scan finds in it.
struct Log {
  std::unique_ptr<SimFileSystem> disk = std::make_unique<SimFileSystem>();
  struct Record {
    LogEnd before;
    LogEnd after;
    uint64_t log_offset = 0;  // bytes of frames in front of it
    uint64_t segment = 0;
    std::string payload;
  };
  std::vector<Record> records;         // of LSN 1, 2, 3, ...
  std::vector<uint64_t> segment_ends;  // bytes of frames up to the end of each segment
  std::vector<Lsn> first_lsns;         // of the segments
  std::vector<std::string> indexes;    // as they were written

  Lsn end_lsn() const { return records.size(); }
  uint64_t bytes() const { return segment_ends.back(); }
};

const Log& TheLog() {
  static const Log* const log = [] {
    auto* made = new Log;
    Node node(*made->disk);
    TOWLINE_CHECK(node.Open(Options(), wal::test::Inputs()).ok());
    // Several entries of the index per segment; times that repeat, as the clock of a busy node does.
    constexpr size_t kSizes[] = {100, 3000, 9000, 1, 8000, 900, 6500, 0, 5000, 4000};
    for (size_t i = 0; node.spool->stats().segments < 3 || i % 4 != 0; ++i) {
      wal::GroupBuilder builder(node.spool->end());
      const size_t size = kSizes[i % std::size(kSizes)];
      const std::string payload = wal::test::PayloadOf(i + 1, size);
      builder.Add(wal::RecordType::kBatch, 1 + static_cast<Term>(i / 20), static_cast<int64_t>(i / 2 * 1000), payload,
                  Crc32c(payload));
      TOWLINE_CHECK(node.spool->Append(builder.Finish()).ok());
    }
    node.RunLoops();  // writes the indexes
    node.Close();
    made->disk->Reopen();
    LogEnd end;
    for (const auto& [path, file] : made->disk->AllContents()) {
      if (path.size() < 4 || path.substr(path.size() - 4) != ".seg") continue;
      const uint64_t salt = LoadLe<uint64_t>(file.data() + 80);
      made->first_lsns.push_back(end.lsn + 1);
      uint64_t log_offset = made->segment_ends.empty() ? 0 : made->segment_ends.back();
      for (uint64_t offset = 512;;) {
        const ModelFrame frame = FrameAt(absl::string_view(file).substr(offset), salt);
        if (frame.finding != ModelFrame::Finding::kWhole) break;
        const LogEnd after{frame.lsn, frame.term, frame.chain, frame.commit_time_us};
        made->records.push_back({end, after, log_offset, made->segment_ends.size(), std::string(frame.payload)});
        end = after;
        offset += frame.size;
        log_offset += frame.size;
      }
      made->segment_ends.push_back(log_offset);
    }
    TOWLINE_CHECK(made->first_lsns.size() == 3);
    for (size_t i = 0; i < 2; ++i) {
      made->indexes.push_back(made->disk->Contents(wal::test::IndexPath(made->first_lsns[i])));
    }
    return made;
  }();
  return *log;
}

// --- The answers of a full scan ---

void CheckCursor(Spool& spool, Lsn lsn) {
  const Log& log = TheLog();
  const absl::StatusOr<std::unique_ptr<wal::Cursor>> cursor = spool.NewCursor(lsn);
  FUZZ_EXPECT(cursor.ok(), absl::StrCat("LSN ", lsn, ": ", cursor.status().ToString()));
  FUZZ_EXPECT((*cursor)->next_lsn() == lsn, "");
  const absl::StatusOr<wal::ShippedBatch> batch = (*cursor)->Next(1);
  FUZZ_EXPECT(batch.ok(), absl::StrCat("LSN ", lsn, ": ", batch.status().ToString()));
  if (lsn > log.end_lsn()) {
    FUZZ_EXPECT(batch->empty(), "");
    return;
  }
  const Log::Record& record = log.records[lsn - 1];
  FUZZ_EXPECT(batch->before == record.before, absl::StrCat("LSN ", lsn));
  FUZZ_EXPECT(batch->after == record.after, absl::StrCat("LSN ", lsn, ", batch ends with ", batch->after.lsn));
  FUZZ_EXPECT(batch->bytes.substr(wal::kShippedHeaderSize) == record.payload, absl::StrCat("LSN ", lsn));
}

void CheckEndAt(Spool& spool, Lsn lsn) {
  const absl::StatusOr<LogEnd> end = spool.EndAt(lsn);
  FUZZ_EXPECT(end.ok(), absl::StrCat("LSN ", lsn, ": ", end.status().ToString()));
  FUZZ_EXPECT(*end == (lsn == 0 ? LogEnd() : TheLog().records[lsn - 1].after), absl::StrCat("LSN ", lsn));
}

void CheckSeekTime(Spool& spool, int64_t time_us) {
  Lsn expected = 1;
  for (const Log::Record& record : TheLog().records) expected += record.after.commit_time_us < time_us ? 1 : 0;
  const absl::StatusOr<Lsn> found = spool.SeekTime(time_us);
  FUZZ_EXPECT(found.ok(), found.status().ToString());
  FUZZ_EXPECT(*found == expected, absl::StrCat("time ", time_us, ": LSN ", *found, ", not ", expected));
}

// `exact`: the index is one that was written for this log. Otherwise the answer may be wrong by what the segment holds
// in front of the record.
void CheckBytesBehind(const Spool& spool, Lsn lsn, bool exact) {
  const Log& log = TheLog();
  const uint64_t bytes = spool.BytesBehind(lsn);
  if (lsn >= log.end_lsn()) {
    FUZZ_EXPECT(bytes == 0, absl::StrCat(bytes));
    return;
  }
  const Log::Record& next = log.records[lsn];  // the first one behind
  const uint64_t segment_start = next.segment == 0 ? 0 : log.segment_ends[next.segment - 1];
  const uint64_t behind = log.bytes() - next.log_offset;
  uint64_t most = log.bytes() - segment_start;
  uint64_t least = log.bytes() - log.segment_ends[next.segment];
  if (exact) {
    // An entry is at most one interval and one frame in front of a record.
    most = std::min(most, behind + Options().index_interval_bytes + (10 << 10));
    least = behind;
  }
  FUZZ_EXPECT(bytes >= least && bytes <= most,
              absl::StrCat("LSN ", lsn, ": ", bytes, " is not between ", least, " and ", most));
}

class Questions {
 public:
  Questions(const SimFileSystem& disk, const wal::SpoolOptions& options, bool exact)
      : fs_(disk.Clone()), node_(*fs_, 3), options_(options), exact_(exact) {
    const absl::Status opened = node_.Open(options_, wal::test::Inputs());
    FUZZ_EXPECT(opened.ok(), opened.ToString());
  }

  void Ask(Lsn lsn) {
    CheckCursor(*node_.spool, lsn + 1);
    CheckEndAt(*node_.spool, lsn);
    CheckBytesBehind(*node_.spool, lsn, exact_);
  }
  void AskTime(int64_t time_us) { CheckSeekTime(*node_.spool, time_us); }
  void AskBytes(Lsn lsn) { CheckBytesBehind(*node_.spool, lsn, exact_); }
  // Every third record, beginning with one of the first three; all would be slow.
  void AskMany(Lsn start) {
    for (Lsn lsn = start % 3; lsn <= TheLog().end_lsn(); lsn += 3) {
      Ask(lsn);
      if (lsn == 0) continue;
      AskTime(TheLog().records[lsn - 1].after.commit_time_us);
      AskTime(TheLog().records[lsn - 1].after.commit_time_us + 1);
    }
    AskTime(std::numeric_limits<int64_t>::min());
    AskTime(std::numeric_limits<int64_t>::max());
  }

 private:
  std::unique_ptr<SimFileSystem> fs_;
  Node node_;
  const wal::SpoolOptions options_;
  const bool exact_;
};

struct Split {
  size_t first = 0;  // bytes of the first file
  size_t second = 0;
};

Split SplitOf(size_t size, uint16_t length) {
  const size_t rest = size - std::min(size, kPrefix);
  const size_t first = std::min<size_t>(length, rest);
  return {first, rest - first};
}

void Run(Input& input, size_t size) {
  const Log& log = TheLog();
  const uint8_t flags = input.U8();
  const Lsn lsn = input.U8() % (log.end_lsn() + 1);
  const int64_t time_us = int64_t{input.U8()} * 500;
  const Split split = SplitOf(size, input.U16());
  const std::string first(input.Bytes(split.first));
  const std::string second(input.Bytes(split.second));

  const std::unique_ptr<SimFileSystem> disk = log.disk->Clone();
  disk->SetContents(wal::test::IndexPath(log.first_lsns[0]), first);
  const bool second_absent = (flags & kSecondAbsent) != 0;
  if (second_absent) {
    FUZZ_EXPECT(disk->Remove(wal::test::IndexPath(log.first_lsns[1])).ok(), "");
  } else {
    disk->SetContents(wal::test::IndexPath(log.first_lsns[1]), second);
  }
  wal::SpoolOptions options = Options();
  if ((flags & kOtherInterval) != 0) options.index_interval_bytes = 1 << 10;
  const bool exact = first == log.indexes[0] && (second_absent || second == log.indexes[1]);

  Questions(*disk, options, exact).Ask(lsn);
  Questions(*disk, options, exact).AskTime(time_us);
  Questions(*disk, options, exact).AskBytes(lsn);
  if ((flags & kAskMany) != 0) Questions(*disk, options, exact).AskMany(lsn);
}

// What makes an index one of this segment: the header up to its checksums.
void ClaimSegment(absl::Span<char> file, size_t segment) {
  const std::string& real = TheLog().indexes[segment];
  if (file.size() < 48) return;
  std::copy_n(real.begin(), 12, file.begin());
  StoreLe<uint32_t>(file.data() + 12, static_cast<uint32_t>((file.size() - 48) / 32));
  std::copy_n(real.begin() + 16, 24, file.begin() + 16);
  FixIndex(file);
}

}  // namespace

void FixInput(absl::Span<char> input) {
  if (input.size() < kPrefix) return;
  const Split split = SplitOf(input.size(), LoadLe<uint16_t>(input.data() + 3));
  ClaimSegment(input.subspan(kPrefix, split.first), 0);
  ClaimSegment(input.subspan(kPrefix + split.first, split.second), 1);
}

std::vector<Seed> Seeds() {
  const Log& log = TheLog();
  const auto seed = [](uint8_t flags, uint8_t lsn, uint8_t time, const std::string& first, const std::string& second) {
    std::string bytes;
    ByteWriter writer(&bytes);
    writer.U8(flags);
    writer.U8(lsn);
    writer.U8(time);
    writer.U16(static_cast<uint16_t>(first.size()));
    return bytes + first + second;
  };
  const std::string& first = log.indexes[0];
  const std::string& second = log.indexes[1];
  const auto fixed = [](std::string index, size_t segment) {
    ClaimSegment(absl::MakeSpan(index), segment);
    return index;
  };
  // Entry 3 with another LSN, time, offset and chain.
  std::vector<Seed> seeds = {{"as_written", seed(kAskMany, 9, 10, first, second)},
                             {"swapped", seed(0, 9, 10, second, first)},
                             {"absent", seed(kSecondAbsent, 30, 30, "", "")},
                             {"golden", seed(kAskMany, 9, 10, test::ReadGolden("tests/golden/index_v1.hex"), second)},
                             {"cut", seed(0, 9, 10, first.substr(0, 100), second.substr(0, 48))},
                             {"first_entry_only", seed(kOtherInterval | kAskMany, 15, 10, fixed(first.substr(0, 80), 0),
                                                       fixed(second.substr(0, 80), 1))}};
  for (size_t field = 0; field < 4; ++field) {
    std::string wrong = first;
    char& byte = wrong[48 + 3 * 32 + field * 8];
    byte = static_cast<char>(byte + (field == 2 ? 8 : 1));
    seeds.push_back({absl::StrCat("wrong_field_", field), seed(kAskMany, 12, 10, fixed(wrong, 0), second)});
  }
  return seeds;
}

}  // namespace towline::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  towline::fuzz::Input input(data, size);
  towline::fuzz::Run(input, size);
  return 0;
}
