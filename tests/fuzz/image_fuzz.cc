// An image from a peer: whatever passes check_form() can be used by all that restore it.
#include <algorithm>
#include <map>

#include "libmigrate/image/address_space.h"
#include "libmigrate/image/image_form.h"
#include "libmigrate/image/only_process.h"
#include "libmigrate/pages/page_feed.h"
#include "libmigrate/park/parked_process.h"
#include "libmigrate/restore/descriptors.h"
#include "libmigrate/restore/mappings.h"
#include "libmigrate/restore/process_state.h"

namespace migrate {
namespace {

void build_scripts(const wire::Image& image) {
  const ScriptArea area{.address = 0x10000, .length_bytes = ScriptArea::kRecordOffset};
  const MappingPlan plan = plan_mappings(wire::Image(), image);
  Script mappings(area);
  std::map<MappedFile, std::uint64_t> files;
  for (const wire::Mapping* mapping : plan.map) {
    if (const auto file = mapped_file(image.objects(), *mapping)) {
      files.emplace(*file, 64);
    }
  }
  script_mappings(mappings, image.objects(), plan.map, files);
  Script process(area);
  const wire::ProcessImage& only = only_process(image);
  script_draft_process(process, only, 0, 1);
  script_process(process, only);
  script_descriptor_table(process, image.objects(), only, 128);
  script_timers_and_signals(process, only, wire::Credentials());
  for (const wire::Thread& thread : only.threads()) {
    Script script(area);
    script_thread(script, only, thread, wire::Credentials());
  }
}

void fuzz(const std::uint8_t* data, std::size_t size) {
  wire::Image image;
  if (!image.ParseFromArray(data, static_cast<int>(size))) {
    return;
  }
  if (check_form(image, ImageStage::kDraft)) {
    const wire::ProcessImage& only = only_process(image);
    static_cast<void>(pager_regions(image.objects(), only));
    static_cast<void>(served_regions(image.objects(), only));
    static_cast<void>(ParkedProcess::record_bytes(image));
    static_cast<void>(find_hole(ranges_of(only), 4096));
    static_cast<void>(highest_descriptor(only));
  }
  if (check_form(image, ImageStage::kFinal)) {
    static_cast<void>(plan_mappings(image, image));
    build_scripts(image);
  }
}

}  // namespace
}  // namespace migrate

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  migrate::fuzz(data, size);
  return 0;
}
