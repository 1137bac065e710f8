#include "libmigrate/rules/destination_rules.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <linux/capability.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "base/file.h"
#include "libmigrate/arch/arch.h"
#include "libmigrate/image/refusal.h"
#include "libmigrate/proc/file_identity.h"

namespace migrate {
namespace {

// Flags of /proc/cpuinfo that no program in user mode can come to rely on: the kernel's own
// features and mitigations, virtualisation, power management, clocks.
constexpr std::array<std::string_view, 78> kIrrelevantFeatures{"acpi",
                                                               "amd_lbr_v2",
                                                               "aperfmperf",
                                                               "apic",
                                                               "arat",
                                                               "arch_capabilities",
                                                               "arch_perfmon",
                                                               "art",
                                                               "avic",
                                                               "bts",
                                                               "constant_tsc",
                                                               "cpb",
                                                               "cpuid",
                                                               "cpuid_fault",
                                                               "decodeassists",
                                                               "ds_cpl",
                                                               "dtes64",
                                                               "dtherm",
                                                               "dts",
                                                               "epb",
                                                               "ept",
                                                               "ept_ad",
                                                               "est",
                                                               "extapic",
                                                               "fsrm",
                                                               "flexpriority",
                                                               "flush_l1d",
                                                               "flushbyasid",
                                                               "hwp",
                                                               "hwp_act_window",
                                                               "hwp_epp",
                                                               "hwp_notify",
                                                               "hypervisor",
                                                               "ibpb",
                                                               "ibpb_exit_to_user",
                                                               "ibrs",
                                                               "ibrs_enhanced",
                                                               "ida",
                                                               "intel_pt",
                                                               "invpcid",
                                                               "invpcid_single",
                                                               "lbrv",
                                                               "mca",
                                                               "mce",
                                                               "md_clear",
                                                               "monitor",
                                                               "msr",
                                                               "mtrr",
                                                               "nonstop_tsc",
                                                               "nopl",
                                                               "npt",
                                                               "nrip_save",
                                                               "nx",
                                                               "pat",
                                                               "pausefilter",
                                                               "pbe",
                                                               "pcid",
                                                               "pdcm",
                                                               "pfthreshold",
                                                               "pge",
                                                               "pln",
                                                               "pse",
                                                               "pse36",
                                                               "pti",
                                                               "pts",
                                                               "rep_good",
                                                               "ssbd",
                                                               "stibp",
                                                               "svm",
                                                               "tm",
                                                               "tm2",
                                                               "tpr_shadow",
                                                               "vgif",
                                                               "vme",
                                                               "vmmcall",
                                                               "vmx",
                                                               "vnmi",
                                                               "vpid"};

bool is_irrelevant(std::string_view feature) {
  return std::ranges::find(kIrrelevantFeatures, feature) != kIrrelevantFeatures.end();
}

void check_machine(const wire::HostFacts& source, const wire::HostFacts& own, Verdict& verdict) {
  if (source.architecture() != own.architecture()) {
    verdict.push_back(make_refusal("ARCH", source.architecture(), "here is " + own.architecture()));
    return;  // Nothing below compares.
  }
  const std::set<std::string> features(own.cpu_features().begin(), own.cpu_features().end());
  for (const std::string& feature : source.cpu_features()) {
    if (!features.contains(feature) && !is_irrelevant(feature)) {
      verdict.push_back(make_refusal("CPU_FEATURE", feature));
    }
  }
  if (const auto missing =
          arch::missing_processor_state(source.processor_state(), own.processor_state())) {
    verdict.push_back(make_refusal("XSAVE", missing->there, "here " + missing->here));
  }
  if (source.page_bytes() != own.page_bytes()) {
    verdict.push_back(make_refusal("PAGE_SIZE", fmt::format("{} bytes", source.page_bytes()),
                                   fmt::format("here {}", own.page_bytes())));
  }
  if (source.vdso_sha256() != own.vdso_sha256()) {
    verdict.push_back(
        make_refusal("VDSO", "kernel " + source.kernel_release(), "here " + own.kernel_release()));
  }
}

// A file of the image, as this host sees it under the same path; nothing after a refusal.
std::optional<wire::FileIdentity> find_here(const wire::FileIdentity& file, const std::string& who,
                                            Verdict& verdict) {
  auto here = identify_at(AT_FDCWD, file.path(), file.path());
  if (!here) {
    verdict.push_back(make_refusal("FILE_MISSING", who, here.error().message()));
    return std::nullopt;
  }
  if ((here->mode() & S_IFMT) != (file.mode() & S_IFMT)) {
    verdict.push_back(make_refusal("FILE_DIFFERS", who, "it is of another type here"));
    return std::nullopt;
  }
  return std::move(*here);
}

// Whether the content is the same, by build-id or hash; `same_kernel`: device and inode may tell
// too.
bool same_content(const wire::FileIdentity& file, const wire::FileIdentity& here,
                  bool same_kernel) {
  if (same_kernel && same_file(file, here)) {
    return true;
  }
  if (file.size_bytes() != here.size_bytes() ||
      (file.build_id().empty() && file.sha256().empty())) {
    return false;
  }
  const auto opened = open_file(here.path(), O_RDONLY);
  if (!opened) {
    return false;
  }
  if (!file.build_id().empty()) {
    return read_build_id(opened->get()).value_or(std::string()) == file.build_id();
  }
  return sha256_of_file(opened->get()).value_or(std::string()) == file.sha256();
}

// Whether both hosts see one file of a file system that they share.
bool same_shared_file(const wire::FileIdentity& file, const wire::FileIdentity& here) {
  return filesystem_class(file.filesystem_type()) == FilesystemClass::kNetwork &&
         file.filesystem_type() == here.filesystem_type() && file.inode() == here.inode() &&
         file.size_bytes() == here.size_bytes() && file.mtime_ns() == here.mtime_ns();
}

// Files that are mapped privately or for reading: the same content will do.
void check_content(const wire::FileIdentity& file, const std::string& who, bool same_kernel,
                   Verdict& verdict) {
  const auto here = find_here(file, who, verdict);
  if (!here || same_content(file, *here, same_kernel) || same_shared_file(file, *here)) {
    return;
  }
  const bool unknown = file.build_id().empty() && file.sha256().empty();
  verdict.push_back(make_refusal(
      "FILE_DIFFERS", who,
      unknown ? "neither a build-id nor a hash tells its content"
      : file.size_bytes() != here->size_bytes()
          ? fmt::format("{} bytes there, {} here", file.size_bytes(), here->size_bytes())
          : "its content is not the same"));
}

// Files that are written to, or that others may write to: it must be the same file.
void check_same_file(const wire::FileIdentity& file, const std::string& who, bool same_kernel,
                     Verdict& verdict) {
  const auto here = find_here(file, who, verdict);
  if (!here || (same_kernel ? same_file(file, *here) : same_shared_file(file, *here))) {
    return;
  }
  verdict.push_back(make_refusal("FILE_DIFFERS", who,
                                 same_kernel ? "device and inode are not the same"
                                             : "it is not on a file system that both hosts share"));
}

void check_open_file(const wire::Image& image, const wire::Descriptor& descriptor, bool same_kernel,
                     Verdict& verdict) {
  const wire::OpenFile& file = image.files(static_cast<int>(descriptor.file()));
  const std::string who =
      fmt::format("descriptor {} -> {}", descriptor.number(), file.identity().path());
  switch (file.kind()) {
    case wire::OpenFile::REGULAR: {
      const wire::FileIdentity& identity = file.identity();
      const bool read_only = (file.flags() & O_ACCMODE) == O_RDONLY;
      const bool told = !identity.build_id().empty() || !identity.sha256().empty();
      if (read_only && !same_kernel && told) {
        const auto here = find_here(identity, who, verdict);
        // Content alone is not enough: a program may compare times too.
        if (here && !same_shared_file(identity, *here) &&
            !(identity.mtime_ns() == here->mtime_ns() && same_content(identity, *here, false))) {
          verdict.push_back(
              make_refusal("FILE_DIFFERS", who, "its content or time is not the same"));
        }
        return;
      }
      check_same_file(identity, who, same_kernel, verdict);
      return;
    }
    case wire::OpenFile::DIRECTORY:
      if (same_kernel) {
        check_same_file(file.identity(), who, true, verdict);
      } else {
        (void)find_here(file.identity(), who, verdict);
      }
      return;
    case wire::OpenFile::DEVICE: {
      const auto here = find_here(file.identity(), who, verdict);
      if (here && (here->device_major() != file.identity().device_major() ||
                   here->device_minor() != file.identity().device_minor())) {
        verdict.push_back(make_refusal("FILE_DIFFERS", who, "it is another device here"));
      }
      return;
    }
    default:
      return;  // Nothing of this host's own.
  }
}

bool may_raise_limits() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, 2> sets{};
  return ::syscall(SYS_capget, &header, sets.data()) == 0 &&
         (sets[0].permitted & (1U << CAP_SYS_RESOURCE)) != 0;
}

void check_limits(const wire::Image& image, Verdict& verdict) {
  if (may_raise_limits()) {
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
      verdict.push_back(make_refusal(
          "RLIMIT", fmt::format("RLIMIT_{}", index < kNames.size() ? kNames[index] : "?"),
          fmt::format("{} there, {} here", image.resource_limits(i).hard(), own.rlim_max)));
    }
  }
}

}  // namespace

