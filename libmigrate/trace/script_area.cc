#include "libmigrate/trace/script_area.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <utility>

#include "base/file.h"
#include "libmigrate/trace/tracee.h"

namespace migrate {
namespace {

// /proc/PID/mem moves nothing of an address space that has ended.
Result<void> whole(const char* operation, pid_t process, std::uint64_t address, ssize_t count,
                   std::size_t wanted) {
  if (count == static_cast<ssize_t>(wanted)) {
    return {};
  }
  const std::string name = "process " + std::to_string(process);
  Error error = count == 0  ? make_error(ErrorCode::kNotFound, operation, name,
                                         "it runs another program now, or has ended")
                : count < 0 ? system_error(operation, name)
                            : system_error_from(EFAULT, operation, name);
  error.address = address;
  return fail(std::move(error));
}

}  // namespace

Result<void> ScriptArea::open_memory() {
  memory = std::make_shared<const UniqueFd>(
      MIGRATE_TRY(open_file("/proc/" + std::to_string(process) + "/mem", O_RDWR | O_CLOEXEC)));
  return {};
}

Result<UniqueFd> ScriptArea::duplicate_memory() const {
  return memory ? memory->duplicate()
                : open_file("/proc/" + std::to_string(process) + "/mem", O_RDONLY | O_CLOEXEC);
}

Result<void> ScriptArea::read(std::uint64_t from, std::span<std::byte> into) const {
  if (!memory) {
    return read_memory(process, from, into);
  }
  const ssize_t count = ::pread(memory->get(), into.data(), into.size(), static_cast<off_t>(from));
  return whole("read memory of", process, from, count, into.size());
}

Result<void> ScriptArea::write(std::uint64_t to, std::span<const std::byte> bytes) const {
  if (!memory) {
    return write_memory(process, to, bytes);
  }
  const ssize_t count = ::pwrite(memory->get(), bytes.data(), bytes.size(), static_cast<off_t>(to));
  return whole("write memory of", process, to, count, bytes.size());
}

}  // namespace migrate
