#include "store/rdb_check.h"

#include <utility>

#include "absl/strings/str_cat.h"

#include "common/bytes.h"
#include "common/checksum.h"
#include "common/error.h"
#include "common/names.h"
#include "store/key_hash_set.h"
#include "store/modified_lsns.h"
#include "store/rdb_format.h"
#include "store/request_window.h"
#include "store/snapshot_head.h"
#include "store/state_format.h"

namespace towline {
namespace {

constexpr char kStringKind[] = "string";
constexpr uint64_t kRdbCrcSize = 8;
constexpr char kTakeAgain[] = "take the file again from where it came from";

// `status` of the item at `place`.
absl::Status At(const RdbPlace& place, const absl::Status& status) {
  ErrorInfo info = GetErrorInfo(status);
  info.message = absl::StrCat("at byte ", place.offset, ": ", info.message);
  info.next_action = kTakeAgain;
  return MakeError(status.code(), info);
}

// What only snapshots of Towline have: order, modified LSNs, digest, reserved keys.
class TowlineCheck {
 public:
  const SnapshotMeta& meta() const { return meta_; }
  std::string digest() const { return digest_.Hex(); }

  absl::Status TakeHead(absl::string_view name, absl::string_view value) {
    return ReadSnapshotHeadField(name, value, &meta_);
  }

  absl::Status TakeAux(absl::string_view name, absl::string_view value) {
    if (name == kAuxMeta) {
      TOWLINE_RETURN_IF_ERROR(CheckNoneLeft());
      lsns_.Begin(value);
    } else if (name == kAuxReserved) {
      reserved_.append(value.data(), value.size());
    } else if (name == kAuxDigest) {
      announced_digest_.assign(value.data(), value.size());
    } else {
      return TakeHead(name, value);
    }
    return absl::OkStatus();
  }

  absl::Status TakeEntry(const RdbEvent& event, uint64_t db) {
    if (db != 0) return SnapshotMalformed(absl::StrCat("database ", db));
    if (event.key.empty() || event.key.size() > kKeySizeMax) {
      return SnapshotMalformed(
          absl::StrCat("a key has ", event.key.size(), " bytes; 1 to ", kKeySizeMax, " are allowed"));
    }
    if (!last_key_.empty() && event.key <= last_key_) {
      return SnapshotMalformed(absl::StrCat("key ", Printable(event.key), " comes after ", Printable(last_key_)));
    }
    Lsn modified_lsn = 0;
    if (!lsns_.Take(&modified_lsn)) {
      return SnapshotMalformed(absl::StrCat("towline-meta has no modified LSN for key ", Printable(event.key)));
    }
    digest_.Add(EntryDigest(event.key, event.value, event.expire_at_ms, modified_lsn));
    last_key_.assign(event.key.data(), event.key.size());
    return absl::OkStatus();
  }

  absl::Status TakeEnd() {
    TOWLINE_RETURN_IF_ERROR(CheckNoneLeft());
    if (announced_digest_ != digest_.Hex()) {
      return SnapshotMalformed(absl::StrCat("its entries have digest ", digest_.Hex(), ", and towline-digest says ",
                                            announced_digest_.empty() ? "nothing" : Printable(announced_digest_)));
    }
    return DecodeRequestWindow(reserved_, [](absl::string_view, absl::string_view) { return absl::OkStatus(); });
  }

 private:
  absl::Status CheckNoneLeft() const {
    return lsns_.empty() ? absl::OkStatus() : SnapshotMalformed("towline-meta has more modified LSNs than entries");
  }

  SnapshotMeta meta_;
  ModifiedLsns lsns_;  // of the present group
  std::string last_key_;
  std::string reserved_;
  std::string announced_digest_;
  Sum128 digest_;
};

class Check {
 public:
  explicit Check(const RdbVisitor& also) : also_(also) {}

  absl::Status Take(const RdbEvent& event, const RdbPlace& place) {
    const absl::Status status = TakeOne(event, place);
    if (!status.ok()) return At(place, status);
    return also_ ? also_(event, place) : absl::OkStatus();
  }

