#include "tools/migrated/options.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>

#include <CLI/CLI.hpp>
#include <limits>
#include <map>
#include <set>

#define TOML_EXCEPTIONS 0  // NOLINT(readability-identifier-naming): toml++ reads it.
#include <toml++/toml.h>

#include "base/file.h"
#include "libmigrate/requests/policy_file.h"
#include "tools/manual/describe.h"
#include "transport/page_transport.h"

namespace migrate {
namespace {

/// Binds options of the command line and keys of the file to the same variables.
class Settings {
 public:
  explicit Settings(CLI::App& app) : app_(app) {}

  /// The caller may say more of the option.
  template <class T>
  CLI::Option* add(const std::string& key, T& value, const std::string& help) {
    CLI::Option* option = nullptr;
    if constexpr (std::is_same_v<T, bool>) {
      option = app_.add_flag(flag_of(key), value, help);
    } else {
      option = app_.add_option(flag_of(key), value, help)->capture_default_str();
    }
    bindings_.push_back({key, option, form_of(value),
                         [&value](const toml::node& node) { return set(value, node); }});
    return option;
  }

  /// Applies the file's keys that the command line left open.
  Result<void> apply(const toml::table& file, const std::string& path) const {
    for (const auto& [key, node] : file) {
      const std::string name(key.str());
      const auto binding = std::find_if(bindings_.begin(), bindings_.end(),
                                        [&](const Binding& each) { return each.key == name; });
      if (binding == bindings_.end()) {
        return fail(make_error(ErrorCode::kInvalid, "read the configuration",
                               fmt::format("{}: unknown key \"{}\"", path, name),
                               "the keys are the long options of `migrated --help`, with _ for -"));
      }
      if (binding->option->count() == 0 && !binding->set(node)) {
        return fail(
            make_error(ErrorCode::kInvalid, "read the configuration",
                       fmt::format("{}: key \"{}\" has a value that it cannot have", path, name),
                       "write " + name + " = " + binding->form));
      }
    }
    return {};
  }

 private:
  struct Binding {
    std::string key;
    CLI::Option* option;
    const char* form;  // how its value is written in the file
    std::function<bool(const toml::node&)> set;
  };

  static std::string flag_of(std::string key) {
    std::replace(key.begin(), key.end(), '_', '-');
    return "--" + key;
  }
  static const char* form_of(const std::string& /*value*/) { return "\"TEXT\""; }
  static const char* form_of(const bool& /*value*/) { return "true or false"; }
  static const char* form_of(const std::uint32_t& /*value*/) {
    return "a whole number from 0 to 4294967295";
  }
  static const char* form_of(const std::vector<std::string>& /*value*/) {
    return "[\"TEXT\", \"TEXT\"]";
  }
  static bool set(std::string& value, const toml::node& node) {
    const auto text = node.value_exact<std::string>();
    value = text.value_or(value);
    return text.has_value();
  }
  static bool set(bool& value, const toml::node& node) {
    const auto flag = node.value_exact<bool>();
    value = flag.value_or(value);
    return flag.has_value();
  }
  static bool set(std::uint32_t& value, const toml::node& node) {
    const auto number = node.value_exact<std::int64_t>();
    if (!number || *number < 0 || *number > std::numeric_limits<std::uint32_t>::max()) {
      return false;
    }
    value = static_cast<std::uint32_t>(*number);
    return true;
  }
  static bool set(std::vector<std::string>& values, const toml::node& node) {
    std::vector<std::string> found;
    std::string one;
    if (const toml::array* list = node.as_array()) {
      for (const toml::node& element : *list) {
        if (!set(one, element)) {
          return false;
        }
        found.push_back(one);
      }
    } else if (set(one, node)) {
      found.push_back(one);
    } else {
      return false;
    }
    values = std::move(found);
    return true;
  }

