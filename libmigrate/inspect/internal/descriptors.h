#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "libmigrate/inspect/internal/process_view.h"

namespace migrate::inspect {

/// Reads the descriptors of a process into an image and applies the rules to them. Lives for one
/// inspection; borrows all that it is given. The image's mappings must have been read before.
class DescriptorReader {
 public:
  DescriptorReader(const ProcessView& view, Findings& findings, SharedObjects& shared,
                   wire::Image& image, Verdict& verdict)
      : view_(view), findings_(findings), shared_(shared), image_(image), verdict_(verdict) {}

  /// Reads them all; `draft` may tell the content hashes of files that have not changed.
  Result<void> read(const wire::Image* draft);

 private:
  // One number of the table, and what /proc shows of it.
  struct Entry {
    std::uint32_t number = 0;
    std::string link;
    std::string details;  // fdinfo
    std::uint32_t flags = 0;
  };

  bool group(const Entry& entry);
  // Each classifies a new open file; false after a refusal.
  bool classify(const Entry& entry, wire::OpenFile& file);
  bool classify_path(const Entry& entry, wire::OpenFile& file);
  bool classify_regular(const Entry& entry, wire::OpenFile& file);
  bool classify_special(const Entry& entry, wire::OpenFile& file);
  bool classify_pipe(const Entry& entry, wire::OpenFile& file);
  bool classify_memfd(const Entry& entry, wire::OpenFile& file);
  bool classify_kernel_object(const Entry& entry, wire::OpenFile& file);
  bool read_timer(const Entry& entry, wire::OpenFile& file);
  void count_ticks(const Entry& entry, wire::OpenFile& file) const;
  bool relay(const std::string& object, wire::OpenFile& file);
  void read_watches(const Entry& entry, wire::OpenFile& file);
  void check_watches();
  void resolve_pipes();
  UniqueFd fetch(std::uint32_t number) const;
  bool refuse_descriptor(std::string_view code, const Entry& entry, std::string_view detail = {});

  const ProcessView& view_;
  Findings& findings_;
  SharedObjects& shared_;
  wire::Image& image_;
  Verdict& verdict_;
  const wire::Image* draft_ = nullptr;

  // Open files by link: the number of one descriptor and the index of the file (negative: refused),
  // in the kernel's order of kcmp.
  struct Representative {
    std::uint32_t number = 0;
    int file = -1;
  };
  std::map<std::string, std::vector<Representative>> representatives_;
  struct PipeEnds {
    bool readable = false;
    bool writable = false;
    std::vector<int> files;
    std::uint32_t number = 0;  // of one descriptor
  };
  std::map<std::uint64_t, PipeEnds> pipes_;
  std::vector<std::pair<Entry, int>> epolls_;
};

}  // namespace migrate::inspect
