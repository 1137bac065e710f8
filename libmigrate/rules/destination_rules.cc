#include "libmigrate/rules/destination_rules.h"

#include <fmt/core.h>
#include <linux/capability.h>
#include <linux/magic.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "libmigrate/arch/arch.h"
#include "libmigrate/carriers/carriers.h"
#include "libmigrate/carriers/file_here.h"
#include "libmigrate/image/only_process.h"
#include "libmigrate/image/refusal.h"
#include "libmigrate/links/tcp_pair.h"
#include "libmigrate/links/unix_pair.h"

namespace migrate {
namespace {

void check_machine(const wire::HostFacts& source, const wire::HostFacts& own, Refusals& refusals) {
  if (source.architecture() != own.architecture()) {
    refusals.push_back(
        make_refusal("ARCH", source.architecture(), "here is " + own.architecture()));
    return;  // Nothing below compares.
  }
  const std::set<std::string> features(own.cpu_features().begin(), own.cpu_features().end());
  for (const std::string& feature : source.cpu_features()) {
    if (!features.contains(feature) && !arch::is_irrelevant_feature(feature)) {
      refusals.push_back(make_refusal("CPU_FEATURE", feature));
    }
  }
  if (const auto missing =
          arch::missing_processor_state(source.processor_state(), own.processor_state())) {
    refusals.push_back(make_refusal("XSAVE", missing->there, "here " + missing->here));
  }
  if (source.page_bytes() != own.page_bytes()) {
    refusals.push_back(make_refusal("PAGE_SIZE", fmt::format("{} bytes", source.page_bytes()),
                                    fmt::format("here {}", own.page_bytes())));
  }
  if (source.vdso_sha256() != own.vdso_sha256()) {
    refusals.push_back(
        make_refusal("VDSO", "kernel " + source.kernel_release(), "here " + own.kernel_release()));
  }
}

// One file of the image, which refusals name as `who`.
class FileRules : public carriers::CompareContext {
 public:
  FileRules(bool same_kernel, std::string who, Refusals& refusals)
      : same_kernel_(same_kernel), who_(std::move(who)), refusals_(refusals) {}

  bool same_kernel() const override { return same_kernel_; }
  void refuse(std::string_view code, std::string_view detail) override {
    refusals_.push_back(make_refusal(code, who_, detail));
  }

