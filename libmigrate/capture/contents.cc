#include "libmigrate/capture/contents.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <string>
#include <utility>

#include "base/unique_fd.h"
#include "libmigrate/carriers/carriers.h"
#include "libmigrate/image/only_process.h"

namespace migrate {
namespace {

// The descriptors of a frozen process, which is opened when the first of them is asked for: most
// processes have nothing whose content travels.
class FrozenDescriptors : public carriers::CaptureContext {
 public:
  FrozenDescriptors(pid_t process, wire::Objects& objects) : process_(process), objects_(objects) {}

  wire::Objects& objects() override { return objects_; }

  Result<UniqueFd> fetch(std::uint32_t number) override {
    if (!pidfd_.valid()) {
      pidfd_.reset(static_cast<int>(::syscall(SYS_pidfd_open, process_, 0)));
      if (!pidfd_.valid()) {
        return fail(system_error("open", "process " + std::to_string(process_)));
      }
    }
    const long fd = ::syscall(SYS_pidfd_getfd, pidfd_.get(), number, 0);
    if (fd < 0) {
      return fail(system_error("fetch", "descriptor " + std::to_string(number)));
    }
    return UniqueFd(static_cast<int>(fd));
  }

  void follow(std::uint64_t memory, UniqueFd source) override {
    files_.insert_or_assign(memory, std::move(source));
  }

  carriers::ContentFiles take_files() { return std::move(files_); }

 private:
  pid_t process_;
  wire::Objects& objects_;
  UniqueFd pidfd_;
  carriers::ContentFiles files_;
};

}  // namespace

Result<carriers::ContentFiles> capture_contents(pid_t process, wire::Image& image) {
  FrozenDescriptors context(process, *image.mutable_objects());
  for (const wire::Descriptor& descriptor : only_process(image).descriptors()) {
    const wire::OpenFile& file = image.objects().files(static_cast<int>(descriptor.file()));
    if (const auto capture = carriers::carrier_of(file.kind()).capture; capture != nullptr) {
      MIGRATE_TRY(capture(context, descriptor.number(), file));
    }
  }
  return context.take_files();
}

}  // namespace migrate
