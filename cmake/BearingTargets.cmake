# Two helpers, so that every folder's CMakeLists.txt is a list of names.
#
#   bearing_library(NAME sharding SRCS a.cc b.cc HDRS a.h DEPS absl::status ...)   -> target bearing_sharding, alias bearing::sharding
#   bearing_test(NAME shard_plan_test SRCS shard_plan_test.cc DEPS bearing::sharding [LABELS unit] [TIMEOUT seconds])
#
# Includes are written from the repository root.
include(GoogleTest)

# Root of the sources: includes are written from here.
get_filename_component(BEARING_ROOT ${CMAKE_CURRENT_LIST_DIR} DIRECTORY)

# How tests start several ranks: also as root, and with more ranks than cores.
set(BEARING_MPIRUN mpirun --allow-run-as-root --oversubscribe --bind-to none --mca btl_base_warn_component_unused 0)

set(BEARING_WARNINGS -Wall -Wextra -Wno-unused-parameter)
# Sanitizers and fuzzers are built with another compiler, which may warn of other things.
if(NOT BEARING_SANITIZE)
  list(APPEND BEARING_WARNINGS -Werror)
endif()

function(bearing_library)
  cmake_parse_arguments(A "" "NAME" "SRCS;HDRS;DEPS;PRIVATE_DEPS" ${ARGN})
  add_library(bearing_${A_NAME} STATIC ${A_SRCS})
  add_library(bearing::${A_NAME} ALIAS bearing_${A_NAME})
  target_sources(bearing_${A_NAME} PUBLIC FILE_SET HEADERS BASE_DIRS ${BEARING_ROOT} FILES ${A_HDRS})
  target_link_libraries(bearing_${A_NAME} PUBLIC ${A_DEPS} PRIVATE ${A_PRIVATE_DEPS})
  target_compile_options(bearing_${A_NAME} PRIVATE ${BEARING_WARNINGS})
  if(BEARING_UNITY)
    set_target_properties(bearing_${A_NAME} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 10)
  endif()
endfunction()

# Headers that nearly every file of a library includes, compiled once; in a unity build they are read once anyway.
function(bearing_precompile library)
  if(NOT BEARING_UNITY)
    target_precompile_headers(bearing_${library} ${ARGN})
  endif()
endfunction()

function(bearing_test)
  cmake_parse_arguments(A "" "NAME;TIMEOUT" "SRCS;DEPS;LABELS" ${ARGN})
  if(NOT A_LABELS)
    set(A_LABELS unit)
  endif()
  if(NOT A_TIMEOUT)
    set(A_TIMEOUT 120)
  endif()
  add_executable(${A_NAME} ${A_SRCS})
  target_include_directories(${A_NAME} PRIVATE ${BEARING_ROOT})
  target_link_libraries(${A_NAME} PRIVATE ${A_DEPS} GTest::gmock GTest::gtest_main)
  # Tests are compiled far more often than they run: not optimized.
  target_compile_options(${A_NAME} PRIVATE ${BEARING_WARNINGS} -O0)
  target_compile_definitions(${A_NAME} PRIVATE BEARING_SOURCE_DIR="${BEARING_ROOT}")
  add_test(NAME ${A_NAME} COMMAND ${A_NAME})
  set_tests_properties(${A_NAME} PROPERTIES LABELS "${A_LABELS}" TIMEOUT ${A_TIMEOUT} ENVIRONMENT "OMP_NUM_THREADS=1")
endfunction()