 private:
  bool same_kernel_;
  std::string who_;
  Refusals& refusals_;
};

// Files that are mapped privately or for reading: the same content will do.
void check_content(const wire::FileIdentity& file, FileRules& file_rules) {
  const auto here = carriers::find_here(file_rules, file);
  if (!here || carriers::same_content(file, *here, file_rules.same_kernel()) ||
      carriers::same_shared_file(file, *here)) {
    return;
  }
  const bool unknown = file.build_id().empty() && file.sha256().empty();
  file_rules.refuse("FILE_DIFFERS", unknown ? "neither a build-id nor a hash tells its content"
                                    : file.size_bytes() != here->size_bytes()
                                        ? fmt::format("{} bytes there, {} here", file.size_bytes(),
                                                      here->size_bytes())
                                        : "its content is not the same");
}

void check_mapped_files(const wire::Objects& objects, const wire::ProcessImage& image,
                        bool same_kernel, Refusals& refusals) {
  std::set<std::uint32_t> content;
  std::set<std::uint32_t> identity;
  for (const wire::Mapping& mapping : image.mappings()) {
    const bool shared = mapping.kind() == wire::Mapping::SHARED_FILE;
    if (shared && (mapping.protection() & PROT_WRITE) != 0) {
      identity.insert(mapping.file());
    } else if (shared || mapping.kind() == wire::Mapping::FILE_LOCAL ||
               mapping.kind() == wire::Mapping::FILE_COPY) {
      content.insert(mapping.file());
    }
  }
  for (int i = 0; i < objects.mapped_files_size(); ++i) {
    const wire::FileIdentity& file = objects.mapped_files(i);
    const auto index = static_cast<std::uint32_t>(i);
    FileRules one(same_kernel, "mapped file " + file.path(), refusals);
    if (identity.contains(index)) {
      carriers::require_same_file(one, file);
    } else if (content.contains(index) && file.path() != image.executable().path()) {
      check_content(file, one);
    }
  }
}

void check_open_files(const wire::Objects& objects, const wire::ProcessImage& image,
                      bool same_kernel, Refusals& refusals) {
  std::set<std::uint32_t> seen;
  for (const wire::Descriptor& descriptor : image.descriptors()) {
    if (!seen.insert(descriptor.file()).second ||
        descriptor.file() >= static_cast<std::uint32_t>(objects.files_size())) {
      continue;
    }
    const wire::OpenFile& file = objects.files(static_cast<int>(descriptor.file()));
    if (const auto compare = carriers::carrier_of(file.kind()).compare; compare != nullptr) {
      FileRules one(same_kernel,
                    fmt::format("descriptor {} -> {}", descriptor.number(), file.identity().path()),
                    refusals);
      compare(one, file);
    }
  }
}

// A cell mounts a devpts of its own where this host has one.
void check_terminals(const wire::Objects& objects, Refusals& refusals) {
  struct statfs file_system {};
  if ((objects.terminals_size() > 0 || objects.terminal_pairs_size() > 0) &&
      (::statfs("/dev/pts", &file_system) != 0 || file_system.f_type != DEVPTS_SUPER_MAGIC)) {
    refusals.push_back(make_refusal("NO_TERMINALS", "/dev/pts"));
  }
}

// Tried out, since capabilities are not all that it takes.
void check_links(const wire::Objects& objects, Refusals& refusals) {
  if (objects.connections_size() == 0 && objects.listeners_size() == 0) {
    return;
  }
  const TcpPairNames names{SocketName::loopback(1), SocketName::loopback(2)};
  if (const auto made = make_tcp_pairs({&names, 1}); !made) {
    refusals.push_back(make_refusal("NO_LINKS", "a pair of sockets", made.error().message()));
  }
}

// Tried out, too.
void check_unix_links(const wire::Objects& objects, Refusals& refusals) {
  if (objects.unix_connections_size() == 0) {
    return;
  }
  const UnixPairNames names{.local = std::string("\0one", 4), .peer = "/two"};
  if (const auto made = make_unix_pairs({&names, 1}); !made) {
    refusals.push_back(
        make_refusal("NO_LINKS", "a pair of Unix domain sockets", made.error().message()));
  }
}

std::uint64_t own_capabilities() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, 2> sets{};
  if (::syscall(SYS_capget, &header, sets.data()) != 0) {
    return 0;
  }
  return sets[0].permitted | (std::uint64_t{sets[1].permitted} << 32U);
}

bool has_capability(unsigned number) {
  return (own_capabilities() & (std::uint64_t{1} << number)) != 0;
}

// Nobody can give what he has not: capset(2).
void check_capabilities(const wire::ProcessImage& image, Refusals& refusals) {
  const std::uint64_t own = own_capabilities();
  for (const wire::Thread& thread : image.threads()) {
    const std::uint64_t lacking = thread.credentials().capabilities_permitted() & ~own;
    if (lacking != 0) {
      refusals.push_back(
          make_refusal("CAPABILITIES", "thread " + std::to_string(thread.id()),
                       fmt::format("of capabilities(7) {:#x} are not there", lacking)));
    }
  }
}

// Whether the thread would be kept from processors that this process may use.
bool is_bound(const wire::Thread& thread) {
  std::array<char, 1024> own{};
  const long length = ::syscall(SYS_sched_getaffinity, 0, own.size(), own.data());
  bool has_some = false;
  bool lacks_some = false;
  for (std::size_t i = 0; i < static_cast<std::size_t>(std::max(length, 0L)); ++i) {
    const char wanted = i < thread.affinity().size() ? thread.affinity()[i] : '\0';
    has_some = has_some || (wanted & own.at(i)) != 0;
    lacks_some = lacks_some || (~wanted & own.at(i)) != 0;
  }
  return has_some && lacks_some;  // With none it may use all.
}

// Those that the kernel lets nobody set for threads of others, nor raise for his own, without
// CAP_SYS_NICE.
void check_scheduling(const wire::ProcessImage& image, Refusals& refusals) {
  if (has_capability(CAP_SYS_NICE)) {
    return;
  }
  const int own_nice = ::getpriority(PRIO_PROCESS, 0);
  for (const wire::Thread& thread : image.threads()) {
    const int policy = thread.policy() & ~SCHED_RESET_ON_FORK;
    const bool is_raised = policy == SCHED_FIFO || policy == SCHED_RR || thread.nice() < own_nice;
    const bool is_changed = thread.policy() != SCHED_OTHER || thread.nice() != own_nice ||
                            thread.io_priority() != 0 || is_bound(thread);
    if (is_raised || (is_changed && thread.credentials().uid_effective() != 0)) {
      refusals.push_back(
          make_refusal("SCHEDULING_RIGHTS", "thread " + std::to_string(thread.id())));
    }
  }
}

void check_limits(const wire::ProcessImage& image, Refusals& refusals) {
  if (has_capability(CAP_SYS_RESOURCE)) {
    return;
  }
  constexpr std::array<std::string_view, 16> kNames{
      "CPU",     "FSIZE", "DATA",  "STACK",      "CORE",     "RSS",  "NPROC",  "NOFILE",
      "MEMLOCK", "AS",    "LOCKS", "SIGPENDING", "MSGQUEUE", "NICE", "RTPRIO", "RTTIME"};
  for (int i = 0; i < image.resource_limits_size(); ++i) {
    rlimit64 own{};
    if (::syscall(SYS_prlimit64, 0, i, nullptr, &own) == 0 &&
        image.resource_limits(i).hard() > own.rlim_max) {
      const auto index = static_cast<std::size_t>(i);
      refusals.push_back(make_refusal(
          "RLIMIT", fmt::format("RLIMIT_{}", index < kNames.size() ? kNames[index] : "?"),
          fmt::format("{} there, {} here", image.resource_limits(i).hard(), own.rlim_max)));
    }
  }
}

}  // namespace

