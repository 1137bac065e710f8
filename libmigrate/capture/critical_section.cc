#include "libmigrate/capture/critical_section.h"

#include <linux/rseq.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "libmigrate/trace/tracee.h"

namespace migrate {

Result<void> leave_critical_section(pid_t process, pid_t thread,
                                    arch::GeneralRegisters& registers) {
  const RseqConfiguration configuration = MIGRATE_TRY(read_rseq(thread));
  std::uint64_t descriptor = 0;
  // What cannot be read protects nothing: the kernel would end the process when it goes on.
  if (configuration.address == 0 ||
      !read_memory(process, configuration.address + offsetof(struct rseq, rseq_cs),
                   std::as_writable_bytes(std::span(&descriptor, 1))) ||
      descriptor == 0) {
    return {};
  }
  rseq_cs section{};
  const arch::GeneralRegisters back = arch::restarted(registers);
  const std::uint64_t place = arch::instruction_pointer(back);
  if (read_memory(process, descriptor, std::as_writable_bytes(std::span(&section, 1))) &&
      place - section.start_ip < section.post_commit_offset) {
    registers = back;
    arch::jump_to(registers, section.abort_ip);
  }
  return {};
}

}  // namespace migrate
