# Build options. Presets set them; everything has a default that suits a plain `cmake -S . -B build`.

option(TOWLINE_CORE_ONLY "Build only the core: no gRPC, no RocksDB, no server, client and ctl" OFF)
option(TOWLINE_BUILD_TESTS "Build the tests" ON)
option(TOWLINE_STATIC_LIBRARIES "Link gRPC, Protobuf, Abseil and RocksDB into towlined and towctl" OFF)
option(TOWLINE_CCACHE "Compile through ccache when it is installed" ON)
option(TOWLINE_PRECOMPILE "Precompile what most files include; without it a missing include is found" ON)
option(TOWLINE_THREAD_SAFETY "Check lock annotations (Clang only)" OFF)
option(TOWLINE_FUZZ "Instrument everything for libFuzzer (Clang only)" OFF)
set(TOWLINE_SANITIZE "" CACHE STRING "Sanitizers, comma separated: address,undefined or thread")
set(TOWLINE_BIN_DIR "${CMAKE_BINARY_DIR}/bin" CACHE PATH "Where towlined and towctl are put")

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Debug or Release" FORCE)
endif()

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_LINK_DEPENDS_NO_SHARED ON)


# Relative paths and no directory in the hash let all build directories of one checkout share the cache.
if(TOWLINE_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  find_program(TOWLINE_CCACHE_PROGRAM ccache)
  mark_as_advanced(TOWLINE_CCACHE_PROGRAM)
  if(TOWLINE_CCACHE_PROGRAM)
    set(CMAKE_CXX_COMPILER_LAUNCHER
        env "CCACHE_BASEDIR=${PROJECT_SOURCE_DIR}" CCACHE_NOHASHDIR=1
        CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
        "${TOWLINE_CCACHE_PROGRAM}")
  endif()
endif()
