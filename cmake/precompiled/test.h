// Precompiled for every test.

#ifndef TOWLINE_CMAKE_PRECOMPILED_TEST_H_
#define TOWLINE_CMAKE_PRECOMPILED_TEST_H_

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "cmake/precompiled/code.h"

#endif  // TOWLINE_CMAKE_PRECOMPILED_TEST_H_
