#include "libmigrate/rules/host_facts.h"

#include <sys/utsname.h>
#include <unistd.h>

#include <string_view>

#include "base/file.h"
#include "libmigrate/arch/arch.h"
#include "libmigrate/proc/file_identity.h"
#include "libmigrate/proc/proc_text.h"

namespace migrate {
namespace {

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
  std::string_view flags = find_field(cpu, arch::kFeaturesField).value_or(std::string_view());
  take_word(flags);  // the colon
  for (std::string_view flag = take_word(flags); !flag.empty(); flag = take_word(flags)) {
    facts.add_cpu_features(std::string(flag));
  }
  facts.set_processor_state(arch::processor_state());
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
