# Python tests, one ctest entry a file, run by the interpreter that owns libtorch's site-packages.
#
#   bearing_python_test(NAME readme_test FILE test_readme.py [LABELS docs] [TIMEOUT seconds] [SKIPPED_WHEN any|all])
#
# SKIPPED_WHEN: ctest says "skipped" when nothing failed and any, or all, tests of the file were skipped (tests/skip_code.py).
get_filename_component(BEARING_PYTHON "${TORCH_SITE}/../../../bin/python" ABSOLUTE)

function(bearing_python_test)
  cmake_parse_arguments(A "" "NAME;FILE;TIMEOUT;SKIPPED_WHEN" "LABELS" ${ARGN})
  if(NOT A_TIMEOUT)
    set(A_TIMEOUT 600)
  endif()
  set(plugin "")
  set(environment "OMP_NUM_THREADS=1;BEARING_BIN=${CMAKE_RUNTIME_OUTPUT_DIRECTORY}")
  if(A_SKIPPED_WHEN)
    set(plugin -p skip_code)
    list(APPEND environment "PYTHONPATH=${PROJECT_SOURCE_DIR}/tests" "SKIP_CODE_WHEN=${A_SKIPPED_WHEN}")
  endif()
  add_test(NAME ${A_NAME} COMMAND ${BEARING_PYTHON} -B -m pytest -q -p no:cacheprovider ${plugin} ${CMAKE_CURRENT_SOURCE_DIR}/${A_FILE})
  set_tests_properties(${A_NAME} PROPERTIES LABELS "${A_LABELS}" TIMEOUT ${A_TIMEOUT} RUN_SERIAL ON
    ENVIRONMENT "${environment}" SKIP_RETURN_CODE 77)
endfunction()
