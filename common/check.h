// TOWLINE_CHECK(condition): broken invariants end the process, in every build, with file, line and text.

#ifndef TOWLINE_COMMON_CHECK_H_
#define TOWLINE_COMMON_CHECK_H_

namespace towline {

[[noreturn]] void CheckFailed(const char* file, int line, const char* text);

}  // namespace towline

#define TOWLINE_CHECK(condition) \
  (__builtin_expect(static_cast<bool>(condition), 1) ? (void)0 : ::towline::CheckFailed(__FILE__, __LINE__, #condition))

#endif  // TOWLINE_COMMON_CHECK_H_
