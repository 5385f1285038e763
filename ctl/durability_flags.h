// Flags of the verbs that write: at which commit level.

#ifndef TOWLINE_CTL_DURABILITY_FLAGS_H_
#define TOWLINE_CTL_DURABILITY_FLAGS_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"

#include "ctl/app.h"
#include "towline/v1/kv_service.pb.h"

namespace towline::ctl {

struct DurabilityFlags {
  CLI::Option* replicas_flag = nullptr;
  uint64_t replicas = 0;
  std::string stage = "flushed";
  bool applied = false;
  int64_t timeout_us = 0;
  bool accept = false;
};

// --replicas, --stage, --applied, --commit-timeout, --accept.
void AddDurabilityFlags(CLI::App& verb, DurabilityFlags* flags);

// nullopt = the primary's default. A usage error if the others are given without --replicas.
absl::StatusOr<std::optional<v1::Durability>> DurabilityOf(const DurabilityFlags& flags);

}  // namespace towline::ctl

#endif  // TOWLINE_CTL_DURABILITY_FLAGS_H_
