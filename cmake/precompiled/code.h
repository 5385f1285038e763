// Precompiled for every file of ours: what most of them include, from the standard library and Abseil only.

#ifndef TOWLINE_CMAKE_PRECOMPILED_CODE_H_
#define TOWLINE_CMAKE_PRECOMPILED_CODE_H_

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"

#endif  // TOWLINE_CMAKE_PRECOMPILED_CODE_H_
