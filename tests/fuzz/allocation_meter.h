// The largest single allocation, for the property that no claim of an input makes a decoder allocate.
//
// Linking allocation_meter.cc replaces operator new of the whole program.

#ifndef TOWLINE_TESTS_FUZZ_ALLOCATION_METER_H_
#define TOWLINE_TESTS_FUZZ_ALLOCATION_METER_H_

#include <cstddef>

namespace towline::fuzz {

// Measures this thread while it lives; not nested.
class AllocationMeter {
 public:
  AllocationMeter();
  ~AllocationMeter();

  size_t largest() const;
};

}  // namespace towline::fuzz

#endif  // TOWLINE_TESTS_FUZZ_ALLOCATION_METER_H_
