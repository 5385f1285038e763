// How fast records are applied to the RocksDB store, a snapshot is encoded, and one is installed.
//
//   towline_store_bench DIRECTORY [--seconds S] [--keys N] [--value-bytes N] [--snapshot-keys N] [--write-buffer-mib N]
//
// One thread applies single-put records with random keys in batches, for S seconds per batch size. Directory must be
// on the disk that is to be measured; what is written there is removed again.

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/synchronization/mutex.h"

#include "common/check.h"
#include "store/rocksdb/rocksdb_store.h"
#include "store/snapshot_codec.h"
#include "store/state_format.h"
#include "store/state_store.h"
#include "towline/v1/change.pb.h"

namespace towline {
namespace {

struct Args {
  std::string directory;
  double seconds = 5;
  uint64_t keys = 100'000;
  size_t value_bytes = 256;
  uint64_t snapshot_keys = 1'000'000;
  RocksDbOptions engine;
};

double Now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Processor time of this thread: what a busy neighbour does not disturb.
double ThreadSeconds() {
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

// SplitMix64: reproducible.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t Next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }

 private:
  uint64_t state_;
};

std::string Bytes(Random& random, size_t size) {
  std::string out;
  while (out.size() < size) {
    const uint64_t word = random.Next();
    out.append(reinterpret_cast<const char*>(&word), std::min<size_t>(8, size - out.size()));
  }
  return out;
}

std::vector<std::string> MakePayloads(const Args& args, size_t count, bool with_request_ids) {
  Random random(1);
  std::vector<std::string> payloads;
  payloads.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    v1::Change change;
    v1::Put& put = *change.mutable_batch()->add_operations()->mutable_put();
    put.set_key(absl::StrFormat("key:%012d", random.Next() % args.keys));
    put.set_value(Bytes(random, args.value_bytes));
    if (with_request_ids) {
      change.mutable_batch()->mutable_request_id()->set_client_id(absl::StrCat("client-", random.Next() % 64));
      change.mutable_batch()->mutable_request_id()->set_sequence(i + 1);
    }
    payloads.push_back(change.SerializeAsString());
  }
  return payloads;
}

void RunApply(const Args& args, const std::vector<std::string>& payloads, size_t batch, const char* label) {
  const std::string directory = args.directory + "/apply";
  std::filesystem::remove_all(directory);
  const std::unique_ptr<StoreFactory> factory = NewRocksDbStoreFactory(args.engine);
  auto store = factory->Open(directory);
  TOWLINE_CHECK(store.ok());
  auto state = StateStore::Open(*std::move(store));
  TOWLINE_CHECK(state.ok());

  std::vector<ApplyRecord> records(batch);
  Lsn lsn = 0;
  const double start = Now();
  const double cpu_start = ThreadSeconds();
  double next_report = start + args.seconds / 4;
  Lsn reported = 0;
  double reported_at = start;
  std::string quarters;
  double now = start;
  while (now < start + args.seconds) {
    for (size_t i = 0; i < batch; ++i) {
      ++lsn;
      records[i] = {{1, 42, lsn, lsn * 7}, payloads[lsn % payloads.size()]};
    }
    TOWLINE_CHECK((*state)->Apply(records).ok());
    now = Now();
    if (now >= next_report) {
      absl::StrAppend(&quarters, " ", static_cast<int>((lsn - reported) / (now - reported_at) / 1000));
      next_report += args.seconds / 4;
      reported = lsn;
      reported_at = now;
    }
  }
  std::printf("apply %s, batch %5zu: %8.0f puts/s, %8.0f per thread-second (k/s by quarter:%s)\n", label, batch,
              lsn / (now - start), lsn / (ThreadSeconds() - cpu_start), quarters.c_str());
  std::fflush(stdout);
  state->reset();
  std::filesystem::remove_all(directory);
}

// Encodes a store of args.snapshot_keys keys into chunks, and installs them into another store.
void RunSnapshot(const Args& args) {
  const std::string from = args.directory + "/source";
  const std::string to = args.directory + "/target";
  std::filesystem::remove_all(from);
  std::filesystem::remove_all(to);
  const std::unique_ptr<StoreFactory> factory = NewRocksDbStoreFactory(args.engine);
  {
    auto loader = factory->NewBulkLoader(from);
    TOWLINE_CHECK(loader.ok());
    Random random(1);
    std::string value;
    for (uint64_t i = 0; i < args.snapshot_keys; ++i) {
      value.clear();
      AppendEnvelope(i + 1, 0, Bytes(random, args.value_bytes), &value);
      TOWLINE_CHECK((*loader)->Add(UserKey(absl::StrFormat("key:%012d", i)), value).ok());
    }
    const Position position{1, 42, args.snapshot_keys, 7};
    TOWLINE_CHECK((*loader)->AddUnordered(kPositionKey, EncodePosition(position)).ok());
    TOWLINE_CHECK((*loader)->Finish().ok());
  }
  auto state = StateStore::Open(*factory->Open(from));
  TOWLINE_CHECK(state.ok());
  std::vector<EncodedChunk> chunks;
  SnapshotMeta meta;
  meta.cluster_id = "0123456789abcdef01234567";
  double start = 0;
  double cpu_start = 0;
  const auto snapshot = *(*state)->Snapshot();
  const auto encode = [&](SnapshotEncoder& encoder, bool keep) {
    start = Now();
    cpu_start = ThreadSeconds();
    for (;;) {
      auto chunk = encoder.Next();
      TOWLINE_CHECK(chunk.ok());
      if (!chunk->has_value()) return;
      if (keep) chunks.push_back(**std::move(chunk));
    }
  };
  {
    SnapshotEncoder encoder(snapshot, meta);
    encode(encoder, /*keep=*/true);
  }
  SnapshotEncoder encoder(snapshot, meta);
  encode(encoder, /*keep=*/false);
  const double megabytes = static_cast<double>(encoder.bytes()) / 1e6;
  std::printf("encode %llu keys, %.0f MB: %.0f MB/s, %.0f per thread-second\n",
              static_cast<unsigned long long>(encoder.keys()), megabytes, megabytes / (Now() - start),
              megabytes / (ThreadSeconds() - cpu_start));
  start = Now();
  cpu_start = ThreadSeconds();
  SnapshotInstaller installer(*factory->NewBulkLoader(to));
  for (const EncodedChunk& chunk : chunks) TOWLINE_CHECK(installer.AddChunk(chunk).ok());
  TOWLINE_CHECK(installer.Finish(encoder.keys(), encoder.digest().Hex()).ok());
  std::printf("install: %.0f MB/s, %.0f per thread-second\n", megabytes / (Now() - start),
              megabytes / (ThreadSeconds() - cpu_start));
}

}  // namespace
}  // namespace towline

