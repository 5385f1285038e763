#include "ctl/snapshot_receiver.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "store/snapshot_head.h"

namespace towline::ctl {
namespace {

class NoEntries final : public StoreIterator {
 public:
  bool Valid() const override { return false; }
  void Next() override {}
  absl::string_view key() const override { return ""; }
  absl::string_view value() const override { return ""; }
  absl::Status status() const override { return absl::OkStatus(); }
};

// The store of an installer that is there for its checks only.
class DiscardingLoader final : public StoreBulkLoader {
 public:
  absl::Status Add(absl::string_view, absl::string_view) override { return absl::OkStatus(); }
  absl::Status AddUnordered(absl::string_view, absl::string_view) override { return absl::OkStatus(); }
  uint64_t pending_bytes() const override { return 0; }
  uint64_t unordered_pending_bytes() const override { return 0; }
  absl::Status Commit(bool) override { return absl::OkStatus(); }
  std::unique_ptr<StoreIterator> NewIterator(absl::string_view, absl::string_view) override {
    return std::make_unique<NoEntries>();
  }
  absl::Status Finish() override { return absl::OkStatus(); }
};

}  // namespace

SnapshotReceiver::SnapshotReceiver(File& file) : file_(file) { Reset(); }

void SnapshotReceiver::Reset() {
  installer_ = std::make_unique<SnapshotInstaller>(std::make_unique<DiscardingLoader>());
  snapshot_id_ = 0;
}

v1::SaveSnapshotRequest SnapshotReceiver::NextRequest() {
  has_header_ = false;
  begun_anew_ = false;
  asked_sequence_ = 0;
  v1::SaveSnapshotRequest request;
  if (!installer_->usable() || installer_->RewindToCursor().sequence == 0) {
    Reset();
    return request;
  }
  const SnapshotCursor& at = installer_->cursor();
  asked_sequence_ = at.sequence;
  v1::SnapshotCursor* const cursor = request.mutable_cursor();
  cursor->set_snapshot_id(snapshot_id_);
  *cursor->mutable_position() = header_.position();
  cursor->set_sequence(at.sequence);
  cursor->set_last_key(at.last_key);
  cursor->set_keys(at.keys);
  cursor->set_bytes(at.bytes);
  cursor->set_crc64(at.crc64);
  cursor->set_digest(at.digest.Hex());
  return request;
}

absl::Status SnapshotReceiver::Take(const v1::SaveSnapshotResponse& response) {
  if (response.has_header()) return TakeHeader(response.header());
  if (!has_header_) return SnapshotMalformed("the stream does not begin with a header");
  if (response.has_chunk()) return TakeChunk(response.chunk());
  if (response.has_end()) return TakeEnd(response.end());
  return SnapshotMalformed("an answer is neither header, chunk nor end");
}

absl::Status SnapshotReceiver::TakeHeader(const v1::SnapshotHeader& header) {
  if (has_header_) return SnapshotMalformed("a second header");
  if (header.resumed_sequence() == 0 && asked_sequence_ != 0) {
    Reset();
    begun_anew_ = true;
  } else if (header.resumed_sequence() != asked_sequence_) {
    return SnapshotMalformed(absl::StrCat("the stream goes on behind chunk ", header.resumed_sequence(), ", and ",
                                          asked_sequence_, " was asked for"));
  }
  if (header.snapshot_id() == 0 || (snapshot_id_ != 0 && snapshot_id_ != header.snapshot_id())) {
    return SnapshotMalformed("the stream goes on with another snapshot");
  }
  snapshot_id_ = header.snapshot_id();
  header_ = header;
  has_header_ = true;
  return absl::OkStatus();
}

absl::Status SnapshotReceiver::TakeChunk(const v1::SnapshotChunk& chunk) {
  if (chunk.snapshot_id() != snapshot_id_) {
    return SnapshotMalformed(absl::StrCat("chunk ", chunk.sequence(), " is of another snapshot"));
  }
  const uint64_t offset = installer_->bytes();
  const EncodedChunk encoded{chunk.sequence(), chunk.first_key(), chunk.last_key(),
                             chunk.keys(),     chunk.crc32c(),    chunk.data()};
  TOWLINE_RETURN_IF_ERROR(installer_->AddChunk(encoded));
  const absl::Status written = file_.WriteAt(offset, chunk.data());
  file_failed_ = !written.ok();
  return written;
}

absl::Status SnapshotReceiver::TakeEnd(const v1::SnapshotEnd& end) {
  TOWLINE_RETURN_IF_ERROR(installer_->Finish(end.keys(), end.digest()));
  if (end.bytes() != bytes() || end.chunks() != chunks()) {
    return SnapshotMalformed(absl::StrCat(bytes(), " bytes in ", chunks(), " chunks came, and ", end.bytes(), " in ",
                                          end.chunks(), " were sent"));
  }
  if (meta().position.lsn != header_.position().lsn() || meta().position.chain != header_.position().chain()) {
    return SnapshotMalformed("its head has another position than the stream's header");
  }
  // A stream that was begun anew may have been longer before.
  const absl::Status cut = file_.Truncate(bytes());
  file_failed_ = !cut.ok();
  TOWLINE_RETURN_IF_ERROR(cut);
  digest_ = end.digest();
  complete_ = true;
  return absl::OkStatus();
}

}  // namespace towline::ctl
