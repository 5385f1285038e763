// Runs towctl in the process and keeps what it prints.

#ifndef TOWLINE_TESTS_CTL_RUN_VERB_H_
#define TOWLINE_TESTS_CTL_RUN_VERB_H_

#include <fcntl.h>
#include <sstream>
#include <string>
#include <unistd.h>
#include <utility>
#include <vector>

#include "absl/strings/str_split.h"

#include "client/proto_json.h"
#include "ctl/environment.h"

namespace towline::ctl {

struct VerbResult {
  int code = -1;
  std::string out;
  std::string err;

  Json json() const { return Json::parse(out); }
  Json error() const { return Json::parse(err)["error"]; }
  std::vector<std::string> lines() const { return absl::StrSplit(out, '\n', absl::SkipEmpty()); }
};

// Standard input comes from `input_fd`.
inline VerbResult RunWith(const std::vector<std::string>& arguments, Interrupt& interrupt, int input_fd,
                          bool input_is_terminal = false) {
  std::ostringstream out;
  std::ostringstream err;
  Environment environment;
  environment.out = &out;
  environment.err = &err;
  environment.input_fd = input_fd;
  environment.input_is_terminal = input_is_terminal;
  environment.interrupt = &interrupt;
  VerbResult result;
  result.code = RunTowctl(arguments, environment);
  result.out = out.str();
  result.err = err.str();
  return result;
}

inline VerbResult RunVerb(const std::vector<std::string>& arguments) {
  Interrupt interrupt;
  const int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
  VerbResult result = RunWith(arguments, interrupt, null);
  close(null);
  return result;
}

// As at a terminal where somebody types `input`.
inline VerbResult RunAtTerminal(const std::vector<std::string>& arguments, const std::string& input) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return {};
  (void)!write(ends[1], input.data(), input.size());
  close(ends[1]);
  Interrupt interrupt;
  VerbResult result = RunWith(arguments, interrupt, ends[0], /*input_is_terminal=*/true);
  close(ends[0]);
  return result;
}

// Runs verbs against one endpoint.
class Towctl {
 public:
  explicit Towctl(std::string endpoint) : endpoint_(std::move(endpoint)) {}

  VerbResult operator()(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), {"--endpoint", endpoint_});
    return RunVerb(arguments);
  }

 private:
  const std::string endpoint_;
};

}  // namespace towline::ctl

#endif  // TOWLINE_TESTS_CTL_RUN_VERB_H_
