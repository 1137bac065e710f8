#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "libmigrate/inspect/internal/process_view.h"
#include "libmigrate/proc/proc_text.h"

namespace migrate::inspect {

/// Reads the mappings of a process into an image and applies the rules to them. Lives for one
/// inspection; borrows all that it is given.
class MappingReader {
 public:
  MappingReader(const ProcessView& view, Findings& findings, SharedObjects& shared,
                wire::Objects& objects, wire::ProcessImage& image, Refusals& refusals)
      : view_(view),
        findings_(findings),
        shared_(shared),
        objects_(objects),
        image_(image),
        refusals_(refusals) {}

  /// With all flags. Where there is much memory and the kernel lets us, without smaps, for which it
  /// walks the page tables.
  Result<void> read_all();

  /// From `text`, the content of maps; flags of what `draft` has come from there. Reads smaps only
  /// for new anonymous mappings. `image_` must hold the draft's files and shared memories.
  Result<void> read_again(const wire::ProcessImage& draft, const std::string& text);

 private:
  Result<std::vector<MapsEntry>> read_smaps() const;
  Result<std::vector<MapsEntry>> read_details(const std::vector<MapsEntry>& shown);
  // Adds a mapping; `flags` are its VmFlags and protection key if it has never been seen.
  void add(const MapsEntry& entry, std::uint32_t advice, const MapsEntry* flags);
  // Kind and backing of a mapping; these and refuse_mapping() give false after a refusal.
  bool classify(const MapsEntry& entry, wire::Mapping& mapping);
  bool classify_memory(const MapsEntry& entry, wire::Mapping& mapping);
  bool is_deleted(const MapsEntry& entry) const;
  bool are_huge_pages(const MapsEntry& entry) const;
  bool classify_deleted(const MapsEntry& entry, wire::Mapping& mapping);
  bool classify_file(const MapsEntry& entry, wire::Mapping& mapping);
  void keep_draft(const wire::ProcessImage& draft);
  bool was_copy(const MapsEntry& entry) const;
  bool find_file(const MapsEntry& entry, std::uint32_t& index);
  void check_flags(const MapsEntry& entry, const wire::Mapping& mapping);
  bool may_be_watched(const MapsEntry& entry) const;
  void add_guards(std::uint64_t start, std::uint64_t end);
  void keep_guards(std::uint64_t start, std::uint64_t end);
  void refresh_files();
  void check_ends();
  void check_kernel_mappings();
  bool refuse_mapping(std::string_view code, const MapsEntry& entry, std::string_view detail = {});
  bool refuse_unless_gone(const MapsEntry& entry, const Error& error);

  const ProcessView& view_;
  Findings& findings_;
  SharedObjects& shared_;
  wire::Objects& objects_;
  wire::ProcessImage& image_;
  Refusals& refusals_;
  const wire::ProcessImage* draft_ = nullptr;
  bool vanished_ = false;  // a mapping was gone before it could be looked at
};

/// Adds the memfd or shared anonymous memory that `name` in `directory` leads to, shown as `link`,
/// or brings its size and seals up to date; gives its index into Objects.shared_memories. `fd` is
/// open on it, or -1: then seals are not asked for. Errors: kSystem, kUnsupported (huge pages).
Result<std::uint32_t> add_memory(int directory, const std::string& name, const std::string& link,
                                 int fd, Findings& findings, SharedObjects& shared,
                                 wire::Objects& objects);

/// Whether `path`, as the process itself sees it, leads to the file with this identity.
bool path_leads_to(const ProcessView& view, const std::string& path,
                   const wire::FileIdentity& identity);

}  // namespace migrate::inspect
