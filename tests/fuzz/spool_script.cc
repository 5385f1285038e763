#include "tests/fuzz/spool_script.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/bytes.h"
#include "common/check.h"
#include "tests/fuzz/checksums.h"
#include "tests/fuzz/recovery_model.h"
#include "tests/support/format_doc.h"
#include "tests/wal/spool_fixture.h"

namespace towline::fuzz {
namespace {

using test::SimFileSystem;
using wal::test::kDirectory;

constexpr size_t kSegment = 64 << 10;
constexpr size_t kSector = 512;
constexpr size_t kFileMax = 3 * kSegment;
constexpr size_t kFilesMax = 8;
constexpr size_t kEditsMax = 64;

// --- Edits ---

enum Edit : uint8_t {
  kFlip,            // file, offset, bit
  kWrite,           // file, offset, count, bytes
  kZero,            // file, offset, length
  kStale,           // file, offset, length: as in the former life
  kDamageRecord,    // record, what, offset in it
  kTear,            // file, sector, sectors, fill
  kWatermark,       // source, LSN
  kFirstRetained,   // LSN
  kFixChecksums,    // file, relink
  kSetFrameField,   // record, field, value; its CRC is right again
  kSetSectorField,  // file, header or footer, field, value; its CRC is right again
  kSetInputs,       // what, value
  kCopyRecord,      // record, file, offset / 8: a misdirected write
  kContentEdits,
  kRemove = kContentEdits,  // file
  kRename,                  // file, name
  kAddRaw,                  // name, how, length, bytes
  kResize,                  // file, size
  kAddStale,                // file, name: a copy of the file's former life
  kAllEdits,
};

// One byte near the log's end, or any value up to 2^48: no log gets further.
Lsn TakeLsn(Input& input, const BaseLog& base) {
  const uint8_t near = input.U8();
  if (near == 0xff) return input.U64() >> 16;
  const Lsn lsn = base.end_lsn + 8;
  return lsn - std::min<Lsn>(near, lsn);
}

// A name that a version of the program might give, or almost.
std::string TakeName(Input& input, const BaseLog& base) {
  const uint8_t kind = input.U8() % 8;
  const Lsn number = TakeLsn(input, base);
  const std::string digits = absl::StrCat(absl::Dec(number, absl::kZeroPad20));
  switch (kind) {
    case 0:
    case 1:
      return digits + ".seg";
    case 2:
      return digits + ".idx";
    case 3:
      return absl::StrCat("spare-", number, ".seg");
    case 4:
      return absl::StrCat("tmp-", number, ".seg");
    case 5:
      return absl::StrCat("tmp-", number, ".idx");
    case 6:
      return "spare-" + digits + "9.seg";
    default:
      return "0" + digits + ".seg";
  }
}

class Script {
 public:
  Script(Input& input, EditSet edits)
      : input_(input),
        edits_(edits == EditSet::kNames ? kAllEdits : kContentEdits),
        base_(BaseLogs()[input.U8() % BaseLogs().size()]) {
    image_.base = &base_;
    image_.files = base_.files;
    image_.inputs = base_.inputs;
  }

  void Run() {
    for (size_t i = 0; i < kEditsMax && !input_.empty(); ++i) Step(static_cast<Edit>(input_.U8() % edits_));
  }

  SpoolImage image() && { return std::move(image_); }
  // Places of raw files in the input, and whether they hold a footer.
  struct RawFile {
    size_t offset = 0;
    size_t size = 0;
    bool relink = false;
  };
  const std::vector<RawFile>& raw_files() const { return raw_files_; }

 private:
  void Step(Edit edit);
  void EditContents(Edit edit);
  void EditRecord(Edit edit);
  void EditInputs(Edit edit);
  void EditNames(Edit edit);

  // A file of the image; nullptr if there is none.
  std::string* TakeFile(std::string* name = nullptr) {
    const size_t index = input_.U8();
    if (image_.files.empty()) return nullptr;
    auto file = std::next(image_.files.begin(), static_cast<ptrdiff_t>(index % image_.files.size()));
    if (name != nullptr) *name = file->first;
    return &file->second;
  }

