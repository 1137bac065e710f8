#include "tools/migratectl/keys.h"

#include <fmt/core.h>

#include <cstdio>

#include "transport/keys.h"

namespace migrate {
namespace {

constexpr int kFailed = 1;

Result<std::string> make_authority(const KeysOptions& options) {
  const KeyFiles files = MIGRATE_TRY(create_ca(options.directory));
  return fmt::format(
      "made an authority that holds for {} days:\n"
      "  {}  give it to every host\n"
      "  {}  keep it here: whoever has it can make himself any host\n"
      "next: migratectl keys add-host NAME, for each host\n",
      kAuthorityDays, files.certificate, files.key);
}

Result<std::string> make_host(const KeysOptions& options) {
  const KeyFiles files =
      MIGRATE_TRY(create_host_certificate(options.directory, options.host, options.also));
  return fmt::format(
      "made keys for {0} that hold for {1} days:\n  {2}\n  {3}\n"
      "copy these two and {4}/ca.crt to a directory of {0} that only root may read, over a "
      "connection that you trust, and start its daemon with --keys DIRECTORY{5}\n",
      options.host, kHostDays, files.certificate, files.key, options.directory,
      " (and --host-name " + options.host + " if it calls itself otherwise)");
}

}  // namespace

void add_keys(CLI::App& app, KeysOptions& options) {
  CLI::App* keys = app.add_subcommand("keys", "Make keys for TLS between the hosts of a cluster");
  keys->require_subcommand(1);
  keys->add_option("--dir", options.directory, "Directory of the authority")
      ->type_name("DIR")
      ->capture_default_str();
  keys->add_subcommand("init", "Make an authority, which signs the certificates of the hosts");
  CLI::App* add_host = keys->add_subcommand("add-host", "Make a key and a certificate for a host");
  add_host->add_option("NAME", options.host, "Its host name or numeric address")->required();
  add_host->add_option("--also", options.also,
                       "Another name or address by which hosts or users reach it (repeatable)");
  keys->fallthrough();
}

int run_keys(const CLI::App& app, const KeysOptions& options) {
  const bool init = app.get_subcommand("keys")->got_subcommand("init");
  const auto made = init ? make_authority(options) : make_host(options);
  if (!made) {
    fmt::print(stderr, "migratectl: {}\n", made.error().message());
    return kFailed;
  }
  fmt::print("{}", *made);
  return 0;
}

}  // namespace migrate
