// Runs inputs of a fuzz target from files, for builds without libFuzzer, and writes the seeds.
//
//   REPLAY PATH...              runs the target's seeds, then each file, and each file of each directory; an error if
//                               there is no file
//   REPLAY --write-seeds DIR    writes the target's seeds into DIR

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <system_error>
#include <vector>

#include "absl/strings/string_view.h"

#include "tests/fuzz/fuzz_target.h"

namespace {

namespace filesystem = std::filesystem;

int WriteSeeds(const filesystem::path& directory) {
  filesystem::create_directories(directory);
  for (const towline::fuzz::Seed& seed : towline::fuzz::Seeds()) {
    std::ofstream file(directory / seed.name, std::ios::binary);
    file.write(seed.bytes.data(), static_cast<std::streamsize>(seed.bytes.size()));
    if (!file.flush()) {
      std::fprintf(stderr, "cannot write %s\n", (directory / seed.name).c_str());
      return 1;
    }
  }
  return 0;
}

void RunInput(const char* name, const std::string& bytes) {
  std::fprintf(stderr, "%s\n", name);  // before it runs: the last one is the one that crashed
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
}

// Files of the arguments, sorted. False if there is none.
bool ListInputs(const std::vector<std::string>& arguments, std::vector<filesystem::path>* files) {
  for (const std::string& argument : arguments) {
    std::error_code error;
    if (!filesystem::is_directory(argument, error)) {
      files->emplace_back(argument);
      continue;
    }
    for (const auto& entry : filesystem::directory_iterator(argument)) {
      if (entry.is_regular_file()) files->push_back(entry.path());
    }
  }
  std::sort(files->begin(), files->end());
  return !files->empty();
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (arguments.size() == 2 && arguments[0] == "--write-seeds") return WriteSeeds(arguments[1]);
  std::vector<filesystem::path> files;
  if (!ListInputs(arguments, &files)) {
    std::fprintf(stderr, "no inputs; give files or directories of them\n");
    return 2;
  }
  const std::vector<towline::fuzz::Seed> seeds = towline::fuzz::Seeds();
  for (const towline::fuzz::Seed& seed : seeds) RunInput(seed.name.c_str(), seed.bytes);
  for (const filesystem::path& path : files) {
    std::ifstream file(path, std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    if (!file) {
      std::fprintf(stderr, "cannot read %s\n", path.c_str());
      return 2;
    }
    RunInput(path.c_str(), bytes);
  }
  std::printf("%zu seeds and %zu files\n", seeds.size(), files.size());
  return 0;
}
