// For loops over numbers that the compiler vectorizes.
#ifndef BEARING_SHARDING_MULTIVERSION_H_
#define BEARING_SHARDING_MULTIVERSION_H_

// One function body, several instruction sets, resolved once by the loader. The levels stand for features; the name of a
// processor ("haswell") would match that very processor only.
//
// Under clang's ThreadSanitizer the default body alone: the loader calls what chooses before the sanitizer has started,
// which ends the program.
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define BEARING_MULTIVERSION
#endif
#endif
#ifndef BEARING_MULTIVERSION
#define BEARING_MULTIVERSION __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#endif

#endif  // BEARING_SHARDING_MULTIVERSION_H_
