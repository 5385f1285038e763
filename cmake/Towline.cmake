# towline_library, towline_binary, towline_test: the three kinds of target in this tree.
#
#   towline_library(towline_wal SRCS spool.cc HDRS spool.h DEPS towline::common [PRIVATE_DEPS ...])
#   towline_binary(towlined SRCS main.cc DEPS towline::server)
#   towline_test(wal_spool_test SRCS spool_test.cc DEPS towline::wal [LABELS unit] [TIMEOUT 120])
#
# Includes are written from the repository root ("wal/spool.h"), generated ones as "towline/v1/change.pb.h".

# --- Options that every target of ours gets; none of them is a global flag. ---

add_library(towline_options INTERFACE)
target_compile_features(towline_options INTERFACE cxx_std_20)
target_include_directories(towline_options INTERFACE "${PROJECT_SOURCE_DIR}")
target_link_libraries(towline_options INTERFACE Threads::Threads)
target_link_options(towline_options INTERFACE -Wl,--as-needed)
# Some packages ask for it; a precompiled header is used only where everybody has it.
target_compile_options(towline_options INTERFACE -pthread)
# Paths in the output do not depend on where the checkout is.
target_compile_options(towline_options INTERFACE "-ffile-prefix-map=${PROJECT_SOURCE_DIR}=.")

add_library(towline_warnings INTERFACE)
target_compile_options(towline_warnings INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual -Wimplicit-fallthrough
  -Wcast-qual -Wvla -Werror)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # GCC 12 reports these for inlined std::string and std::optional code that is correct (GCC bugs 105329, 105562), more of
  # it with a precompiled header.
  target_compile_options(towline_warnings INTERFACE -Wno-restrict -Wno-maybe-uninitialized -Wno-stringop-overflow
    -Wno-array-bounds)
