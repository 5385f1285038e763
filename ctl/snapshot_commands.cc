// snapshot verify, and the verbs below snapshot.

#include <memory>
#include <string>

#include "ctl/app.h"
#include "ctl/snapshot_file.h"

namespace towline::ctl {
namespace {

int RunVerify(Context& context, const std::string& path) {
  const auto file = OpenSnapshotFile(path);
  if (!file.ok()) return context.Fail(file.status());
  const auto report = VerifySnapshotFile(context, *file, nullptr);
  if (!report.ok()) return context.Fail(report.status());
  if (context.json()) {
    context.Print(ReportJson(*file, *report));
  } else {
    PrintReport(context.out(), *file, *report);
  }
  return kExitOk;
}

}  // namespace

void AddSnapshotCommands(CLI::App& app, Selection& selection) {
  CLI::App* snapshot = app.add_subcommand("snapshot", "RDB files: save one, verify one, or load its keys");
  snapshot->require_subcommand(1);
  auto path = std::make_shared<std::string>();
  CLI::App* verify = snapshot->add_subcommand("verify", "Read a whole RDB file and say what it holds");
  verify->add_option("file", *path, "A snapshot of Towline, or a dump of Redis or Valkey")->required();
  verify->footer(
      "Checks structure, CRC-64, the end of the file, and that no key is there twice; of a snapshot of Towline also "
      "the\n"
      "order of its keys, their modified LSNs and its digest. Asks no node.\n"
      "Example:\n  towctl snapshot verify dump.rdb\n"
      "Exit code 0 if the file is valid, 1 with the byte offset of what is wrong if it is not.");
  OnSelected(*verify, selection, [path](Context& context) { return RunVerify(context, *path); });
  AddSnapshotSaveCommand(*snapshot, selection);
  AddSnapshotLoadCommand(*snapshot, selection);
}

}  // namespace towline::ctl
