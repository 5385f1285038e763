// export: the whole state, from one position, in the format that import reads.

#include <filesystem>
#include <memory>
#include <string>
#include <unistd.h>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/file_system.h"
#include "common/rng.h"
#include "ctl/app.h"
#include "ctl/ranges.h"

namespace towline::ctl {
namespace {

// A new file that gets its name only when it is whole and durable; removed otherwise.
class NewFile {
 public:
  explicit NewFile(const std::string& path) : path_(path), temporary_(path + ".tmp-" + HexId(NewId(*SystemRng()))) {}
  ~NewFile() {
    if (file_ != nullptr) (void)PosixFileSystem()->Remove(temporary_);
  }
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;

  absl::Status Open() {
    TOWLINE_ASSIGN_OR_RETURN(file_, PosixFileSystem()->Open(temporary_, OpenMode::kCreate));
    return absl::OkStatus();
  }
  absl::Status Append(const std::string& data) {
    TOWLINE_RETURN_IF_ERROR(file_->WriteAt(size_, data));
    size_ += data.size();
    return absl::OkStatus();
  }
  absl::Status Commit() {
    TOWLINE_RETURN_IF_ERROR(file_->SyncData());
    TOWLINE_RETURN_IF_ERROR(PosixFileSystem()->Rename(temporary_, path_));
    file_ = nullptr;
    const std::string directory = std::filesystem::path(path_).parent_path().string();
    return PosixFileSystem()->SyncDirectory(directory.empty() ? "." : directory);
  }

 private:
  const std::string path_;
  const std::string temporary_;
  std::unique_ptr<File> file_;
  uint64_t size_ = 0;
};

std::string ExportLine(const v1::Entry& entry) {
  Json line = Json::object();
  SetJsonBytes(line, "key", entry.key());
  SetJsonBytes(line, "value", entry.value());
  if (entry.expire_at_ms() > 0) line["expire_at_ms"] = entry.expire_at_ms();
  return JsonText(line) + "\n";
}

int RunExport(Context& context, const std::string& path) {
  auto client = context.Connect();
  if (!client.ok()) return context.Fail(client.status());
  const bool to_stdout = path == "-";
  NewFile file(path);
  absl::Status status = to_stdout ? absl::OkStatus() : file.Open();
  if (!status.ok()) return context.Fail(status);

  uint64_t entries = 0;
  v1::Position position;
  status = ScanPages(**client, v1::ScanRequest(), /*pinned=*/true, UINT64_MAX, [&](const v1::ScanResponse& page) {
    std::string lines;
    for (const v1::Entry& entry : page.entries()) lines += ExportLine(entry);
    entries += static_cast<uint64_t>(page.entries_size());
    position = page.position();
    if (context.interrupt().triggered()) return absl::CancelledError("interrupted; nothing was kept");
    if (!to_stdout) return file.Append(lines);
    context.out() << lines;
    return context.FlushOut();
  });
  if (status.ok() && !to_stdout) status = file.Commit();
  if (!status.ok()) return context.Fail(status);
  if (context.json()) {
    Json summary = Json::object();
    summary["entries"] = entries;
    summary["position"] = ProtoToJson(position);
    context.err() << JsonText(summary) << std::endl;
  } else {
    context.err() << "exported " << entries << " entries at lsn " << position.lsn() << " term " << position.term()
                  << std::endl;
  }
  return kExitOk;
}

}  // namespace

void AddExportCommand(CLI::App& app, Selection& selection) {
  auto path = std::make_shared<std::string>("-");
  CLI::App* verb = app.add_subcommand("export", "Write all keys as JSON Lines, from one position of the log");
  verb->add_option("file", *path, "File to make or replace, or - for standard output")->capture_default_str();
  verb->footer(
      "Examples:\n  towctl export backup.jsonl\n  towctl export | gzip > backup.jsonl.gz\n"
      "The file appears only when it is complete. Count and position go to standard error.");
  OnSelected(*verb, selection, [path](Context& context) { return RunExport(context, *path); });
}

}  // namespace towline::ctl