  CLI::App& app_;
  std::vector<Binding> bindings_;
};

void add_address_settings(Settings& settings, DaemonOptions& options) {
  std::string listen = "tcp://ADDR:PORT for other hosts";
  for (const PageTransport* const each : page_transports()) {
    listen += std::string(", ") + each->word + "://ADDR for their pages";
  }
  settings.add("listen", options.listen, listen + " (repeatable)");
  settings.add("advertise", options.advertise,
               "tcp://ADDR:PORT by which other hosts reach this one (default: from --listen)");
  settings.add("socket", options.socket_path, "Local socket for migratectl and libmigrate")
      ->type_name("FILE");
  settings.add("state", options.state_directory, "Directory of the registry and the mailboxes")
      ->type_name("DIR");
  settings.add("host_name", options.host_name, "Name of this host (default: the system's)");
  settings
      .add("keys", options.keys_directory,
           "Directory of ca.crt, HOST.crt and HOST.key (migratectl keys): use TLS")
      ->type_name("DIR");
  settings.add("certificate", options.certificate, "This host's certificate, instead of HOST.crt")
      ->type_name("FILE");
  settings.add("key", options.key, "Its private key, instead of HOST.key")->type_name("FILE");
  settings
      .add("authority", options.authority,
           "Certificate of the authority that signs those of all hosts, instead of ca.crt")
      ->type_name("FILE");
  settings.add(
      "munge", options.munge,
      "Authenticate hosts by MUNGE instead: nothing is encrypted, so that pages can be read "
      "and connections taken over on the way");
  settings.add("munge_socket", options.munge_socket, "Socket of munged (default: MUNGE's own)")
      ->type_name("FILE");
  settings.add("insecure", options.insecure,
               "Listen where other machines can connect without keys: whoever reaches the port can "
               "read the memory of moved processes and run programs here as any user");
}

void add_guest_settings(Settings& settings, DaemonOptions& options) {
  settings.add("allow", options.allow,
               "USERS@HOSTS whose processes are taken, such as alice,1000-1999@hostA or root@hostB "
               "(repeatable; default *@*: all users but root, from all hosts)");
  settings.add("group_rules", options.group_rules,
               "PATTERN=GROUP, such as /user.slice/*=/guests.slice: processes whose control group "
               "at home is PATTERN get theirs here below GROUP (repeatable; default: below the "
               "daemon's own)");
  settings.add("keep_limits", options.keep_limits,
               "Refuse to take a process, and to let one go, that would lose a limit of its "
               "control groups");
  settings
      .add("policy", options.policy,
           "TOML file of rules: how the memory and files of processes that leave travel, and what "
           "users may choose of that (default: /etc/libmigrate/policy.toml, if it is there)")
      ->type_name("FILE");
  settings.add("max_sessions", options.max_sessions, "Processes of other hosts taken at a time");
  settings.add("reserve_mib", options.reserve_mib, "MiB of memory that they must leave free");
  settings.add(
      "overcommit", options.overcommit,
      "Take processes whose memory together is more than there is, as Linux lets processes "
      "fork: for copies that touch little of theirs; if they touch more, the kernel ends "
      "one");
  settings.add("only_home_network", options.only_home_network,
               "Refuse processes that are to connect from this host and not from their home (move "
               "--network place)");
}

void add_settings(Settings& settings, DaemonOptions& options) {
  add_address_settings(settings, options);
  add_guest_settings(settings, options);
  settings.add("bandwidth_mib", options.bandwidth_mib,
               "MiB a second pushed to each process that went away (0: as fast as can be); pages "
               "that it asks for are not limited");
  settings.add("spin_us", options.spin_us, "Microseconds to poll for pages before sleeping");
  settings.add("max_connections", options.max_connections, "Connections served at once");
  settings.add("end_waiting_s", options.end_waiting_s,
               "Seconds after which a process that cannot get its pages is ended (0: never)");
  settings.add("debug_stops", options.debug_stops,
               "For tests: halt workers at the steps that files in STATE/stops name");
  settings.add(
      "trace_arrivals", options.trace_arrivals,
      "For measurements: note in STATE/arrivals when and how the pages of each process came, "
      "a file for each move");
  settings.add("peers", options.peers, "HOST[:PORT] to ask in `migratectl hosts` (repeatable)");
}

Error bad_address(const char* setting, const std::string& text, std::string remedy) {
  return make_error(ErrorCode::kInvalid, "read the setting",
                    std::string(setting) + " \"" + text + "\"", std::move(remedy));
}

/// 0.0.0.0 and ::, however they are written: all addresses to listen on, and none to connect to.
bool is_any_address(const std::string& host) {
  in_addr v4{};
  in6_addr v6{};
  return (inet_aton(host.c_str(), &v4) != 0 && v4.s_addr == INADDR_ANY) ||
         (inet_pton(AF_INET6, host.c_str(), &v6) == 1 && IN6_IS_ADDR_UNSPECIFIED(&v6));
}

/// Those that other hosts or this one will connect to; names are not looked up.
Result<void> check_addresses(const DaemonOptions& options) {
  for (const std::string& peer : options.peers) {
    if (const auto address = Address::parse(peer); !address) {
      return fail(bad_address("peers", peer, address.error().remedy));
    }
  }
  if (options.advertise.empty()) {
    return {};
  }
  const auto address = Address::parse(options.advertise);
  if (!address) {
    return fail(bad_address("advertise", options.advertise, address.error().remedy));
  }
  if (is_any_address(address->host) || address->port == 0) {
    return fail(bad_address("advertise", options.advertise,
                            "other hosts cannot connect to that; write tcp://HOST:PORT with a name "
                            "or address of this host that they know"));
  }
  return {};
}

/// The rules of the file that `policy` names, or of the usual one if it is there.
Result<HostRules> host_rules(const std::string& policy) {
  const std::string path = policy.empty() ? "/etc/libmigrate/policy.toml" : policy;
  auto rules = read_host_policy(path);
  if (!rules && policy.empty() && rules.error().sys_errno == ENOENT) {
    return HostRules();
  }
  return rules;
}

}  // namespace

Result<std::optional<DaemonOptions>> parse_options(int argc, const char* const* argv) {
  CLI::App app("Daemon of libmigrate: receives, serves and records moved processes");
  DaemonOptions options;
  std::string config;
  Settings settings(app);
  add_settings(settings, options);
  app.add_option("--config", config, "TOML file with the same settings")->type_name("FILE");
  app.set_version_flag("--version", MIGRATE_VERSION);
  let_describe(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) {
      (void)app.exit(error);
      return std::optional<DaemonOptions>();
    }
    return fail(make_error(ErrorCode::kInvalid, "read the command line", error.what(),
                           "see migrated --help"));
  }
  if (!config.empty()) {
    const std::string text = MIGRATE_TRY(read_file(config));
    const toml::parse_result parsed = toml::parse(text, config);
    if (!parsed) {
      return fail(make_error(ErrorCode::kInvalid, "read the configuration",
                             config + ", line " +
                                 std::to_string(parsed.error().source().begin.line) + ": " +
                                 std::string(parsed.error().description())));
    }
    MIGRATE_TRY(settings.apply(parsed.table(), config));
  }
  MIGRATE_TRY(check_addresses(options));
  options.rules = MIGRATE_TRY(host_rules(options.policy));
  return std::optional<DaemonOptions>(std::move(options));
}

