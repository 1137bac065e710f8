#include "libmigrate/rights/asker.h"

#include <sys/socket.h>

#include <cerrno>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "libmigrate/proc/proc_text.h"
#include "transport/handoff.h"

namespace migrate {
namespace {

constexpr const char* kOperation = "let in";
constexpr int kHexadecimal = 16;

Error not_let_in(const ucred& who, std::string reason) {
  return make_error(ErrorCode::kRefused, kOperation,
                    "user " + std::to_string(who.uid) + " (pid " + std::to_string(who.pid) + ")",
                    std::move(reason));
}

Result<std::vector<gid_t>> peer_groups(int unix_fd) {
  std::vector<gid_t> groups;
  socklen_t bytes = 0;
  while (::getsockopt(unix_fd, SOL_SOCKET, SO_PEERGROUPS, groups.data(), &bytes) != 0) {
    if (errno != ERANGE) {
      return fail(system_error("get the groups of", "a client"));
    }
    groups.resize(bytes / sizeof(gid_t));
  }
  groups.resize(bytes / sizeof(gid_t));
  return groups;
}

/// Empty where no security module labels processes.
std::string label_of(const std::string& process) {
  std::string label = read_file("/proc/" + process + "/attr/current").value_or("");
  while (!label.empty() && (label.back() == '\n' || label.back() == '\0')) {
    label.pop_back();
  }
  return label;
}

/// What a process that is there now is beside its ids. Errors: kRefused.
Result<void> look_at(const ucred& who, Asker& asker) {
  const std::string process = std::to_string(who.pid);
  const auto theirs = read_link("/proc/" + process + "/ns/user");
  const auto ours = read_link("/proc/self/ns/user");
  if (!theirs || !ours) {
    return fail(not_let_in(who, "it has ended, or cannot be looked at"));
  }
  if (*theirs != *ours) {
    return fail(not_let_in(who,
                           "it is in another user namespace than the daemon; ask from outside "
                           "of it"));
  }
  const std::string label = label_of(process);
  if (label != label_of("self") && !label.starts_with("unconfined")) {
    return fail(not_let_in(who, "a security module confines it (" + label +
                                    "); ask from a process that is not confined"));
  }
  if (who.uid == 0) {
    const std::string status = MIGRATE_TRY(read_file("/proc/" + process + "/status"));
    asker.capabilities = number_field(status, "CapEff:", kHexadecimal);
  }
  return {};
}

template <class Number>
bool read_number(const nlohmann::json& value, Number& number) {
  if (!value.is_number_unsigned() ||
      value.get<std::uint64_t>() > std::numeric_limits<Number>::max()) {
    return false;
  }
  number = value.get<Number>();
  return true;
}

}  // namespace

std::string Asker::name() const {
  return "user " + std::to_string(user);
}

Result<Asker> asker_of(int unix_fd, const PeerProcess& process) {
  const ucred who = MIGRATE_TRY(peer_credentials(unix_fd));
  Asker asker;
  asker.user = who.uid;
  asker.group = who.gid;
  asker.groups = MIGRATE_TRY(peer_groups(unix_fd));
  MIGRATE_TRY(look_at(who, asker));
  // Still there: what was looked at by number was this process.
  if (!process.is_there()) {
    return fail(not_let_in(who, "it has ended"));
  }
  return asker;
}

nlohmann::json to_json(const Asker& asker) {
  return {{"user", asker.user},
          {"group", asker.group},
          {"groups", asker.groups},
          {"capabilities", asker.capabilities},
          {"is_target", asker.is_target}};
}

Result<Asker> asker_from(const nlohmann::json& request) {
  const Error error = make_error(ErrorCode::kRefused, "learn who asks", "a request",
                                 "it does not say so; do both hosts run the same version?");
  const auto member = request.find("asker");
  if (member == request.end() || !member->is_object()) {
    return fail(error);
  }
  Asker asker;
  for (const char* name : {"user", "group", "groups", "capabilities", "is_target"}) {
    if (!member->contains(name)) {
      return fail(error);
    }
  }
  const nlohmann::json& groups = (*member)["groups"];
  bool good = groups.is_array() && (*member)["is_target"].is_boolean() &&
              read_number((*member)["user"], asker.user) &&
              read_number((*member)["group"], asker.group) &&
              read_number((*member)["capabilities"], asker.capabilities);
  for (std::size_t i = 0; good && i < groups.size(); ++i) {
    good = read_number(groups[i], asker.groups.emplace_back());
  }
  if (!good) {
    return fail(error);
  }
  asker.is_target = (*member)["is_target"].get<bool>();
  return asker;
}

}  // namespace migrate
