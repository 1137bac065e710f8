#include "libmigrate/proc/mapping_list.h"

#include <linux/bpf.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <span>
#include <string>

#include "libmigrate/proc/kernel_types.h"

namespace migrate {
namespace {

/// What the program writes of each mapping.
struct MappingRecord {
  std::uint64_t start;
  std::uint64_t end;
  std::uint64_t flags;
  std::uint64_t policies;
};
static_assert(sizeof(MappingRecord) == 32);

// Of the members of bpf_iter__task_vma and bpf_iter_meta, which are the kernel's interface to such
// programs.
constexpr std::int16_t kMetaAt = 0;
constexpr std::int16_t kTaskAt = 8;
constexpr std::int16_t kMappingAt = 16;
constexpr std::int16_t kSequenceAt = 0;

/// Where the running kernel has what the program reads.
struct KernelLayout {
  std::uint32_t iterator = 0;
  std::int16_t start = 0;
  std::int16_t end = 0;
  std::int16_t flags = 0;
  std::int16_t policy = -1;  // -1: it has no policies
  std::int16_t task_policy = -1;
};

Error cannot_list(const char* what) {
  return make_error(ErrorCode::kUnsupported, "list mappings by the kernel", what);
}

Result<KernelLayout> find_layout() {
  const KernelTypes types = MIGRATE_TRY(KernelTypes::read());
  const auto place = [&types](const char* structure, const char* member) {
    return static_cast<std::int16_t>(types.offset(structure, member).value_or(0xffff));
  };
  KernelLayout layout;
  layout.iterator = types.function("bpf_iter_task_vma").value_or(0);
  layout.start = place("vm_area_struct", "vm_start");
  layout.end = place("vm_area_struct", "vm_end");
  layout.flags = place("vm_area_struct", "vm_flags");
  layout.policy = place("vm_area_struct", "vm_policy");
  layout.task_policy = place("task_struct", "mempolicy");
  if (layout.iterator == 0 || layout.start < 0 || layout.end < 0 || layout.flags < 0) {
    return fail(cannot_list("it does not describe them"));
  }
  return layout;
}

// Once: the kernel stays the same.
const Result<KernelLayout>& kernel_layout() {
  static const Result<KernelLayout> kLayout = find_layout();
  return kLayout;
}

constexpr std::uint8_t kBpfLoad = BPF_LDX | BPF_MEM | BPF_DW;
constexpr std::uint8_t kBpfStore = BPF_STX | BPF_MEM | BPF_DW;
constexpr std::uint8_t kBpfSet = BPF_ALU64 | BPF_MOV | BPF_K;
constexpr std::uint8_t kBpfCopy = BPF_ALU64 | BPF_MOV | BPF_X;
constexpr std::uint8_t kBpfAdd = BPF_ALU64 | BPF_ADD | BPF_K;
constexpr std::uint8_t kBpfJumpIfZero = BPF_JMP | BPF_JEQ | BPF_K;
constexpr std::uint8_t kBpfCall = BPF_JMP | BPF_CALL;
constexpr std::uint8_t kBpfExit = BPF_JMP | BPF_EXIT;

bpf_insn bpf_instruction(std::uint8_t code, std::uint8_t to, std::uint8_t from, std::int16_t offset,
                         std::int32_t value) {
  bpf_insn made{};
  made.code = code;
  made.dst_reg = to & 0xfU;
  made.src_reg = from & 0xfU;
  made.off = offset;
  made.imm = value;
  return made;
}

// More than the kernel gathers for one read.
constexpr std::size_t kBufferBytes = std::size_t{64} << 10U;
// Of one process: as vm.max_map_count allows unless somebody has raised it.
constexpr std::size_t kMostMappings = 65536;

constexpr std::int16_t kRecordAt = -static_cast<std::int16_t>(sizeof(MappingRecord));

constexpr std::int16_t record_member(std::size_t member) {
  return static_cast<std::int16_t>(kRecordAt + static_cast<std::int16_t>(member));
}

// r1 is the context. Writes one MappingRecord for each mapping, whose policies are 0 or not.
std::vector<bpf_insn> make_program(const KernelLayout& layout) {
  std::vector<bpf_insn> code;
  const auto add = [&code](std::uint8_t operation, std::uint8_t to, std::uint8_t from,
                           std::int16_t offset, std::int32_t value) {
    code.push_back(bpf_instruction(operation, to, from, offset, value));
  };
  add(kBpfLoad, 6, 1, kMappingAt, 0);
  add(kBpfLoad, 7, 1, kTaskAt, 0);
  add(kBpfLoad, 8, 1, kMetaAt, 0);
  const std::size_t no_mapping = code.size();
  add(kBpfJumpIfZero, 6, 0, 0, 0);
  const std::size_t no_task = code.size();
  add(kBpfJumpIfZero, 7, 0, 0, 0);
  for (const auto& [from, to] :
       {std::pair(layout.start, record_member(offsetof(MappingRecord, start))),
        std::pair(layout.end, record_member(offsetof(MappingRecord, end))),
        std::pair(layout.flags, record_member(offsetof(MappingRecord, flags)))}) {
    add(kBpfLoad, 2, 6, from, 0);
    add(kBpfStore, 10, 2, to, 0);
  }
  add(kBpfSet, 3, 0, 0, 0);
  for (const auto& [object, member] :
       {std::pair<std::uint8_t, std::int16_t>(6, layout.policy), {7, layout.task_policy}}) {
    if (member >= 0) {
      add(kBpfLoad, 2, object, member, 0);
      add(kBpfJumpIfZero, 2, 0, 1, 0);
      add(kBpfSet, 3, 0, 0, 1);
    }
  }
  add(kBpfStore, 10, 3, record_member(offsetof(MappingRecord, policies)), 0);
  add(kBpfLoad, 1, 8, kSequenceAt, 0);
  add(kBpfCopy, 2, 10, 0, 0);
  add(kBpfAdd, 2, 0, 0, kRecordAt);
  add(kBpfSet, 3, 0, 0, sizeof(MappingRecord));
  add(kBpfCall, 0, 0, 0, BPF_FUNC_seq_write);
  for (const std::size_t jump : {no_mapping, no_task}) {
    code[jump].off = static_cast<std::int16_t>(code.size() - jump - 1);
  }
  add(kBpfSet, 0, 0, 0, 0);
  add(kBpfExit, 0, 0, 0, 0);
  return code;
}

Result<UniqueFd> bpf_call(int command, bpf_attr& attributes) {
  const long fd = ::syscall(SYS_bpf, command, &attributes, sizeof(attributes));
  if (fd < 0) {
    return fail(system_error("list mappings by the kernel"));
  }
  return UniqueFd(static_cast<int>(fd));
}

std::uint64_t attribute_of(const void* object) {
  return reinterpret_cast<std::uint64_t>(object);
}

}  // namespace

Result<MappingList> MappingList::create() {
  const Result<KernelLayout>& layout = kernel_layout();
  if (!layout) {
    return fail(layout.error());
  }
  const std::vector<bpf_insn> code = make_program(*layout);
  bpf_attr attributes{};
  attributes.prog_type = BPF_PROG_TYPE_TRACING;
  attributes.insn_cnt = static_cast<std::uint32_t>(code.size());
  attributes.insns = attribute_of(code.data());
  // The kernel's word for one that may use its functions for writing.
  attributes.license = attribute_of("Dual BSD/GPL");
  attributes.expected_attach_type = BPF_TRACE_ITER;
  attributes.attach_btf_id = layout->iterator;
  auto program = bpf_call(BPF_PROG_LOAD, attributes);
  if (!program) {
    return fail(cannot_list("it does not take the program"));
  }
  return MappingList(std::move(*program));
}

Result<std::vector<KernelMapping>> MappingList::of(pid_t pid) const {
  bpf_iter_link_info which{};
  which.task.tid = static_cast<std::uint32_t>(pid);
  bpf_attr attributes{};
  attributes.link_create.prog_fd = static_cast<std::uint32_t>(program_.get());
  attributes.link_create.attach_type = BPF_TRACE_ITER;
  attributes.link_create.iter_info = attribute_of(&which);
  attributes.link_create.iter_info_len = sizeof(which);
  const UniqueFd link = MIGRATE_TRY(bpf_call(BPF_LINK_CREATE, attributes));
  attributes = {};
  attributes.iter_create.link_fd = static_cast<std::uint32_t>(link.get());
  const UniqueFd iterator = MIGRATE_TRY(bpf_call(BPF_ITER_CREATE, attributes));
  std::vector<KernelMapping> mappings;
  std::vector<MappingRecord> records(kBufferBytes / sizeof(MappingRecord));
  while (mappings.size() <= kMostMappings) {
    const ssize_t bytes =
        ::read(iterator.get(), records.data(), records.size() * sizeof(MappingRecord));
    if (bytes < 0 && (errno == EINTR || errno == EAGAIN)) {
      continue;
    }
    if (bytes < 0) {
      return fail(system_error("list the mappings of", "pid " + std::to_string(pid)));
    }
    const std::size_t count = static_cast<std::size_t>(bytes) / sizeof(MappingRecord);
    // Of more than one read, Linux 6.18 shows what the last one had again and again.
    if (count == 0 || (!mappings.empty() && records.front().start < mappings.back().end)) {
      return mappings;
    }
    for (const MappingRecord& record : std::span(records).first(count)) {
      mappings.push_back({record.start, record.end, record.flags, record.policies != 0});
    }
  }
  return fail(make_error(ErrorCode::kUnsupported, "list the mappings of",
                         "pid " + std::to_string(pid), "there are too many"));
}

}  // namespace migrate
