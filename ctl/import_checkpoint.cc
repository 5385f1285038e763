#include "ctl/import_checkpoint.h"

#include <filesystem>

#include "absl/strings/str_cat.h"

#include "client/proto_json.h"
#include "common/error.h"
#include "common/file_system.h"
#include "common/names.h"

namespace towline::ctl {
namespace {

constexpr int kVersion = 1;

absl::Status Malformed(const std::string& path, absl::string_view why) {
  return MakeError(absl::StatusCode::kDataLoss, "checkpoint_malformed",
                   absl::StrCat(path, " is not a checkpoint: ", why), "remove it to start from the first line");
}

}  // namespace

absl::Status SaveCheckpoint(const std::string& path, const ImportCheckpoint& checkpoint) {
  Json json = Json::object();
  json["towline_import_checkpoint"] = kVersion;
  json["file"] = checkpoint.file;
  json["file_bytes"] = checkpoint.file_bytes;
  json["client_id"] = checkpoint.client_id;
  json["last_acked_line"] = checkpoint.last_acked_line;
  json["offset"] = checkpoint.offset;
  json["acked"] = checkpoint.acked;
  json["rejected"] = checkpoint.rejected;
  json["position"] = {{"term", checkpoint.term}, {"lsn", checkpoint.lsn}};
  const std::filesystem::path target(path);
  const std::string directory = target.parent_path().string();
  return WriteFileDurably(*PosixFileSystem(), directory.empty() ? "." : directory, target.filename().string(),
                          JsonText(json, 2) + "\n");
}

absl::StatusOr<ImportCheckpoint> LoadCheckpoint(const std::string& path) {
  TOWLINE_ASSIGN_OR_RETURN(const std::string text, ReadFile(*PosixFileSystem(), path));
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return Malformed(path, "it is not a JSON object");
  ImportCheckpoint checkpoint;
  try {
    if (json.at("towline_import_checkpoint").get<int>() != kVersion) return Malformed(path, "its version is not known");
    json.at("file").get_to(checkpoint.file);
    json.at("file_bytes").get_to(checkpoint.file_bytes);
    json.at("client_id").get_to(checkpoint.client_id);
    json.at("last_acked_line").get_to(checkpoint.last_acked_line);
    json.at("offset").get_to(checkpoint.offset);
    json.at("acked").get_to(checkpoint.acked);
    json.at("rejected").get_to(checkpoint.rejected);
    json.at("position").at("term").get_to(checkpoint.term);
    json.at("position").at("lsn").get_to(checkpoint.lsn);
  } catch (const Json::exception& error) {
    return Malformed(path, error.what());
  }
  if (!ValidateName("client_id", checkpoint.client_id).ok()) return Malformed(path, "its client id is not valid");
  return checkpoint;
}

absl::Status CheckSameFile(const ImportCheckpoint& saved, const std::string& file, uint64_t file_bytes) {
  if (saved.file == file && saved.file_bytes == file_bytes &&
      saved.offset <= (file == "-" ? saved.offset : file_bytes)) {
    return absl::OkStatus();
  }
  return MakeError(absl::StatusCode::kFailedPrecondition, "checkpoint_of_another_file",
                   absl::StrCat("the checkpoint is of ", saved.file, " with ", saved.file_bytes, " bytes, not of ",
                                file, " with ", file_bytes, " bytes"),
                   "give the file that it belongs to, or remove the checkpoint to start from the first line");
}

}  // namespace towline::ctl
