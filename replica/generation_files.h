// The directories of generations: which there are, and removing those that nobody uses.

#ifndef TOWLINE_REPLICA_GENERATION_FILES_H_
#define TOWLINE_REPLICA_GENERATION_FILES_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/file_system.h"
#include "replica/generation.h"

namespace towline {

// Numbers of the generations that have a directory, rising. Empty if there is none.
absl::StatusOr<std::vector<uint64_t>> ListGenerations(FileSystem& fs, const std::string& data_directory);

// Removes a generation's directory with all that is in it; OK if absent.
absl::Status RemoveGeneration(FileSystem& fs, const std::string& data_directory, uint64_t number);

// Removes what unfinished or replaced generations left: all but `live` (0 = none is) and those in `held`, which are
// still open somewhere.
absl::Status RemoveOtherGenerations(const GenerationEnvironment& env, uint64_t live,
                                    const std::vector<uint64_t>& held = {});

// Generations that were replaced and may still be read from.
// Threads: external synchronization.
class RetiredGenerations {
 public:
  // `generation` is not live any more.
  void Add(const std::shared_ptr<Generation>& generation);

  // Removes a few files of one that nobody holds any more: in small pieces, because the files are large, and the loop
  // that calls this has records to take.
  void RemoveSome(const GenerationEnvironment& env);

  std::vector<uint64_t> numbers() const;

 private:
  struct Retired {
    uint64_t number = 0;
    std::weak_ptr<Generation> generation;
  };
  std::vector<Retired> retired_;
};

}  // namespace towline

#endif  // TOWLINE_REPLICA_GENERATION_FILES_H_
