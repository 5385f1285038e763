// GoogleTest matchers for absl::Status and absl::StatusOr.
//
//   EXPECT_THAT(file->SyncData(), IsOk());
//   EXPECT_THAT(ParseBytes("1KiB"), IsOkAndHolds(1024));
//   EXPECT_THAT(status, StatusIs(absl::StatusCode::kDataLoss));
//   EXPECT_THAT(status, ReasonIs("control_damaged"));
//   TOWLINE_ASSERT_OK_AND_ASSIGN(auto file, fs.Open(path, OpenMode::kRead));

#ifndef TOWLINE_TESTS_SUPPORT_STATUS_MATCHERS_H_
#define TOWLINE_TESTS_SUPPORT_STATUS_MATCHERS_H_

#include <ostream>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace towline::test {

inline const absl::Status& ToStatus(const absl::Status& status) { return status; }
template <typename T>
const absl::Status& ToStatus(const absl::StatusOr<T>& result) {
  return result.status();
}

MATCHER(IsOk, negation ? "is an error" : "is OK") {
  *result_listener << "whose status is " << ToStatus(arg).ToString();
  return ToStatus(arg).ok();
}

MATCHER_P(StatusIs, code, std::string(negation ? "has not code " : "has code ") + absl::StatusCodeToString(code)) {
  *result_listener << "whose status is " << ToStatus(arg).ToString();
  return ToStatus(arg).code() == code;
}

MATCHER_P(ReasonIs, reason, std::string(negation ? "has not reason " : "has reason ") + std::string(reason)) {
  *result_listener << "whose status is " << ToStatus(arg).ToString();
  return !ToStatus(arg).ok() && GetErrorInfo(ToStatus(arg)).reason == reason;
}

// Matches a StatusOr that is OK and holds a value that matches `inner`.
template <typename Inner>
class IsOkAndHoldsMatcher {
 public:
  explicit IsOkAndHoldsMatcher(Inner inner) : inner_(std::move(inner)) {}

  template <typename T>
  operator ::testing::Matcher<const absl::StatusOr<T>&>() const {  // NOLINT: matchers convert implicitly
    return ::testing::Matcher<const absl::StatusOr<T>&>(new Impl<const absl::StatusOr<T>&, T>(inner_));
  }
  template <typename T>
  operator ::testing::Matcher<absl::StatusOr<T>>() const {  // NOLINT
    return ::testing::Matcher<absl::StatusOr<T>>(new Impl<absl::StatusOr<T>, T>(inner_));
  }

 private:
  template <typename Arg, typename T>
  class Impl : public ::testing::MatcherInterface<Arg> {
   public:
    explicit Impl(const Inner& inner) : inner_(::testing::SafeMatcherCast<const T&>(inner)) {}

    void DescribeTo(std::ostream* os) const override {
      *os << "is OK and holds a value that ";
      inner_.DescribeTo(os);
    }

    bool MatchAndExplain(Arg arg, ::testing::MatchResultListener* listener) const override {
      if (!arg.ok()) {
        *listener << "whose status is " << arg.status().ToString();
        return false;
      }
      return inner_.MatchAndExplain(*arg, listener);
    }

   private:
    const ::testing::Matcher<const T&> inner_;
  };

  const Inner inner_;
};

template <typename Inner>
IsOkAndHoldsMatcher<std::decay_t<Inner>> IsOkAndHolds(Inner&& inner) {
  return IsOkAndHoldsMatcher<std::decay_t<Inner>>(std::forward<Inner>(inner));
}

}  // namespace towline::test

// Assigns the value of the StatusOr `rexpr` to `lhs`, or fails the test and returns.
#define TOWLINE_ASSERT_OK_AND_ASSIGN(lhs, rexpr) \
  TOWLINE_ASSERT_OK_AND_ASSIGN_IMPL_(TOWLINE_CONCAT_(towline_statusor_, __LINE__), lhs, rexpr)
#define TOWLINE_ASSERT_OK_AND_ASSIGN_IMPL_(statusor, lhs, rexpr) \
  auto statusor = (rexpr);                                       \
  ASSERT_TRUE(statusor.ok()) << statusor.status().ToString();    \
  lhs = *std::move(statusor)

#endif  // TOWLINE_TESTS_SUPPORT_STATUS_MATCHERS_H_
