#include "common/control.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/bytes.h"
#include "common/check.h"
#include "common/error.h"
#include "common/history.h"
#include "common/names.h"

namespace towline {
namespace {

// Sizes and limits in docs/formats/control_v2.md.
constexpr size_t kHistoryEntrySize = 20;
constexpr size_t kMemberSizeMin = 17;
constexpr size_t kTextSizeMax = 1024;

absl::Status Refuse(absl::string_view what) {
  return MakeError(absl::StatusCode::kDataLoss, "control_damaged", absl::StrCat("control file: ", what),
                   "restore the data directory, or start with an empty one");
}

bool IsName(absl::string_view name) { return ValidateName("name", name).ok(); }

bool IsClusterId(absl::string_view id) {
  const auto is_hex = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
  return id.empty() || (id.size() == kClusterIdSize && std::all_of(id.begin(), id.end(), is_hex));
}

bool IsPosition(const Position& position) {
  if (position.lsn == 0) return position == Position{};
  return position.term != 0 && position.term_id != 0;
}

bool AreMembers(const std::vector<MemberInfo>& members) {
  for (size_t i = 0; i < members.size(); ++i) {
    if (!IsName(members[i].node_id) || members[i].incarnation == 0) return false;
    if (members[i].address.size() > kTextSizeMax) return false;
    if (i > 0 && members[i - 1].node_id >= members[i].node_id) return false;
  }
  return true;
}

absl::Status Validate(const Control& control) {
  if (!IsClusterId(control.cluster_id)) return Refuse("cluster_id is not 24 hex digits");
  if (!IsName(control.node_id)) return Refuse("node_id is not a name");
  if (control.incarnation == 0) return Refuse("incarnation is 0");
  if (control.role != NodeRole::kPrimary && control.role != NodeRole::kReplica) return Refuse("unknown role");
  if (control.recovery != RecoveryState::kNone && control.recovery != RecoveryState::kRecoveryRequired) {
    return Refuse("unknown recovery state");
  }
  if (control.recovery_reason.size() > kTextSizeMax) return Refuse("recovery_reason is too long");
  if (!control.promised_candidate.empty() && !IsName(control.promised_candidate)) {
    return Refuse("promised_candidate is not a name");
  }
  if (control.promised_term == 0 && !control.promised_candidate.empty()) return Refuse("a promise without a term");
  if (!control.term_primary.empty() && !IsName(control.term_primary)) return Refuse("term_primary is not a name");
  if (!IsValidHistory(control.history)) return Refuse("the history does not rise");
  if (!AreMembers(control.members.members)) return Refuse("the members are malformed or out of order");
  if (!IsPosition(control.base)) return Refuse("base is not a position");
  if (!IsPosition(control.exact_from)) return Refuse("exact_from is not a position");
  if (control.exact_from.lsn < control.base.lsn) return Refuse("exact_from is before base");
  return absl::OkStatus();
}

void PutPosition(ByteWriter& writer, const Position& position) {
  writer.U64(position.term_id);
  writer.U64(position.lsn);
  writer.U64(position.chain);
}

void TakePosition(ByteReader& reader, Position* position) {
  position->term_id = reader.U64();
  position->lsn = reader.U64();
  position->chain = reader.U64();
}

// Everything before the reserved bytes.
void TakeFixedPart(ByteReader& reader, Control* control) {
  control->incarnation = reader.U64();
  control->generation = reader.U64();
  control->watermark = reader.U64();
  TakePosition(reader, &control->base);
  TakePosition(reader, &control->exact_from);
  control->base.term = reader.U32();
  control->exact_from.term = reader.U32();
  control->promised_term = reader.U32();
  control->members.min_replicas = reader.U32();
  control->role = static_cast<NodeRole>(reader.U8());
  control->recovery = static_cast<RecoveryState>(reader.U8());
}

}  // namespace

void SetHistory(History history, Control* control) {
  const bool same_term = !history.empty() && !control->history.empty() && history.back() == control->history.back();
  if (!same_term) control->term_primary.clear();
  control->history = std::move(history);
}

std::string EncodeControl(const Control& control) {
  std::string out;
  ByteWriter writer(&out);
  writer.U64(control.incarnation);
  writer.U64(control.generation);
  writer.U64(control.watermark);
  PutPosition(writer, control.base);
  PutPosition(writer, control.exact_from);
  writer.U32(control.base.term);
  writer.U32(control.exact_from.term);
  writer.U32(control.promised_term);
  writer.U32(control.members.min_replicas);
  writer.U8(static_cast<uint8_t>(control.role));
  writer.U8(static_cast<uint8_t>(control.recovery));
  writer.U16(0);
  writer.U32(static_cast<uint32_t>(control.history.size()));
  writer.U32(static_cast<uint32_t>(control.members.members.size()));
  writer.LengthPrefixed(control.cluster_id);
  writer.LengthPrefixed(control.node_id);
  writer.LengthPrefixed(control.promised_candidate);
  writer.LengthPrefixed(control.recovery_reason);
  for (const HistoryEntry& entry : control.history) {
    writer.U32(entry.term);
    writer.U64(entry.start_lsn);
    writer.U64(entry.term_id);
  }
  for (const MemberInfo& member : control.members.members) {
    writer.LengthPrefixed(member.node_id);
    writer.LengthPrefixed(member.address);
    writer.U64(member.incarnation);
    writer.U8(member.counting ? 1 : 0);
  }
  writer.LengthPrefixed(control.term_primary);
  return out;
}

absl::StatusOr<Control> DecodeControl(uint32_t version, absl::string_view payload) {
  if (version != kControlVersion && version != 1) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "control_version",
                     absl::StrCat("the control file has format version ", version,
                                  ", this program reads versions 1 to ", kControlVersion),
                     "start the program that wrote this data directory");
  }
  Control control;
  ByteReader reader(payload);
  TakeFixedPart(reader, &control);
  if (reader.U16() != 0) return Refuse("reserved bytes are not 0");
  const uint32_t history_count = reader.U32();
  const uint32_t member_count = reader.U32();
  control.cluster_id = std::string(reader.LengthPrefixed());
  control.node_id = std::string(reader.LengthPrefixed());
  control.promised_candidate = std::string(reader.LengthPrefixed());
  control.recovery_reason = std::string(reader.LengthPrefixed());
  if (!reader.ok() || history_count > reader.remaining() / kHistoryEntrySize) return Refuse("it is cut off");
  for (uint32_t i = 0; i < history_count; ++i) {
    HistoryEntry& entry = control.history.emplace_back();
    entry.term = reader.U32();
    entry.start_lsn = reader.U64();
    entry.term_id = reader.U64();
  }
  if (member_count > reader.remaining() / kMemberSizeMin) return Refuse("it is cut off");
  for (uint32_t i = 0; i < member_count; ++i) {
    MemberInfo& member = control.members.members.emplace_back();
    member.node_id = std::string(reader.LengthPrefixed());
    member.address = std::string(reader.LengthPrefixed());
    member.incarnation = reader.U64();
    const uint8_t counting = reader.U8();
    if (counting > 1) return Refuse("a member's counting flag is neither 0 nor 1");
    member.counting = counting == 1;
  }
  if (version > 1) control.term_primary = std::string(reader.LengthPrefixed());
  if (!reader.ok()) return Refuse("it is cut off");
  if (reader.remaining() != 0) return Refuse("bytes follow its end");
  TOWLINE_RETURN_IF_ERROR(Validate(control));
  return control;
}

