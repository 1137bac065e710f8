#include "libmigrate/arch/x86_64/cpu_facts.h"

#include <cpuid.h>
#include <fmt/core.h>

#include <cstring>

namespace migrate::arch {
namespace {

constexpr unsigned kXsaveLeaf = 0xd;
constexpr std::size_t kEncodedBytes = sizeof(std::uint64_t) + sizeof(std::uint32_t);

// Words of kFeaturesField, each between blanks: the kernel's own features and mitigations,
// virtualisation, power management, clocks.
constexpr std::string_view kIrrelevantFeatures =
    " acpi amd_lbr_v2 aperfmperf apic arat arch_capabilities arch_perfmon art avic bts "
    "constant_tsc cpb cpuid cpuid_fault decodeassists ds_cpl dtes64 dtherm dts epb ept ept_ad "
    "est extapic fsrm flexpriority flush_l1d flushbyasid hwp hwp_act_window hwp_epp "
    "hwp_notify hypervisor ibpb ibpb_exit_to_user ibrs ibrs_enhanced ida intel_pt invpcid "
    "invpcid_single lbrv mca mce md_clear monitor msr mtrr nonstop_tsc nopl npt nrip_save nx "
    "pat pausefilter pbe pcid pdcm pfthreshold pge pln pse pse36 pti pts rep_good ssbd stibp "
    "svm tm tm2 tpr_shadow vgif vme vmmcall vmx vnmi vpid ";

std::uint64_t enabled_extended_state() {
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  constexpr unsigned kOsXsave = 1U << 27;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & kOsXsave) == 0) {
    return 0;
  }
  unsigned low = 0;
  unsigned high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (std::uint64_t{high} << 32) | low;
}

std::uint32_t extended_state_bytes() {
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  return __get_cpuid_count(kXsaveLeaf, 0, &a, &b, &c, &d) == 0 ? 0 : b;
}

std::string in_words(const std::optional<ProcessorState>& state) {
  return state ? fmt::format("{} bytes, features {:#x}", state->area_bytes, state->components)
               : "a processor of which nothing is known";
}

}  // namespace

bool is_irrelevant_feature(std::string_view feature) {
  return kIrrelevantFeatures.find(fmt::format(" {} ", feature)) != std::string_view::npos;
}

std::string processor_state() {
  return encode({enabled_extended_state(), extended_state_bytes()});
}

// Little endian, as every machine of this architecture.
std::string encode(const ProcessorState& state) {
  std::string bytes(kEncodedBytes, '\0');
  std::memcpy(bytes.data(), &state.components, sizeof(state.components));
  std::memcpy(bytes.data() + sizeof(state.components), &state.area_bytes, sizeof(state.area_bytes));
  return bytes;
}

std::optional<ProcessorState> decode_processor_state(std::string_view bytes) {
  if (bytes.size() != kEncodedBytes) {
    return std::nullopt;
  }
  ProcessorState state;
  std::memcpy(&state.components, bytes.data(), sizeof(state.components));
  std::memcpy(&state.area_bytes, bytes.data() + sizeof(state.components), sizeof(state.area_bytes));
  return state;
}

std::optional<MissingState> missing_processor_state(std::string_view source, std::string_view own) {
  const auto there = decode_processor_state(source);
  const auto here = decode_processor_state(own);
  if (there && here && (there->components & ~here->components) == 0 &&
      there->area_bytes <= here->area_bytes) {
    return std::nullopt;
  }
  return MissingState{in_words(there), in_words(here)};
}

}  // namespace migrate::arch
