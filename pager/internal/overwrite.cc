#include "pager/internal/overwrite.h"

#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>

namespace migrate {

Result<void> overwrite(int memory, PageRange pages, std::span<const std::byte> bytes) {
  static constexpr std::array<std::byte, kPageBytes> kZeros{};
  for (std::uint64_t done = 0; done < pages.bytes();) {
    const auto zeros = std::span<const std::byte>(kZeros).subspan(done % kPageBytes);
    const auto piece = bytes.empty() ? zeros : bytes.subspan(done);
    const ssize_t count =
        ::pwrite(memory, piece.data(), piece.size(), static_cast<off_t>(pages.start + done));
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count <= 0) {
      return fail(count < 0 ? system_error("write a page again")
                            : make_error(ErrorCode::kNotFound, "write a page again"));
    }
    done += static_cast<std::uint64_t>(count);
  }
  return {};
}

}  // namespace migrate
