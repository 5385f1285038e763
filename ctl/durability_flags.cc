#include "ctl/durability_flags.h"

namespace towline::ctl {

void AddDurabilityFlags(CLI::App& verb, DurabilityFlags* flags) {
  flags->replicas_flag = AddNumber(verb, "--replicas", &flags->replicas,
                                   "Counting replicas that must hold it before the answer (default: the primary's)");
  verb.add_option("--stage", flags->stage, "What of them counts: flushed or applied (default flushed)")
      ->check(CLI::IsMember({"flushed", "applied"}));
  verb.add_flag("--applied", flags->applied, "The same as --stage applied");
  AddDuration(verb, "--commit-timeout", &flags->timeout_us,
              "How long to wait for them, such as 2s (default: durability.timeout of the primary)");
  verb.add_flag("--accept", flags->accept, "Then accept the lower level; it is no error");
}

absl::StatusOr<std::optional<v1::Durability>> DurabilityOf(const DurabilityFlags& flags) {
  const bool others = flags.applied || flags.accept || flags.stage != "flushed" || flags.timeout_us != 0;
  if (flags.replicas_flag->count() == 0) {
    if (others) return UsageError("--stage, --applied, --commit-timeout and --accept need --replicas");
    return std::nullopt;
  }
  constexpr int64_t kMicrosMax = 600'000'000;
  if (flags.timeout_us != 0 && (flags.timeout_us < 1000 || flags.timeout_us > kMicrosMax)) {
    return UsageError("--commit-timeout is 1ms to 600s");
  }
  if (flags.replicas > 1000) return UsageError("--replicas is at most 1000");
  v1::Durability durability;
  durability.set_replicas(static_cast<uint32_t>(flags.replicas));
  const bool applied = flags.applied || flags.stage == "applied";
  durability.set_stage(applied ? v1::COMMIT_STAGE_APPLIED : v1::COMMIT_STAGE_FLUSHED);
  durability.set_timeout_ms(static_cast<uint32_t>(flags.timeout_us / 1000));
  durability.set_on_timeout(flags.accept ? v1::ON_COMMIT_TIMEOUT_ACCEPT : v1::ON_COMMIT_TIMEOUT_FAIL);
  return durability;
}

}  // namespace towline::ctl
