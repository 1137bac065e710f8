#include "libmigrate/restore/descriptors.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <set>
#include <string>
#include <utility>

#include "libmigrate/carriers/carriers.h"

namespace migrate {
namespace {

constexpr std::size_t kDescriptorsPerMessage = 250;
constexpr std::size_t kMessageBytes = 256;  // More than a cell's message.

// What the carriers get of a restorer. Those that open files as the user have it through as_user().
class Workshop : public carriers::MakeContext {
 public:
  Workshop(const wire::Objects& objects, const std::map<std::uint64_t, int>& relays,
           const std::vector<UniqueFd>& memories, SelfMade made, pid_t process)
      : objects_(objects),
        process_(process),
        relays_(relays),
        memories_(memories),
        made_(std::move(made)),
        pipes_(static_cast<std::size_t>(objects.pipes_size())),
        terminal_pairs_(static_cast<std::size_t>(objects.terminal_pairs_size())) {}

  void as_user(FileUser::Scope* scope) { scope_ = scope; }
  /// Which of Objects.files is made next.
  void begin(std::size_t file) { file_ = file; }

  const wire::Objects& objects() const override { return objects_; }
  pid_t process() const override { return process_; }

  Result<UniqueFd> open(const wire::FileIdentity& file, int flags) override {
    if (scope_ == nullptr) {
      return fail(make_error(ErrorCode::kInvalid, "open", file.path(), "not as its user"));
    }
    return scope_->open(file, flags);
  }

  carriers::MadePipe& pipe(std::uint64_t index) override { return pipes_.at(index); }
  carriers::MadeTerminalPair& terminal_pair(std::uint64_t index) override {
    return terminal_pairs_.at(index);
  }
  carriers::MadeSocketPair& socket_pair(std::uint64_t index) override {
    return made_.socket_pairs.at(index);
  }
  UniqueFd created() override { return std::move(made_.files.at(file_)); }
  int memory(std::uint64_t index) const override { return memories_.at(index).get(); }

  bool is_first_of_memory(std::uint64_t index) override { return given_.insert(index).second; }

  Result<int> relay_end(std::uint64_t stream) const override {
    const auto relay = relays_.find(stream);
    if (relay == relays_.end()) {
      return fail(make_error(ErrorCode::kCorrupt, "find relay", std::to_string(stream)));
    }
    return relay->second;
  }

 private:
  const wire::Objects& objects_;
  const pid_t process_;
  const std::map<std::uint64_t, int>& relays_;
  const std::vector<UniqueFd>& memories_;
  SelfMade made_;
  std::vector<carriers::MadePipe> pipes_;
  std::vector<carriers::MadeTerminalPair> terminal_pairs_;
  std::set<std::uint64_t>
      given_;  // memories whose own open file has been made one of the process's
  FileUser::Scope* scope_ = nullptr;
  std::size_t file_ = 0;
};

// Makes those files of the image whose carriers want to be the user, or those whose do not.
Result<void> make_some(Workshop& workshop, bool as_user, std::vector<UniqueFd>& files) {
  const wire::Objects& objects = workshop.objects();
  for (std::size_t i = 0; i < files.size(); ++i) {
    const wire::OpenFile& file = objects.files(static_cast<int>(i));
    const carriers::Carrier& carrier = carriers::carrier_of(file.kind());
    if (carrier.make == nullptr) {
      return fail(make_error(ErrorCode::kCorrupt, "make a file of kind",
                             std::to_string(static_cast<int>(file.kind()))));
    }
    if (carrier.opened_as_user == as_user) {
      workshop.begin(i);
      files[i] = MIGRATE_TRY(carrier.make(workshop, file));
    }
  }
  return {};
}

// Whether no other descriptor of the same open file comes before.
bool is_lowest(const wire::ProcessImage& image, const wire::Descriptor& descriptor) {
  return std::none_of(
      image.descriptors().begin(), image.descriptors().end(), [&](const wire::Descriptor& other) {
        return other.file() == descriptor.file() && other.number() < descriptor.number();
      });
}

}  // namespace

Result<std::vector<UniqueFd>> make_open_files(const wire::Objects& objects,
                                              const std::map<std::uint64_t, int>& relays,
                                              const std::vector<UniqueFd>& memories, SelfMade made,
                                              const FileUser& user, pid_t process) {
  Workshop workshop(objects, relays, memories, std::move(made), process);
  std::vector<UniqueFd> files(static_cast<std::size_t>(objects.files_size()));
  {
    FileUser::Scope scope(user);
    workshop.as_user(&scope);
    MIGRATE_TRY(make_some(workshop, true, files));
    workshop.as_user(nullptr);
  }
  MIGRATE_TRY(make_some(workshop, false, files));
  return files;
}

Result<void> script_receive(Script& script, Cell& cell, std::span<const int> descriptors) {
  for (std::size_t first = 0; first < descriptors.size(); first += kDescriptorsPerMessage) {
    const auto part =
        descriptors.subspan(first, std::min(kDescriptorsPerMessage, descriptors.size() - first));
    MIGRATE_TRY(cell.send_to_seed(part));
    msghdr header{};
    iovec vector{};
    vector.iov_base = reinterpret_cast<void*>(  // NOLINT(performance-no-int-to-ptr): its address
        script.reserve(kMessageBytes));
    vector.iov_len = kMessageBytes;
    const std::uint64_t vector_at = script.put_value(vector);
    header.msg_iov = reinterpret_cast<iovec*>(vector_at);  // NOLINT(performance-no-int-to-ptr)
    header.msg_iovlen = 1;
    header.msg_controllen = CMSG_SPACE(part.size_bytes());
    header.msg_control = reinterpret_cast<void*>(  // NOLINT(performance-no-int-to-ptr)
        script.reserve(header.msg_controllen));
    script.must("receive descriptors", SYS_recvmsg,
                {cell.seed_descriptor(), script.put_value(header), 0});
  }
  return {};
}

std::uint32_t highest_descriptor(const wire::ProcessImage& image) {
  std::uint32_t highest = 0;
  for (const wire::Descriptor& descriptor : image.descriptors()) {
    highest = std::max(highest, descriptor.number());
  }
  return highest;
}

void script_descriptor_table(Script& script, const wire::Objects& objects,
                             const wire::ProcessImage& image, std::uint32_t seed_descriptor) {
  const auto count = static_cast<std::uint64_t>(objects.files_size());
  // Above everything wanted, so that no dup3 hits a file not yet placed.
  const std::uint64_t staging = std::max(highest_descriptor(image), seed_descriptor) + 1;
  for (std::uint64_t i = 0; i < count; ++i) {
    script.must("stage a descriptor", SYS_dup3, {i, staging + i, O_CLOEXEC});
  }
  script.must("clear the descriptor table", SYS_close_range, {0, staging - 1, 0});
  for (const wire::Descriptor& descriptor : image.descriptors()) {
    script.must("place", SYS_dup3,
                {staging + descriptor.file(), descriptor.number(),
                 descriptor.close_on_exec() ? static_cast<std::uint64_t>(O_CLOEXEC) : 0U},
                "descriptor " + std::to_string(descriptor.number()));
  }
  script.must("close what was staged", SYS_close_range, {staging, ~0U, 0});
  for (const wire::Descriptor& descriptor : image.descriptors()) {
    const wire::OpenFile& file = objects.files(static_cast<int>(descriptor.file()));
    const auto connect = carriers::carrier_of(file.kind()).connect;
    if (connect != nullptr && is_lowest(image, descriptor)) {
      connect(script, descriptor.number(), file);
    }
  }
}

}  // namespace migrate
