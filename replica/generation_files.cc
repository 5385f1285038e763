#include "replica/generation_files.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

#include "common/error.h"

namespace towline {
namespace {

std::string GenerationsDirectory(const std::string& data_directory) { return JoinPath(data_directory, "gen"); }

// Files of one call of RemoveSome.
constexpr size_t kFilesPerCall = 4;

// Removes up to `most` entries of a directory that has no others in it; true if none is left.
absl::StatusOr<bool> RemoveFiles(FileSystem& fs, const std::string& directory, size_t most) {
  const absl::StatusOr<std::vector<std::string>> names = fs.List(directory);
  if (absl::IsNotFound(names.status())) return true;
  if (!names.ok()) return names.status();
  for (size_t i = 0; i < std::min(most, names->size()); ++i) {
    TOWLINE_RETURN_IF_ERROR(RemoveAll(fs, JoinPath(directory, (*names)[i])));
  }
  return names->size() <= most;
}

}  // namespace

absl::StatusOr<std::vector<uint64_t>> ListGenerations(FileSystem& fs, const std::string& data_directory) {
  const absl::StatusOr<std::vector<std::string>> names = fs.List(GenerationsDirectory(data_directory));
  if (absl::IsNotFound(names.status())) return std::vector<uint64_t>();
  if (!names.ok()) return names.status();
  std::vector<uint64_t> numbers;
  for (const std::string& name : *names) {
    uint64_t number = 0;
    // Names that are no numbers are not ours.
    if (absl::SimpleAtoi(name, &number) && absl::StrCat(number) == name) numbers.push_back(number);
  }
  std::sort(numbers.begin(), numbers.end());
  return numbers;
}

absl::Status RemoveGeneration(FileSystem& fs, const std::string& data_directory, uint64_t number) {
  TOWLINE_RETURN_IF_ERROR(RemoveAll(fs, GenerationDirectory(data_directory, number)));
  return fs.SyncDirectory(GenerationsDirectory(data_directory));
}

absl::Status RemoveOtherGenerations(const GenerationEnvironment& env, uint64_t live,
                                    const std::vector<uint64_t>& held) {
  TOWLINE_ASSIGN_OR_RETURN(const std::vector<uint64_t> numbers, ListGenerations(env.fs, env.data_directory));
  for (const uint64_t number : numbers) {
    if (number == live || std::find(held.begin(), held.end(), number) != held.end()) continue;
    TOWLINE_RETURN_IF_ERROR(RemoveGeneration(env.fs, env.data_directory, number));
    env.logger.Log(LogLevel::kInfo, "generation_removed", {{"generation", number}, {"live_generation", live}});
  }
  return absl::OkStatus();
}

void RetiredGenerations::Add(const std::shared_ptr<Generation>& generation) {
  retired_.push_back({generation->number(), generation});
}

void RetiredGenerations::RemoveSome(const GenerationEnvironment& env) {
  for (auto it = retired_.begin(); it != retired_.end(); ++it) {
    if (!it->generation.expired()) continue;
    absl::Status removed;
    for (const std::string& directory :
         {StoreDirectory(env.data_directory, it->number), WalDirectory(env.data_directory, it->number)}) {
      const absl::StatusOr<bool> all = RemoveFiles(env.fs, directory, kFilesPerCall);
      if (all.ok() && !*all) return;
      removed.Update(all.status());
    }
    removed.Update(RemoveGeneration(env.fs, env.data_directory, it->number));
    // What could not be removed goes at the next start.
    env.logger.Log(removed.ok() ? LogLevel::kInfo : LogLevel::kWarning, "generation_removed",
                   {{"generation", it->number}, {"status", removed.ToString()}});
    retired_.erase(it);
    return;
  }
}

std::vector<uint64_t> RetiredGenerations::numbers() const {
  std::vector<uint64_t> numbers;
  for (const Retired& retired : retired_) numbers.push_back(retired.number);
  return numbers;
}

}  // namespace towline
