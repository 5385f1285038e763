#include "common/two_copy_file.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/bytes.h"
#include "common/check.h"
#include "common/checksum.h"
#include "common/error.h"

namespace towline {
namespace {

constexpr size_t kPayloadSizeMax = size_t{1} << 30;
constexpr size_t kHeaderCrcOffset = 28;
constexpr size_t kScanPiece = 64 << 10;

struct Copy {
  enum class State { kNothing, kWhole, kDamaged };

  State state = State::kNothing;
  TwoCopyImage image;
};

std::string EncodeCopy(uint64_t magic, uint32_t version, uint64_t sequence, absl::string_view payload) {
  std::string bytes;
  bytes.reserve(kTwoCopyHeaderSize + payload.size());
  ByteWriter writer(&bytes);
  writer.U64(magic);
  writer.U32(version);
  writer.U32(static_cast<uint32_t>(payload.size()));
  writer.U64(sequence);
  writer.U32(Crc32c(payload));
  writer.U32(Crc32c(bytes));
  writer.Bytes(payload);
  return bytes;
}

absl::StatusOr<bool> IsAllZero(File& file) {
  std::string piece(kScanPiece, '\0');
  uint64_t offset = 0;
  while (true) {
    TOWLINE_ASSIGN_OR_RETURN(const size_t got, file.ReadAt(offset, piece.size(), piece.data()));
    if (got == 0) return true;
    if (absl::string_view(piece.data(), got).find_first_not_of('\0') != absl::string_view::npos) return false;
    offset += got;
  }
}

// Fills *image if the file is a whole copy; false if it is not.
absl::StatusOr<bool> ReadWholeCopy(File& file, uint64_t magic, TwoCopyImage* image) {
  std::string header(kTwoCopyHeaderSize, '\0');
  TOWLINE_ASSIGN_OR_RETURN(const size_t got, file.ReadAt(0, header.size(), header.data()));
  if (got < header.size()) return false;
  ByteReader reader(header);
  const uint64_t found_magic = reader.U64();
  image->version = reader.U32();
  const uint32_t length = reader.U32();
  image->sequence = reader.U64();
  const uint32_t payload_crc = reader.U32();
  const uint32_t header_crc = reader.U32();
  if (header_crc != Crc32c(absl::string_view(header).substr(0, kHeaderCrcOffset))) return false;
  TOWLINE_ASSIGN_OR_RETURN(const uint64_t size, file.Size());
  if (found_magic != magic || image->sequence == 0) return false;
  if (length > kPayloadSizeMax || length > size - kTwoCopyHeaderSize) return false;

  image->payload.assign(length, '\0');
  TOWLINE_ASSIGN_OR_RETURN(const size_t payload_got, file.ReadAt(kTwoCopyHeaderSize, length, image->payload.data()));
  return payload_got == length && Crc32c(image->payload) == payload_crc;
}

absl::StatusOr<Copy> ReadCopy(FileSystem& fs, const std::string& path, uint64_t magic) {
  Copy copy;
  absl::StatusOr<std::unique_ptr<File>> file = fs.Open(path, OpenMode::kRead);
  if (absl::IsNotFound(file.status())) return copy;
  if (!file.ok()) return file.status();

  TOWLINE_ASSIGN_OR_RETURN(const bool whole, ReadWholeCopy(**file, magic, &copy.image));
  if (whole) {
    copy.state = Copy::State::kWhole;
    return copy;
  }
  TOWLINE_ASSIGN_OR_RETURN(const bool all_zero, IsAllZero(**file));
  copy.state = all_zero ? Copy::State::kNothing : Copy::State::kDamaged;
  return copy;
}

}  // namespace

TwoCopyFile::TwoCopyFile(FileSystem& fs, std::string directory, std::string name, uint64_t magic, size_t capacity_bytes)
    : fs_(fs),
      directory_(std::move(directory)),
      name_(std::move(name)),
      magic_(magic),
      capacity_bytes_(capacity_bytes) {
  TOWLINE_CHECK(magic != 0);
}

absl::StatusOr<TwoCopyState> TwoCopyFile::Load(TwoCopyImage* image) {
  Copy copies[2];
  for (int which = 0; which < 2; ++which) {
    TOWLINE_ASSIGN_OR_RETURN(copies[which], ReadCopy(fs_, PathOf(which), magic_));
    files_[which].reset();
  }
  sequence_ = 0;
  next_ = 0;
  names_durable_ = false;
  unsettled_.reset();

  int newest = -1;
  for (int which = 0; which < 2; ++which) {
    if (copies[which].state == Copy::State::kWhole && copies[which].image.sequence > sequence_) {
      newest = which;
      sequence_ = copies[which].image.sequence;
    }
  }
  if (newest < 0) {
    const bool nothing = copies[0].state == Copy::State::kNothing && copies[1].state == Copy::State::kNothing;
    return nothing ? TwoCopyState::kAbsent : TwoCopyState::kDamaged;
  }
  next_ = 1 - newest;
  *image = std::move(copies[newest].image);
  unsettled_ = std::make_unique<TwoCopyImage>(*image);
  return TwoCopyState::kValid;
}

absl::Status TwoCopyFile::Save(uint32_t version, absl::string_view payload) {
  // With one copy only, its damage would look like a directory that lost everything.
  return sequence_ == 0 ? SaveBoth(version, payload) : SaveOne(version, payload);
}

absl::Status TwoCopyFile::SaveBoth(uint32_t version, absl::string_view payload) {
  const bool first = sequence_ == 0;
  TOWLINE_RETURN_IF_ERROR(SaveOne(version, payload));
  return WriteCopy(next_, first, version, sequence_, payload);
}

absl::Status TwoCopyFile::SaveOne(uint32_t version, absl::string_view payload) {
  TOWLINE_RETURN_IF_ERROR(Settle());
  TOWLINE_RETURN_IF_ERROR(WriteCopy(next_, sequence_ == 0, version, sequence_ + 1, payload));
  ++sequence_;
  next_ = 1 - next_;
  return absl::OkStatus();
}

absl::Status TwoCopyFile::Settle() {
  if (unsettled_ == nullptr) return absl::OkStatus();
  TOWLINE_RETURN_IF_ERROR(WriteCopy(1 - next_, false, unsettled_->version, unsettled_->sequence, unsettled_->payload));
  unsettled_.reset();
  return absl::OkStatus();
}

// Writes a copy in place, or, with `create` and where the file is absent or short, makes the file anew.
absl::Status TwoCopyFile::WriteCopy(int which, bool create, uint32_t version, uint64_t sequence,
                                    absl::string_view payload) {
  if (payload.size() > kPayloadSizeMax) {
    return MakeError(absl::StatusCode::kInvalidArgument, "image_too_large",
                     absl::StrCat(name_, " holds at most ", kPayloadSizeMax, " bytes, not ", payload.size()));
  }
  const std::string bytes = EncodeCopy(magic_, version, sequence, payload);
  if (!create && files_[which] == nullptr) {
    absl::StatusOr<std::unique_ptr<File>> file = fs_.Open(PathOf(which), OpenMode::kReadWrite);
    if (!file.ok() && !absl::IsNotFound(file.status())) return file.status();
    if (file.ok()) {
      TOWLINE_ASSIGN_OR_RETURN(const uint64_t size, (*file)->Size());
      if (size >= capacity_bytes_) files_[which] = *std::move(file);
    }
  }
  if (create || files_[which] == nullptr) {
    TOWLINE_RETURN_IF_ERROR(CreateCopy(which, bytes));
  } else {
    TOWLINE_RETURN_IF_ERROR(files_[which]->WriteAt(0, bytes));
    TOWLINE_RETURN_IF_ERROR(files_[which]->SyncData());
  }
  if (names_durable_) return absl::OkStatus();
  TOWLINE_RETURN_IF_ERROR(fs_.SyncDirectory(directory_));
  names_durable_ = true;
  return absl::OkStatus();
}

// Gives the copy a new file with `bytes`, filled with zeros up to the capacity.
absl::Status TwoCopyFile::CreateCopy(int which, absl::string_view bytes) {
  const std::string tmp = absl::StrCat(PathOf(which), ".tmp");
  TOWLINE_ASSIGN_OR_RETURN(std::unique_ptr<File> file, fs_.Open(tmp, OpenMode::kCreateOrOpen));
  std::string filled(bytes);
  filled.resize(std::max(bytes.size(), capacity_bytes_), '\0');
  TOWLINE_RETURN_IF_ERROR(file->Truncate(0));
  TOWLINE_RETURN_IF_ERROR(file->WriteAt(0, filled));
  TOWLINE_RETURN_IF_ERROR(file->SyncData());
  file.reset();  // the next write opens it under its own name
  files_[which].reset();
  names_durable_ = false;
  return fs_.Rename(tmp, PathOf(which));
}

std::string TwoCopyFile::PathOf(int which) const {
  return JoinPath(directory_, absl::StrCat(name_, which == 0 ? ".a" : ".b"));
}

}  // namespace towline
