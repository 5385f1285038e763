#include "store/state_checkpoint.h"

#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"

namespace towline {
namespace {

// A store that flushes by itself while it is copied.
constexpr int kCopiesMax = 3;

}  // namespace

// The position that is persisted before and after the copy is that of the copy.
absl::StatusOr<StateCheckpoint> CheckpointState(StateStore& state, FileSystem& fs, const std::string& directory) {
  for (int i = 0; i < kCopiesMax; ++i) {
    TOWLINE_RETURN_IF_ERROR(RemoveAll(fs, directory));
    TOWLINE_ASSIGN_OR_RETURN(const Position before, state.Persisted());
    TOWLINE_ASSIGN_OR_RETURN(FileSums sums, state.store().Checkpoint(directory));
    TOWLINE_ASSIGN_OR_RETURN(const Position after, state.Persisted());
    if (before == after) return StateCheckpoint{after, std::move(sums)};
  }
  return MakeError(absl::StatusCode::kAborted, "store_flushing",
                   absl::StrCat("the store was flushed during each of ", kCopiesMax, " copies"));
}

}  // namespace towline
