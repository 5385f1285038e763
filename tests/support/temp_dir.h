// A directory of the machine's file system for one test.

#ifndef TOWLINE_TESTS_SUPPORT_TEMP_DIR_H_
#define TOWLINE_TESTS_SUPPORT_TEMP_DIR_H_

#include <string>

#include "absl/strings/string_view.h"

namespace towline::test {

// Made empty by the constructor, removed with all that is in it by the destructor. Lies in TEST_TMPDIR or /tmp.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::string& path() const { return path_; }
  std::string Join(absl::string_view name) const;

 private:
  std::string path_;
};

}  // namespace towline::test

#endif  // TOWLINE_TESTS_SUPPORT_TEMP_DIR_H_
