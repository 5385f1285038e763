#include "replica/quarantine.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/data_layout.h"
#include "common/error.h"
#include "common/failpoint.h"

namespace towline {
namespace {

constexpr size_t kPieceBytes = 4 << 20;

}  // namespace

RecordQuarantine::RecordQuarantine(const GenerationEnvironment& env, std::shared_ptr<Generation> generation,
                                   Lsn common_lsn)
    : fs_(env.fs),
      data_directory_(env.data_directory),
      directory_(QuarantineDirectory(env.data_directory)),
      generation_(std::move(generation)),
      end_lsn_(generation_->spool().end().lsn),
      first_lsn_(std::max(common_lsn + 1, generation_->spool().stats().first_lsn)) {
  if (first_lsn_ > end_lsn_) return;
  file_name_ = absl::StrCat("diverged-", generation_->number(), "-", first_lsn_, ".frames");
}

absl::StatusOr<bool> RecordQuarantine::Step() {
  if (file_name_.empty()) return true;
  if (file_ == nullptr) TOWLINE_RETURN_IF_ERROR(Start());
  if (cursor_->next_lsn() > end_lsn_) {
    TOWLINE_RETURN_IF_ERROR(Finish());
    return true;
  }
  TOWLINE_ASSIGN_OR_RETURN(const wal::ShippedBatch batch, cursor_->Next(kPieceBytes));
  TOWLINE_RETURN_IF_ERROR(LookAt(batch));
  TOWLINE_RETURN_IF_ERROR(file_->WriteAt(offset_, batch.bytes));
  offset_ += batch.bytes.size();
  records_ += batch.after.lsn - batch.before.lsn;
  return false;
}

absl::Status RecordQuarantine::LookAt(const wal::ShippedBatch& batch) {
  return wal::ForEachShipped(batch.bytes, [this](const wal::ShippedFrame& frame) {
    if (frame.header.type == wal::RecordType::kMembers) holds_members_ = true;
    return absl::OkStatus();
  });
}

absl::Status RecordQuarantine::Start() {
  TOWLINE_RETURN_IF_ERROR(MakeDirectoryDurably(fs_, data_directory_, "quarantine"));
  TOWLINE_ASSIGN_OR_RETURN(cursor_, generation_->spool().NewCursor(first_lsn_));
  TOWLINE_ASSIGN_OR_RETURN(file_, fs_.Open(JoinPath(directory_, file_name_ + ".tmp"), OpenMode::kCreateOrOpen));
  return file_->Truncate(0);
}

absl::Status RecordQuarantine::Finish() {
  if (!Failpoint("quarantine_skip_sync")) TOWLINE_RETURN_IF_ERROR(file_->SyncData());
  const std::string path = JoinPath(directory_, file_name_);
  TOWLINE_RETURN_IF_ERROR(fs_.Rename(path + ".tmp", path));
  return fs_.SyncDirectory(directory_);
}

}  // namespace towline
