#include "common/failpoint.h"

#include <cstdlib>
#include <functional>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/str_split.h"

#include "common/mutex.h"

namespace towline {
namespace {

constexpr int kNotInitialized = -1;

// The points that are on. A point may be on more than once.
class Failpoints {
 public:
  bool IsOn(absl::string_view name) TOWLINE_EXCLUDES(mutex_) {
    MutexLock lock(&mutex_);
    Initialize();
    return on_.find(name) != on_.end();
  }

  void Add(const std::string& name) TOWLINE_EXCLUDES(mutex_) {
    MutexLock lock(&mutex_);
    Initialize();
    on_.insert(name);
    Count();
  }

  void Remove(const std::string& name) TOWLINE_EXCLUDES(mutex_) {
    MutexLock lock(&mutex_);
    on_.erase(on_.find(name));
    Count();
  }

 private:
  void Initialize() TOWLINE_REQUIRES(mutex_) {
    if (internal::failpoints_on.load(std::memory_order_relaxed) != kNotInitialized) return;
    const char* names = std::getenv("TOWLINE_FAILPOINTS");
    for (absl::string_view name : absl::StrSplit(names == nullptr ? "" : names, ',', absl::SkipWhitespace())) {
      on_.insert(std::string(absl::StripAsciiWhitespace(name)));
    }
    Count();
  }

  void Count() TOWLINE_REQUIRES(mutex_) {
    internal::failpoints_on.store(static_cast<int>(on_.size()), std::memory_order_relaxed);
  }

  Mutex mutex_;
  std::multiset<std::string, std::less<>> on_ TOWLINE_GUARDED_BY(mutex_);
};

Failpoints& Points() {
  static Failpoints* const points = new Failpoints;
  return *points;
}

}  // namespace

std::atomic<int> internal::failpoints_on{kNotInitialized};

bool internal::IsFailpointOn(absl::string_view name) { return Points().IsOn(name); }

FailpointScope::FailpointScope(std::string name) : name_(std::move(name)) { Points().Add(name_); }

FailpointScope::~FailpointScope() { Points().Remove(name_); }

}  // namespace towline