std::vector<wire::Refusal> check_against_host(const wire::Image& image,
                                              const wire::HostFacts& source,
                                              const wire::HostFacts& own) {
  Refusals refusals;
  check_machine(source, own, refusals);
  const bool same_kernel = !own.boot_id().empty() && source.boot_id() == own.boot_id();
  const wire::ProcessImage& process = only_process(image);
  if (!process.executable().path().empty() && !process.without_executable()) {
    FileRules executable(same_kernel, "executable " + process.executable().path(), refusals);
    check_content(process.executable(), executable);
  }
  check_mapped_files(image.objects(), process, same_kernel, refusals);
  check_open_files(image.objects(), process, same_kernel, refusals);
  check_terminals(image.objects(), refusals);
  check_links(image.objects(), refusals);
  check_unix_links(image.objects(), refusals);
  struct stat status {};
  const std::string& directory = process.working_directory();
  if (!directory.empty() && (::stat(directory.c_str(), &status) != 0 || !S_ISDIR(status.st_mode))) {
    refusals.push_back(make_refusal("FILE_MISSING", "working directory " + directory));
  }
  check_limits(process, refusals);
  check_scheduling(process, refusals);
  check_capabilities(process, refusals);
  return refusals;
}

MissingFiles find_missing_files(const wire::Image& image, bool same_kernel,
                                const std::function<bool(const wire::FileIdentity&)>& may_open) {
  const auto is_missing = [&](const wire::FileIdentity& file, bool written = false) {
    Refusals refusals;
    FileRules rules(same_kernel, file.path(), refusals);
    if (written) {
      carriers::require_same_file(rules, file);
    } else {
      check_content(file, rules);
    }
    return !refusals.empty() || !may_open(file);
  };
  const wire::ProcessImage& process = only_process(image);
  MissingFiles missing;
  missing.executable = !process.without_executable() && is_missing(process.executable());
  std::set<std::pair<std::uint32_t, bool>> seen;
  for (const wire::Mapping& mapping : process.mappings()) {
    const bool shared = mapping.kind() == wire::Mapping::SHARED_FILE;
    const bool of_file = shared || mapping.kind() == wire::Mapping::FILE_LOCAL ||
                         mapping.kind() == wire::Mapping::FILE_COPY;
    const bool written = shared && (mapping.protection() & PROT_WRITE) != 0;
    if (of_file && seen.insert({mapping.file(), written}).second &&
        is_missing(image.objects().mapped_files(static_cast<int>(mapping.file())), written)) {
      missing.mapped.push_back(mapping.file());
    }
  }
  return missing;
}

std::vector<wire::Refusal> check_memory(std::uint64_t image_bytes, std::uint64_t available_bytes) {
  Refusals refusals;
  if (image_bytes > available_bytes) {
    constexpr std::uint64_t kMebibyte = std::uint64_t{1} << 20;
    refusals.push_back(make_refusal("MEMORY", fmt::format("{} MiB", image_bytes / kMebibyte),
                                    fmt::format("{} MiB available", available_bytes / kMebibyte)));
  }
  return refusals;
}

}  // namespace migrate
