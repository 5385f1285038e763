// Tests of whether an unfinished snapshot can go on at a node: term 1 from LSN 1, term 2 from LSN 50, durable up to
// 100.

#include <string>

#include "common/error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "primary/resync_planner.h"

namespace towline {
namespace {

// An unfinished snapshot of LSN 60, read last at LSN 70.
class CursorTest : public ::testing::Test {
 protected:
  CursorTest() {
    node_.history = {{1, 1, 0xa1}, {2, 50, 0xa2}};
    log_.first_lsn = 1;
    log_.durable_lsn = 100;
    ResumeCursor& cursor = request_.cursor.emplace();
    cursor.snapshot_id = 5;
    cursor.position = {2, 0xa2, 60, 0xc60};
    cursor.read = {2, 0xa2, 70, 0xc70};
    log_.chain_at_cursor = 0xc60;
    log_.chain_at_cursor_read = 0xc70;
  }

  std::string ReasonOf() const {
    const absl::Status status = CheckCursor(request_, node_, log_);
    if (status.ok()) return "";
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    return GetErrorInfo(status).reason;
  }

  ResumeRequest request_;
  NodeView node_;
  LogFacts log_;
};

TEST_F(CursorTest, IsUsableOnOurLineWithTheLogBehindIt) {
  EXPECT_EQ(ReasonOf(), "");
  log_.first_lsn = 61;
  EXPECT_EQ(ReasonOf(), "");
  log_.chain_at_cursor.reset();  // not known is not another one
  log_.chain_at_cursor_read.reset();
  EXPECT_EQ(ReasonOf(), "");
  request_.cursor->position = {};  // of a source whose log was empty
  log_.first_lsn = 1;
  EXPECT_EQ(ReasonOf(), "");
  request_.cursor->read.lsn = log_.durable_lsn;
  EXPECT_EQ(ReasonOf(), "");
}

TEST_F(CursorTest, IsOfNoUseOffOurLine) {
  const ResumeRequest good = request_;
  for (Position ResumeCursor::*which : {&ResumeCursor::position, &ResumeCursor::read}) {
    request_ = good;
    (*request_.cursor.*which).term_id = 0xbad;
    EXPECT_EQ(ReasonOf(), "cursor_off_line");
    request_ = good;
    (*request_.cursor.*which).term = 1;
    EXPECT_EQ(ReasonOf(), "cursor_off_line");
    request_ = good;
    (*request_.cursor.*which).chain ^= 1;
    EXPECT_EQ(ReasonOf(), "cursor_off_line");
  }
  request_ = good;
  request_.cursor->read.lsn = 101;  // beyond our end
  EXPECT_EQ(ReasonOf(), "cursor_off_line");
  request_ = good;
  request_.cursor->position = {0, 0xa2, 0, 0};  // no position at all
  EXPECT_EQ(ReasonOf(), "cursor_off_line");
  request_ = good;
  const absl::Status status = CheckCursor(request_, NodeView{}, log_);
  EXPECT_EQ(GetErrorInfo(status).reason, "cursor_off_line");
  EXPECT_THAT(GetErrorInfo(status).message, ::testing::HasSubstr("LSN 60 to 70"));
}

TEST_F(CursorTest, IsOfNoUseWithoutTheLogBehindIt) {
  log_.first_lsn = 62;
  EXPECT_EQ(ReasonOf(), "cursor_log_removed");
  log_.first_lsn = 1;
  log_.damaged_lsn = 61;
  EXPECT_EQ(ReasonOf(), "cursor_log_removed");
  EXPECT_THAT(GetErrorInfo(CheckCursor(request_, node_, log_)).message, ::testing::HasSubstr("begins at LSN 62"));
  log_.damaged_lsn = 60;
  EXPECT_EQ(ReasonOf(), "");
}

}  // namespace
}  // namespace towline
