#include "store/rdb_walk.h"

#include <string>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "store/rdb_format.h"

namespace towline {
namespace {

constexpr size_t kPieceBytes = 1 << 20;

absl::Status Malformed(absl::string_view what) {
  return MakeError(absl::StatusCode::kDataLoss, "rdb_malformed", what, "take the file again from where it came from");
}

class Walk {
 public:
  Walk(File& file, const RdbReaderOptions& options, const RdbVisitor& visit, const RdbProgress& progress)
      : file_(file), reader_(options), visit_(visit), progress_(progress), piece_(kPieceBytes, '\0') {}

  absl::StatusOr<RdbFileInfo> Run() {
    for (;;) {
      TOWLINE_ASSIGN_OR_RETURN(const RdbEvent event, reader_.Next());
      if (event.kind == RdbEvent::Kind::kNeedMore) {
        TOWLINE_RETURN_IF_ERROR(FeedNext());
        continue;
      }
      if (event.kind == RdbEvent::Kind::kSelectDb) place_.db = event.number;
      TOWLINE_RETURN_IF_ERROR(visit_(event, place_));
      place_.offset = reader_.offset();
      if (event.kind == RdbEvent::Kind::kEnd) return End();
    }
  }

 private:
  absl::Status FeedNext() {
    TOWLINE_RETURN_IF_ERROR(progress_(reader_.offset()));
    TOWLINE_ASSIGN_OR_RETURN(const size_t count, file_.ReadAt(fed_, piece_.size(), piece_.data()));
    if (count == 0) {
      const std::string where = reader_.version() == 0 ? "the magic" : absl::StrCat("the item at byte ", place_.offset);
      return Malformed(absl::StrCat("the RDB file is cut short: it ends at byte ", fed_, ", within ", where));
    }
    fed_ += count;
    reader_.Feed(absl::string_view(piece_.data(), count));
    return absl::OkStatus();
  }

  absl::StatusOr<RdbFileInfo> End() {
    TOWLINE_ASSIGN_OR_RETURN(const uint64_t size, file_.Size());
    if (size != reader_.offset()) {
      return Malformed(absl::StrCat("the RDB file goes on for ", size - reader_.offset(),
                                    " bytes behind its end at byte ", reader_.offset()));
    }
    TOWLINE_RETURN_IF_ERROR(progress_(size));
    return RdbFileInfo{reader_.version(), reader_.valkey(), reader_.had_checksum(), size};
  }

  File& file_;
  RdbReader reader_;
  const RdbVisitor& visit_;
  const RdbProgress& progress_;
  std::string piece_;
  uint64_t fed_ = 0;
  RdbPlace place_{0, kRdbMagicSize};
};

}  // namespace

absl::StatusOr<RdbFileInfo> WalkRdb(File& file, const RdbReaderOptions& options, const RdbVisitor& visit,
                                    const RdbProgress& progress) {
  return Walk(file, options, visit, progress).Run();
}

}  // namespace towline
