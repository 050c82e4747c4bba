// The version of this build.
#ifndef BEARING_WORKER_VERSION_H_
#define BEARING_WORKER_VERSION_H_

namespace bearing::worker {

inline constexpr char kVersion[] = BEARING_VERSION;

}  // namespace bearing::worker

#endif  // BEARING_WORKER_VERSION_H_
