#include "tests/support/temp_dir.h"

#include <stdlib.h>

#include "common/check.h"
#include "common/file_system.h"
#include "gtest/gtest.h"

namespace towline::test {

TempDir::TempDir() : path_(JoinPath(::testing::TempDir(), "towline.XXXXXX")) {
  TOWLINE_CHECK(mkdtemp(path_.data()) != nullptr);
}

TempDir::~TempDir() {
  const absl::Status removed = RemoveAll(*PosixFileSystem(), path_);
  EXPECT_TRUE(removed.ok()) << removed.ToString();
}

std::string TempDir::Join(absl::string_view name) const { return JoinPath(path_, name); }

}  // namespace towline::test
