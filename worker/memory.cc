#include "worker/memory.h"

#include <malloc.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <string>

namespace bearing::worker {
namespace {

int64_t ReadNumber(const char* path) {
  std::ifstream file(path);
  int64_t value = 0;
  return file >> value ? value : -1;
}

// Bytes of files in memory, by the control group's statistics; 0 where there are none.
int64_t FilePages(const char* path) {
  std::ifstream file(path);
  int64_t pages = 0, bytes = 0;
  for (std::string key; file >> key >> bytes;) {
    if (key == "inactive_file" || key == "active_file") pages += bytes;
  }
  return pages;
}

}  // namespace

int64_t AvailableMemoryBytes() {
  int64_t available = std::numeric_limits<int64_t>::max();
  std::ifstream meminfo("/proc/meminfo");
  for (std::string key; meminfo >> key;) {
    if (key == "MemAvailable:") {
      int64_t kib = 0;
      if (meminfo >> kib) available = kib * 1024;
      break;
    }
    meminfo.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  // Of a container. What it uses includes pages of files, which the kernel takes back when they are wanted.
  const int64_t limit = ReadNumber("/sys/fs/cgroup/memory.max");  // "max" reads as -1.
  const int64_t used = ReadNumber("/sys/fs/cgroup/memory.current");
  if (limit > 0 && used >= 0) {
    const int64_t held = std::max<int64_t>(0, used - FilePages("/sys/fs/cgroup/memory.stat"));
    available = std::min(available, std::max<int64_t>(0, limit - held));
  }
  return available;
}

void ReturnFreeMemory() { ::malloc_trim(0); }

void BoundProductCaches() {
  // Primitives of oneDNN, and what libtorch keeps of them above that.
  for (const char* const name : {"ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"}) {
    ::setenv(name, "32", /*overwrite=*/0);
  }
}

}  // namespace bearing::worker
