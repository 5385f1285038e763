#include "store/rocksdb/file_sums.h"

#include "absl/strings/string_view.h"

#include "common/checksum.h"

namespace towline {
namespace {

constexpr char kFunction[] = "towline-crc32c";  // stands in manifests
constexpr size_t kSumBytes = 4;

class FileSum final : public rocksdb::FileChecksumGenerator {
 public:
  void Update(const char* data, size_t size) override { crc_ = Crc32cExtend(crc_, absl::string_view(data, size)); }
  void Finalize() override {
    for (size_t i = 0; i < kSumBytes; ++i) sum_.push_back(static_cast<char>(crc_ >> (8 * (kSumBytes - 1 - i))));
  }
  std::string GetChecksum() const override { return sum_; }
  const char* Name() const override { return kFunction; }

 private:
  uint32_t crc_ = 0;
  std::string sum_;
};

class FileSumFactory final : public rocksdb::FileChecksumGenFactory {
 public:
  std::unique_ptr<rocksdb::FileChecksumGenerator> CreateFileChecksumGenerator(
      const rocksdb::FileChecksumGenContext& context) override {
    const std::string& asked = context.requested_checksum_func_name;
    if (!asked.empty() && asked != kFunction) return nullptr;
    return std::make_unique<FileSum>();
  }
  const char* Name() const override { return kFunction; }
};

}  // namespace

std::shared_ptr<rocksdb::FileChecksumGenFactory> NewFileSumFactory() { return std::make_shared<FileSumFactory>(); }

std::optional<uint32_t> FileSumOf(const std::string& function, const std::string& sum) {
  if (function != kFunction || sum.size() != kSumBytes) return std::nullopt;
  uint32_t crc = 0;
  for (const char c : sum) crc = crc << 8 | static_cast<uint8_t>(c);
  return crc;
}

}  // namespace towline
