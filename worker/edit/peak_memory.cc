#include "worker/edit/peak_memory.h"

#include <cinttypes>
#include <cstdio>
#include <fstream>
#include <string>

namespace bearing::edit {

int64_t PeakMemoryBytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    int64_t kilobytes = 0;
    if (std::sscanf(line.c_str(), "VmHWM: %" SCNd64 " kB", &kilobytes) == 1) return kilobytes << 10;
  }
  return 0;
}

}  // namespace bearing::edit
