#include "store/memory_store.h"
#include "tests/store/state_test_util.h"

namespace towline::test {

std::unique_ptr<StoreFactory> NewEngineUnderTest() { return std::make_unique<MemoryStoreFactory>(); }

bool EngineIsCheap() { return true; }

}  // namespace towline::test
