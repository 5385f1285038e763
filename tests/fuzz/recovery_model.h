// Recovery as docs/formats/recovery.md describes it, written from that document and from segment_v1.md and frame_v1.md.
//
// Slow and plain: it shares no code with wal/ but the checksum functions and the types of the inputs. What the
// documents leave open is marked in recovery_model.cc.

#ifndef TOWLINE_TESTS_FUZZ_RECOVERY_MODEL_H_
#define TOWLINE_TESTS_FUZZ_RECOVERY_MODEL_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

#include "wal/spool.h"

namespace towline::fuzz {

// A frame as frame_v1.md lays it out.
struct ModelFrame {
  enum class Finding { kNone, kCut, kDamaged, kWhole };  // kCut and kDamaged: its header validates

  Finding finding = Finding::kNone;
  uint64_t stamp = 0;
  uint8_t type = 0;
  uint8_t flags = 0;
  uint32_t term = 0;
  Lsn lsn = 0;
  int64_t commit_time_us = 0;
  uint64_t prev_chain = 0;
  uint64_t chain = 0;  // of a whole frame
  uint64_t size = 0;   // in the segment
  absl::string_view payload;
};

// What stands at the start of `bytes`.
ModelFrame FrameAt(absl::string_view bytes, uint64_t salt);

struct ModelVerdict {
  std::string row;
  bool refused = false;
  Lsn watermark = 0;
  // If it is not refused:
  Lsn end_lsn = 0;
  uint64_t end_chain = 0;
  uint64_t quarantined_bytes = 0;
  std::vector<std::string> payloads;  // of the newest segment, up to the end
};

// `files`: the names in the spool's directory and what they hold.
ModelVerdict Judge(const std::map<std::string, std::string>& files, const wal::RecoveryInputs& inputs);

}  // namespace towline::fuzz

#endif  // TOWLINE_TESTS_FUZZ_RECOVERY_MODEL_H_