Result<PeerTrust> peer_trust(const DaemonOptions& options, const std::string& host_name) {
  const auto file = [&](const std::string& given, const std::string& name) {
    return given.empty() && !options.keys_directory.empty() ? options.keys_directory + "/" + name
                                                            : given;
  };
  const std::string certificate = file(options.certificate, host_name + ".crt");
  const std::string key = file(options.key, host_name + ".key");
  const std::string authority = file(options.authority, "ca.crt");
  if (certificate.empty() && key.empty() && authority.empty()) {
    return options.munge ? PeerTrust(MIGRATE_TRY(Munge::create(options.munge_socket)))
                         : PeerTrust(options.insecure);
  }
  if (options.munge) {
    return fail(make_error(ErrorCode::kInvalid, "choose how hosts prove who they are", {},
                           "give keys for TLS, or --munge, not both"));
  }
  if (certificate.empty() || key.empty() || authority.empty()) {
    return fail(make_error(ErrorCode::kInvalid, "set up TLS", {},
                           "give --keys, or all of --certificate, --key and --authority"));
  }
  auto context = TlsContext::create(certificate, key, authority);
  if (!context) {
    context.error().code = ErrorCode::kInvalid;  // Whatever is wrong with them, they are given so.
  }
  return PeerTrust(MIGRATE_TRY(std::move(context)));
}

namespace {

Error only_pages(const PageTransport& transport, const std::string& given) {
  const std::string scheme = std::string(transport.word) + "://";
  return make_error(ErrorCode::kInvalid, "listen", given,
                    "give one " + scheme + "ADDRESS, or " + scheme +
                        "0.0.0.0 for all, beside a tcp:// address: only pages travel over " +
                        transport.name);
}

}  // namespace

Result<std::vector<Address>> listen_addresses(const DaemonOptions& options,
                                              const PeerTrust& trust) {
  std::vector<Address> addresses;
  std::map<const PageTransport*, std::string> for_pages;  // what was given
  for (const std::string& text : options.listen) {
    Address address = MIGRATE_TRY(Address::parse(text));
    if (!options.insecure && !trust.authenticates() && !MIGRATE_TRY(address.is_loopback())) {
      return fail(make_error(
          ErrorCode::kRefused, "listen", text,
          "other machines can reach this address, and without keys nobody has to prove who they "
          "are and nothing is encrypted: anyone who reaches the port can read the memory of moved "
          "processes, and run programs here as any user. Give --keys (migratectl keys makes them) "
          "or --munge, "
          "listen on 127.0.0.1, or give --insecure on a network that you trust wholly"));
    }
    if (const PageTransport* const transport = find_page_transport(address.scheme)) {
      if (transport->missing != nullptr) {
        return fail(make_error(ErrorCode::kUnsupported, "listen", text,
                               std::string("this migrated was built without ") + transport->name +
                                   "; install " + transport->missing + " and build it anew"));
      }
      std::string& given = for_pages[transport];
      if (!given.empty()) {
        return fail(only_pages(*transport, fmt::format("{}, {}", given, text)));
      }
      given = text;
    }
    addresses.push_back(std::move(address));
  }
  if (!for_pages.empty() && for_pages.size() == addresses.size()) {
    const auto& [transport, given] = *for_pages.begin();
    return fail(only_pages(*transport, given));
  }
  return addresses;
}

}  // namespace migrate
