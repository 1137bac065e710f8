#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "libmigrate/carriers/carriers.h"
#include "libmigrate/inspect/internal/process_view.h"

namespace migrate::inspect {

/// Reads the descriptors of a process into an image and applies the rules to them; what a
/// descriptor leads to, the carriers find out. Lives for one inspection; borrows all that it is
/// given. The image's mappings must have been read before.
class DescriptorReader : private carriers::FindContext {
 public:
  DescriptorReader(const ProcessView& view, Findings& findings, SharedObjects& shared,
                   wire::Objects& objects, wire::ProcessImage& image, Refusals& refusals)
      : view_(view),
        findings_(findings),
        shared_(shared),
        objects_(objects),
        image_(image),
        refusals_(refusals) {}

  /// Reads them all; `draft` may tell the content hashes of files that have not changed.
  Result<void> read(const wire::Objects* draft);

 private:
  using Sighting = carriers::Sighting;
  using carriers::FindContext::refuse;

  void read_one(std::uint32_t number);
  bool is_still(const Sighting& seen) const;
  std::optional<Sighting> look_at(std::uint32_t number) const;
  void group(const Sighting& seen);
  // The open file of the descriptor, by its index, among those that have the same link.
  struct Representative {
    std::uint32_t number = 0;
    int file = -1;  // Refused.
  };
  int file_of(const Sighting& seen);
  bool find(const Sighting& seen, wire::OpenFile& file);
  void settle();

  pid_t process() const override { return view_.pid; }
  std::uint32_t inner_process() const override { return view_.inner_pid; }
  wire::Objects& objects() override { return objects_; }
  const wire::Objects* draft() const override { return draft_; }
  int directory() const override { return view_.descriptors.get(); }
  UniqueFd fetch(std::uint32_t number) const override;
  bool refuse(std::string_view code, const Sighting& seen, std::string_view detail) override;
  bool leads_to(const std::string& path, const wire::FileIdentity& identity) const override;
  std::uint64_t hash_limit_bytes() const override { return view_.known.open_file_hash_limit_bytes; }
  std::uint64_t shared_id(const Sighting& seen) const override;
  Result<std::uint32_t> add_memory(const Sighting& seen, int fd) override;
  carriers::PipeSeen& pipe(std::uint64_t inode) override { return pipes_[inode]; }
  bool has_socket(std::uint64_t inode) const override;
  void expect_private_pipe(std::uint64_t inode, std::string object) override;
  void expect_private_terminal(std::uint64_t instance, std::uint64_t device, bool is_of_session,
                               std::string object) override;
  std::optional<std::uint64_t> known_stream(std::uint64_t inode) const override;
  std::optional<std::uint64_t> known_terminal(std::uint64_t device) const override;
  bool is_guest() const override { return !view_.known.own_namespaces.empty(); }
  std::uint64_t stream_to(std::uint32_t number, const std::string& object) override;

  const ProcessView& view_;
  Findings& findings_;
  SharedObjects& shared_;
  wire::Objects& objects_;
  wire::ProcessImage& image_;
  Refusals& refusals_;
  const wire::Objects* draft_ = nullptr;

  // By link, in the kernel's order of kcmp.
  std::map<std::string, std::vector<Representative>> representatives_;
  std::map<std::uint64_t, carriers::PipeSeen> pipes_;
  mutable std::optional<std::set<std::string>>
      sockets_;  // The links of all, once somebody has asked.
  std::uint64_t next_stream_ = 1;
};

}  // namespace migrate::inspect
