#include "worker/comm/cuda_backend.h"

#include <ATen/Context.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <dlfcn.h>

#include <filesystem>
#include <mutex>
#include <string>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "sharding/status_macros.h"
#include "worker/comm/cuda_library.h"

namespace bearing::comm {
namespace {

// A function of an open library, or nullptr.
template <typename Function>
Function Find(void* library, const char* name) {
  return reinterpret_cast<Function>(dlsym(library, name));
}

std::string LastError() {
  const char* text = dlerror();
  return text != nullptr ? text : "unknown error";
}

absl::StatusOr<std::string> BesideProgram() {
  std::error_code error;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) return absl::InternalError(absl::StrCat("/proc/self/exe: ", error.message()));
  return (program.parent_path() / "libbearing_cuda.so").string();
}

absl::StatusOr<const CudaLibrary*> Open(const std::string& path) {
  // Global, since kernels of libtorch find each other by symbol; never closed, since they stay registered.
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL);
  if (handle == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("the CUDA part of Bearing cannot be loaded: ", LastError(),
                     "; it needs a build with CUDA and the NVIDIA wheels that libtorch's wheel depends on"));
  }
  auto function = Find<CudaLibraryFunction>(handle, kCudaLibrarySymbol);
  if (function == nullptr) return absl::FailedPreconditionError(absl::StrCat(path, ": is not Bearing's: ", LastError()));
  const CudaLibrary* library = function();
  if (std::string(library->version) != BEARING_VERSION) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, ": is of another version: library=", library->version, " program=", BEARING_VERSION));
  }
  // ATen looks for its CUDA half once, at the first question that concerns it. One that came before now was answered with no.
  if (!at::detail::getCUDAHooks().hasCUDART()) {
    return absl::FailedPreconditionError("ATen was asked for CUDA before the CUDA library was loaded: load it first");
  }
  // By default cuBLAS may add parts of a bfloat16 product in bfloat16. Sums of products are fp32 here.
  at::globalContext().setAllowBF16ReductionCuBLAS(false);
  return library;
}

// The library once it is open. A failed attempt may be repeated.
absl::StatusOr<const CudaLibrary*> Library(const std::string* path) {
  static std::mutex mutex;
  static const CudaLibrary* library = nullptr;
  std::lock_guard lock(mutex);
  if (library != nullptr) return library;
  if (path == nullptr) return absl::FailedPreconditionError("the CUDA library is not loaded");
  std::string file = *path;
  if (file.empty()) {
    BEARING_ASSIGN_OR_RETURN(file, BesideProgram());
  }
  BEARING_ASSIGN_OR_RETURN(library, Open(file));
  return library;
}

}  // namespace

bool CudaAvailable(std::string* why) {
  void* driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (driver == nullptr) {
    *why = absl::StrCat("no NVIDIA driver: ", LastError());
    return false;
  }
  auto init = Find<int (*)(unsigned)>(driver, "cuInit");
  auto count = Find<int (*)(int*)>(driver, "cuDeviceGetCount");
  auto name = Find<int (*)(int, const char**)>(driver, "cuGetErrorName");
  if (init == nullptr || count == nullptr || name == nullptr) {
    *why = "libcuda.so.1 is not an NVIDIA driver";
    return false;
  }
  int devices = 0;
  int code = init(0);
  if (code == 0) code = count(&devices);
  if (code == 0 && devices > 0) return true;
  const char* text = nullptr;
  if (code != 0) name(code, &text);
  *why = absl::StrCat("the NVIDIA driver finds no device", code != 0 ? ": " : "",
                      code == 0         ? std::string()
                      : text != nullptr ? std::string(text)
                                        : absl::StrCat("error ", code));
  return false;
}

absl::Status LoadCuda(const std::string& library) { return Library(&library).status(); }

absl::StatusOr<std::unique_ptr<Communicator>> MakeCudaCommunicator(Communicator& bootstrap, const CudaOptions& options) {
  // Ranks without the library must not leave the others waiting.
  const absl::StatusOr<const CudaLibrary*> library = Library(&options.library);
  BEARING_RETURN_IF_ERROR(AgreeOnStatus(bootstrap, library.status()));
  return (*library)->make_communicator(bootstrap, options);
}

absl::StatusOr<CudaDevice> CurrentCudaDevice() {
  BEARING_ASSIGN_OR_RETURN(const CudaLibrary* library, Library(nullptr));
  return library->current_device();
}

}  // namespace bearing::comm
