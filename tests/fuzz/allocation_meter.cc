#include "tests/fuzz/allocation_meter.h"

#include <cstdlib>
#include <new>

namespace {

thread_local bool measuring = false;
thread_local size_t largest_size = 0;

// malloc and free stay the sanitizer's, so that its checks go on.
void* Allocate(size_t size) {
  if (measuring && size > largest_size) largest_size = size;
  return std::malloc(size == 0 ? 1 : size);
}

void* AllocateOrEnd(size_t size) {
  void* memory = Allocate(size);
  if (memory == nullptr) std::abort();
  return memory;
}

}  // namespace

void* operator new(size_t size) { return AllocateOrEnd(size); }
void* operator new[](size_t size) { return AllocateOrEnd(size); }
void* operator new(size_t size, const std::nothrow_t&) noexcept { return Allocate(size); }
void* operator new[](size_t size, const std::nothrow_t&) noexcept { return Allocate(size); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, size_t) noexcept { std::free(memory); }
void operator delete(void* memory, const std::nothrow_t&) noexcept { std::free(memory); }
void operator delete[](void* memory, const std::nothrow_t&) noexcept { std::free(memory); }

namespace towline::fuzz {

AllocationMeter::AllocationMeter() {
  largest_size = 0;
  measuring = true;
}
AllocationMeter::~AllocationMeter() { measuring = false; }

size_t AllocationMeter::largest() const { return largest_size; }

}  // namespace towline::fuzz
