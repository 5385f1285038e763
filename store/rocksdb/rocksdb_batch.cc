#include "store/rocksdb/rocksdb_batch.h"

#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "store/rocksdb/rocksdb_util.h"

namespace towline {
namespace {

// A range delete over more keys than this stays one.
constexpr size_t kPointDeletesMax = 64;
// So does one whose range is full of tombstones: looking through them would cost more than it saves.
constexpr uint64_t kSkippedKeysMax = 256;

class RangeNarrower : public rocksdb::WriteBatch::Handler {
 public:
  RangeNarrower(rocksdb::DB& db, rocksdb::WriteBatch& out) : out_(out) {
    rocksdb::ReadOptions options;
    options.max_skippable_internal_keys = kSkippedKeysMax;
    it_.reset(db.NewIterator(options));
  }

  rocksdb::Status PutCF(uint32_t, const rocksdb::Slice& key, const rocksdb::Slice& value) override {
    pending_.insert(ToView(key));
    return out_.Put(key, value);
  }

  rocksdb::Status DeleteCF(uint32_t, const rocksdb::Slice& key) override {
    pending_.erase(ToView(key));
    return out_.Delete(key);
  }

  rocksdb::Status DeleteRangeCF(uint32_t, const rocksdb::Slice& begin, const rocksdb::Slice& end) override {
    const auto first = pending_.lower_bound(ToView(begin));
    const auto last = pending_.lower_bound(ToView(end));
    bool few = false;
    if (const rocksdb::Status status = FindKeys(begin, end, &few); !status.ok()) return status;
    if (!few) {
      ++ranges_;
      pending_.erase(first, last);
      return out_.DeleteRange(begin, end);
    }
    for (const std::string& key : found_) {
      if (const rocksdb::Status status = out_.Delete(key); !status.ok()) return status;
    }
    for (auto it = first; it != last; ++it) {
      if (const rocksdb::Status status = out_.Delete(ToSlice(*it)); !status.ok()) return status;
    }
    pending_.erase(first, last);
    return rocksdb::Status::OK();
  }

  size_t ranges() const { return ranges_; }

 private:
  // Fills found_ with the keys of the database in the range, if they are few.
  rocksdb::Status FindKeys(const rocksdb::Slice& begin, const rocksdb::Slice& end, bool* few) {
    found_.clear();
    for (it_->Seek(begin); it_->Valid() && it_->key().compare(end) < 0; it_->Next()) {
      if (found_.size() == kPointDeletesMax) return rocksdb::Status::OK();
      found_.push_back(it_->key().ToString());
    }
    if (it_->status().IsIncomplete()) return rocksdb::Status::OK();
    *few = it_->status().ok();
    return it_->status();
  }

  rocksdb::WriteBatch& out_;
  std::unique_ptr<rocksdb::Iterator> it_;
  std::set<absl::string_view> pending_;  // keys that the batch has put so far
  std::vector<std::string> found_;
  size_t ranges_ = 0;
};

}  // namespace

RocksDbBatch::RocksDbBatch(rocksdb::WriteBatch spare) : rep_(std::move(spare)) {}

void RocksDbBatch::Put(absl::string_view key, absl::string_view value) { Keep(rep_.Put(ToSlice(key), ToSlice(value))); }

void RocksDbBatch::Delete(absl::string_view key) { Keep(rep_.Delete(ToSlice(key))); }

void RocksDbBatch::DeleteRange(absl::string_view begin, absl::string_view end) {
  if (begin >= end) return;
  has_ranges_ = true;
  Keep(rep_.DeleteRange(ToSlice(begin), ToSlice(end)));
}

void RocksDbBatch::Keep(const rocksdb::Status& status) {
  if (status_.ok()) status_ = status;
}

rocksdb::Status NarrowRanges(rocksdb::DB& db, rocksdb::WriteBatch* batch, size_t* ranges) {
  rocksdb::WriteBatch narrowed(batch->GetDataSize());
  RangeNarrower narrower(db, narrowed);
  if (const rocksdb::Status status = batch->Iterate(&narrower); !status.ok()) return status;
  *ranges = narrower.ranges();
  *batch = std::move(narrowed);
  return rocksdb::Status::OK();
}

}  // namespace towline
