# Everything comes from Debian packages; deploy/install_packages.sh has the list.

set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)
find_package(Protobuf REQUIRED)
find_package(absl CONFIG REQUIRED)

find_library(TOWLINE_ISAL_LIBRARY isal REQUIRED)
find_path(TOWLINE_ISAL_INCLUDE_DIR isa-l/crc.h REQUIRED)
add_library(towline_isal INTERFACE)
add_library(towline::isal ALIAS towline_isal)
target_include_directories(towline_isal SYSTEM INTERFACE "${TOWLINE_ISAL_INCLUDE_DIR}")
target_link_libraries(towline_isal INTERFACE "${TOWLINE_ISAL_LIBRARY}")

pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)
add_library(towline_xxhash INTERFACE)
add_library(towline::xxhash ALIAS towline_xxhash)
target_link_libraries(towline_xxhash INTERFACE PkgConfig::XXHASH)

if(NOT TOWLINE_CORE_ONLY)
  find_package(gRPC CONFIG REQUIRED)
  find_program(TOWLINE_GRPC_CPP_PLUGIN grpc_cpp_plugin REQUIRED)
  find_package(RocksDB CONFIG REQUIRED)
  find_package(spdlog CONFIG REQUIRED)
  find_package(CLI11 CONFIG REQUIRED)
  find_package(tomlplusplus CONFIG REQUIRED)
  find_package(nlohmann_json CONFIG REQUIRED)

  # Registry and text serializer only. The package's own configuration file also asks for civetweb and curl.
  pkg_check_modules(PROMETHEUS_CPP REQUIRED IMPORTED_TARGET prometheus-cpp-core)
  add_library(towline_prometheus INTERFACE)
  add_library(towline::prometheus ALIAS towline_prometheus)
  target_link_libraries(towline_prometheus INTERFACE PkgConfig::PROMETHEUS_CPP)

  # A shared library with a split header: the definitions (OpenSSL, zlib, brotli) have to be those it was built with.
  pkg_check_modules(CPP_HTTPLIB REQUIRED IMPORTED_TARGET cpp-httplib)
  add_library(towline_httplib INTERFACE)
  add_library(towline::httplib ALIAS towline_httplib)
  target_link_libraries(towline_httplib INTERFACE PkgConfig::CPP_HTTPLIB Threads::Threads)
endif()

if(TOWLINE_BUILD_TESTS)
  # Scripts need Debian's python3-protobuf and python3-grpcio, which another interpreter in PATH would not see.
  find_program(TOWLINE_PYTHON python3 PATHS /usr/bin NO_DEFAULT_PATH REQUIRED)
  find_package(GTest CONFIG REQUIRED)
  find_package(rapidcheck CONFIG REQUIRED)
  if(NOT TOWLINE_CORE_ONLY)
    find_package(benchmark CONFIG REQUIRED)
  endif()
endif()
