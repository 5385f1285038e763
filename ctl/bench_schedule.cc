#include "ctl/bench_schedule.h"

#include <sys/resource.h>

namespace towline::ctl {
namespace {

double ProcessCpuSeconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

int64_t MicrosUntil(Schedule::Clock::time_point time) {
  return std::chrono::duration_cast<std::chrono::microseconds>(time - Schedule::Clock::now()).count();
}

}  // namespace

Schedule::Schedule(const LoadOptions& options) {
  const auto duration = [](double s) {
    return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(s));
  };
  begin = Clock::now() + duration(options.warmup_seconds);
  end = begin + duration(options.seconds);
  give_up = end + std::chrono::microseconds(options.timeout_us);
}

LoadResult AwaitEnd(const Schedule& schedule, const Interrupt& interrupt) {
  (void)interrupt.WaitFor(MicrosUntil(schedule.begin));
  const Schedule::Clock::time_point begin = Schedule::Clock::now();
  const double cpu_before = ProcessCpuSeconds();
  (void)interrupt.WaitFor(MicrosUntil(schedule.end));
  LoadResult result;
  result.cpu_seconds = ProcessCpuSeconds() - cpu_before;
  result.seconds = std::chrono::duration<double>(Schedule::Clock::now() - begin).count();
  return result;
}

void AddPart(const LoadResult& part, LoadResult* result) {
  result->calls += part.calls;
  result->records += part.records;
  result->errors += part.errors;
  result->interrupted = result->interrupted || part.interrupted;
  if (result->first_error.ok()) result->first_error = part.first_error;
  result->latency_ns.Merge(part.latency_ns);
}

void CountError(const absl::Status& error, LoadResult& result) {
  ++result.errors;
  if (result.first_error.ok()) result.first_error = error;
}

}  // namespace towline::ctl
