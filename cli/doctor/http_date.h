// The clock of a web server, from the Date of its answer (RFC 9110, 6.6.1).
#ifndef BEARING_CLI_DOCTOR_HTTP_DATE_H_
#define BEARING_CLI_DOCTOR_HTTP_DATE_H_

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace bearing::cli {

struct WebAddress {
  bool tls = false;
  std::string host;
  std::string port;
};

// Of "http://HOST[:PORT][/...]" or https. InvalidArgument for anything else; user names and passwords are no part of it.
absl::StatusOr<WebAddress> ParseWebAddress(std::string_view url);

// "Sun, 06 Nov 1994 08:49:37 GMT" in the head of an answer. NotFound without a Date that can be read.
absl::StatusOr<absl::Time> DateOfAnswer(std::string_view head);

struct ServerDate {
  absl::Time server;  // Full seconds.
  absl::Time asked;   // This machine's clock when the question went out, and
  absl::Time told;    // when the answer was there.
};

// Asks for the head of "/" whatever the answer's code. Each step takes at most `timeout`. Unavailable, with the certificate's
// trouble if that is it; proxies are not used.
absl::StatusOr<ServerDate> AskServerDate(const WebAddress& address, absl::Duration timeout);

// How far this machine is ahead of the server at the least (negative: behind). The answer holds full seconds and was written
// some time between the question and its arrival: inside that the difference is zero.
absl::Duration ClockAhead(const ServerDate& date);

}  // namespace bearing::cli

#endif  // BEARING_CLI_DOCTOR_HTTP_DATE_H_
