# towline_link_statically(towlined): takes gRPC, Protobuf, Abseil and RocksDB into a program, from the archives of the
# same Debian packages.
#
# 50 shared libraries less are loaded at start, and calls between these libraries and into thread-local storage need no
# table any more (docs/adr/0022). Tests use the shared libraries: linking them all like this would take minutes.

# Appends the static libraries of ours that `target` links, itself included.
function(_towline_libraries_below target out)
  get_target_property(aliased ${target} ALIASED_TARGET)
  if(aliased)
    set(target ${aliased})
  endif()
  set(found ${${out}})
  get_target_property(type ${target} TYPE)
  if(type STREQUAL "STATIC_LIBRARY")
    if(target IN_LIST found)
      return()
    endif()
    list(APPEND found ${target})
  endif()
  set(dependencies "")
  foreach(property LINK_LIBRARIES INTERFACE_LINK_LIBRARIES)
    get_target_property(libraries ${target} ${property})
    if(libraries)
      list(APPEND dependencies ${libraries})
    endif()
  endforeach()
  list(REMOVE_DUPLICATES dependencies)
  foreach(dependency IN LISTS dependencies)
    if(dependency MATCHES "^towline(::|_)" AND TARGET ${dependency})
      _towline_libraries_below(${dependency} found)
    endif()
  endforeach()
  set(${out} ${found} PARENT_SCOPE)
endfunction()

# Sets `out` to the archives; to nothing if one is not there.
function(_towline_archives out)
  set(${out} "" PARENT_SCOPE)
  set(archives "")
  foreach(name rocksdb grpc++ grpc gpr upb address_sorting re2 cares protobuf)
    find_library(TOWLINE_ARCHIVE_${name} NAMES lib${name}.a)
    mark_as_advanced(TOWLINE_ARCHIVE_${name})
    if(NOT TOWLINE_ARCHIVE_${name})
      message(STATUS "towline: no lib${name}.a: towlined and towctl are linked with shared libraries")
      return()
    endif()
    list(APPEND archives "${TOWLINE_ARCHIVE_${name}}")
  endforeach()
  get_filename_component(directory "${TOWLINE_ARCHIVE_grpc}" DIRECTORY)
  file(GLOB abseil "${directory}/libabsl_*.a")
  set(${out} ${archives} ${abseil} PARENT_SCOPE)
endfunction()

function(towline_link_statically program)
  _towline_archives(archives)
  if(NOT archives)
    return()
  endif()
  set(libraries "")
  _towline_libraries_below(${program} libraries)
  # One group, as archives need each other in both directions. The shared libraries that our own ones ask for come behind
  # it, where nothing is left for them to define, so that --as-needed leaves them out.
  string(REPLACE ";" "," group "${libraries};${archives}")
  target_link_libraries(${program} PRIVATE
    "$<LINK_GROUP:RESCAN,${group}>" z ssl crypto snappy bz2 lz4 zstd gflags ${CMAKE_DL_LIBS})
endfunction()
