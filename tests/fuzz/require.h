// What must hold of whatever a reader accepts; a fuzzer counts the end of the process as a find.
#ifndef BEARING_TESTS_FUZZ_REQUIRE_H_
#define BEARING_TESTS_FUZZ_REQUIRE_H_

#include <cstdio>
#include <cstdlib>

#define BEARING_REQUIRE(condition)                                                 \
  do {                                                                             \
    if (!(condition)) {                                                            \
      std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                \
    }                                                                              \
  } while (false)

#endif  // BEARING_TESTS_FUZZ_REQUIRE_H_
