# The C++ client as a CMake package: `cmake --install BUILD --prefix P --component client` puts headers, one static
# library and towlineConfig.cmake below P; find_package(towline) then gives the target towline::client.

include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

# One archive of everything that is ours, so that a consumer needs none of the targets of this tree. What of it the
# client does not use is not linked.
add_library(towline_client_package STATIC
  $<TARGET_OBJECTS:towline_client>
  $<TARGET_OBJECTS:towline_rpc>
  $<TARGET_OBJECTS:towline_proto_grpc>
  $<TARGET_OBJECTS:towline_proto>
  $<TARGET_OBJECTS:towline_common>)
set_target_properties(towline_client_package PROPERTIES
  OUTPUT_NAME towline
  EXPORT_NAME client
  LINKER_LANGUAGE CXX)
target_compile_features(towline_client_package PUBLIC cxx_std_20)
target_include_directories(towline_client_package INTERFACE "$<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>")
# The headers use Abseil's status types; the rest is only linked.
target_link_libraries(towline_client_package
  PUBLIC absl::status absl::statusor absl::strings
  PRIVATE absl::cord absl::str_format gRPC::grpc++ protobuf::libprotobuf Threads::Threads isal xxhash)

set(package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/towline")
install(TARGETS towline_client_package
  EXPORT towlineTargets
  ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}" COMPONENT client)
install(DIRECTORY "${PROJECT_SOURCE_DIR}/client/include/towline"
  DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}" COMPONENT client)
# For clients in other languages.
install(DIRECTORY "${PROJECT_SOURCE_DIR}/proto/towline"
  DESTINATION "${CMAKE_INSTALL_DATADIR}/towline/proto" COMPONENT client)
install(EXPORT towlineTargets NAMESPACE towline:: DESTINATION "${package_dir}" COMPONENT client)
configure_package_config_file("${CMAKE_CURRENT_LIST_DIR}/towlineConfig.cmake.in"
  "${CMAKE_BINARY_DIR}/towlineConfig.cmake" INSTALL_DESTINATION "${package_dir}")
write_basic_package_version_file("${CMAKE_BINARY_DIR}/towlineConfigVersion.cmake"
  VERSION "${PROJECT_VERSION}" COMPATIBILITY SameMinorVersion)
install(FILES "${CMAKE_BINARY_DIR}/towlineConfig.cmake" "${CMAKE_BINARY_DIR}/towlineConfigVersion.cmake"
  DESTINATION "${package_dir}" COMPONENT client)
