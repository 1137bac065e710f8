# One way to add a library or a program of ours: warnings are private to our own code, and the
# include root is the repository, so that every include names its layer.

# GCC 12 warns of overlaps of 2^63 bytes inside std::string (GCC bug 105651) when it optimises.
function(migrate_target_defaults target)
  target_compile_options(
    ${target}
    PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-Wall
            -Wextra
            -Wpedantic
            -Wshadow
            -Wnon-virtual-dtor
            -Wold-style-cast
            -Wcast-qual
            -Wconversion
            -Wno-sign-conversion>
            $<$<COMPILE_LANG_AND_ID:CXX,Clang>:-Wthread-safety>
            $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-restrict>)
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR})
endfunction()

# Presets that are built often do not optimise, which takes a third less time to compile; what touches
# every page does so all the same.
function(migrate_optimise target)
  target_compile_options(${target} PRIVATE $<$<NOT:$<CONFIG:Release>>:-O1>)
endfunction()

# migrate_add_library(name SOURCES... [LINK libraries...])
function(migrate_add_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINK" ${ARGN})
  add_library(migrate_${name} STATIC ${ARG_SOURCES})
  add_library(migrate::${name} ALIAS migrate_${name})
  migrate_target_defaults(migrate_${name})
  target_include_directories(migrate_${name} PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>)
  target_link_libraries(migrate_${name} PUBLIC ${ARG_LINK})
endfunction()

# Headers of libraries that most files of libmigrate/ need: parsing them once makes the build two to
# three times faster.
function(migrate_precompile target)
  target_precompile_headers(
    ${target}
    PRIVATE
    <algorithm>
    <array>
    <functional>
    <map>
    <memory>
    <optional>
    <set>
    <span>
    <string>
    <thread>
    <vector>
    <google/protobuf/arena.h>
    <google/protobuf/generated_message_util.h>
    <google/protobuf/message.h>
    <google/protobuf/repeated_field.h>
    <nlohmann/json.hpp>
    <tl/expected.hpp>)
endfunction()

# migrate_add_program(name SOURCES... [LINK libraries...])
function(migrate_add_program name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINK" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  migrate_target_defaults(${name})
  target_link_libraries(${name} PRIVATE ${ARG_LINK})
  # All symbols when it starts: not the first time one is used, which may be while a process stands
  # still, and their table read-only from then on.
  target_link_options(${name} PRIVATE LINKER:-z,relro,-z,now)
endfunction()
