#include "wal/segment_set.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

#include "common/error.h"

namespace towline::wal {
namespace {

absl::StatusOr<std::string> ReadSector(File& file, uint64_t offset) {
  std::string sector(kSectorSize, '\0');
  TOWLINE_ASSIGN_OR_RETURN(const size_t got, file.ReadAt(offset, sector.size(), sector.data()));
  sector.resize(got);
  return sector;
}

absl::Status Corrupt(absl::string_view what, const SegmentFile& segment, uint64_t offset, Lsn lsn) {
  return PlaceError(absl::StatusCode::kDataLoss, "wal_corrupt", what, segment.path, offset, lsn);
}

absl::Status CheckHeader(absl::string_view sector, SegmentFile* segment) {
  const absl::Status decoded = DecodeSegmentHeader(sector, &segment->header);
  if (!decoded.ok()) return Corrupt(decoded.message(), *segment, 0, segment->name_lsn);
  if (segment->header.first_lsn() != segment->name_lsn) {
    return Corrupt(absl::StrCat("the header belongs to LSN ", segment->header.first_lsn()), *segment, 0,
                   segment->name_lsn);
  }
  if (segment->header.file_size != segment->file_size || segment->file_size < kSegmentBytesMin) {
    return Corrupt(
        absl::StrCat("the file has ", segment->file_size, " bytes, its header says ", segment->header.file_size),
        *segment, 0, segment->name_lsn);
  }
  return absl::OkStatus();
}

absl::Status CheckFooter(absl::string_view sector, SegmentFile* segment) {
  const SegmentHeader& header = segment->header;
  const uint64_t offset = FramesEnd(segment->file_size);
  const absl::Status decoded = DecodeSegmentFooter(sector, &segment->footer);
  if (!decoded.ok()) return Corrupt(decoded.message(), *segment, offset, segment->name_lsn);
  const SegmentFooter& footer = segment->footer;
  if (footer.salt != header.salt || footer.first_lsn != header.first_lsn() ||
      footer.records != footer.end.lsn - header.before.lsn || footer.end_offset < kFramesStart ||
      footer.end_offset > offset) {
    return Corrupt("the footer does not belong to the header", *segment, offset, segment->name_lsn);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<SegmentFile> ReadSegmentFile(FileSystem& fs, const std::string& directory, Lsn name_lsn) {
  SegmentFile segment;
  segment.path = JoinPath(directory, SegmentFileName(name_lsn));
  segment.name_lsn = name_lsn;
  TOWLINE_ASSIGN_OR_RETURN(const std::unique_ptr<File> file, fs.Open(segment.path, OpenMode::kRead));
  TOWLINE_ASSIGN_OR_RETURN(segment.file_size, file->Size());
  TOWLINE_ASSIGN_OR_RETURN(const std::string header, ReadSector(*file, 0));
  segment.header_status = CheckHeader(header, &segment);
  if (!segment.header_status.ok()) {
    segment.footer_status = segment.header_status;
    return segment;
  }
  TOWLINE_ASSIGN_OR_RETURN(const std::string footer, ReadSector(*file, FramesEnd(segment.file_size)));
  segment.footer_status = CheckFooter(footer, &segment);
  return segment;
}

absl::Status CheckLink(const SegmentFile& sealed, const SegmentFile& next) {
  const LogEnd& end = sealed.footer.end;
  const LogEnd& before = next.header.before;
  if (before.lsn != end.lsn) {
    return Corrupt(
        absl::StrCat(before.lsn > end.lsn ? "gap" : "overlap", ": the segment in front of it ends with LSN ", end.lsn),
        next, 0, std::min(before.lsn, end.lsn) + 1);
  }
  if (before != end) return Corrupt("it does not continue the segment in front of it", next, 0, next.name_lsn);
  return absl::OkStatus();
}

}  // namespace towline::wal
