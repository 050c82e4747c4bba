#include "cli/doctor/machine_checks.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/timex.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "absl/strings/str_cat.h"
#include "cli/process.h"
#include "cli/quantity.h"

namespace bearing::cli {
namespace {

using Result = Finding::Result;

constexpr int64_t kLeastDisk = int64_t{1} << 30;
constexpr int64_t kSharedMemoryOfRank = int64_t{64} << 20;
constexpr size_t kPage = 4096;

int64_t FreeBytes(const struct statvfs& system) { return static_cast<int64_t>(system.f_bavail) * system.f_frsize; }

// A file without a name in the folder, or -1. It is gone when it is closed.
int OpenNameless(const std::string& folder, int flags) {
  std::string path = folder + "/.bearing-doctor-XXXXXX";
  const int fd = mkostemp(path.data(), flags | O_CLOEXEC);
  if (fd >= 0) unlink(path.c_str());
  return fd;
}

}  // namespace

Finding CheckProgram(const std::string& name, const char* variable) {
  const absl::StatusOr<std::string> path = FindSibling(name, variable);
  if (path.ok()) return {name, Result::kOk, *path, ""};
  return {name, Result::kBroken, OneLine(std::string(path.status().message())),
          absl::StrCat("build it (scripts/setup), put it beside this program, or set ", variable)};
}

Finding CheckDisk(const std::string& check, const std::string& folder, int64_t want_bytes) {
  struct statvfs system {};
  if (statvfs(folder.c_str(), &system) != 0) {
    return {check, Result::kBroken, absl::StrCat(folder, ": ", std::strerror(errno)), "make the folder, or name another one"};
  }
  const int fd = OpenNameless(folder, 0);
  if (fd < 0) {
    return {check, Result::kBroken, absl::StrCat(folder, ": no file can be made there: ", std::strerror(errno)),
            "give this user the right to write there, or name another folder"};
  }
  close(fd);
  const int64_t bytes = FreeBytes(system);
  const std::string found = absl::StrCat(folder, ": ", FormatBytes(bytes), " free");
  const std::string mend = absl::StrCat("free space there or name another folder; a job needs room for an edited copy of the ",
                                        "model (bearing plan JOB says how much)");
  if (bytes < kLeastDisk) return {check, Result::kBroken, found, mend};
  if (bytes < want_bytes) return {check, Result::kWarning, found, mend};
  return {check, Result::kOk, found, ""};
}

Finding CheckDirectIo(const std::string& folder) {
  const std::string slow = "nothing must be done; large files are written faster on a disk that has it (ext4, xfs)";
  const int fd = OpenNameless(folder, O_DIRECT);
  if (fd < 0) {
    return {"direct i/o", Result::kWarning, absl::StrCat(folder, ": not here: ", std::strerror(errno)), slow};
  }
  const std::unique_ptr<void, decltype(&std::free)> page(std::aligned_alloc(kPage, kPage), &std::free);
  std::memset(page.get(), 7, kPage);
  const bool wrote = pwrite(fd, page.get(), kPage, 0) == static_cast<ssize_t>(kPage);
  const bool read = wrote && pread(fd, page.get(), kPage, 0) == static_cast<ssize_t>(kPage);
  const int error = errno;
  close(fd);
  if (read) return {"direct i/o", Result::kOk, absl::StrCat(folder, ": works"), ""};
  return {"direct i/o", Result::kWarning, absl::StrCat(folder, ": not here: ", std::strerror(error)), slow};
}

Finding CheckSharedMemory(const std::string& folder, int ranks) {
  struct statvfs system {};
  if (statvfs(folder.c_str(), &system) != 0) {
    return {"shared memory", Result::kBroken, absl::StrCat(folder, ": ", std::strerror(errno)),
            "mount a tmpfs at /dev/shm: ranks of one machine talk through it"};
  }
  const int64_t bytes = FreeBytes(system);
  const std::string found = absl::StrCat(folder, ": ", FormatBytes(bytes), " free");
  if (bytes >= ranks * kSharedMemoryOfRank) return {"shared memory", Result::kOk, found, ""};
  return {"shared memory", Result::kWarning, found,
          absl::StrCat("give it ", FormatBytes(ranks * kSharedMemoryOfRank), " for ", ranks,
                       " ranks: mount -o remount,size=..., in a container --shm-size, in a pod an emptyDir of medium Memory")};
}

Finding CheckPort(const std::string& address) {
  const size_t colon = address.rfind(':');
  std::string host = address.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  const std::string check = absl::StrCat("port ", address);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  if (colon == std::string::npos || getaddrinfo(host.c_str(), address.c_str() + colon + 1, &hints, &found) != 0) {
    return {check, Result::kBroken, "no such address", "name it as HOST:PORT, with a host of this machine"};
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> all(found, &freeaddrinfo);
  const int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  const bool bound = fd >= 0 && bind(fd, found->ai_addr, found->ai_addrlen) == 0 && listen(fd, 1) == 0;
  const int error = errno;
  if (fd >= 0) close(fd);
  if (bound) return {check, Result::kOk, "free", ""};
  return {check, Result::kBroken, std::strerror(error),
          error == EADDRINUSE
              ? "end the program that listens there (ss -ltnp names it), or give bearing-coordinator another --listen"
              : "choose an address of this machine and a port that this user may listen on"};
}

Finding CheckDriver(bool needed) {
  const Result without = needed ? Result::kBroken : Result::kOk;
  const std::string mend =
      needed ? "install NVIDIA's driver (nvidia-smi must list the devices); in a container, start it with the "
               "devices (--gpus all, nvidia.com/gpu)"
             : "";
  void* driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (driver == nullptr) return {"gpu driver", without, "no NVIDIA driver: jobs compute on the CPU", mend};
  const auto init = reinterpret_cast<int (*)(unsigned)>(dlsym(driver, "cuInit"));
  const auto version = reinterpret_cast<int (*)(int*)>(dlsym(driver, "cuDriverGetVersion"));
  const auto count = reinterpret_cast<int (*)(int*)>(dlsym(driver, "cuDeviceGetCount"));
  const auto name = reinterpret_cast<int (*)(char*, int, int)>(dlsym(driver, "cuDeviceGetName"));
  int code = init == nullptr ? -1 : init(0);
  int devices = 0;
  int number = 0;
  if (code == 0 && count != nullptr) code = count(&devices);
  if (code == 0 && version != nullptr) version(&number);
  char first[128] = "";
  if (code == 0 && devices > 0 && name != nullptr) name(first, sizeof(first) - 1, 0);
  dlclose(driver);
  if (code != 0 || devices == 0) {
    return {"gpu driver", needed ? Result::kBroken : Result::kWarning,
            absl::StrCat("the driver is there, but finds no device (error ", code, ")"),
            "look at nvidia-smi and the kernel's log; in a container, start it with the devices"};
  }
  return {"gpu driver", Result::kOk,
          absl::StrCat(devices, " x ", OneLine(first), ", CUDA ", number / 1000, ".", number % 1000 / 10), ""};
}

Finding CheckClockService() {
  timex state{};
  const int code = adjtimex(&state);
  if (code < 0) return {"clock service", Result::kSkipped, std::strerror(errno), ""};
  if (code != TIME_ERROR && (state.status & STA_UNSYNC) == 0) {
    return {"clock service", Result::kOk, "the kernel's clock is kept by a time service", ""};
  }
  return {"clock service", Result::kWarning, "the kernel's clock is not kept by a time service",
          "run chrony or systemd-timesyncd, here or on the machine below; bearing doctor --clock URL compares with a server"};
}

std::string ScratchFolder() {
  for (const char* name : {"BEARING_STAGING", "TMPDIR"}) {
    const char* value = std::getenv(name);
    if (value != nullptr && *value != '\0') return value;
  }
  return "/tmp";
}

}  // namespace bearing::cli
