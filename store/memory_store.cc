#include "store/memory_store.h"

#include <algorithm>
#include <atomic>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/bytes.h"
#include "common/checksum.h"
#include "common/error.h"

namespace towline {
namespace {

using Content = std::map<std::string, std::string, std::less<>>;

constexpr char kFileName[] = "MEMSTORE";

std::string EncodeContent(const Content& content) {
  std::string out;
  ByteWriter writer(&out);
  writer.U64(content.size());
  for (const auto& [key, value] : content) {
    writer.LengthPrefixed(key);
    writer.LengthPrefixed(value);
  }
  writer.U32(Crc32c(out));
  return out;
}

absl::StatusOr<Content> DecodeContent(absl::string_view data) {
  const absl::Status damaged = MakeError(absl::StatusCode::kDataLoss, "store_damaged", "MEMSTORE is damaged");
  if (data.size() < 12) return damaged;
  const absl::string_view body = data.substr(0, data.size() - 4);
  if (Crc32c(body) != LoadLe<uint32_t>(data.data() + body.size())) return damaged;
  ByteReader reader(body);
  Content content;
  for (uint64_t left = reader.U64(); left > 0 && reader.ok(); --left) {
    const std::string key(reader.LengthPrefixed());
    content[key] = std::string(reader.LengthPrefixed());
  }
  if (!reader.ok() || reader.remaining() != 0) return damaged;
  return content;
}

}  // namespace

// What the stores of one factory share: what is flushed, and how often the machine crashed.
struct MemoryStoreFactory::Disk {
  MemoryStoreOptions options;
  std::atomic<uint64_t> crashes{0};
  Mutex mutex;
  std::map<std::string, Content> flushed TOWLINE_GUARDED_BY(mutex);
  std::set<std::string> open TOWLINE_GUARDED_BY(mutex);

  absl::StatusOr<std::optional<Content>> Load(const std::string& directory) TOWLINE_EXCLUDES(mutex) {
    if (options.file_system == nullptr) {
      MutexLock lock(&mutex);
      const auto it = flushed.find(directory);
      return it == flushed.end() ? std::optional<Content>() : std::optional<Content>(it->second);
    }
    absl::StatusOr<std::string> data = ReadFile(*options.file_system, JoinPath(directory, kFileName));
    if (absl::IsNotFound(data.status())) return std::optional<Content>();
    TOWLINE_RETURN_IF_ERROR(data.status());
    TOWLINE_ASSIGN_OR_RETURN(Content content, DecodeContent(*data));
    return std::optional<Content>(std::move(content));
  }

  absl::Status Save(const std::string& directory, Content content) TOWLINE_EXCLUDES(mutex) {
    if (options.file_system == nullptr) {
      MutexLock lock(&mutex);
      flushed[directory] = std::move(content);
      return absl::OkStatus();
    }
    TOWLINE_RETURN_IF_ERROR(options.file_system->CreateDirectory(directory));
    return WriteFileDurably(*options.file_system, directory, kFileName, EncodeContent(content));
  }
};

namespace {

using Disk = MemoryStoreFactory::Disk;

// One state of a key; nullopt = deleted.
struct Version {
  uint64_t sequence = 0;
  std::optional<std::string> value;
};

// Versions of every key, oldest first, as far as a snapshot or the next read may need them.
struct Versions {
  mutable Mutex mutex;
  std::map<std::string, std::vector<Version>, std::less<>> keys TOWLINE_GUARDED_BY(mutex);
  uint64_t sequence TOWLINE_GUARDED_BY(mutex) = 0;
  std::multiset<uint64_t> snapshots TOWLINE_GUARDED_BY(mutex);

  static const std::string* Find(const std::vector<Version>& versions, uint64_t at) {
    for (auto it = versions.rbegin(); it != versions.rend(); ++it) {
      if (it->sequence <= at) return it->value.has_value() ? &*it->value : nullptr;
    }
    return nullptr;
  }

