#include "base/mapping.h"

#include <sys/mman.h>
#include <unistd.h>

#include <string>
#include <utility>

namespace migrate {

Result<Mapping> Mapping::create(std::size_t length_bytes) {
  return map(length_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

Result<Mapping> Mapping::create_shared(std::size_t length_bytes) {
  return map(length_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

Result<Mapping> Mapping::of_file(int fd, std::size_t length_bytes) {
  return map(length_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
}

Result<Mapping> Mapping::view_of_file(int fd, std::uint64_t offset_bytes,
                                      std::size_t length_bytes) {
  return map(length_bytes, PROT_READ, MAP_SHARED, fd, offset_bytes);
}

Result<Mapping> Mapping::map(std::size_t length_bytes, int protection, int flags, int fd,
                             std::uint64_t offset_bytes) {
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  const std::size_t length = (length_bytes + page - 1) / page * page;
  void* start = ::mmap(nullptr, length, protection, flags, fd, static_cast<off_t>(offset_bytes));
  if (start == MAP_FAILED) {
    return fail(system_error("map memory", std::to_string(length) + " bytes"));
  }
  return Mapping({static_cast<std::byte*>(start), length});
}

Mapping::Mapping(Mapping&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}

Mapping& Mapping::operator=(Mapping&& other) noexcept {
  std::swap(bytes_, other.bytes_);
  return *this;
}

Mapping::~Mapping() {
  if (!bytes_.empty()) {
    ::munmap(bytes_.data(), bytes_.size());
  }
}

}  // namespace migrate
