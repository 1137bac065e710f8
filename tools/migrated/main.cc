// migrated: the daemon of one host. See tools/migrated/daemon.h.
#include <fcntl.h>
#include <unistd.h>

#include <cstdio>

#include "base/crash_report.h"
#include "base/file.h"
#include "base/log.h"
#include "tools/migrated/daemon.h"
#include "tools/migrated/options.h"

namespace {

constexpr int kExitFailure = 1;

/// Workers outlive the daemon and whatever fed its standard input; and a descriptor that a worker
/// opens must never become one of the standard streams.
void fill_standard_streams() {
  int fd = open("/dev/null", O_RDWR);
  while (fd >= 0 && fd <= STDERR_FILENO) {
    fd = open("/dev/null", O_RDWR);
  }
  if (fd >= 0) {
    (void)dup2(fd, STDIN_FILENO);
    (void)close(fd);
  }
}

int complain(const migrate::Error& error, int exit_code) {
  (void)std::fprintf(stderr, "migrated: %s\n", error.message().c_str());
  return exit_code;
}

}  // namespace

int main(int argc, char** argv) {
  fill_standard_streams();
  migrate::start_logging("migrated");
  migrate::report_crashes("migrated");
  const auto options = migrate::parse_options(argc, argv);
  if (!options) {
    return complain(options.error(), MIGRATE_USAGE);
  }
  if (!*options) {
    return 0;
  }
  migrate::Result<migrate::Daemon> daemon = migrate::Daemon::create(**options);
  if (!daemon) {
    const bool is_wrong = daemon.error().code == migrate::ErrorCode::kInvalid;
    return complain(daemon.error(), is_wrong ? MIGRATE_USAGE : kExitFailure);
  }
  const migrate::Result<void> served = daemon->run();
  return served ? 0 : complain(served.error(), kExitFailure);
}