  // Adds a version and drops those that nobody can see any more.
  void Set(const std::string& key, std::optional<std::string> value) TOWLINE_REQUIRES(mutex) {
    std::vector<Version>& versions = keys[key];
    if (!versions.empty() && versions.back().sequence == sequence) versions.pop_back();
    versions.push_back({sequence, std::move(value)});
    const uint64_t oldest = snapshots.empty() ? sequence : *snapshots.begin();
    size_t first = versions.size() - 1;
    while (first > 0 && versions[first].sequence > oldest) --first;
    versions.erase(versions.begin(), versions.begin() + static_cast<ptrdiff_t>(first));
  }

  std::optional<std::string> Get(absl::string_view key, uint64_t at) const TOWLINE_EXCLUDES(mutex) {
    MutexLock lock(&mutex);
    const auto it = keys.find(key);
    const std::string* value = it == keys.end() ? nullptr : Find(it->second, at);
    return value == nullptr ? std::optional<std::string>() : std::optional<std::string>(*value);
  }

  // Everything that is visible now.
  Content Newest() const TOWLINE_EXCLUDES(mutex) {
    MutexLock lock(&mutex);
    Content content;
    for (const auto& [key, versions] : keys) {
      if (const std::string* value = Find(versions, sequence)) content.emplace(key, *value);
    }
    return content;
  }
};

class MemoryIterator : public StoreIterator {
 public:
  MemoryIterator(const Versions& versions, uint64_t at, absl::string_view lower, absl::string_view upper)
      : versions_(versions), at_(at), upper_(upper) {
    MutexLock lock(&versions_.mutex);
    Settle(versions_.keys.lower_bound(lower));
  }

  bool Valid() const override { return valid_; }
  void Next() override {
    MutexLock lock(&versions_.mutex);
    Settle(versions_.keys.upper_bound(key_));
  }
  absl::string_view key() const override { return key_; }
  absl::string_view value() const override { return value_; }
  absl::Status status() const override { return absl::OkStatus(); }

 private:
  // Goes forward from `it` to the first visible key.
  void Settle(decltype(Versions::keys)::const_iterator it) TOWLINE_REQUIRES(versions_.mutex) {
    for (; it != versions_.keys.end() && (upper_.empty() || it->first < upper_); ++it) {
      if (const std::string* value = Versions::Find(it->second, at_)) {
        key_ = it->first;
        value_ = *value;
        valid_ = true;
        return;
      }
    }
    valid_ = false;
  }

  const Versions& versions_;
  const uint64_t at_;
  const std::string upper_;
  bool valid_ = false;
  std::string key_;
  std::string value_;
};

class MemorySnapshot : public StoreSnapshot {
 public:
  explicit MemorySnapshot(std::shared_ptr<Versions> versions) : versions_(std::move(versions)) {
    MutexLock lock(&versions_->mutex);
    at_ = versions_->sequence;
    versions_->snapshots.insert(at_);
  }
  ~MemorySnapshot() override {
    MutexLock lock(&versions_->mutex);
    versions_->snapshots.erase(versions_->snapshots.find(at_));
  }

  absl::StatusOr<std::optional<std::string>> Get(absl::string_view key) const override {
    return versions_->Get(key, at_);
  }

  std::unique_ptr<StoreIterator> NewIterator(absl::string_view lower, absl::string_view upper, bool) const override {
    return std::make_unique<MemoryIterator>(*versions_, at_, lower, upper);
  }

 private:
  const std::shared_ptr<Versions> versions_;
  uint64_t at_ = 0;
};

class MemoryBatch : public StoreBatch {
 public:
  void Put(absl::string_view key, absl::string_view value) override {
    changes_.push_back({Kind::kPut, std::string(key), std::string(value)});
  }
  void Delete(absl::string_view key) override { changes_.push_back({Kind::kDelete, std::string(key), ""}); }
  void DeleteRange(absl::string_view begin, absl::string_view end) override {
    changes_.push_back({Kind::kDeleteRange, std::string(begin), std::string(end)});
  }

