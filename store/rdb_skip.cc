#include "store/rdb_skip.h"

#include <algorithm>

#include "store/rdb_cursor.h"

namespace towline {
namespace {

// A layout is a sequence of steps:
//   s      a string
//   l      a length
//   8 F    8, 16 bytes
//   d      a number as text: a byte with its size, or one of the values below without text
//   m      an item of a module, until the one that ends the value
//   (...)  a length, and so many times what stands between
constexpr char kString = 's';
constexpr char kLength = 'l';
constexpr char kBytes8 = '8';
constexpr char kBytes16 = 'F';
constexpr char kTextNumber = 'd';
constexpr char kModuleItem = 'm';
constexpr char kOpen = '(';
constexpr char kClose = ')';

constexpr uint8_t kTextNumberSpecial = 253;  // NaN, and above it the infinities

// Items of modules.
constexpr uint64_t kModuleEnd = 0;
constexpr uint64_t kModuleSigned = 1;
constexpr uint64_t kModuleUnsigned = 2;
constexpr uint64_t kModuleFloat = 3;
constexpr uint64_t kModuleDouble = 4;
constexpr uint64_t kModuleString = 5;

// Streams: listpacks with their master ids; length and last id; (since 2: first id, highest deleted id, entries added);
// groups: name, last id, (since 2: entries read), pending: id, time, deliveries; consumers: name, time, (since 3:
// active time), ids.
constexpr RdbOtherType kTypes[] = {
    {1, "list", "list", true, "(s)"},
    {2, "set", "set", true, "(s)"},
    {3, "zset", "zset", true, "(sd)"},
    {4, "hash", "hash", true, "(ss)"},
    {5, "zset_2", "zset", true, "(s8)"},
    {6, "module", "module", true, ""},
    {7, "module_2", "module", true, "lm"},
    {9, "hash_zipmap", "hash", true, "s"},
    {10, "list_ziplist", "list", true, "s"},
    {11, "set_intset", "set", true, "s"},
    {12, "zset_ziplist", "zset", true, "s"},
    {13, "hash_ziplist", "hash", true, "s"},
    {14, "list_quicklist", "list", true, "(s)"},
    {15, "stream_listpacks", "stream", true, "(ss)lll(sll(F8l)(s8(F)))"},
    {16, "hash_listpack", "hash", true, "s"},
    {17, "zset_listpack", "zset", true, "s"},
    {18, "list_quicklist_2", "list", true, "(ls)"},
    {19, "stream_listpacks_2", "stream", true, "(ss)llllllll(slll(F8l)(s8(F)))"},
    {20, "set_listpack", "set", true, "s"},
    {21, "stream_listpacks_3", "stream", true, "(ss)llllllll(slll(F8l)(s88(F)))"},
    {0xf4, "slot_info", "slot_info", false, "lll"},
    {0xf5, "function", "function", false, "s"},
    {0xf6, "function_pre_release", "function", false, ""},
    {0xf7, "module_aux", "module_aux", false, "lm"},
};

// Hashes whose fields may expire; the first two are of release candidates.
constexpr RdbOtherType kRedisTypes[] = {
    {22, "hash_metadata_pre_release", "hash", true, "(lss)"},
    {23, "hash_listpack_ex_pre_release", "hash", true, "s"},
    {24, "hash_metadata", "hash", true, "8(lss)"},
    {25, "hash_listpack_ex", "hash", true, "8s"},
};
constexpr RdbOtherType kValkeyTypes[] = {
    {22, "hash_2", "hash", true, "(ss8)"},
    {0xf3, "slot_import", "slot_import", false, "s(ll)"},
};

constexpr RdbOtherType kUnknown = {0, "unknown", "unknown", true, ""};

// Behind the closing bracket of the one that stands at `open`.
size_t BehindBracket(absl::string_view layout, size_t open) {
  size_t depth = 0;
  for (size_t i = open;; ++i) {
    if (layout[i] == kOpen) ++depth;
    if (layout[i] == kClose && --depth == 0) return i + 1;
  }
}

}  // namespace

const RdbOtherType& FindRdbOtherType(uint8_t type, bool valkey) {
  const auto is_it = [type](const RdbOtherType& candidate) { return candidate.type == type; };
  const auto* const common = std::find_if(std::begin(kTypes), std::end(kTypes), is_it);
  if (common != std::end(kTypes)) return *common;
  const auto* const begin = valkey ? std::begin(kValkeyTypes) : std::begin(kRedisTypes);
  const auto* const end = valkey ? std::end(kValkeyTypes) : std::end(kRedisTypes);
  const auto* const own = std::find_if(begin, end, is_it);
  return own != end ? *own : kUnknown;
}

void RdbSkipper::Begin(const RdbOtherType& type) {
  levels_.assign(1, Level{type.layout, 0, 0});
  bytes_ = 0;
  fault_ = nullptr;
}

size_t RdbSkipper::Take(absl::string_view data) {
  size_t taken = 0;
  for (;;) {
    const size_t bytes = static_cast<size_t>(std::min<uint64_t>(bytes_, data.size() - taken));
    taken += bytes;
    bytes_ -= bytes;
    if (bytes_ > 0 || fault_ != nullptr) return taken;
    while (active() && levels_.back().at == levels_.back().layout.size()) {
      if (levels_.back().more == 0) {
        levels_.pop_back();
      } else {
        --levels_.back().more;
        levels_.back().at = 0;
      }
    }
    if (!active() || !TakeStep(data.substr(taken), &taken)) return taken;
  }
}

// The step's numbers; the bytes that they announce are left to bytes_. False if they are not all there, or are wrong.
bool RdbSkipper::TakeStep(absl::string_view data, size_t* taken) {
  RdbCursor cursor(data);
  uint64_t bytes = 0;
  uint64_t count = 0;
  bool again = false;
  const char step = levels_.back().layout[levels_.back().at];
  switch (step) {
    case kString:
      bytes = cursor.StringSize();
      break;
    case kLength:
      cursor.Length(nullptr);
      break;
    case kBytes8:
      bytes = 8;
      break;
    case kBytes16:
      bytes = 16;
      break;
    case kTextNumber:
      bytes = cursor.U8();
      if (bytes >= kTextNumberSpecial) bytes = 0;
      break;
    case kOpen:
      count = cursor.Length(nullptr);
      break;
    case kModuleItem: {
      const uint64_t item = cursor.Length(nullptr);
      again = item != kModuleEnd;
      if (item == kModuleSigned || item == kModuleUnsigned) cursor.Length(nullptr);
      if (item == kModuleFloat) bytes = 4;
      if (item == kModuleDouble) bytes = 8;
      if (item == kModuleString) bytes = cursor.StringSize();
      if (item > kModuleString) cursor.Fault("a module's value has an unknown item");
      break;
    }
    default:
      break;
  }
  fault_ = cursor.fault();
  if (!cursor.ok()) return false;
  *taken += cursor.taken();
  bytes_ = bytes;
  if (step == kOpen) {
    BeginRound(count);
  } else if (!again) {
    ++levels_.back().at;
  }
  return true;
}

// Goes into the brackets that stand here, `count` times.
void RdbSkipper::BeginRound(uint64_t count) {
  Level& outer = levels_.back();
  const size_t inside = outer.at + 1;
  const size_t behind = BehindBracket(outer.layout, outer.at);
  const absl::string_view layout = outer.layout.substr(inside, behind - 1 - inside);
  outer.at = behind;
  if (count > 0) levels_.push_back(Level{layout, 0, count - 1});
}

}  // namespace towline
