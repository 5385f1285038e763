// Sums of whole files that RocksDB keeps in its manifest, made as the files are written.

#ifndef TOWLINE_STORE_ROCKSDB_FILE_SUMS_H_
#define TOWLINE_STORE_ROCKSDB_FILE_SUMS_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "rocksdb/file_checksum.h"

namespace towline {

// CRC-32C, 4 bytes big-endian. Not RocksDB's own generator of that sum: Debian's build computes it without the
// processor's instructions, fifty times slower.
std::shared_ptr<rocksdb::FileChecksumGenFactory> NewFileSumFactory();

// From a file's metadata; nullopt: it has none, or one of another function.
std::optional<uint32_t> FileSumOf(const std::string& function, const std::string& sum);

}  // namespace towline

#endif  // TOWLINE_STORE_ROCKSDB_FILE_SUMS_H_