std::vector<wire::Refusal> check_against_host(const wire::Image& image,
                                              const wire::HostFacts& source,
                                              const wire::HostFacts& own) {
  Verdict verdict;
  check_machine(source, own, verdict);
  const bool same_kernel = !own.boot_id().empty() && source.boot_id() == own.boot_id();
  if (!image.executable().path().empty()) {
    check_content(image.executable(), "executable " + image.executable().path(), same_kernel,
                  verdict);
  }
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
  for (int i = 0; i < image.mapped_files_size(); ++i) {
    const wire::FileIdentity& file = image.mapped_files(i);
    const auto index = static_cast<std::uint32_t>(i);
    if (identity.contains(index)) {
      check_same_file(file, "mapped file " + file.path(), same_kernel, verdict);
    } else if (content.contains(index) && file.path() != image.executable().path()) {
      check_content(file, "mapped file " + file.path(), same_kernel, verdict);
    }
  }
  std::set<std::uint32_t> seen;
  for (const wire::Descriptor& descriptor : image.descriptors()) {
    if (seen.insert(descriptor.file()).second &&
        descriptor.file() < static_cast<std::uint32_t>(image.files_size())) {
      check_open_file(image, descriptor, same_kernel, verdict);
    }
  }
  struct stat status {};
  const std::string& directory = image.working_directory();
  if (!directory.empty() && (::stat(directory.c_str(), &status) != 0 || !S_ISDIR(status.st_mode))) {
    verdict.push_back(make_refusal("FILE_MISSING", "working directory " + directory));
  }
  check_limits(image, verdict);
  return verdict;
}

std::vector<wire::Refusal> check_memory(std::uint64_t image_bytes, std::uint64_t available_bytes) {
  Verdict verdict;
  if (image_bytes > available_bytes) {
    constexpr std::uint64_t kMebibyte = std::uint64_t{1} << 20;
    verdict.push_back(make_refusal("MEMORY", fmt::format("{} MiB", image_bytes / kMebibyte),
                                   fmt::format("{} MiB available", available_bytes / kMebibyte)));
  }
  return verdict;
}

}  // namespace migrate
