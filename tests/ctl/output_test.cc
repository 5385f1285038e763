#include "ctl/output.h"

#include <sstream>

#include "common/error.h"
#include "ctl/ranges.h"
#include "gtest/gtest.h"

namespace towline::ctl {
namespace {

TEST(ExitCode, FollowsTheReasonThenTheCode) {
  const auto code = [](absl::StatusCode status_code, const char* reason) {
    return ExitCodeOf(MakeError(status_code, reason, "text"));
  };
  EXPECT_EQ(ExitCodeOf(absl::OkStatus()), 0);
  EXPECT_EQ(code(absl::StatusCode::kUnavailable, "unavailable"), 1);
  EXPECT_EQ(code(absl::StatusCode::kNotFound, "slot_not_found"), 1);
  EXPECT_EQ(ExitCodeOf(UsageError("text")), 2);
  EXPECT_EQ(code(absl::StatusCode::kFailedPrecondition, "slot_in_use"), 4);
  EXPECT_EQ(code(absl::StatusCode::kAborted, "condition_failed"), 4);
  EXPECT_EQ(code(absl::StatusCode::kFailedPrecondition, "not_primary"), 5);
}

TEST(PrintError, ControlCharactersOfAPeerDoNotReachTheTerminal) {
  std::ostringstream err;
  PrintError(err, /*json=*/false, MakeError(absl::StatusCode::kInternal, "bad", "a\x1b[31m\nb", "do\tthis"));
  EXPECT_EQ(err.str(), "error: bad: a [31m b\n  next: do this\n");
}

TEST(PrintError, JsonHasAllOfTheInfo) {
  std::ostringstream err;
  PrintError(err, /*json=*/true,
             MakeError(absl::StatusCode::kInternal, ErrorInfo{"bad", "text \xff", "next", {{"n", "1"}}}));
  EXPECT_EQ(err.str(),
            "{\"error\":{\"reason\":\"bad\",\"message\":\"text "
            "\xef\xbf\xbd\",\"next_action\":\"next\",\"metadata\":{\"n\":\"1\"}}}\n");
}

TEST(Table, AlignsColumns) {
  Table table({"NAME", "N"});
  table.Add({"a", "5"});
  table.Add({"long", "10"});
  std::ostringstream out;
  table.Print(out, " ");
  EXPECT_EQ(out.str(), " NAME   N\n a      5\n long  10\n");
}

TEST(FormatSeconds, ChoosesAReadableUnit) {
  EXPECT_EQ(FormatSeconds(0), "0 s");
  EXPECT_EQ(FormatSeconds(1.5e-6), "1.5 us");
  EXPECT_EQ(FormatSeconds(0.0125), "12.50 ms");
  EXPECT_EQ(FormatSeconds(90), "90.00 s");
  EXPECT_EQ(FormatSeconds(600), "10.0 min");
  EXPECT_EQ(FormatSeconds(36000), "10.0 h");
  EXPECT_EQ(FormatSeconds(864000), "10.0 d");
  EXPECT_EQ(FormatSeconds(1e18), "> 1000 d");
}

TEST(PrefixEnd, IsTheFirstKeyBehindThePrefix) {
  EXPECT_EQ(PrefixEnd("a"), "b");
  EXPECT_EQ(PrefixEnd("a\xff"), "b");
  EXPECT_EQ(PrefixEnd("\xff\xff"), "");
  EXPECT_EQ(PrefixEnd(""), "");
  EXPECT_EQ(PrefixEnd("\x7f"), "\x80");
}

}  // namespace
}  // namespace towline::ctl
