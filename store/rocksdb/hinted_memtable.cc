#include "store/rocksdb/hinted_memtable.h"

#include <array>
#include <cstdint>
#include <unordered_set>
#include <utility>

namespace towline {
namespace {

// A handle points to the internal key behind its varint32 length; its first byte is the key space.
uint8_t SpaceOf(rocksdb::KeyHandle handle) {
  const char* at = static_cast<const char*>(handle);
  while (static_cast<uint8_t>(*at) >= 0x80) ++at;
  return static_cast<uint8_t>(at[1]);
}

class HintedMemtable : public rocksdb::MemTableRep {
 public:
  HintedMemtable(rocksdb::Allocator* allocator, std::unique_ptr<rocksdb::MemTableRep> list)
      : MemTableRep(allocator), list_(std::move(list)) {}

  rocksdb::KeyHandle Allocate(size_t size, char** buffer) override { return list_->Allocate(size, buffer); }
  void Insert(rocksdb::KeyHandle handle) override { list_->InsertWithHint(handle, HintFor(handle)); }
  bool InsertKey(rocksdb::KeyHandle handle) override { return list_->InsertKeyWithHint(handle, HintFor(handle)); }

  bool Contains(const char* key) const override { return list_->Contains(key); }
  void MarkReadOnly() override { list_->MarkReadOnly(); }
  void MarkFlushed() override { list_->MarkFlushed(); }
  void Get(const rocksdb::LookupKey& key, void* args, bool (*callback)(void*, const char*)) override {
    list_->Get(key, args, callback);
  }
  uint64_t ApproximateNumEntries(const rocksdb::Slice& begin, const rocksdb::Slice& end) override {
    return list_->ApproximateNumEntries(begin, end);
  }
  void UniqueRandomSample(uint64_t entries, uint64_t size, std::unordered_set<const char*>* out) override {
    list_->UniqueRandomSample(entries, size, out);
  }
  size_t ApproximateMemoryUsage() override { return list_->ApproximateMemoryUsage(); }
  Iterator* GetIterator(rocksdb::Arena* arena) override { return list_->GetIterator(arena); }
  Iterator* GetDynamicPrefixIterator(rocksdb::Arena* arena) override { return list_->GetDynamicPrefixIterator(arena); }
  bool IsMergeOperatorSupported() const override { return list_->IsMergeOperatorSupported(); }
  bool IsSnapshotSupported() const override { return list_->IsSnapshotSupported(); }

 private:
  void** HintFor(rocksdb::KeyHandle handle) { return &hints_[SpaceOf(handle)]; }

  const std::unique_ptr<rocksdb::MemTableRep> list_;
  std::array<void*, 256> hints_{};  // by key space; in the list's arena
};

class HintedMemtableFactory : public rocksdb::MemTableRepFactory {
 public:
  const char* Name() const override { return "towline.HintedMemtableFactory"; }
  bool CanHandleDuplicatedKey() const override { return lists_.CanHandleDuplicatedKey(); }

  using rocksdb::MemTableRepFactory::CreateMemTableRep;
  rocksdb::MemTableRep* CreateMemTableRep(const rocksdb::MemTableRep::KeyComparator& comparator,
                                          rocksdb::Allocator* allocator, const rocksdb::SliceTransform* transform,
                                          rocksdb::Logger* logger) override {
    std::unique_ptr<rocksdb::MemTableRep> list(lists_.CreateMemTableRep(comparator, allocator, transform, logger));
    return new HintedMemtable(allocator, std::move(list));
  }

 private:
  rocksdb::SkipListFactory lists_;
};

}  // namespace

std::shared_ptr<rocksdb::MemTableRepFactory> NewHintedMemtableFactory() {
  return std::make_shared<HintedMemtableFactory>();
}

}  // namespace towline
