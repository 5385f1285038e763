// Torn or rotten: the row that recovery finds and the end that it gives the log are those of the model.
//
// Input: a script of spool_script.h that edits contents and what is known about the log. The model (recovery_model.h)
// is written from docs/formats/recovery.md.

#include <string>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/recovery_model.h"
#include "tests/fuzz/spool_script.h"
#include "tests/wal/spool_fixture.h"

namespace towline::fuzz {
namespace {

using test::SimFileSystem;
using wal::test::Node;
using wal::test::SmallOptions;

void Run(Input& input) {
  const SpoolImage image = ReadScript(input, EditSet::kContents);
  const ModelVerdict model = Judge(image.files, image.inputs);
  const std::unique_ptr<SimFileSystem> fs = image.ToDisk();
  Node node(*fs, 4);
  const absl::Status opened = node.Open(SmallOptions(), image.inputs);
  if (!opened.ok()) {
    const ErrorInfo info = GetErrorInfo(opened);
    FUZZ_EXPECT(model.refused, absl::StrCat("the model says ", model.row, "; ", opened.ToString()));
    FUZZ_EXPECT(info.reason == "wal_corrupt", opened.ToString());
    FUZZ_EXPECT(info.metadata.at("row") == model.row, absl::StrCat(model.row, "; ", opened.ToString()));
    return;
  }
  const wal::RecoveryReport& report = node.report;
  FUZZ_EXPECT(!model.refused, absl::StrCat("the model refuses: ", model.row, ", not ", report.row));
  FUZZ_EXPECT(report.row == model.row, absl::StrCat(model.row, ", not ", report.row));
  FUZZ_EXPECT(report.end.lsn == model.end_lsn, absl::StrCat(model.end_lsn, ", not ", report.end.lsn));
  FUZZ_EXPECT(report.end.chain == model.end_chain, "");
  FUZZ_EXPECT(report.watermark == model.watermark, absl::StrCat(model.watermark, ", not ", report.watermark));
  FUZZ_EXPECT(report.quarantined_bytes == model.quarantined_bytes, absl::StrCat(report.quarantined_bytes));

  const Lsn first = model.end_lsn + 1 - model.payloads.size();
  const absl::StatusOr<std::vector<wal::test::ReadRecord>> records = wal::test::ReadAll(*node.spool, first);
  FUZZ_EXPECT(records.ok(), records.status().ToString());
  FUZZ_EXPECT(records->size() == model.payloads.size(), absl::StrCat(records->size()));
  for (size_t i = 0; i < records->size(); ++i) {
    FUZZ_EXPECT((*records)[i].payload == model.payloads[i], absl::StrCat("LSN ", first + i));
  }
}

}  // namespace

void FixInput(absl::Span<char> input) { FixRawFiles(input, EditSet::kContents); }

std::vector<Seed> Seeds() { return ScriptSeeds(EditSet::kContents); }

}  // namespace towline::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  towline::fuzz::Input input(data, size);
  towline::fuzz::Run(input);
  return 0;
}
