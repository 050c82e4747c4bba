// Checks of what this machine must reach: object stores, the server, the clock of others.
#ifndef BEARING_CLI_DOCTOR_NETWORK_CHECKS_H_
#define BEARING_CLI_DOCTOR_NETWORK_CHECKS_H_

#include <string>

#include "cli/doctor/finding.h"

namespace bearing::cli {

// Looks a name up below the address with the credentials of the standard chain; with `write` also writes, reads and deletes a
// small object there. What a store says about credentials is told, credentials never are.
Finding CheckStorage(const std::string& address, bool write);

// Does a server answer there?
Finding CheckServer(const std::string& server);

// This machine's clock against a web server's. Signatures of requests are refused by S3 beyond 15 minutes, tokens and
// certificates earlier: a warning from 5 seconds, broken from 5 minutes.
Finding CheckClock(const std::string& url);

// Of AWS_ENDPOINT_URL, or S3's own for an s3:// address, Google's and Azure's for theirs; empty where none is known. An S3
// region comes from AWS_REGION or AWS_DEFAULT_REGION.
std::string ClockOfStorage(const std::string& address);

}  // namespace bearing::cli

#endif  // BEARING_CLI_DOCTOR_NETWORK_CHECKS_H_
