#include "tests/wal/known_log.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"

namespace towline::wal::test {

using ::towline::test::IsOk;

void AppendTo(Node& node, Lsn last) {
  while (node.spool->end().lsn < last) ASSERT_THAT(node.Append({kPayload}), IsOk());
}

void BuildLog(SimFileSystem& fs, uint64_t seed, const RecoveryInputs& inputs) {
  Node node(fs, seed);
  ASSERT_THAT(node.Open(SmallOptions(), inputs), IsOk());
  AppendTo(node, kLast);
}

void Change(SimFileSystem& fs, const std::string& path, uint64_t offset, absl::string_view bytes) {
  std::string contents = fs.Contents(path);
  contents.replace(offset, bytes.size(), bytes.data(), bytes.size());
  fs.SetContents(path, contents);
}

void RemoveFile(SimFileSystem& fs, const std::string& path) {
  ASSERT_THAT(fs.Remove(path), IsOk());
  ASSERT_THAT(fs.SyncDirectory(kDirectory), IsOk());
}

void OpenSpoolTest::Open(const SpoolOptions& options) { ASSERT_THAT(node_.Open(options, Inputs()), IsOk()); }

std::string Noise(size_t size) {
  SeededRng rng(99);
  std::string noise;
  while (noise.size() < size) noise.push_back(static_cast<char>(rng.Next()));
  return noise;
}

}  // namespace towline::wal::test
