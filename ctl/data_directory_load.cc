// snapshot load --data-dir: an RDB file becomes the first state of a new cluster, without a node.
//
// The control file is written last: until it is there, the directory belongs to no node.

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

#include "common/control.h"
#include "common/data_layout.h"
#include "common/error.h"
#include "common/names.h"
#include "common/rng.h"
#include "ctl/progress_line.h"
#include "ctl/snapshot_load.h"
#include "store/modified_lsns.h"
#include "store/rdb_format.h"
#include "store/rocksdb/rocksdb_store.h"
#include "store/state_builder.h"

namespace towline::ctl {
namespace {

constexpr uint64_t kGeneration = 1;
constexpr Lsn kForeignLsn = 1;  // at which all keys of a file that knows no LSNs count as modified

// A directory that nobody uses, locked. What was put into it goes again unless Keep is called.
class FreshDirectory {
 public:
  explicit FreshDirectory(std::string path) : path_(std::move(path)) {}
  ~FreshDirectory() {
    if (lock_ == nullptr || kept_) return;
    (void)RemoveAll(fs_, JoinPath(path_, "gen"));
    (void)RemoveAll(fs_, JoinPath(path_, kDataLockName));
    if (created_) (void)fs_.Remove(path_);
  }
  FreshDirectory(const FreshDirectory&) = delete;
  FreshDirectory& operator=(const FreshDirectory&) = delete;

  absl::Status Take() {
    created_ = !Exists(fs_, path_);
    if (created_) {
      TOWLINE_RETURN_IF_ERROR(fs_.CreateDirectory(path_));
      TOWLINE_RETURN_IF_ERROR(fs_.SyncDirectory(ParentDirectory(path_)));
    }
    TOWLINE_RETURN_IF_ERROR(CheckHoldsNothing());
    TOWLINE_ASSIGN_OR_RETURN(std::unique_ptr<File> lock,
                             fs_.Open(JoinPath(path_, kDataLockName), OpenMode::kCreateOrOpen));
    if (!lock->Lock().ok()) {
      return MakeError(absl::StatusCode::kFailedPrecondition, "locked", absl::StrCat("another process uses ", path_),
                       "stop it, or give another --data-dir");
    }
    // Somebody may have been quicker.
    TOWLINE_RETURN_IF_ERROR(CheckHoldsNothing());
    lock_ = std::move(lock);
    return absl::OkStatus();
  }

  void Keep() { kept_ = true; }

 private:
  absl::Status CheckHoldsNothing() {
    TOWLINE_ASSIGN_OR_RETURN(const std::vector<std::string> names, fs_.List(path_));
    for (const std::string& name : names) {
      if (name == "lost+found" || name == kDataLockName) continue;
      return MakeError(absl::StatusCode::kFailedPrecondition, "data_dir_not_empty",
                       absl::StrCat(path_, " holds \"", Printable(name), "\""),
                       "give an absent or empty directory; one in which a load was killed has no control.a, and may be "
                       "emptied");
    }
    return absl::OkStatus();
  }

  FileSystem& fs_ = *PosixFileSystem();
  const std::string path_;
  std::unique_ptr<File> lock_;
  bool created_ = false;
  bool kept_ = false;
};

// Takes the second pass over a verified file into a new store.
class StateOfFile {
 public:
  // `own` = the file is a snapshot of Towline: its keys are in order and have modified LSNs.
  StateOfFile(const RdbLoadPlan& plan, std::unique_ptr<StoreBulkLoader> loader, bool own)
      : plan_(plan), builder_(std::move(loader), own), own_(own) {}

  absl::Status Take(const RdbEvent& event, const RdbPlace& place) {
    if (event.kind == RdbEvent::Kind::kAux && own_) TakeAux(event.key, event.value);
    if (event.kind != RdbEvent::Kind::kEntry) return absl::OkStatus();
    Lsn lsn = kForeignLsn;
    if (own_ && !lsns_.Take(&lsn)) return absl::DataLossError("an entry has no modified LSN");
    if (!plan_.Loads(event, place)) return absl::OkStatus();
    ++keys_;
    bytes_ += event.key.size() + event.value.size();
    return builder_.Add(event.key, event.value, event.expire_at_ms, lsn);
  }

  absl::Status Finish(const Position& position) { return builder_.Finish(request_window_, position); }

  uint64_t keys() const { return keys_; }
  uint64_t bytes() const { return bytes_; }

 private:
  void TakeAux(absl::string_view name, absl::string_view value) {
    if (name == kAuxReserved) request_window_.append(value.data(), value.size());
    if (name == kAuxMeta) lsns_.Begin(value);
  }

  const RdbLoadPlan& plan_;
  StateBuilder builder_;
  const bool own_;
  ModifiedLsns lsns_;  // of the present group
  std::string request_window_;
  uint64_t keys_ = 0;
  uint64_t bytes_ = 0;
};

// The identity of a new cluster whose log begins behind `lsn`. Nothing of it is taken from the file: the same file may
// be loaded many times, and what follows then is different.
Control NewCluster(const std::string& node_id, Lsn lsn) {
  Rng& rng = *SystemRng();
  Control control;
  control.cluster_id = NewClusterId(rng);
  control.node_id = node_id;
  control.incarnation = NewId(rng);
  control.role = NodeRole::kPrimary;
  control.history = {HistoryEntry{1, 1, NewId(rng)}};
  control.generation = kGeneration;
  control.base = Position{1, control.history.front().term_id, lsn, NewId(rng)};
  control.exact_from = control.base;
  control.watermark = lsn;
  return control;
}

class DirectoryLoad {
 public:
  DirectoryLoad(Context& context, const LoadOptions& options)
      : context_(context), options_(options), directory_(options.data_dir) {}

