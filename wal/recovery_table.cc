#include "wal/recovery_table.h"

#include "common/check.h"

namespace towline::wal {
namespace {

// Every segment that should be there is, with a whole header, and the log reaches the watermark.
bool Whole(const LogFindings& f) {
  return f.sealed_damage.ok() && f.newest_header_damage.ok() && f.end_lsn >= f.watermark;
}

constexpr LogRow kLogTable[] = {
    {"sealed_damaged", "a sealed segment, or what links two segments, is not as it was written",
     [](const LogFindings& f) { return !f.sealed_damage.ok(); }, LogVerdict::kCorrupt},
    {"newest_header_damaged", "the newest segment has no valid header; it was durable before the file had its name",
     [](const LogFindings& f) { return f.sealed_damage.ok() && !f.newest_header_damage.ok(); }, LogVerdict::kCorrupt},
    {"no_segment", "there is no segment and nothing says that there was one",
     [](const LogFindings& f) { return !f.has_segment && Whole(f); }, LogVerdict::kCreateFirst},
    {"below_watermark", "the log ends below a record that was durable once",
     [](const LogFindings& f) {
       return f.sealed_damage.ok() && f.newest_header_damage.ok() && f.end_lsn < f.watermark;
     },
     LogVerdict::kCorrupt},
    {"newest_footer", "the newest segment is whole and has its footer, its successor is missing",
     [](const LogFindings& f) { return f.has_segment && Whole(f) && f.footer == FooterState::kMatches; },
     LogVerdict::kCreateNext},
    {"newest_footer_contradicted", "the newest segment has a footer that its frames contradict",
     [](const LogFindings& f) { return f.has_segment && Whole(f) && f.footer == FooterState::kContradicted; },
     LogVerdict::kCorrupt},
    {"newest_clean", "the newest segment is whole, and no frame of this life stands behind its end",
     [](const LogFindings& f) { return f.has_segment && Whole(f) && f.footer == FooterState::kNone && !f.torn; },
     LogVerdict::kAccept},
    {"newest_torn", "behind the end of the newest segment stand frames of an append that was never acknowledged",
     [](const LogFindings& f) { return f.has_segment && Whole(f) && f.footer == FooterState::kNone && f.torn; },
     LogVerdict::kCutTail},
};

constexpr FileRow kFileTable[] = {
    {"segment_removed", "a segment wholly below the first retained LSN: removed unread",
     [](const FileFindings& f) { return f.kind == FileKind::kSegment && f.below_first_retained; },
     FileVerdict::kRemove},
    {"segment_sealed", "a segment with a successor: header, footer and links are checked, its records are not read",
     [](const FileFindings& f) { return f.kind == FileKind::kSegment && !f.below_first_retained && !f.newest; },
     FileVerdict::kKeep},
    {"segment_newest", "the segment without a successor: read whole, see the other table",
     [](const FileFindings& f) { return f.kind == FileKind::kSegment && !f.below_first_retained && f.newest; },
     FileVerdict::kKeep},
    {"index", "an index: checked whenever it is used, built anew on any doubt",
     [](const FileFindings& f) { return f.kind == FileKind::kIndex && f.has_segment; }, FileVerdict::kKeep},
    {"index_orphan", "an index without segment",
     [](const FileFindings& f) { return f.kind == FileKind::kIndex && !f.has_segment; }, FileVerdict::kRemove},
    {"spare", "a spare of the present segment size",
     [](const FileFindings& f) { return f.kind == FileKind::kSpare && f.usable; }, FileVerdict::kKeep},
    {"spare_unusable", "a spare of another size or with a second name",
     [](const FileFindings& f) { return f.kind == FileKind::kSpare && !f.usable; }, FileVerdict::kRemove},
    {"tmp", "a file that was being made", [](const FileFindings& f) { return f.kind == FileKind::kTmp; },
     FileVerdict::kRemove},
    {"foreign", "a name that no version of this program gives",
     [](const FileFindings& f) { return f.kind == FileKind::kOther; }, FileVerdict::kLeave},
};

template <typename Row, typename Findings>
const Row& MatchOne(absl::Span<const Row> table, const Findings& findings) {
  const Row* match = nullptr;
  for (const Row& row : table) {
    if (!row.matches(findings)) continue;
    TOWLINE_CHECK(match == nullptr);
    match = &row;
  }
  TOWLINE_CHECK(match != nullptr);
  return *match;
}

}  // namespace

absl::Span<const LogRow> LogTable() { return kLogTable; }
absl::Span<const FileRow> FileTable() { return kFileTable; }

const LogRow& MatchLogRow(const LogFindings& findings) { return MatchOne(LogTable(), findings); }
const FileRow& MatchFileRow(const FileFindings& findings) { return MatchOne(FileTable(), findings); }

}  // namespace towline::wal
