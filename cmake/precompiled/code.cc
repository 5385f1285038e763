// The precompiled header needs a target, and that a source.

#include "cmake/precompiled/code.h"
