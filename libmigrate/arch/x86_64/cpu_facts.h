#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace migrate::arch {

/// The line of /proc/cpuinfo that lists what the processor can do.
inline constexpr const char* kFeaturesField = "flags";
/// Whether no program in user mode can come to rely on what a word of that line names.
bool is_irrelevant_feature(std::string_view feature);

/// What of a processor's state programs use on a machine, as it travels to another one: the
/// extended state components that the kernel has enabled (XCR0) and the bytes of the XSAVE area
/// with all of them; both 0 without XSAVE.
struct ProcessorState {
  std::uint64_t components = 0;
  std::uint32_t area_bytes = 0;
};

/// That of this machine, in bytes that only this architecture reads.
std::string processor_state();
/// As processor_state() writes it.
std::string encode(const ProcessorState& state);
/// Nothing if `bytes` are none.
std::optional<ProcessorState> decode_processor_state(std::string_view bytes);

/// What a process may hold and another machine cannot take in, both in words.
struct MissingState {
  std::string there;
  std::string here;
};
/// Nothing if a process of a machine with the state `source` can go on on one with `own`. Bytes
/// that are none are told as missing.
std::optional<MissingState> missing_processor_state(std::string_view source, std::string_view own);

}  // namespace migrate::arch
