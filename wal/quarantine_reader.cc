#include "wal/quarantine_reader.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/match.h"

#include "common/bytes.h"
#include "common/error.h"
#include "wal/frame.h"

namespace towline::wal {
namespace {

constexpr size_t kStampOffset = 8;  // of a frame's local part

// The whole record whose shipped part begins at `offset`; false if there is none.
bool RecordAt(absl::string_view bytes, size_t offset, ShippedFrame* frame) {
  if (offset > bytes.size()) return false;
  absl::StatusOr<ShippedFrame> decoded = DecodeShipped(bytes.substr(offset));
  if (!decoded.ok()) return false;
  *frame = *decoded;
  return true;
}

}  // namespace

absl::StatusOr<std::vector<QuarantineFile>> ListQuarantine(FileSystem& fs, const std::string& directory) {
  std::vector<QuarantineFile> files;
  const absl::StatusOr<std::vector<std::string>> names = fs.List(directory);
  if (absl::IsNotFound(names.status())) return files;
  if (!names.ok()) return names.status();
  for (const std::string& name : *names) {
    const bool torn = absl::StartsWith(name, "torn-");
    if (!absl::EndsWith(name, ".frames") || (!torn && !absl::StartsWith(name, "diverged-"))) continue;
    QuarantineFile file;
    file.path = JoinPath(directory, name);
    file.torn = torn;
    TOWLINE_ASSIGN_OR_RETURN(const std::unique_ptr<File> opened, fs.Open(file.path, OpenMode::kRead));
    TOWLINE_ASSIGN_OR_RETURN(file.bytes, opened->Size());
    files.push_back(std::move(file));
  }
  return files;
}

absl::StatusOr<uint64_t> DumpQuarantineFile(FileSystem& fs, const QuarantineFile& file,
                                            const std::function<absl::Status(const DumpedFrame&)>& fn) {
  TOWLINE_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(fs, file.path));
  const size_t local = file.torn ? kLocalPartSize : 0;
  const size_t step = file.torn ? kFrameAlignment : 1;
  uint64_t skipped = 0;
  size_t offset = 0;
  while (offset < bytes.size()) {
    DumpedFrame dumped;
    const bool begins =
        !file.torn || (bytes.size() - offset >= local && LoadLe<uint32_t>(bytes.data() + offset) == kFrameMagic);
    if (!begins || !RecordAt(bytes, offset + local, &dumped.frame)) {
      const size_t skip = std::min(step, bytes.size() - offset);
      skipped += skip;
      offset += skip;
      continue;
    }
    if (file.torn) dumped.stamp = LoadLe<uint64_t>(bytes.data() + offset + kStampOffset);
    dumped.file = file.path;
    dumped.offset = offset;
    TOWLINE_RETURN_IF_ERROR(fn(dumped));
    const size_t payload = dumped.frame.payload.size();
    offset += file.torn ? static_cast<size_t>(FrameSize(payload)) : kShippedHeaderSize + payload;
  }
  return skipped;
}

}  // namespace towline::wal
