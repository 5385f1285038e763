// The mutator of all targets: libFuzzer's own, then the checksums are made right in seven of eight inputs. Without that
// nothing but the checksum would ever be tested. The eighth is left as it is, because a wrong checksum is a case too.

#include "tests/fuzz/fuzz_target.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned int seed) {
  size = LLVMFuzzerMutate(data, size, max_size);
  if (seed % 8 != 0) towline::fuzz::FixInput({reinterpret_cast<char*>(data), size});
  return size;
}
