// `bearing token create`: a token for a client or a worker, and the line that lets it in.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "cli/command.h"
#include "cli/exit_code.h"
#include "rpc/tokens.h"
#include "sharding/status_macros.h"

namespace bearing::cli {
namespace {

struct TokenOptions {
  std::string name;
  std::vector<std::string> scopes;
  std::string expires = "30d";
  std::string out;     // The token goes there.
  std::string append;  // The line goes there.
};

// "30d", "12h", "never".
absl::StatusOr<absl::Time> ParseExpiry(const std::string& text, absl::Time now) {
  if (text == "never") return absl::InfiniteFuture();
  int64_t count = 0;
  const char unit = text.empty() ? ' ' : text.back();
  const absl::Duration one = unit == 'd' ? absl::Hours(24) : unit == 'h' ? absl::Hours(1) : absl::ZeroDuration();
  if (one == absl::ZeroDuration() || !absl::SimpleAtoi(text.substr(0, text.size() - 1), &count) || count < 1 || count > 36500) {
    return absl::InvalidArgumentError(
        absl::StrCat("--expires: expected days or hours such as 30d or 12h, or never, found ", text));
  }
  return now + one * count;
}

absl::Status WriteText(const std::string& path, int flags, const std::string& text, const char* flag) {
  const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0600);
  if (file < 0) return absl::ErrnoToStatus(errno, absl::StrCat(flag, ": cannot be written: file=", path));
  const bool written = write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size()) && fsync(file) == 0;
  const int error = errno;
  close(file);
  return written ? absl::OkStatus() : absl::ErrnoToStatus(error, absl::StrCat(flag, ": cannot be written: file=", path));
}

absl::Status Create(const TokenOptions& options) {
  rpc::TokenEntry entry;
  entry.name = options.name;
  for (const std::string& scope : options.scopes) entry.scopes |= rpc::ParseScope(scope);
  BEARING_ASSIGN_OR_RETURN(entry.expires, ParseExpiry(options.expires, absl::Now()));
  BEARING_ASSIGN_OR_RETURN(const std::string token, rpc::NewToken());
  entry.sha256 = rpc::HashOfToken(token);
  const std::string line = rpc::FormatTokenLine(entry);
  // The line is refused here rather than by the server that reads it.
  BEARING_RETURN_IF_ERROR(rpc::ParseTokenFile(line, "--name").status());
  if (!options.out.empty()) BEARING_RETURN_IF_ERROR(WriteText(options.out, O_EXCL, token + "\n", "--out"));
  if (!options.append.empty()) BEARING_RETURN_IF_ERROR(WriteText(options.append, O_APPEND, line + "\n", "--append"));
  if (options.out.empty()) std::cout << "token (shown once): " << token << '\n';
  if (options.append.empty()) std::cout << "line for the server's --token-file: " << line << '\n';
  return absl::OkStatus();
}

}  // namespace

void AddTokenCommand(CommandLine& line) {
  auto options = std::make_shared<TokenOptions>();
  CLI::App* command = line.app.add_subcommand("token", "Make tokens for a server's clients and workers");
  command->require_subcommand(1);
  command->footer("Example:\n  bearing token create --name alice --scope submit --expires 30d");
  CLI::App* create = command->add_subcommand("create", "Make a token; the server keeps only its SHA-256");
  create->add_option("--name", options->name, "Whose it is; jobs and the audit log name it")->required();
  create->add_option("--scope", options->scopes, "read, submit (may read too), admin (all of these) or worker (repeatable)")
      ->required()
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(CLI::IsMember({"read", "submit", "admin", "worker"}));
  create->add_option("--expires", options->expires, "Days or hours, e.g. 30d or 12h, or never")->capture_default_str();
  create->add_option("--out", options->out, "New file that gets the token, instead of standard output");
  create->add_option("--append", options->append, "Token file of the server that gets the line, instead of standard output");
  create->footer(
      "Example:\n  bearing token create --name alice --scope submit --expires 30d\n"
      "  bearing token create --name gpu-pool --scope worker --out worker.token --append /etc/bearing/tokens");
  create->callback([&line, options] {
    line.action = [options] {
      const absl::Status status = Create(*options);
      return status.ok() ? kExitOk : Fail(status, kExitInvalid);
    };
  });
}

}  // namespace bearing::cli
