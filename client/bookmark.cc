#include "towline/bookmark.h"

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "common/bytes.h"
#include "common/checksum.h"
#include "common/error.h"
#include "common/names.h"
#include "common/types.h"

namespace towline {
namespace {

constexpr absl::string_view kPrefix = "t1.";
constexpr size_t kClusterBytes = kClusterIdSize / 2;
constexpr size_t kCheckedBytes = kClusterBytes + 4 * sizeof(uint64_t);
constexpr size_t kTokenBytes = kCheckedBytes + sizeof(uint32_t);
constexpr size_t kTextSize = kTokenBytes / 3 * 4;
static_assert(kTokenBytes % 3 == 0, "no padding");

absl::Status Invalid(absl::string_view token, absl::string_view why) {
  return MakeError(absl::StatusCode::kInvalidArgument, "invalid_token",
                   absl::StrCat("\"", Printable(token, 80), "\" is not a position token: ", why),
                   "give the token of a write or of a read as it was printed");
}

bool IsClusterId(absl::string_view id) {
  return id.size() == kClusterIdSize && id.find_first_not_of("0123456789abcdef") == absl::string_view::npos;
}

}  // namespace

std::string ToToken(const Bookmark& bookmark) {
  if (bookmark.empty() || !IsClusterId(bookmark.cluster_id)) return "";
  std::string bytes = absl::HexStringToBytes(bookmark.cluster_id);
  ByteWriter writer(&bytes);
  writer.U64(bookmark.term);
  writer.U64(bookmark.term_id);
  writer.U64(bookmark.lsn);
  writer.U64(bookmark.chain);
  writer.U32(Crc32c(bytes));
  return absl::StrCat(kPrefix, absl::WebSafeBase64Escape(bytes));
}

absl::StatusOr<Bookmark> ParseToken(absl::string_view token) {
  if (!absl::StartsWith(token, kPrefix)) {
    const bool newer = token.size() > 2 && token[0] == 't' && token.find('.') != absl::string_view::npos;
    return Invalid(token, newer ? "its version is not known here" : "it does not begin with t1.");
  }
  const absl::string_view text = token.substr(kPrefix.size());
  if (text.size() != kTextSize) {
    return Invalid(token, absl::StrCat("it has ", token.size(), " characters, not ", kPrefix.size() + kTextSize));
  }
  std::string bytes;
  // Of several spellings of the same bytes only one is a token.
  if (!absl::WebSafeBase64Unescape(text, &bytes) || bytes.size() != kTokenBytes ||
      absl::WebSafeBase64Escape(bytes) != text) {
    return Invalid(token, "it has a character that no token has");
  }
  ByteReader reader(bytes);
  Bookmark bookmark;
  bookmark.cluster_id = absl::BytesToHexString(reader.Bytes(kClusterBytes));
  bookmark.term = reader.U64();
  bookmark.term_id = reader.U64();
  bookmark.lsn = reader.U64();
  bookmark.chain = reader.U64();
  if (reader.U32() != Crc32c(absl::string_view(bytes).substr(0, kCheckedBytes))) {
    return Invalid(token, "its check value does not match; it was changed on its way");
  }
  if (bookmark.empty()) return Invalid(token, "its LSN is 0");
  return bookmark;
}

}  // namespace towline