  int Run() {
    const absl::Status status = Load();
    if (!status.ok()) return context_.Fail(status);
    context_.json() ? PrintJson() : PrintText();
    return kExitOk;
  }

 private:
  absl::Status Load();
  absl::Status Build();
  void PrintJson();
  void PrintText();

  Context& context_;
  const LoadOptions& options_;
  FileSystem& fs_ = *PosixFileSystem();
  FreshDirectory directory_;
  SnapshotFile file_;
  RdbReport report_;
  std::optional<RdbLoadPlan> plan_;
  Control control_;
  uint64_t bytes_ = 0;  // of keys and values
  double seconds_ = 0;
};

absl::Status DirectoryLoad::Load() {
  if (const absl::Status valid = ValidateName("--node-id", options_.node_id); !valid.ok()) {
    return UsageError(GetErrorInfo(valid).message);
  }
  TOWLINE_ASSIGN_OR_RETURN(file_, OpenSnapshotFile(options_.path));
  TOWLINE_RETURN_IF_ERROR(directory_.Take());
  const uint64_t record_bytes = options_.record_bytes == 0 ? kDefaultRecordBytes : options_.record_bytes;
  TOWLINE_ASSIGN_OR_RETURN(report_, PlanLoad(context_, options_, record_bytes, file_, &plan_));
  const Lsn lsn = report_.towline ? std::max(report_.towline->position.lsn, kForeignLsn) : kForeignLsn;
  control_ = NewCluster(options_.node_id, lsn);
  TOWLINE_RETURN_IF_ERROR(Build());
  TOWLINE_ASSIGN_OR_RETURN(const auto control_file, ControlFile::Open(fs_, options_.data_dir));
  TOWLINE_RETURN_IF_ERROR(control_file->Set(control_, /*both=*/true));
  directory_.Keep();
  return absl::OkStatus();
}

absl::Status DirectoryLoad::Build() {
  TOWLINE_RETURN_IF_ERROR(MakeDirectoryDurably(fs_, options_.data_dir, "gen"));
  TOWLINE_RETURN_IF_ERROR(MakeDirectoryDurably(fs_, JoinPath(options_.data_dir, "gen"), absl::StrCat(kGeneration)));
  const auto stores = NewRocksDbStoreFactory(RocksDbOptions());
  TOWLINE_ASSIGN_OR_RETURN(auto loader, stores->NewBulkLoader(StoreDirectory(options_.data_dir, kGeneration)));
  ProgressLine line(context_, "loading", file_.bytes);
  StateOfFile state(*plan_, std::move(loader), report_.towline.has_value());
  const RdbVisitor visit = [&state](const RdbEvent& event, const RdbPlace& place) { return state.Take(event, place); };
  const RdbProgress progress = [&](uint64_t bytes) {
    line.Show(bytes, absl::StrCat(state.keys(), " keys"));
    return context_.interrupt().triggered() ? absl::CancelledError("interrupted") : absl::OkStatus();
  };
  TOWLINE_RETURN_IF_ERROR(WalkRdb(*file_.file, RdbCheckOptions(), visit, progress).status());
  if (state.keys() != plan_->counts().keys) return FileChanged(file_, plan_->counts().keys, state.keys());
  TOWLINE_RETURN_IF_ERROR(state.Finish(control_.base));
  bytes_ = state.bytes();
  seconds_ = std::max(line.seconds(), 1e-9);
  return absl::OkStatus();
}

void DirectoryLoad::PrintJson() {
  Json json = Json::object();
  json["ended"] = "end_of_file";
  json["file"] = file_.path;
  json["file_bytes"] = file_.bytes;
  json["db"] = plan_->db();
  json["keys"] = plan_->counts().keys;
  json["bytes"] = bytes_;
  AddLeftOut(*plan_, &json);
  json["data_dir"] = options_.data_dir;
  json["node_id"] = control_.node_id;
  json["cluster_id"] = control_.cluster_id;
  json["position"] = PositionJson(control_.base);
  json["snapshot"] = report_.towline ? SnapshotJson(*report_.towline, report_.digest) : Json(nullptr);
  json["seconds"] = seconds_;
  json["keys_per_second"] = static_cast<double>(plan_->counts().keys) / seconds_;
  json["bytes_per_second"] = static_cast<double>(bytes_) / seconds_;
  context_.Print(json);
}

void DirectoryLoad::PrintText() {
  context_.out() << "loaded    " << plan_->counts().keys << " keys, " << FormatBytes(bytes_) << " in "
                 << FormatSeconds(seconds_) << ", "
                 << absl::StrFormat("%.0f", static_cast<double>(plan_->counts().keys) / seconds_) << " keys/s, "
                 << FormatRate(static_cast<double>(bytes_) / seconds_) << "\n"
                 << "left out  " << LeftOutText(*plan_) << "\n"
                 << "cluster   " << control_.cluster_id << ", new; its log begins behind lsn " << control_.base.lsn
                 << "\n"
                 << "start it  towlined primary --data-dir " << options_.data_dir << " --node-id " << control_.node_id
                 << "\n";
}

}  // namespace

int LoadIntoDirectory(Context& context, const LoadOptions& options) { return DirectoryLoad(context, options).Run(); }

}  // namespace towline::ctl