  // A record and the file that it stood in; nullptr if there is none, or the file is gone.
  const RecordPlace* TakeRecord(std::string** file) {
    const size_t index = input_.U8();
    if (base_.records.empty()) return nullptr;
    // Counted from the end: the newest segment decides most.
    const RecordPlace& place = base_.records[base_.records.size() - 1 - index % base_.records.size()];
    const auto found = image_.files.find(place.file);
    if (found == image_.files.end() || found->second.size() < place.offset + place.size) return nullptr;
    *file = &found->second;
    return &place;
  }

  const std::string& StaleOf(const std::string& name) const {
    static const std::string* const empty = new std::string();
    const auto found = base_.stale.find(name);
    return found == base_.stale.end() ? *empty : found->second;
  }

  Input& input_;
  const uint8_t edits_;
  const BaseLog& base_;
  SpoolImage image_;
  std::vector<RawFile> raw_files_;
};

void Replace(std::string* file, size_t offset, absl::string_view bytes) {
  if (offset >= file->size()) return;
  const size_t size = std::min(bytes.size(), file->size() - offset);
  file->replace(offset, size, bytes.data(), size);
}

// [offset, offset + size) as zeros, as in `stale`, or as garbage.
void Fill(std::string* file, size_t offset, size_t size, uint8_t how, const std::string& stale) {
  if (offset >= file->size()) return;
  size = std::min(size, file->size() - offset);
  std::string bytes;
  if (how % 3 == 1 && offset < stale.size()) bytes = stale.substr(offset, size);
  if (how % 3 == 2) {
    for (size_t i = 0; i < size; ++i) bytes.push_back(static_cast<char>(0x5a + i * 7));
  }
  bytes.resize(size, '\0');
  Replace(file, offset, bytes);
}

void Script::Step(Edit edit) {
  switch (edit) {
    case kFlip:
    case kWrite:
    case kZero:
    case kStale:
    case kTear:
    case kFixChecksums:
    case kSetSectorField:
      return EditContents(edit);
    case kDamageRecord:
    case kSetFrameField:
    case kCopyRecord:
      return EditRecord(edit);
    case kWatermark:
    case kFirstRetained:
    case kSetInputs:
      return EditInputs(edit);
    default:
      return EditNames(edit);
  }
}

void Script::EditContents(Edit edit) {
  std::string name;
  std::string* file = TakeFile(&name);
  const size_t a = input_.U16();
  if (file == nullptr || file->empty()) return;
  const size_t offset = a % file->size();
  switch (edit) {
    case kFlip:
      (*file)[offset] = static_cast<char>((*file)[offset] ^ (1 << (input_.U8() % 8)));
      return;
    case kWrite:
      return Replace(file, offset, input_.Bytes(input_.U8()));
    case kZero:
      return Fill(file, offset, input_.U16(), 0, "");
    case kStale:
      return Fill(file, offset, input_.U16(), 1, StaleOf(name));
    case kTear: {
      const size_t sectors = input_.U8();
      return Fill(file, offset / kSector * kSector, sectors * kSector, input_.U8(), StaleOf(name));
    }
    case kFixChecksums:
      if (!IsSegment(name, *file)) return FixIndex(absl::MakeSpan(*file));
      return FixSegment(absl::MakeSpan(*file), a % 2 == 1);
    default:
      break;
  }
  // kSetSectorField. Fields start at multiples of 4; those of 4 bytes are set by their low half.
  if (file->size() < 2 * kSector) return;
  const absl::Span<char> sector = absl::MakeSpan(*file).subspan(a % 2 == 0 ? 0 : file->size() - kSector, kSector);
  const size_t field = a / 2 % 23 * 4;
  const uint64_t before = LoadLe<uint64_t>(sector.data() + field);
  const uint8_t delta = input_.U8();
  StoreLe<uint64_t>(sector.data() + field, delta == 0xff ? input_.U64() : before + delta - 128);
  FixSector(sector);
}

void Script::EditRecord(Edit edit) {
  std::string* file = nullptr;
  const RecordPlace* place = TakeRecord(&file);
  const uint8_t what = input_.U8();
  const size_t where = input_.U16();
  if (place == nullptr) return;
  if (edit == kDamageRecord) {
    const size_t from = where % place->size;
    if (what % 4 == 3) {
      (*file)[place->offset + from] = static_cast<char>((*file)[place->offset + from] ^ (1 << (what / 4 % 8)));
    } else {
      // From the damage to the end of the record, or the whole of it.
      const size_t start = what >= 128 ? 0 : from;
      Fill(file, place->offset + start, place->size - start, what, StaleOf(place->file));
    }
    return;
  }
  if (edit == kCopyRecord) {
    const std::string frame = file->substr(place->offset, place->size);
    std::string* target = TakeFile();
    if (target != nullptr) Replace(target, where * 8 % std::max<size_t>(target->size(), 1), frame);
    return;
  }
  // kSetFrameField: offset and size of each field that a frame header has.
  constexpr std::pair<size_t, size_t> kFields[] = {{8, 8},  {16, 1}, {17, 1}, {18, 2}, {20, 4}, {24, 4},
                                                   {28, 4}, {32, 8}, {40, 8}, {48, 8}, {56, 1}};
  const auto [field, size] = kFields[what % std::size(kFields)];
  const uint64_t value = where == 0xffff ? input_.U64() : 0;
  for (size_t i = 0; i < size; ++i) {
    char& byte = (*file)[place->offset + std::min<size_t>(field + i, place->size - 1)];
    // Small steps up and down, or a value from the input.
    if (where == 0xffff) {
      byte = static_cast<char>(value >> (8 * i));
    } else if (i == where / 256 % size) {
      byte = static_cast<char>(byte + static_cast<char>(where % 256));
    }
  }
  FixFrame(absl::MakeSpan(*file).subspan(place->offset), SaltOf(*file));
}

void Script::EditInputs(Edit edit) {
  if (edit == kFirstRetained) {
    image_.inputs.first_retained = TakeLsn(input_, base_);
    return;
  }
  const uint8_t what = input_.U8();
  if (edit == kWatermark) {
    constexpr const char* kSources[] = {"control", "slot:r1", "store"};
    image_.inputs.watermarks.push_back({kSources[what % 3], TakeLsn(input_, base_)});
    return;
  }
  switch (what % 4) {
    case 0:
      image_.inputs.generation = input_.U8() % 4;
      return;
    case 1:
      image_.inputs.base.lsn = TakeLsn(input_, base_);
      return;
    case 2:
      image_.inputs.base.chain ^= input_.U8();
      return;
    default:
      image_.inputs.cluster_id[0] = static_cast<char>('0' + input_.U8() % 2);
      return;
  }
}

void Script::EditNames(Edit edit) {
  if (edit == kAddRaw) {
    const std::string name = TakeName(input_, base_);
    const uint8_t how = input_.U8();
    const size_t length = input_.U16();
    const size_t offset = input_.offset();
    std::string raw(input_.Bytes(length));
    raw_files_.push_back({offset, raw.size(), how % 2 == 1});
    if (how / 2 % 2 == 1 && raw.size() < kSegment) {
      // The last sector of the bytes becomes the last sector of a segment.
      const std::string footer = raw.size() >= 2 * kSector ? raw.substr(raw.size() - kSector) : "";
      raw.resize(raw.size() - footer.size());
      raw.resize(kSegment - footer.size(), '\0');
      raw += footer;
    }
    if (image_.files.size() < kFilesMax || image_.files.count(name) > 0) image_.files[name] = std::move(raw);
    return;
  }
  std::string name;
  std::string* file = TakeFile(&name);
  if (file == nullptr) return;
  if (edit == kRemove) {
    image_.files.erase(name);
  } else if (edit == kRename) {
    std::string bytes = std::move(*file);
    image_.files.erase(name);
    image_.files[TakeName(input_, base_)] = std::move(bytes);
  } else if (edit == kResize) {
    const size_t size = input_.U16() * size_t{4};
    file->resize(std::min(size, kFileMax), '\0');
  } else if (image_.files.size() < kFilesMax) {
    image_.files[TakeName(input_, base_)] = StaleOf(name);
  }
}

}  // namespace

std::unique_ptr<SimFileSystem> SpoolImage::ToDisk() const {
  std::unique_ptr<SimFileSystem> disk = base->disk->Clone();
  const auto path = [](const std::string& name) { return absl::StrCat(kDirectory, "/", name); };
  for (const auto& [name, bytes] : base->files) {
    if (files.count(name) == 0) {
      TOWLINE_CHECK(disk->Remove(path(name)).ok());
      TOWLINE_CHECK(disk->SyncDirectory(kDirectory).ok());
    }
  }
  for (const auto& [name, bytes] : files) {
    const auto before = base->files.find(name);
    if (before == base->files.end() || before->second != bytes) disk->SetContents(path(name), bytes);
  }
  disk->ClearLog();
  return disk;
}

SpoolImage ReadScript(Input& input, EditSet edits) {
  Script script(input, edits);
  script.Run();
  return std::move(script).image();
}

void FixRawFiles(absl::Span<char> script, EditSet edits) {
  if (edits == EditSet::kContents) return;  // has none
  Input input({script.data(), script.size()});
  Script parsed(input, edits);
  parsed.Run();
  for (const auto& raw : parsed.raw_files()) FixSegment(script.subspan(raw.offset, raw.size), raw.relink);
}

std::vector<Seed> ScriptSeeds(EditSet edits) {
  std::vector<Seed> seeds;
  const auto operand = [](std::string* out, uint64_t value, size_t size) {
    for (size_t i = 0; i < size; ++i) out->push_back(static_cast<char>(value >> (8 * i)));
  };
  for (size_t log = 0; log < BaseLogs().size(); ++log) {
    const std::string start(1, static_cast<char>(log));
    seeds.push_back({absl::StrCat(BaseLogs()[log].name), start});
    for (uint8_t edit = 0; edit < (edits == EditSet::kNames ? kAllEdits : kContentEdits); ++edit) {
      std::string script = start;
      operand(&script, edit, 1);
      // Operands that do something in every log: the last file or record, half way into it.
      operand(&script, 0, 1);
      operand(&script, 0x0302, 2);
      operand(&script, 0x0101, 2);
      seeds.push_back({absl::StrCat(BaseLogs()[log].name, "_", edit), script});
    }
  }
  // Footers that are not what was written, though their checksums hold: the segment ends one record or two early, or
  // its last record is newer than it is.
  const auto set_field = [&](std::string* script, uint8_t file, bool footer, size_t offset, uint64_t value) {
    operand(script, kSetSectorField, 1);
    operand(script, file, 1);
    operand(script, offset / 4 * 2 + (footer ? 1 : 0), 2);
    operand(script, 0xff, 1);
    operand(script, value, 8);
  };
  for (const size_t records : {5, 6}) {
    std::string script(1, '\0');
    set_field(&script, 1, true, 64, 512 + records * 9056);
    seeds.push_back({absl::StrCat("rolled_footer_ends_after_", records), script});
  }
  std::string newer(1, '\0');
  set_field(&newer, 1, true, 56, 7001);
  set_field(&newer, 3, false, 72, 7001);
  seeds.push_back({"rolled_footer_time", newer});
  if (edits != EditSet::kNames) return seeds;
  // The golden segment, whole, as the only file: header, one frame, footer.
  const std::string golden = test::ReadGolden("tests/golden/segment_v1.hex");
  std::string script(1, '\x05');
  operand(&script, kRemove, 1);
  operand(&script, 0, 1);
  operand(&script, kFirstRetained, 1);
  operand(&script, 0xff, 1);
  operand(&script, uint64_t{42} << 16, 8);
  operand(&script, kAddRaw, 1);
  operand(&script, 0, 1);
  operand(&script, 0xff, 1);
  operand(&script, uint64_t{42} << 16, 8);
  operand(&script, 2, 1);
  operand(&script, golden.size(), 2);
  seeds.push_back({"golden", script + golden});
  return seeds;
}

}  // namespace towline::fuzz
