#include "common/bytes.h"

#include <bit>

namespace towline {

static_assert(std::endian::native == std::endian::little,
              "the formats are little-endian and stored as memory holds them");

absl::string_view ByteReader::Bytes(size_t n) {
  if (!ok_ || n > data_.size()) {
    ok_ = false;
    data_ = absl::string_view();
    return absl::string_view();
  }
  const absl::string_view taken = data_.substr(0, n);
  data_.remove_prefix(n);
  return taken;
}

}  // namespace towline
