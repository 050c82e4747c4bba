// Checks of this machine that start no other program and use no network.
#ifndef BEARING_CLI_DOCTOR_MACHINE_CHECKS_H_
#define BEARING_CLI_DOCTOR_MACHINE_CHECKS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "cli/doctor/finding.h"

namespace bearing::cli {

// Are the other two programs where this one looks for them?
Finding CheckProgram(const std::string& name, const char* variable);

// Space in a folder: broken where nothing can be written or less than 1 GiB is free, a warning below `want_bytes`.
Finding CheckDisk(const std::string& check, const std::string& folder, int64_t want_bytes);

// Writes and reads a file of some pages past the page cache. Slower without, but nothing breaks.
Finding CheckDirectIo(const std::string& folder);

// `folder` is /dev/shm: ranks of one machine talk through it. `ranks` of this machine.
Finding CheckSharedMemory(const std::string& folder, int ranks);

// Can HOST:PORT be listened on? `holder`: who has it, if known, for the message.
Finding CheckPort(const std::string& address);

// NVIDIA's driver, asked directly. Broken without a device only where `needed`.
Finding CheckDriver(bool needed);

// Does the kernel think its clock is set by a time service? A warning if not: in containers and virtual machines the host may
// do it unseen.
Finding CheckClockService();

// Where this machine works on things: BEARING_STAGING, else TMPDIR, else /tmp.
std::string ScratchFolder();

}  // namespace bearing::cli

#endif  // BEARING_CLI_DOCTOR_MACHINE_CHECKS_H_
