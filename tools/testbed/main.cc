// testbed: several hosts on one machine, as namespaces.

#include <fmt/core.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "tools/manual/describe.h"
#include "tools/testbed/groups.h"
#include "tools/testbed/namespaces.h"
#include "tools/testbed/processes.h"
#include "tools/testbed/testbed.h"

namespace migrate::testbed {
namespace {

constexpr int kFailed = 1;
constexpr int kUsage = 2;
constexpr int kNotExecutable = 126;
constexpr int kCommandNotFound = 127;
constexpr double kFewestProcessors = 0.05;  // A kernel gives no less than a millisecond at a time.
constexpr double kMostProcessors = 1024;

struct Arguments {
  std::string name = "default";
  UpOptions up;
  std::string migrated;
  bool no_daemon = false;
  bool json = false;
  std::string host;
  std::string signal = "KILL";
  std::vector<char*> command;  ///< What follows "--", ended by a null pointer.
};

int report(const Error& error) {
  fmt::print(stderr, "testbed: {}\n", error.message());
  const bool usage = error.code == ErrorCode::kNotFound || error.code == ErrorCode::kInvalid;
  return usage ? kUsage : kFailed;
}

int report(const Result<void>& result) {
  return result ? 0 : report(result.error());
}

std::filesystem::path own_directory() {
  std::error_code error;
  return std::filesystem::read_symlink("/proc/self/exe", error).parent_path();
}

/// The daemon: beside this program in a build tree, in sbin/ where they are installed.
std::filesystem::path own_daemon() {
  std::error_code error;
  const std::filesystem::path beside = own_directory() / "migrated";
  return std::filesystem::exists(beside, error)
             ? beside
             : own_directory().parent_path() / "sbin" / "migrated";
}

/// The folder to be seen in every host: the build tree that holds bin/testbed.
std::filesystem::path tree_of(const std::filesystem::path& bin) {
  return std::filesystem::exists(bin.parent_path() / "CMakeCache.txt") ? bin.parent_path() : bin;
}

int run_up(Testbed& testbed, Arguments& arguments) {
  UpOptions& options = arguments.up;
  if (!options.processors.empty() &&
      options.processors.size() != static_cast<std::size_t>(options.host_count)) {
    return report(make_error(
        ErrorCode::kInvalid, "read --cpus",
        fmt::format("{} numbers for {} hosts", options.processors.size(), options.host_count)));
  }
  options.shares.push_back(tree_of(own_directory()).string());
  options.migratectl = (own_directory() / "migratectl").string();
  std::error_code error;
  if (!arguments.no_daemon) {
    const std::filesystem::path daemon = own_daemon();
    if (!arguments.migrated.empty()) {
      options.daemon.program = std::filesystem::canonical(arguments.migrated, error).string();
      if (error) {
        return report(
            system_error_from(error.value(), "find the program of --migrated", arguments.migrated));
      }
      options.shares.push_back(options.daemon.program);
    } else if (std::filesystem::exists(daemon, error)) {
      options.daemon.program = daemon.string();
    } else {
      fmt::print(stderr, "testbed: no {}; the hosts run no daemon\n", daemon.string());
    }
  }
  return report(testbed.up(options));
}

int run_list(const Testbed& testbed, const Arguments& arguments) {
  const auto lines = testbed.list();
  if (!lines) {
    return report(lines.error());
  }
  nlohmann::json hosts = nlohmann::json::array();
  for (const HostStatus& line : *lines) {
    hosts.push_back(
        {{"name", line.host.name},
         {"address", line.host.address},
         {"daemon_pid", line.daemon_pid ? nlohmann::json(*line.daemon_pid) : nlohmann::json()},
         {"processes", line.process_count},
         {"cpus", line.processors ? nlohmann::json(*line.processors) : nlohmann::json()},
         {"directory", line.host.directory},
         {"state", line.host.state_path()},
         {"log", line.host.log_path()}});
    if (!arguments.json) {
      fmt::print("{:<8}{:<14}daemon {:<9}processes {}{}\n", line.host.name, line.host.address,
                 line.daemon_pid ? std::to_string(*line.daemon_pid) : "none", line.process_count,
                 line.processors ? fmt::format("  cpus {}", *line.processors) : "");
    }
  }
  if (arguments.json) {
    fmt::print("{}\n", nlohmann::json{{"name", arguments.name}, {"hosts", hosts}}.dump(2));
  }
  return 0;
}

/// Becomes the command; returns only on failure.
int run_exec(const Testbed& testbed, const Arguments& arguments) {
  const auto host = testbed.find_host(arguments.host);
  if (!host) {
    return report(host.error());
  }
  std::error_code error;
  const std::filesystem::path here = std::filesystem::current_path(error);
  const std::string tools = own_directory().string();
  if (const auto entered = enter_groups(*host, GroupRole::kPrograms); !entered) {
    return report(entered.error());
  }
  if (const auto entered = enter_namespaces(host->directory); !entered) {
    return report(entered.error());
  }
  // A folder of the machine's /tmp or /run is not there; the command then starts in /.
  std::filesystem::current_path(here, error);
  const char* path = std::getenv("PATH");
  const std::string search =
      tools + ":" + (path != nullptr ? path : "/usr/sbin:/usr/bin:/sbin:/bin");
  ::setenv("PATH", search.c_str(), 1);
  ::execvp(arguments.command[0], arguments.command.data());
  const int failure = errno;
  report(system_error_from(failure, "execute", arguments.command[0]));
  return failure == ENOENT ? kCommandNotFound : kNotExecutable;
}

int run_daemon_command(const Testbed& testbed, const Arguments& arguments, bool restart) {
  const auto host = testbed.find_host(arguments.host);
  if (!host) {
    return report(host.error());
  }
  if (restart) {
    return report(testbed.restart_daemon(*host));
  }
  return report(stop_daemon(*host, arguments.signal == "TERM" ? SIGTERM : SIGKILL));
}

void add_up(CLI::App& app, Arguments& arguments) {
  CLI::App* up = app.add_subcommand("up", "Make the hosts and start their daemons");
  up->add_option("N", arguments.up.host_count, "Number of hosts")
      ->check(CLI::Range(1, kMaximalHosts))
      ->capture_default_str();
  up->add_option("--migrated", arguments.migrated,
                 "The daemon (default: the one that came with testbed)")
      ->type_name("FILE");
  up->add_flag("--no-daemon", arguments.no_daemon, "Start no daemons");
  up->add_flag("--tls", arguments.up.daemon.tls,
               "Give the hosts keys, so that they use TLS (default: plain TCP)");
  up->add_flag("--supervise", arguments.up.daemon.supervise,
               "Start a daemon again that ended otherwise than by restart or kill-daemon");
  up->add_option("--daemon-arg", arguments.up.daemon.arguments,
                 "A further argument for each daemon (repeatable; write --daemon-arg=--flag)")
      ->allow_extra_args(false);
  up->add_flag("--groups", arguments.up.groups,
               "Give each host control groups of its own: one for its daemon, one for programs");
  up->add_option(
        "--cpus", arguments.up.processors,
        "Processors of each host (1,1,0.5): all that runs in it, moved processes too, gets "
        "no more, by control groups (default: those of the machine)")
      ->delimiter(',')
      ->check(CLI::Range(kFewestProcessors, kMostProcessors))
      ->allow_extra_args(false);
  up->add_option("--overlay", arguments.up.overlays,
                 "Folders of which each host has a private, writable view")
      ->delimiter(',')
      ->allow_extra_args(false);
  up->add_option(
        "--share", arguments.up.shares,
        "Files and folders under /tmp or /run that all hosts see (the build tree always is)")
      ->delimiter(',')
      ->allow_extra_args(false);
}

CLI::App* add_for_host(CLI::App& app, Arguments& arguments, const char* name, const char* what) {
  CLI::App* command = app.add_subcommand(name, what);
  command->add_option("HOST", arguments.host, "Such as hostA")->required();
  return command;
}

void add_commands(CLI::App& app, Arguments& arguments) {
  app.require_subcommand(1);
  app.fallthrough();
  app.add_option("--name", arguments.name, "Name of the testbed")->envname("MIGRATE_TESTBED");
  add_up(app, arguments);
  app.add_subcommand("down", "End all processes in the hosts; remove the hosts");
  app.add_subcommand("list", "Show the hosts")
      ->add_flag("--json", arguments.json, "Print one JSON object");
  add_for_host(app, arguments, "exec", "exec HOST -- CMD...: run a command in a host");
  add_for_host(app, arguments, "restart", "End a host's daemon and start it again");
  add_for_host(app, arguments, "kill-daemon", "End a host's daemon only")
      ->add_option("--signal", arguments.signal, "How")
      ->check(CLI::IsMember({"TERM", "KILL"}))
      ->capture_default_str();
  let_describe(app);
}

int dispatch(const CLI::App& app, Testbed& testbed, Arguments& arguments) {
  if (app.got_subcommand("up")) {
    return run_up(testbed, arguments);
  }
  if (app.got_subcommand("down")) {
    return report(testbed.down());
  }
  if (app.got_subcommand("list")) {
    return run_list(testbed, arguments);
  }
  if (app.got_subcommand("exec")) {
    return run_exec(testbed, arguments);
  }
  return run_daemon_command(testbed, arguments, app.got_subcommand("restart"));
}

int run(int argc, char** argv) {
  Arguments arguments;
  // What follows "--" is the command's, whatever it looks like.
  char** const dashes = std::find_if(
      argv + 1, argv + argc, [](const char* word) { return std::string_view(word) == "--"; });
  for (char** word = dashes; word < argv + argc; ++word) {
    arguments.command.push_back(word + 1 < argv + argc ? word[1] : nullptr);
  }
  CLI::App app(
      "Hosts hostA, hostB, ... on one machine, each with its own network, mount and UTS "
      "namespace, /run, /tmp, daemon state and migrated");
  add_commands(app, arguments);
  try {
    app.parse(static_cast<int>(dashes - argv), argv);
  } catch (const CLI::ParseError& error) {  // CLI11 reports by exception only; it ends here.
    return app.exit(error) == 0 ? 0 : kUsage;
  }
  if (app.got_subcommand("exec") != (arguments.command.size() > 1)) {
    fmt::print(stderr, "testbed: usage: testbed exec HOST -- CMD...\n");
    return kUsage;
  }
  if (::geteuid() != 0) {
    return report(make_error(ErrorCode::kRefused, "use namespaces", "", "run testbed as root"));
  }
  auto testbed = Testbed::create(arguments.name);
  return testbed ? dispatch(app, *testbed, arguments) : report(testbed.error());
}

}  // namespace
}  // namespace migrate::testbed

int main(int argc, char** argv) {
  return migrate::testbed::run(argc, argv);
}
