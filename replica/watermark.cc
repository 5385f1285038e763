#include "replica/watermark.h"

namespace towline {

absl::Status WatermarkSaver::MaybeSaveWatermark(Generation& live) {
  const Lsn durable = live.spool().end().lsn;
  const int64_t now = clock_.MonotonicMicros();
  if (durable != seen_lsn_ || live.number() != generation_) {
    generation_ = live.number();
    seen_lsn_ = durable;
    seen_micros_ = now;
  }
  if (now - seen_micros_ < idle_micros_) return absl::OkStatus();
  return SaveWatermark(live);
}

absl::Status WatermarkSaver::SaveWatermark(Generation& live) {
  const Lsn durable = live.spool().end().lsn;
  const Control control = control_.Get();
  // A generation that is not live any more says nothing about the log that control speaks of.
  if (control.generation != live.number() || control.watermark >= durable) return absl::OkStatus();
  return control_.Update(/*both=*/false, [&](Control& present) {
    if (present.generation == live.number() && present.watermark < durable) present.watermark = durable;
  });
}

}  // namespace towline
