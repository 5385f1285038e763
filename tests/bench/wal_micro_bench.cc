// The inner loops of the log: checksums, encoding, checking, the index. Time per record is the time of one iteration.

#include <benchmark/benchmark.h>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/synchronization/mutex.h"

#include "common/check.h"
#include "common/checksum.h"
#include "wal/frame.h"
#include "wal/index.h"
#include "wal/local_frame.h"

namespace towline::wal {
namespace {

constexpr uint64_t kSalt = 7;
constexpr size_t kGroupBytes = 256 << 10;

void CountRecords(benchmark::State& state, size_t bytes) {
  state.SetItemsProcessed(state.iterations());
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(bytes));
}

// A group of records of that payload, ready to be read back.
std::shared_ptr<FrameGroup> MakeGroup(size_t payload_bytes) {
  const std::string payload(payload_bytes, 'p');
  GroupBuilder builder{LogEnd()};
  do {
    builder.Add(RecordType::kBatch, 1, 1, payload, Crc32c(payload));
  } while (builder.bytes() < kGroupBytes);
  std::shared_ptr<FrameGroup> group = builder.Finish();
  for (const FrameGroup::Ref& ref : group->frames) FillLocalPart(0, kSalt, group->bytes.data() + ref.offset);
  return group;
}

void BM_Crc32c(benchmark::State& state) {
  const std::string data(static_cast<size_t>(state.range(0)), 'p');
  for (auto _ : state) benchmark::DoNotOptimize(Crc32c(data));
  CountRecords(state, data.size());
}
BENCHMARK(BM_Crc32c)->RangeMultiplier(4)->Range(64, 1 << 20);

void BM_Chain(benchmark::State& state) {
  const std::string data(kShippedHeaderSize + static_cast<size_t>(state.range(0)), 'p');
  for (auto _ : state) benchmark::DoNotOptimize(Xxh3(data));
  CountRecords(state, data.size());
}
BENCHMARK(BM_Chain)->Arg(100)->Arg(256)->Arg(1024)->Arg(16384);

// Payload CRC, header, copy, chain.
void BM_Encode(benchmark::State& state) {
  const std::string payload(static_cast<size_t>(state.range(0)), 'p');
  GroupBuilder builder{LogEnd()};
  std::shared_ptr<FrameGroup> last;  // memory is used again, as in a spool
  for (auto _ : state) {
    builder.Add(RecordType::kBatch, 1, 1, payload, Crc32c(payload));
    if (builder.bytes() >= kGroupBytes) last = builder.Finish();
  }
  CountRecords(state, payload.size());
}
BENCHMARK(BM_Encode)->Arg(100)->Arg(256)->Arg(1024)->Arg(16384);

// What Append adds to each frame.
void BM_LocalPart(benchmark::State& state) {
  const std::shared_ptr<FrameGroup> group = MakeGroup(static_cast<size_t>(state.range(0)));
  size_t i = 0;
  uint64_t stamp = 0;
  for (auto _ : state) {
    FillLocalPart(++stamp, kSalt, group->bytes.data() + group->frames[i].offset);
    if (++i == group->frames.size()) i = 0;
  }
  CountRecords(state, static_cast<size_t>(state.range(0)));
}
BENCHMARK(BM_LocalPart)->Arg(100)->Arg(256)->Arg(1024)->Arg(16384);

void BM_CheckFrame(benchmark::State& state) {
  const std::shared_ptr<FrameGroup> group = MakeGroup(static_cast<size_t>(state.range(0)));
  const absl::string_view bytes = group->bytes;
  LocalFrame frame;
  size_t i = 0;
  for (auto _ : state) {
    TOWLINE_CHECK(CheckFrame(bytes.substr(group->frames[i].offset), kSalt, &frame) == FrameCheck::kValid);
    if (++i == group->frames.size()) i = 0;
  }
  CountRecords(state, static_cast<size_t>(state.range(0)));
}
BENCHMARK(BM_CheckFrame)->Arg(8)->Arg(100)->Arg(256)->Arg(1024)->Arg(16384);

void BM_DecodeShipped(benchmark::State& state) {
  const std::shared_ptr<FrameGroup> group = MakeGroup(static_cast<size_t>(state.range(0)));
  size_t i = 0;
  for (auto _ : state) {
    TOWLINE_CHECK(DecodeShipped(group->shipped(i)).ok());
    if (++i == group->frames.size()) i = 0;
  }
  CountRecords(state, static_cast<size_t>(state.range(0)));
}
BENCHMARK(BM_DecodeShipped)->Arg(8)->Arg(100)->Arg(256)->Arg(1024)->Arg(16384);

// A replica takes over a frame: all checks, copy, chain.
void BM_AddShipped(benchmark::State& state) {
  const std::shared_ptr<FrameGroup> group = MakeGroup(static_cast<size_t>(state.range(0)));
  auto builder = std::make_unique<GroupBuilder>(group->before);
  std::shared_ptr<FrameGroup> last;
  size_t i = 0;
  for (auto _ : state) {
    TOWLINE_CHECK(builder->AddShipped(group->shipped(i)).ok());
    if (++i < group->frames.size()) continue;
    i = 0;
    last = builder->Finish();
    builder = std::make_unique<GroupBuilder>(group->before);
  }
  CountRecords(state, static_cast<size_t>(state.range(0)));
}
BENCHMARK(BM_AddShipped)->Arg(8)->Arg(100)->Arg(256)->Arg(1024)->Arg(16384);

// The index of a segment of 64 MiB has about 1,000 entries.
void BM_IndexFloor(benchmark::State& state) {
  IndexEntries entries;
  for (Lsn i = 0; i < static_cast<Lsn>(state.range(0)); ++i) entries.push_back({1 + i * 1000, 0, 512 + i * 65536, 0});
  uint64_t random = 1;
  for (auto _ : state) {
    random = random * 6364136223846793005 + 1442695040888963407;
    benchmark::DoNotOptimize(FloorOfLsn(entries, 1 + (random >> 33) % (entries.size() * 1000)));
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(BM_IndexFloor)->Arg(16)->Arg(1024)->Arg(65536);

}  // namespace
}  // namespace towline::wal

int main(int argc, char** argv) {
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