ControlFile::ControlFile(FileSystem& fs, const std::string& directory)
    : file_(fs, directory, "control", kControlMagic, kControlCapacity) {}

absl::StatusOr<std::unique_ptr<ControlFile>> ControlFile::Open(FileSystem& fs, const std::string& directory) {
  std::unique_ptr<ControlFile> control(new ControlFile(fs, directory));
  MutexLock lock(&control->mutex_);
  TwoCopyImage image;
  TOWLINE_ASSIGN_OR_RETURN(const TwoCopyState state, control->file_.Load(&image));
  if (state == TwoCopyState::kDamaged) {
    return Refuse(absl::StrCat("neither ", JoinPath(directory, "control.a"), " nor control.b is whole"));
  }
  if (state == TwoCopyState::kValid) {
    TOWLINE_ASSIGN_OR_RETURN(control->control_, DecodeControl(image.version, image.payload));
    control->exists_ = true;
  }
  return control;
}

bool ControlFile::exists() const {
  MutexLock lock(&mutex_);
  return exists_;
}

Control ControlFile::Get() const {
  MutexLock lock(&mutex_);
  TOWLINE_CHECK(exists_);
  return control_;
}

absl::Status ControlFile::Set(const Control& control, bool both) {
  MutexLock lock(&mutex_);
  return SaveLocked(control, both);
}

absl::Status ControlFile::Settle() {
  MutexLock lock(&mutex_);
  return file_.Settle();
}

absl::Status ControlFile::SaveLocked(const Control& control, bool both) {
  const absl::Status valid = Validate(control);
  if (!valid.ok()) {
    return MakeError(absl::StatusCode::kInvalidArgument, "control_invalid", GetErrorInfo(valid).message);
  }
  const std::string payload = EncodeControl(control);
  TOWLINE_RETURN_IF_ERROR(both ? file_.SaveBoth(kControlVersion, payload) : file_.Save(kControlVersion, payload));
  control_ = control;
  exists_ = true;
  return absl::OkStatus();
}

}  // namespace towline