endif()
if(TOWLINE_THREAD_SAFETY)
  if(NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    message(FATAL_ERROR "TOWLINE_THREAD_SAFETY needs Clang")
  endif()
  target_compile_options(towline_warnings INTERFACE -Wthread-safety)
endif()

add_library(towline_sanitizers INTERFACE)
if(TOWLINE_SANITIZE)
  target_compile_options(towline_sanitizers INTERFACE
    "-fsanitize=${TOWLINE_SANITIZE}" -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(towline_sanitizers INTERFACE "-fsanitize=${TOWLINE_SANITIZE}")
  target_compile_definitions(towline_sanitizers INTERFACE TOWLINE_SANITIZED=1)
endif()

if(TOWLINE_FUZZ)
  if(NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    message(FATAL_ERROR "TOWLINE_FUZZ needs Clang")
  endif()
  # Coverage feedback from the code under test; only the fuzzers themselves link libFuzzer.
  target_compile_options(towline_sanitizers INTERFACE -fsanitize=fuzzer-no-link)
endif()

# Generated code: our standard and sanitizers, not our warnings.
add_library(towline_generated_code INTERFACE)
target_link_libraries(towline_generated_code INTERFACE towline_options towline_sanitizers)

add_library(towline_our_code INTERFACE)
target_link_libraries(towline_our_code INTERFACE towline_options towline_warnings towline_sanitizers)

# --- Precompiled headers: half the time that a sanitized build takes is spent on reading headers. ---

if(TOWLINE_PRECOMPILE)
  set(precompiled_kinds code)
  if(TOWLINE_BUILD_TESTS)
    list(APPEND precompiled_kinds test)
  endif()
  foreach(kind IN LISTS precompiled_kinds)
    add_library(towline_precompiled_${kind} STATIC "${PROJECT_SOURCE_DIR}/cmake/precompiled/${kind}.cc")
    target_link_libraries(towline_precompiled_${kind} PRIVATE towline_our_code absl::status absl::statusor)
    target_precompile_headers(towline_precompiled_${kind} PRIVATE "${PROJECT_SOURCE_DIR}/cmake/precompiled/${kind}.h")
  endforeach()
  if(TOWLINE_BUILD_TESTS)
    target_link_libraries(towline_precompiled_test PRIVATE GTest::gtest GTest::gmock)
  endif()
endif()

function(_towline_precompile name kind)
  if(TOWLINE_PRECOMPILE)
    target_precompile_headers(${name} REUSE_FROM towline_precompiled_${kind})
  endif()
endfunction()

# --- Targets ---

# Makes the library <name> and its alias towline::<name without towline_>. An empty SRCS makes an INTERFACE library,
# so that the tree configures before a module is written.
function(towline_library name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SRCS;HDRS;DEPS;PRIVATE_DEPS")
  _towline_check_arguments(towline_library "${name}")
  string(REGEX REPLACE "^towline_" "" short_name "${name}")

  if(arg_SRCS)
    add_library(${name} STATIC ${arg_SRCS})
    target_link_libraries(${name} PUBLIC towline_options ${arg_DEPS} PRIVATE towline_our_code ${arg_PRIVATE_DEPS})
    _towline_precompile(${name} code)
    set(scope PUBLIC)
  else()
    add_library(${name} INTERFACE)
    target_link_libraries(${name} INTERFACE towline_options ${arg_DEPS} ${arg_PRIVATE_DEPS})
    set(scope INTERFACE)
  endif()
  if(arg_HDRS)
    target_sources(${name} ${scope} FILE_SET HEADERS BASE_DIRS "${PROJECT_SOURCE_DIR}" FILES ${arg_HDRS})
  endif()
  add_library(towline::${short_name} ALIAS ${name})
endfunction()

# Makes the executable <name> in TOWLINE_BIN_DIR. An empty SRCS makes nothing.
function(towline_binary name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SRCS;DEPS")
  _towline_check_arguments(towline_binary "${name}")
  if(NOT arg_SRCS)
    message(STATUS "towline: ${name} has no sources yet")
    return()
  endif()
  add_executable(${name} ${arg_SRCS})
  target_link_libraries(${name} PRIVATE towline_our_code ${arg_DEPS})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${TOWLINE_BIN_DIR}")
endfunction()

# Makes the test program <name> and one ctest test <name>.<Suite>.<Case> per GoogleTest case. Tests run with the
# repository root as working directory. TIMEOUT is in seconds per case, and is multiplied under a sanitizer.
function(towline_test name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "TIMEOUT" "SRCS;DEPS;LABELS")
  _towline_check_arguments(towline_test "${name}")
  if(NOT arg_SRCS)
    return()
  endif()
  if(NOT arg_LABELS)
    set(arg_LABELS unit)
  endif()
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 120)
  endif()
  if(TOWLINE_SANITIZE)
    math(EXPR arg_TIMEOUT "${arg_TIMEOUT} * 5")
  endif()

  add_executable(${name} ${arg_SRCS})
  target_link_libraries(${name} PRIVATE towline_our_code towline_test_main ${arg_DEPS})
  _towline_precompile(${name} test)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/tests/bin")

  # Discovery happens when ctest runs, so that a crash at start does not break the build.
  gtest_discover_tests(${name}
    TEST_PREFIX "${name}."
    WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}"
    DISCOVERY_MODE PRE_TEST
    DISCOVERY_TIMEOUT 60)

  # gtest_discover_tests loses the list structure of a property's value, so a file that ctest reads after the
  # discovered tests sets the properties.
  towline_test_environment(environment)
  set(properties_file "${CMAKE_CURRENT_BINARY_DIR}/${name}_properties.cmake")
  file(CONFIGURE OUTPUT "${properties_file}" @ONLY CONTENT [=[
foreach(test IN LISTS @name@_TESTS)
  set_tests_properties("${test}" PROPERTIES
    LABELS "@arg_LABELS@"
    TIMEOUT @arg_TIMEOUT@
    ENVIRONMENT "@environment@")
endforeach()
]=])
  set_property(DIRECTORY APPEND PROPERTY TEST_INCLUDE_FILES "${properties_file}")
endfunction()

# The environment of every test, for tests that are added with add_test.
function(towline_test_environment out)
  set(${out}
    "TOWLINE_BIN_DIR=${TOWLINE_BIN_DIR}"
    "TOWLINE_SOURCE_DIR=${PROJECT_SOURCE_DIR}"
    "TSAN_OPTIONS=suppressions=${PROJECT_SOURCE_DIR}/cmake/tsan.supp halt_on_error=1 second_deadlock_stack=1"
    "ASAN_OPTIONS=detect_stack_use_after_return=1 strict_string_checks=1"
    "UBSAN_OPTIONS=print_stacktrace=1"
    PARENT_SCOPE)
endfunction()

macro(_towline_check_arguments function target)
  if(arg_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "${function}(${target}): unknown arguments: ${arg_UNPARSED_ARGUMENTS}")
  endif()
endmacro()

if(TOWLINE_BUILD_TESTS)
  include(GoogleTest)
endif()