int main(int argc, char** argv) {
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  towline::Args args;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    if (arg == "--seconds" && i + 1 < argc) {
      args.seconds = std::atof(argv[++i]);
    } else if (arg == "--keys" && i + 1 < argc) {
      args.keys = std::strtoull(argv[++i], nullptr, 10);
    } else if (arg == "--value-bytes" && i + 1 < argc) {
      args.value_bytes = std::strtoull(argv[++i], nullptr, 10);
    } else if (arg == "--snapshot-keys" && i + 1 < argc) {
      args.snapshot_keys = std::strtoull(argv[++i], nullptr, 10);
    } else if (arg == "--write-buffer-mib" && i + 1 < argc) {
      args.engine.write_buffer_bytes = std::strtoull(argv[++i], nullptr, 10) << 20;
    } else {
      args.directory = arg;
    }
  }
  if (args.directory.empty()) {
    std::fprintf(stderr,
                 "usage: towline_store_bench DIRECTORY [--seconds S] [--keys N] [--value-bytes N] [--snapshot-keys N]"
                 " [--write-buffer-mib N]\n");
    return 2;
  }
  std::filesystem::create_directories(args.directory);
  const std::vector<std::string> payloads = towline::MakePayloads(args, 300'000, false);
  for (const size_t batch : {64, 256, 1024, 4096}) towline::RunApply(args, payloads, batch, "plain");
  const std::vector<std::string> with_ids = towline::MakePayloads(args, 300'000, true);
  towline::RunApply(args, with_ids, 1024, "with request ids");
  towline::RunSnapshot(args);
  return 0;
}
