#include "store/rocksdb/rocksdb_bulk_loader.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "rocksdb/env.h"
#include "store/rocksdb/rocksdb_util.h"

namespace towline {
namespace {

constexpr uint64_t kFileBytes = 64ull << 20;
// Memory of unordered keys, from which on they become a file.
constexpr size_t kUnorderedBytesMax = 16 << 20;
// Trying to compress what cannot be compressed is a fifth of the work: after a file that shrank by less than a tenth,
// the next ones are written as they are.
constexpr uint64_t kPlainFiles = 7;

}  // namespace

RocksDbBulkLoader::RocksDbBulkLoader(const rocksdb::Options& options, std::string directory)
    : options_(options), directory_(std::move(directory)), ingest_directory_(directory_ + ".ingest") {}

absl::StatusOr<std::unique_ptr<StoreBulkLoader>> RocksDbBulkLoader::Create(const rocksdb::Options& options,
                                                                           const std::string& directory,
                                                                           BulkLoad mode) {
  rocksdb::Env& env = *rocksdb::Env::Default();
  if (mode == BulkLoad::kNew && env.FileExists(directory + "/CURRENT").ok()) {
    return absl::AlreadyExistsError(absl::StrCat(directory, " holds a store already"));
  }
  std::unique_ptr<RocksDbBulkLoader> loader(new RocksDbBulkLoader(options, directory));
  loader->RemoveIngestDirectory();  // of an earlier attempt
  TOWLINE_RETURN_IF_ERROR(FromRocksDb(env.CreateDirIfMissing(loader->ingest_directory_), loader->ingest_directory_));
  TOWLINE_RETURN_IF_ERROR(OpenDatabase(options, directory, &loader->db_));
  return loader;
}

RocksDbBulkLoader::~RocksDbBulkLoader() {
  writer_.reset();
  db_.reset();
  RemoveIngestDirectory();
}

void RocksDbBulkLoader::RemoveIngestDirectory() {
  rocksdb::Env& env = *rocksdb::Env::Default();
  std::vector<std::string> names;
  if (!env.GetChildren(ingest_directory_, &names).ok()) return;
  for (const std::string& name : names)
    env.DeleteFile(absl::StrCat(ingest_directory_, "/", name)).PermitUncheckedError();
  env.DeleteDir(ingest_directory_).PermitUncheckedError();
}

std::string RocksDbBulkLoader::NextPath() { return absl::StrCat(ingest_directory_, "/", ++files_, ".sst"); }

absl::Status RocksDbBulkLoader::OpenFile() {
  path_ = NextPath();
  rocksdb::Options options = options_;
  // Somebody waits: with Zstandard a load would take 1.7 times as long.
  options.bottommost_compression = rocksdb::kDisableCompressionOption;
  if (plain_files_left_ > 0) {
    --plain_files_left_;
    options.compression_per_level.clear();
    options.compression = rocksdb::kNoCompression;
  }
  // What was just written is what the node reads next: it stays in the page cache.
  writer_ = std::make_unique<rocksdb::SstFileWriter>(rocksdb::EnvOptions(options), options, nullptr,
                                                     /*invalidate_page_cache=*/false);
  return FromRocksDb(writer_->Open(path_), path_);
}

absl::Status RocksDbBulkLoader::CloseFile() {
  if (writer_ == nullptr) return absl::OkStatus();
  rocksdb::ExternalSstFileInfo info;
  const rocksdb::Status finished = writer_->Finish(&info);
  writer_.reset();
  TOWLINE_RETURN_IF_ERROR(FromRocksDb(finished, path_));
  last_key_ = info.largest_key;
  if (plain_files_left_ == 0 && info.file_size > pending_bytes_ / 10 * 9) plain_files_left_ = kPlainFiles;
  TOWLINE_RETURN_IF_ERROR(TakeIn(path_, info));
  pending_bytes_ = 0;
  return absl::OkStatus();
}

absl::Status RocksDbBulkLoader::TakeIn(const std::string& path, const rocksdb::ExternalSstFileInfo& info) {
  rocksdb::IngestExternalFileArg file;
  file.column_family = db_->DefaultColumnFamily();
  file.external_files = {path};
  file.files_checksums = {info.file_checksum};
  file.files_checksum_func_names = {info.file_checksum_func_name};
  file.options.move_files = true;
  file.options.write_global_seqno = false;
  // The writer has just made it: reading the file for that would cost as much as writing it.
  file.options.verify_file_checksum = false;
  return FromRocksDb(db_->IngestExternalFiles({file}), absl::StrCat("cannot take in ", path));
}

absl::Status RocksDbBulkLoader::Add(absl::string_view key, absl::string_view value) {
  // Inside a file the writer checks it.
  if (writer_ == nullptr) {
    if (started_ && key <= last_key_) return absl::InvalidArgumentError("keys of a bulk load must rise strictly");
    TOWLINE_RETURN_IF_ERROR(OpenFile());
  }
  started_ = true;
  TOWLINE_RETURN_IF_ERROR(FromRocksDb(writer_->Put(ToSlice(key), ToSlice(value)), path_));
  pending_bytes_ += key.size() + value.size();
  return pending_bytes_ >= kFileBytes ? CloseFile() : absl::OkStatus();
}

absl::Status RocksDbBulkLoader::AddUnordered(absl::string_view key, absl::string_view value) {
  unordered_.Add(key, value);
  return unordered_.bytes() >= kUnorderedBytesMax ? WriteUnordered() : absl::OkStatus();
}

absl::Status RocksDbBulkLoader::WriteUnordered() {
  if (unordered_.empty()) return absl::OkStatus();
  const std::string path = NextPath();
  rocksdb::SstFileWriter writer(rocksdb::EnvOptions(options_), options_, nullptr, /*invalidate_page_cache=*/false);
  TOWLINE_RETURN_IF_ERROR(FromRocksDb(writer.Open(path), path));
  TOWLINE_RETURN_IF_ERROR(unordered_.ForEach([&](absl::string_view key, absl::string_view value) {
    return FromRocksDb(writer.Put(ToSlice(key), ToSlice(value)), path);
  }));
  rocksdb::ExternalSstFileInfo info;
  TOWLINE_RETURN_IF_ERROR(FromRocksDb(writer.Finish(&info), path));
  TOWLINE_RETURN_IF_ERROR(TakeIn(path, info));
  unordered_.Clear();
  return absl::OkStatus();
}

absl::Status RocksDbBulkLoader::Commit(bool unordered) {
  TOWLINE_RETURN_IF_ERROR(CloseFile());
  return unordered ? WriteUnordered() : absl::OkStatus();
}

std::unique_ptr<StoreIterator> RocksDbBulkLoader::NewIterator(absl::string_view lower, absl::string_view upper) {
  rocksdb::ReadOptions options;
  options.fill_cache = false;
  return NewRocksDbIterator(*db_, options, lower, upper);
}

absl::Status RocksDbBulkLoader::Finish() {
  TOWLINE_RETURN_IF_ERROR(Commit(/*unordered=*/true));
  TOWLINE_RETURN_IF_ERROR(FromRocksDb(db_->Close(), absl::StrCat("cannot close ", directory_)));
  db_.reset();
  RemoveIngestDirectory();
  return SyncParent(directory_);
}

}  // namespace towline