  void ApplyTo(Versions& versions) {
    MutexLock lock(&versions.mutex);
    ++versions.sequence;
    for (Change& change : changes_) {
      if (change.kind == Kind::kPut) {
        versions.Set(change.key, std::move(change.value));
      } else if (change.kind == Kind::kDelete) {
        versions.Set(change.key, std::nullopt);
      } else {
        auto it = versions.keys.lower_bound(change.key);
        for (; it != versions.keys.end() && it->first < change.value; ++it) versions.Set(it->first, std::nullopt);
      }
    }
  }

 private:
  enum class Kind { kPut, kDelete, kDeleteRange };
  struct Change {
    Kind kind;
    std::string key;
    std::string value;
  };
  std::vector<Change> changes_;
};

class MemoryStore : public Store {
 public:
  MemoryStore(std::shared_ptr<Disk> disk, std::string directory, Content content)
      : disk_(std::move(disk)), directory_(std::move(directory)), crashes_(disk_->crashes) {
    {
      MutexLock lock(&versions_->mutex);
      for (const auto& [key, value] : content) versions_->keys[key].push_back({0, value});
    }
    MutexLock lock(&flush_mutex_);
    flushed_ = std::move(content);
  }

  ~MemoryStore() override {
    if (disk_->options.flush_on_close) Flush(true).IgnoreError();
    MutexLock lock(&disk_->mutex);
    if (crashes_ == disk_->crashes) disk_->open.erase(directory_);
  }

  std::unique_ptr<StoreBatch> NewBatch() override { return std::make_unique<MemoryBatch>(); }

  absl::Status Write(std::unique_ptr<StoreBatch> batch) override {
    static_cast<MemoryBatch&>(*batch).ApplyTo(*versions_);
    const uint64_t every = disk_->options.flush_every_batches;
    return every != 0 && ++batches_ % every == 0 ? Flush(true) : absl::OkStatus();
  }

  absl::StatusOr<std::optional<std::string>> Get(absl::string_view key) override {
    return versions_->Get(key, UINT64_MAX);
  }

  absl::StatusOr<std::optional<std::string>> GetPersisted(absl::string_view key) override {
    MutexLock lock(&flush_mutex_);
    const auto it = flushed_.find(key);
    return it == flushed_.end() ? std::optional<std::string>() : std::optional<std::string>(it->second);
  }

  absl::StatusOr<std::shared_ptr<const StoreSnapshot>> Snapshot() override {
    return std::make_shared<const MemorySnapshot>(versions_);
  }

  absl::Status Flush(bool) override {
    MutexLock lock(&flush_mutex_);
    if (crashes_ != disk_->crashes) return absl::InternalError("the machine of this MemoryStore has crashed");
    Content content = versions_->Newest();
    TOWLINE_RETURN_IF_ERROR(disk_->Save(directory_, content));
    flushed_ = std::move(content);
    return absl::OkStatus();
  }

  absl::StatusOr<FileSums> Checkpoint(const std::string& directory) override {
    MutexLock lock(&flush_mutex_);
    TOWLINE_RETURN_IF_ERROR(disk_->Save(directory, flushed_));
    return FileSums();
  }

  StoreStats Stats() override {
    MutexLock lock(&versions_->mutex);
    StoreStats stats;
    stats.estimated_keys = versions_->keys.size();
    for (const auto& [key, versions] : versions_->keys) {
      stats.disk_bytes += key.size() + versions.back().value.value_or("").size();
    }
    return stats;
  }

 private:
  const std::shared_ptr<Disk> disk_;
  const std::string directory_;
  const uint64_t crashes_;  // of the disk when this store was opened
  const std::shared_ptr<Versions> versions_ = std::make_shared<Versions>();
  uint64_t batches_ = 0;

  Mutex flush_mutex_;
  Content flushed_ TOWLINE_GUARDED_BY(flush_mutex_);
};

class MemoryBulkLoader : public StoreBulkLoader {
 public:
  MemoryBulkLoader(std::shared_ptr<Disk> disk, std::string directory, Content durable)
      : disk_(std::move(disk)),
        directory_(std::move(directory)),
        crashes_(disk_->crashes),
        content_(std::move(durable)) {}

