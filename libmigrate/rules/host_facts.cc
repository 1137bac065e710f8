#include "libmigrate/rules/host_facts.h"

#include <cpuid.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <string_view>

#include "base/file.h"
#include "libmigrate/inspect/file_identity.h"
#include "libmigrate/inspect/proc_text.h"

namespace migrate {
namespace {

constexpr unsigned kXsaveLeaf = 0xd;

std::uint64_t read_xcr0() {
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  constexpr unsigned kOsXsave = 1U << 27;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & kOsXsave) == 0) {
    return 0;
  }
  unsigned low = 0;
  unsigned high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (std::uint64_t{high} << 32) | low;
}

// Bytes of the XSAVE area with all features that the kernel has enabled.
std::uint32_t xsave_bytes() {
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  return __get_cpuid_count(kXsaveLeaf, 0, &a, &b, &c, &d) == 0 ? 0 : b;
}

Result<std::string> vdso_hash() {
  const std::string maps = MIGRATE_TRY(read_file("/proc/self/maps"));
  for (const MapsEntry& entry : MIGRATE_TRY(parse_maps(maps))) {
    if (entry.name == "[vdso]") {
      return sha256({reinterpret_cast<const char*>(entry.start), entry.end - entry.start});
    }
  }
  return std::string();  // A kernel started with vdso=0.
}

}  // namespace

Result<wire::HostFacts> host_facts() {
  wire::HostFacts facts;
  utsname name{};
  if (::uname(&name) != 0) {
    return fail(system_error("ask for the kernel's name"));
  }
  facts.set_architecture(name.machine);
  facts.set_kernel_release(name.release);
  facts.set_host_name(name.nodename);
  const std::string cpu = MIGRATE_TRY(read_file("/proc/cpuinfo"));
  std::string_view flags = find_field(cpu, "flags").value_or(std::string_view());
  take_word(flags);  // the colon
  for (std::string_view flag = take_word(flags); !flag.empty(); flag = take_word(flags)) {
    facts.add_cpu_features(std::string(flag));
  }
  facts.set_xcr0(read_xcr0());
  facts.set_xsave_bytes(xsave_bytes());
  facts.set_page_bytes(static_cast<std::uint32_t>(::sysconf(_SC_PAGESIZE)));
  std::string boot_id = MIGRATE_TRY(read_file("/proc/sys/kernel/random/boot_id"));
  while (!boot_id.empty() && boot_id.back() == '\n') {
    boot_id.pop_back();
  }
  facts.set_boot_id(boot_id);
  facts.set_vdso_sha256(MIGRATE_TRY(vdso_hash()));
  return facts;
}

}  // namespace migrate
