#include "common/file_system.h"

#include <cerrno>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "common/error.h"

namespace towline {

absl::Status FileError(int error, absl::string_view operation, absl::string_view path) {
  char buffer[128];
  const std::string message = absl::StrCat(operation, " ", path, ": ", strerror_r(error, buffer, sizeof buffer));
  switch (error) {
    case ENOENT:
      return MakeError(absl::StatusCode::kNotFound, "file_not_found", message);
    case EEXIST:
      return MakeError(absl::StatusCode::kAlreadyExists, "file_exists", message);
    case ENOSPC:
    case EDQUOT:
      return MakeError(absl::StatusCode::kResourceExhausted, "disk_full", message, "free space on that disk");
    case EWOULDBLOCK:
      return MakeError(absl::StatusCode::kUnavailable, "file_locked", message);
    case EIO:
      return MakeError(absl::StatusCode::kDataLoss, "io_error", message, "check the disk");
    default:
      return MakeError(absl::StatusCode::kInternal, "file_error", message);
  }
}

absl::StatusOr<std::string> ReadFile(FileSystem& fs, const std::string& path) {
  TOWLINE_ASSIGN_OR_RETURN(const std::unique_ptr<File> file, fs.Open(path, OpenMode::kRead));
  TOWLINE_ASSIGN_OR_RETURN(const uint64_t size, file->Size());
  std::string data(size, '\0');
  TOWLINE_ASSIGN_OR_RETURN(const size_t got, file->ReadAt(0, data.size(), data.data()));
  data.resize(got);
  return data;
}

absl::Status WriteFileDurably(FileSystem& fs, const std::string& directory, const std::string& name,
                              absl::string_view data) {
  const std::string path = JoinPath(directory, name);
  const std::string tmp = absl::StrCat(path, ".tmp");
  TOWLINE_ASSIGN_OR_RETURN(std::unique_ptr<File> file, fs.Open(tmp, OpenMode::kCreateOrOpen));
  TOWLINE_RETURN_IF_ERROR(file->Truncate(0));
  TOWLINE_RETURN_IF_ERROR(file->WriteAt(0, data));
  TOWLINE_RETURN_IF_ERROR(file->SyncData());
  file.reset();
  TOWLINE_RETURN_IF_ERROR(fs.Rename(tmp, path));
  return fs.SyncDirectory(directory);
}

absl::Status RemoveAll(FileSystem& fs, const std::string& path) {
  const absl::Status removed = fs.Remove(path);
  if (removed.ok() || absl::IsNotFound(removed)) return absl::OkStatus();
  const absl::StatusOr<std::vector<std::string>> names = fs.List(path);
  if (!names.ok() || names->empty()) return removed;  // not a directory that is merely full
  for (const std::string& name : *names) TOWLINE_RETURN_IF_ERROR(RemoveAll(fs, JoinPath(path, name)));
  return fs.Remove(path);
}

bool Exists(FileSystem& fs, const std::string& path) {
  // What cannot be opened for another reason is there, or at least may not be taken to be absent.
  return !absl::IsNotFound(fs.Open(path, OpenMode::kRead).status());
}

std::string JoinPath(absl::string_view a, absl::string_view b) {
  if (a.empty()) return std::string(b);
  return absl::StrCat(a, absl::EndsWith(a, "/") ? "" : "/", b);
}

std::string ParentDirectory(absl::string_view path) {
  while (path.size() > 1 && absl::EndsWith(path, "/")) path.remove_suffix(1);
  const size_t slash = path.rfind('/');
  if (slash == absl::string_view::npos) return ".";
  return std::string(path.substr(0, slash == 0 ? 1 : slash));
}

}  // namespace towline