  absl::Status Add(absl::string_view key, absl::string_view value) override {
    if (started_ && key <= last_) return absl::InvalidArgumentError("keys of a bulk load must rise strictly");
    started_ = true;
    last_.assign(key.data(), key.size());
    pending_bytes_ += key.size() + value.size();
    content_.insert_or_assign(last_, std::string(value));
    return absl::OkStatus();
  }

  absl::Status AddUnordered(absl::string_view key, absl::string_view value) override {
    unordered_bytes_ += key.size() + value.size();
    unordered_.insert_or_assign(std::string(key), std::string(value));
    return absl::OkStatus();
  }

  uint64_t pending_bytes() const override { return pending_bytes_; }
  uint64_t unordered_pending_bytes() const override { return unordered_bytes_; }

  absl::Status Commit(bool unordered) override {
    if (crashes_ != disk_->crashes) return absl::InternalError("the machine of this bulk loader has crashed");
    if (unordered) {
      for (auto& [key, value] : unordered_) content_.insert_or_assign(key, std::move(value));
      unordered_.clear();
      unordered_bytes_ = 0;
    }
    pending_bytes_ = 0;
    return disk_->Save(directory_, content_);
  }

  std::unique_ptr<StoreIterator> NewIterator(absl::string_view lower, absl::string_view upper) override {
    {
      MutexLock lock(&durable_.mutex);
      durable_.keys.clear();
      for (const auto& [key, value] : content_) durable_.keys[key].push_back({0, value});
    }
    return std::make_unique<MemoryIterator>(durable_, 0, lower, upper);
  }

  absl::Status Finish() override { return Commit(true); }

 private:
  const std::shared_ptr<Disk> disk_;
  const std::string directory_;
  const uint64_t crashes_;
  Content content_;    // durable, or given to Add
  Content unordered_;  // given to AddUnordered since the last commit of such keys
  Versions durable_;   // for iterators
  std::string last_;
  bool started_ = false;
  uint64_t pending_bytes_ = 0;
  uint64_t unordered_bytes_ = 0;
};

}  // namespace

MemoryStoreFactory::MemoryStoreFactory(MemoryStoreOptions options) : disk_(std::make_shared<Disk>()) {
  disk_->options = options;
}

MemoryStoreFactory::~MemoryStoreFactory() = default;

absl::StatusOr<std::unique_ptr<Store>> MemoryStoreFactory::Open(const std::string& directory) {
  if (disk_->options.file_system != nullptr) {
    TOWLINE_RETURN_IF_ERROR(disk_->options.file_system->CreateDirectory(directory));
  }
  TOWLINE_ASSIGN_OR_RETURN(std::optional<Content> content, disk_->Load(directory));
  {
    MutexLock lock(&disk_->mutex);
    if (!disk_->open.insert(directory).second) {
      return MakeError(absl::StatusCode::kUnavailable, "store_locked", absl::StrCat(directory, " is open already"));
    }
  }
  return std::make_unique<MemoryStore>(disk_, directory, std::move(content).value_or(Content()));
}

absl::StatusOr<std::unique_ptr<StoreBulkLoader>> MemoryStoreFactory::NewBulkLoader(const std::string& directory,
                                                                                   BulkLoad mode) {
  TOWLINE_ASSIGN_OR_RETURN(std::optional<Content> content, disk_->Load(directory));
  if (mode == BulkLoad::kNew && content.has_value()) {
    return absl::AlreadyExistsError(absl::StrCat(directory, " holds a store already"));
  }
  return std::make_unique<MemoryBulkLoader>(disk_, directory, std::move(content).value_or(Content()));
}

void MemoryStoreFactory::Crash() {
  MutexLock lock(&disk_->mutex);
  ++disk_->crashes;
  disk_->open.clear();
}

}  // namespace towline