  absl::StatusOr<RdbReport> Finish(const RdbFileInfo& file) {
    report_.file = file;
    if (towline_ != nullptr) {
      if (!file.had_checksum) return At({0, file.bytes - kRdbCrcSize}, SnapshotMalformed("it has no CRC-64"));
      report_.towline = towline_->meta();
      report_.digest = towline_->digest();
    }
    return std::move(report_);
  }

 private:
  absl::Status TakeOne(const RdbEvent& event, const RdbPlace& place) {
    switch (event.kind) {
      case RdbEvent::Kind::kAux:
        return TakeAux(event.key, event.value);
      case RdbEvent::Kind::kEntry:
        report_.key_bytes += event.key.size();
        report_.value_bytes += event.value.size();
        ++report_.strings;
        ++report_.databases[place.db].strings;
        ++report_.types[kStringKind];
        return TakeKey(event, place.db);
      case RdbEvent::Kind::kOther:
        ++report_.types[std::string(event.value)];
        if (towline_ != nullptr) return SnapshotMalformed(absl::StrCat("it holds a ", event.value));
        return event.number == 0 ? absl::OkStatus() : TakeKey(event, place.db);
      case RdbEvent::Kind::kEnd:
        return towline_ == nullptr ? absl::OkStatus() : towline_->TakeEnd();
      case RdbEvent::Kind::kSelectDb:
      case RdbEvent::Kind::kResizeDb:
      case RdbEvent::Kind::kNeedMore:
        break;
    }
    return absl::OkStatus();
  }

  absl::Status TakeAux(absl::string_view name, absl::string_view value) {
    if (towline_ != nullptr) return towline_->TakeAux(name, value);
    if (name == kAuxVersion) {
      if (report_.keys > 0) return SnapshotMalformed("towline-version stands behind the first key");
      towline_ = std::make_unique<TowlineCheck>();
      for (const auto& [known, text] : report_.head) TOWLINE_RETURN_IF_ERROR(towline_->TakeHead(known, text));
      return towline_->TakeHead(name, value);
    }
    for (const absl::string_view known :
         {absl::string_view("redis-ver"), absl::string_view("valkey-ver"), kAuxCreated, kAuxReplId, kAuxReplOffset}) {
      if (name == known) report_.head[std::string(name)] = std::string(value);
    }
    return absl::OkStatus();
  }

  absl::Status TakeKey(const RdbEvent& event, uint64_t db) {
    RdbDatabaseReport& database = report_.databases[db];
    ++report_.keys;
    ++database.keys;
    report_.expiring += event.expire_at_ms != 0 ? 1 : 0;
    database.expiring += event.expire_at_ms != 0 ? 1 : 0;
    if (towline_ != nullptr) return towline_->TakeEntry(event, db);
    db_and_key_.resize(sizeof(db));
    StoreLe(db_and_key_.data(), db);
    db_and_key_.append(event.key.data(), event.key.size());
    if (keys_.Add(Xxh3_128(db_and_key_))) return absl::OkStatus();
    return MakeError(absl::StatusCode::kDataLoss, "rdb_duplicate_key",
                     absl::StrCat("the RDB file holds key ", Printable(event.key), " of database ", db, " twice"));
  }

  const RdbVisitor& also_;
  RdbReport report_;
  std::unique_ptr<TowlineCheck> towline_;
  KeyHashSet keys_;  // of files that are not ours, whose keys come in any order
  std::string db_and_key_;
};

}  // namespace

RdbReaderOptions RdbCheckOptions() {
  RdbReaderOptions options;
  options.key_bytes_max = options.value_bytes_max;
  options.skip_other_types = true;
  return options;
}

absl::StatusOr<RdbReport> CheckRdb(File& file, const RdbVisitor& also, const RdbProgress& progress) {
  Check check(also);
  const RdbVisitor visit = [&check](const RdbEvent& event, const RdbPlace& place) { return check.Take(event, place); };
  TOWLINE_ASSIGN_OR_RETURN(const RdbFileInfo info, WalkRdb(file, RdbCheckOptions(), visit, progress));
  return check.Finish(info);
}

}  // namespace towline
