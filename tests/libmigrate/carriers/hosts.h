#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "libmigrate/carriers/carriers.h"
#include "libmigrate/carriers/memory_content.h"

namespace migrate::test {

/// The four contexts of carriers over this very process, which is source and destination: what is
/// found behind a descriptor of ours is captured, and made anew as another descriptor of ours.

/// Finds objects behind our own descriptors and keeps them in an image.
class Source : private carriers::FindContext {
 public:
  Source() = default;
  explicit Source(const wire::Objects* draft) : draft_(draft) {}

  /// Finds what is behind `fd`. Gives its index into Objects.files, or -1 after a refusal.
  int find(int fd);
  /// The same of what /proc would show; for what a test cannot have.
  bool find(const carriers::Sighting& seen, wire::OpenFile& file);
  /// Lets all carriers settle what they found.
  void settle();
  /// Captures the contents, as of the frozen process. Errors: those of the carriers.
  Result<void> capture();

  /// What follows the image of them.
  const std::string& content() const { return content_; }

  wire::Objects& objects() override { return objects_; }
  wire::OpenFile& file(int index) { return *objects_.mutable_files(index); }
  /// Codes of the refusals so far.
  const std::vector<std::string>& refusals() const { return refusals_; }

  std::uint64_t hash_limit = 0;
  std::uint64_t shared = 0;                                ///< OpenFile.shared_id of every file.
  std::map<std::uint64_t, std::uint64_t> known_relays;     ///< Inode to stream id.
  std::map<std::uint64_t, std::uint64_t> known_terminals;  ///< st_rdev to stream id.
  std::set<std::uint64_t> private_pipes;                   ///< Those expected to be private.
  std::set<std::uint64_t> private_terminals;               ///< The same, by st_rdev.
  std::set<std::uint64_t> strangers;                       ///< Sockets that somebody else has.
  bool guest = false;                                      ///< The process is away from home.
  bool huge_pages = false;                                 ///< Memories are of huge pages.

 private:
  pid_t process() const override;
  std::uint32_t inner_process() const override { return static_cast<std::uint32_t>(process()); }
  const wire::Objects* draft() const override { return draft_; }
  int directory() const override { return directory_.get(); }
  UniqueFd fetch(std::uint32_t number) const override;
  bool refuse(std::string_view code, const carriers::Sighting& seen,
              std::string_view detail) override;
  bool leads_to(const std::string& path, const wire::FileIdentity& identity) const override;
  std::uint64_t hash_limit_bytes() const override { return hash_limit; }
  std::uint64_t shared_id(const carriers::Sighting& seen) const override;
  Result<std::uint32_t> add_memory(const carriers::Sighting& seen, int fd) override;
  carriers::PipeSeen& pipe(std::uint64_t inode) override { return pipes_[inode]; }
  bool has_socket(std::uint64_t inode) const override { return !strangers.contains(inode); }
  void expect_private_pipe(std::uint64_t inode, std::string object) override;
  void expect_private_terminal(std::uint64_t instance, std::uint64_t device, bool is_of_session,
                               std::string object) override;
  std::optional<std::uint64_t> known_stream(std::uint64_t inode) const override;
  std::optional<std::uint64_t> known_terminal(std::uint64_t device) const override;
  bool is_guest() const override { return guest; }
  std::uint64_t stream_to(std::uint32_t number, const std::string& object) override;

  const wire::Objects* draft_ = nullptr;
  wire::Objects objects_;
  std::string content_;
  std::vector<wire::Descriptor> descriptors_;
  UniqueFd directory_;
  std::vector<std::string> refusals_;
  std::map<std::uint64_t, carriers::PipeSeen> pipes_;
  std::map<std::uint64_t, std::uint32_t> memories_;
  std::uint64_t next_stream_ = 1;
};

/// Compares the files of an image with our own, and makes them anew.
class Destination : private carriers::CompareContext, private carriers::MakeContext {
 public:
  /// `content`: what follows the image of these objects.
  explicit Destination(const wire::Objects& objects, std::string content = {})
      : objects_(objects), content_(std::move(content)) {}

  /// The codes of what comparing the file refuses.
  std::vector<std::string> compare(const wire::OpenFile& file, bool same_kernel);
  /// Makes the file, whose form must be sound.
  Result<UniqueFd> make(const wire::OpenFile& file);

  std::map<std::uint64_t, int> relays;  ///< By stream id.

 private:
  bool same_kernel() const override { return same_kernel_; }
  void refuse(std::string_view code, std::string_view detail) override;

  const wire::Objects& objects() const override { return objects_; }
  pid_t process() const override;
  Result<UniqueFd> open(const wire::FileIdentity& file, int flags) override;
  carriers::MadePipe& pipe(std::uint64_t index) override { return pipes_[index]; }
  carriers::MadeTerminalPair& terminal_pair(std::uint64_t index) override {
    return terminal_pairs_[index];
  }
  carriers::MadeSocketPair& socket_pair(std::uint64_t index) override;
  UniqueFd created() override;
  int memory(std::uint64_t index) const override;
  bool is_first_of_memory(std::uint64_t index) override { return given_.insert(index).second; }
  Result<int> relay_end(std::uint64_t stream) const override;

  void make_memories() const;

  const wire::Objects& objects_;
  const std::string content_;
  bool same_kernel_ = false;
  wire::OpenFile made_;  // What is being made.
  std::vector<std::string> refusals_;
  std::map<std::uint64_t, carriers::MadePipe> pipes_;
  std::map<std::uint64_t, carriers::MadeTerminalPair> terminal_pairs_;
  std::map<std::uint64_t, carriers::MadeSocketPair> socket_pairs_;
  mutable std::vector<UniqueFd> memories_;
  std::set<std::uint64_t> given_;
};

/// The first thing wrong with any file of them; empty: nothing.
std::string flaw_in(const wire::Objects& objects);

/// What find() tells of an open file, to be compared: that of `fd`, found by a source of its own.
std::string description(int fd);

/// The bytes that can be read from `fd` now, which must not block.
std::string read_now(int fd);

}  // namespace migrate::test
