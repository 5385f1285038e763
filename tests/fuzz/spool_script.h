// Directories of a spool that an input describes: a valid log, then edits.
//
// Input: one byte that picks the log, then edits, each one byte of operation and its operands (spool_script.cc). Some
// edits keep checksums right, so that a script can also make what no disk does by itself.

#ifndef TOWLINE_TESTS_FUZZ_SPOOL_SCRIPT_H_
#define TOWLINE_TESTS_FUZZ_SPOOL_SCRIPT_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

#include "tests/fuzz/base_logs.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/support/sim_file_system.h"
#include "wal/spool.h"

namespace towline::fuzz {

// Which edits a script may hold.
enum class EditSet {
  kContents,  // of the files that are there
  kNames,     // also new, renamed, removed, longer and shorter files
};

struct SpoolImage {
  const BaseLog* base = nullptr;
  std::map<std::string, std::string> files;
  wal::RecoveryInputs inputs;

  // The image on a disk, all of it durable.
  std::unique_ptr<test::SimFileSystem> ToDisk() const;
};

SpoolImage ReadScript(Input& input, EditSet edits);

// Fixes the checksums of files that the script brings along as raw bytes.
void FixRawFiles(absl::Span<char> script, EditSet edits);

// One seed per log without edits, and one per edit.
std::vector<Seed> ScriptSeeds(EditSet edits);

}  // namespace towline::fuzz

#endif  // TOWLINE_TESTS_FUZZ_SPOOL_SCRIPT_H_
