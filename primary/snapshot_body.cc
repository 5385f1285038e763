#include "primary/snapshot_body.h"

#include <optional>
#include <utility>

#include "common/error.h"

namespace towline {
namespace {

class RdbBody final : public SnapshotBody {
 public:
  RdbBody(SharedSnapshotPtr snapshot, const SnapshotCursor& cursor)
      : snapshot_(std::move(snapshot)),
        first_(cursor),
        encoder_(snapshot_->state, snapshot_->meta, kSnapshotChunkBytes, cursor) {}

  absl::Status Begin(v1::SnapshotHeader* header) override {
    header->set_resumed_sequence(first_.sequence);
    return absl::OkStatus();
  }

  absl::StatusOr<bool> Next(v1::FetchSnapshotResponse* out, size_t /*most*/) override {
    TOWLINE_ASSIGN_OR_RETURN(std::optional<EncodedChunk> encoded, encoder_.Next());
    if (!encoded.has_value()) return false;
    v1::SnapshotChunk* chunk = out->mutable_chunk();
    chunk->set_sequence(encoded->sequence);
    chunk->set_first_key(std::move(encoded->first_key));
    chunk->set_last_key(std::move(encoded->last_key));
    chunk->set_keys(encoded->keys);
    chunk->set_crc32c(encoded->crc32c);
    chunk->set_data(std::move(encoded->data));
    chunk->set_snapshot_id(snapshot_->id);
    return true;
  }

  void FillEnd(v1::SnapshotEnd* end) const override {
    end->set_keys(encoder_.keys());
    end->set_bytes(encoder_.bytes());
    end->set_chunks(encoder_.chunks());
    end->set_digest(encoder_.digest().Hex());
  }

  uint64_t keys() const override { return encoder_.keys(); }
  uint64_t bytes() const override { return encoder_.bytes(); }
  uint64_t sent_bytes() const override { return encoder_.bytes() - first_.bytes; }

 private:
  const SharedSnapshotPtr snapshot_;
  const SnapshotCursor first_;
  SnapshotEncoder encoder_;
};

class FileBody final : public SnapshotBody {
 public:
  FileBody(SharedSnapshotPtr snapshot, std::vector<HeldFile> held)
      : snapshot_(std::move(snapshot)), held_(std::move(held)), sender_(*snapshot_->files) {}

  absl::Status Begin(v1::SnapshotHeader* header) override {
    TOWLINE_RETURN_IF_ERROR(sender_.LeaveOut(held_));
    for (size_t i = 0; i < snapshot_->files->files().size(); ++i) {
      const FileSnapshot::Entry& entry = snapshot_->files->files()[i];
      v1::SnapshotFile* file = header->add_files();
      file->set_name(entry.name);
      file->set_size(entry.size);
      file->set_held_bytes(sender_.held_bytes(i));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<bool> Next(v1::FetchSnapshotResponse* out, size_t most) override {
    v1::SnapshotFileChunk* chunk = out->mutable_file_chunk();
    TOWLINE_ASSIGN_OR_RETURN(const bool more, sender_.Next(chunk, most));
    chunk->set_snapshot_id(snapshot_->id);
    return more;
  }

  void FillEnd(v1::SnapshotEnd* end) const override {
    end->set_bytes(bytes());
    end->set_chunks(sender_.chunks());
  }

  uint64_t keys() const override { return 0; }
  uint64_t bytes() const override { return sender_.left_out_bytes() + sender_.sent_bytes(); }
  uint64_t sent_bytes() const override { return sender_.sent_bytes(); }

 private:
  const SharedSnapshotPtr snapshot_;
  const std::vector<HeldFile> held_;
  FileSender sender_;
};

}  // namespace

std::unique_ptr<SnapshotBody> NewRdbBody(SharedSnapshotPtr snapshot, const SnapshotCursor& cursor) {
  return std::make_unique<RdbBody>(std::move(snapshot), cursor);
}

std::unique_ptr<SnapshotBody> NewFileBody(SharedSnapshotPtr snapshot, std::vector<HeldFile> held) {
  return std::make_unique<FileBody>(std::move(snapshot), std::move(held));
}

}  // namespace towline
