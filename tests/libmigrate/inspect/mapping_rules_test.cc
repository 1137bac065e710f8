// What is said of mappings, by the text that the kernel shows of them.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <string>

#include "libmigrate/inspect/internal/mapping_flags.h"
#include "libmigrate/inspect/internal/mappings.h"
#include "tests/libmigrate/inspect/fake_process.h"

namespace migrate::inspect {
namespace {

constexpr const char* kPlainFlags = "rd wr mr mw me ac sd";
// More than any kernel makes of them, so that none is missed.
constexpr const char* kKernelLines =
    "6ff000000000-6ff000100000 r--p 00000000 00:00 0                          [vvar]\n"
    "700000000000-700000100000 r-xp 00000000 00:00 0                          [vdso]\n";

class MappingRules : public testing::Test {
 protected:
  /// Shows these mappings, each with its flags, before those of the kernel.
  void show(const std::string& lines, const std::string& flags = kPlainFlags,
            const std::string& key = "") {
    const std::string maps = lines + kKernelLines;
    process_.write("maps", maps);
    std::string smaps;
    std::string_view left = maps;
    while (!left.empty()) {
      smaps += std::string(take_line(left)) + "\nSize:  4 kB\n" + key + "VmFlags: " + flags + " \n";
    }
    process_.write("smaps", smaps);
    process_.view().maps = open_file(process_.folder() + "/maps", O_RDONLY).value();
  }

  Result<void> read() {
    refusals_.clear();
    image_ = {};
    objects_ = {};
    shared_ = {};
    return MappingReader(process_.view(), findings_, shared_, objects_, image_, refusals_)
        .read_all();
  }

  /// What is refused of one mapping with that name.
  Refusals refused_of(const std::string& line) {
    show("1000-2000 " + line + "\n");
    EXPECT_TRUE(read());
    return refusals_;
  }

  FakeProcess process_;
  Findings findings_;
  SharedObjects shared_;
  wire::Objects objects_;
  wire::ProcessImage image_;
  Refusals refusals_;
};

TEST_F(MappingRules, AnonymousMemoryIsKnownByItsNames) {
  for (const char* name : {"", "[heap]", "[stack]", "[stack:17]", "[anon:arena]"}) {
    EXPECT_EQ(lines_of(refused_of("rw-p 00000000 00:00 0 " + std::string(name))), "") << name;
    ASSERT_EQ(image_.mappings_size(), 3);
    EXPECT_EQ(image_.mappings(0).kind(), wire::Mapping::ANONYMOUS) << name;
    EXPECT_EQ(image_.mappings(0).name(), name);
    EXPECT_EQ(image_.mappings(1).kind(), wire::Mapping::VVAR);
    EXPECT_EQ(image_.mappings(2).kind(), wire::Mapping::VDSO);
  }
  // Of a file in name only: no place in it is carried.
  EXPECT_EQ(lines_of(refused_of("rw-p 00003000 00:05 6 /dev/zero")), "");
  EXPECT_EQ(image_.mappings(0).kind(), wire::Mapping::ANONYMOUS);
  EXPECT_EQ(image_.mappings(0).offset(), 0U);
}

TEST_F(MappingRules, ObjectsOfTheKernelAreRefusedByTheirNames) {
  const auto expect = [this](const char* name, const char* code) {
    expect_refused(refused_of("rw-s 00000000 00:01 17 " + std::string(name)), code,
                   "1000-2000 " + std::string(name));
    EXPECT_EQ(image_.mappings_size(), 2) << name;
  };
  expect("/SYSV00000000 (deleted)", "SYSV_SHM");
  expect("/[aio] (deleted)", "AIO");
  expect("anon_inode:[io_uring]", "IO_URING");
  expect("anon_inode:[perf_event]", "PERF");
  expect("anon_inode:kvm-vcpu:0", "KVM");
  expect("anon_inode:bpf-map", "BPF");
  expect("socket:[17]", "SOCKET");
  expect("[uprobes]", "UNKNOWN_MAPPING");
  expect("anon_inode:[of tomorrow]", "UNKNOWN_MAPPING");
}

TEST_F(MappingRules, FlagsOfMemoryThatCannotBeCarriedAreRefused) {
  const auto expect = [this](const std::string& flags, const char* code, const char* said) {
    show("1000-2000 rw-p 00000000 00:00 0\n", flags);
    ASSERT_TRUE(read());
    expect_refused(refusals_, code, said);
    EXPECT_NE(refusals_.front().object().find("1000-2000 anonymous"), std::string::npos);
  };
  expect("rd wr um", "USERFAULTFD", "");
  expect("rd wr uw", "USERFAULTFD", "");
  expect("rd wr ss", "SHADOW_STACK", "");
  expect("rd sl", "SEALED", "");
  expect("rd wr ht", "HUGETLB", "");
  expect("rd wr pf", "UNKNOWN_MAPPING", "VmFlags has pf");
  expect("zz rd wr", "UNKNOWN_MAPPING", "VmFlags has zz");
}

TEST_F(MappingRules, WhatWeHaveRegisteredOurselvesIsNoReason) {
  process_.view().known.own_userfaultfd = true;
  show("1000-2000 rw-p 00000000 00:00 0\n", "rd wr um");
  ASSERT_TRUE(read());
  EXPECT_EQ(lines_of(refusals_), "");
}

TEST_F(MappingRules, GuardsAreCarriedInAnonymousMemory) {
  show("1000-2000 rw-p 00000000 00:00 0\n", "rd wr gu");
  ASSERT_TRUE(read());
  EXPECT_EQ(lines_of(refusals_), "");
}

TEST_F(MappingRules, AProtectionKeyIsRefusedUnlessItIsTheFirst) {
  const std::string line = "1000-2000 rw-p 00000000 00:00 0\n";
  show(line, kPlainFlags, "ProtectionKey:         0\n");
  ASSERT_TRUE(read());
  EXPECT_EQ(lines_of(refusals_), "");
  show(line, kPlainFlags, "ProtectionKey:         3\n");
  ASSERT_TRUE(read());
  expect_refused(refusals_, "PROTECTION_KEY", "1000-2000");
}

TEST_F(MappingRules, AMappingThatIsGoneAlreadyIsNoReason) {
  // Its place in map_files is not there.
  EXPECT_EQ(lines_of(refused_of("r--p 00000000 08:01 17 /usr/lib/libc.so")), "");
  EXPECT_EQ(image_.mappings_size(), 2);
  EXPECT_EQ(findings_.maps_text, "");  // What was read is not what is.
}

TEST_F(MappingRules, ADeletedFileIsNotTakenForHugePages) {
  expect_refused(refused_of("rw-p 00000000 08:01 17 /anon_hugepage (deleted)"), "UNKNOWN_MAPPING",
                 "a deleted file of this name");
}

TEST_F(MappingRules, AFileIsCarriedByWhatItsMappingLeadsTo) {
  process_.write("file", "content");
  const std::string path = process_.folder() + "/file";
  process_.link("map_files/1000-2000", path);
  EXPECT_EQ(lines_of(refused_of("r--p 00000000 08:01 17 " + path)), "");
  ASSERT_EQ(objects_.mapped_files_size(), 1);
  EXPECT_EQ(objects_.mapped_files(0).path(), path);
  EXPECT_EQ(objects_.mapped_files(0).size_bytes(), 7U);
  EXPECT_FALSE(objects_.mapped_files(0).sha256().empty());
  // Page tables of a process that there is not cannot be read: a copy is right in any case.
  EXPECT_EQ(image_.mappings(0).kind(), wire::Mapping::FILE_COPY);
  findings_ = {};
  EXPECT_EQ(lines_of(refused_of("r--s 00000000 08:01 17 " + path)), "");
  EXPECT_EQ(image_.mappings(0).kind(), wire::Mapping::SHARED_FILE);
  ASSERT_EQ(shared_.mappings.size(), 1U);
  EXPECT_FALSE(shared_.mappings.begin()->second.writable);
}

TEST_F(MappingRules, APathThatLeadsElsewhereIsADeletedFile) {
  process_.write("file", "content");
  process_.write("other", "content");
  process_.link("map_files/1000-2000", process_.folder() + "/file");
  expect_refused(refused_of("r--p 00000000 08:01 17 " + process_.folder() + "/other"),
                 "DELETED_FILE", "/other");
  findings_ = {};
  process_.link("map_files/1000-2000", "/dev/null");
  expect_refused(refused_of("r--s 00000000 00:05 5 /dev/null"), "DEVICE", "/dev/null");
  findings_ = {};
  process_.link("map_files/1000-2000", "/proc/self/status");
  expect_refused(refused_of("r--p 00000000 00:15 5 /proc/self/status"), "PROC_FILE", "status");
}

TEST_F(MappingRules, ACopyEndsWithItsFile) {
  process_.write("file", "content");
  const std::string path = process_.folder() + "/file";
  process_.link("map_files/1000-3000", path);
  show("1000-3000 rw-p 00000000 08:01 17 " + path + "\n");
  ASSERT_TRUE(read());
  expect_refused(refusals_, "UNKNOWN_MAPPING", "goes beyond the end of its file");
  findings_ = {};
  show("1000-3000 ---p 00000000 08:01 17 " + path + "\n");  // Nobody sees what it holds.
  ASSERT_TRUE(read());
  EXPECT_EQ(lines_of(refusals_), "");
}

TEST_F(MappingRules, AKernelMappingThatIsNotThereIsMissed) {
  show("");
  process_.write("smaps", "");
  ASSERT_TRUE(read());
  ASSERT_EQ(refusals_.size(), 2U) << lines_of(refusals_);
  EXPECT_EQ(refusals_[0].code(), "NO_VDSO");
  EXPECT_NE(refusals_[0].reason().find("vdso"), std::string::npos);
  EXPECT_NE(refusals_[1].reason().find("vvar"), std::string::npos);
}

TEST_F(MappingRules, TextOfAnotherShapeIsAnError) {
  show("");
  process_.write("smaps", "VmFlags: rd\n");
  EXPECT_EQ(read().error().code, ErrorCode::kCorrupt);
  process_.write("smaps", "1000 rw-p 0 0 0\n");
  EXPECT_EQ(read().error().code, ErrorCode::kCorrupt);
  show("nonsense\n");
  EXPECT_EQ(read().error().code, ErrorCode::kCorrupt);
}

TEST_F(MappingRules, MappingsThatChangeAllTheTimeAreToBeReadAgain) {
  show("1000-3000 rw-p 00000000 00:00 0\n2000-4000 rw-p 00000000 00:00 0\n");
  const auto result = read();
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::kRetry);
}

TEST_F(MappingRules, WhatWasReadOnceIsKeptWhileNoLineChanges) {
  show("1000-2000 rw-p 00000000 00:00 0\n", "rd wr dc");
  ASSERT_TRUE(read());
  EXPECT_NE(findings_.maps_text, "");
  const wire::ProcessImage draft = image_;
  EXPECT_EQ(draft.mappings(0).advice(), static_cast<std::uint32_t>(wire::DONT_FORK));
  process_.write("smaps", "no more to be read");
  wire::ProcessImage again;
  MappingReader reader(process_.view(), findings_, shared_, objects_, again, refusals_);
  ASSERT_TRUE(reader.read_again(draft, findings_.maps_text));
  EXPECT_EQ(again.DebugString(), draft.DebugString());
}

TEST_F(MappingRules, FlagsOfADraftGoOnWhereItsMappingHasGrown) {
  show("1000-2000 rw-p 00000000 00:00 0\n", "rd wr dc");
  ASSERT_TRUE(read());
  const wire::ProcessImage draft = image_;
  const auto reread_as = [&](const std::string& line) {
    image_ = {};
    refusals_.clear();
    return MappingReader(process_.view(), findings_, shared_, objects_, image_, refusals_)
        .read_again(draft, line + "\n" + kKernelLines);
  };
  process_.write("smaps", "no more to be read");
  ASSERT_TRUE(reread_as("1000-3000 rw-p 00000000 00:00 0"));
  EXPECT_EQ(image_.mappings(0).advice(), static_cast<std::uint32_t>(wire::DONT_FORK));
  // Of one that is new the flags are read.
  EXPECT_EQ(reread_as("5000-6000 rw-p 00000000 00:00 0").error().code, ErrorCode::kCorrupt);
  process_.write("smaps", "5000-6000 rw-p 00000000 00:00 0\nVmFlags: rd wr wf\n");
  ASSERT_TRUE(reread_as("5000-6000 rw-p 00000000 00:00 0"));
  EXPECT_EQ(image_.mappings(0).advice(), static_cast<std::uint32_t>(wire::WIPE_ON_FORK));
  // Nothing passes while it is frozen: a mapping that cannot be looked at is a reason.
  ASSERT_TRUE(reread_as("1000-2000 r--p 00000000 08:01 17 /usr/lib/gone.so"));
  expect_refused(refusals_, "UNKNOWN_MAPPING", "No such file");
}

TEST(MappingFlags, AreAdviceOrNothing) {
  const auto advice = [](const char* flags, bool shared = false) {
    MapsEntry entry;
    entry.flags = flags;
    entry.shared = shared;
    return advice_of(entry);
  };
  EXPECT_EQ(advice(""), 0U);
  EXPECT_EQ(advice("rd wr mr me ac sd"), 0U);
  EXPECT_EQ(advice("  gd   lo\tsr "),
            static_cast<std::uint32_t>(wire::GROWS_DOWN | wire::LOCKED | wire::SEQUENTIAL));
  EXPECT_EQ(advice("rr dc wf dd mg"),
            static_cast<std::uint32_t>(wire::RANDOM | wire::DONT_FORK | wire::WIPE_ON_FORK |
                                       wire::DONT_DUMP | wire::MERGEABLE));
  EXPECT_EQ(advice("hg"), static_cast<std::uint32_t>(wire::HUGE_PAGE));
  EXPECT_EQ(advice("nh nr dp"),
            static_cast<std::uint32_t>(wire::NO_HUGE_PAGE | wire::NO_RESERVE | wire::DROPPABLE));
  EXPECT_EQ(advice("?? um"), 0U);  // Refused elsewhere.
  // Private memory may always become writable; shared memory only where it is said.
  EXPECT_EQ(advice("mw"), 0U);
  EXPECT_EQ(advice("mw", true), static_cast<std::uint32_t>(wire::MAY_WRITE));
  EXPECT_EQ(advice("mr", true), 0U);
}

TEST(SharedMemories, AreKnownByWhatTheyAreAndNotByTheirName) {
  const UniqueFd one(::memfd_create("one", MFD_ALLOW_SEALING | MFD_CLOEXEC));
  ASSERT_EQ(::ftruncate(one.get(), 8192), 0);
  ASSERT_EQ(::fcntl(one.get(), F_ADD_SEALS, F_SEAL_SHRINK), 0);
  const UniqueFd folder = open_file("/proc/self/fd", O_RDONLY | O_DIRECTORY).value();
  Findings findings;
  SharedObjects shared;
  wire::Objects objects;
  const auto add = [&](const std::string& link, int fd) {
    return add_memory(folder.get(), std::to_string(one.get()), link, fd, findings, shared, objects)
        .value();
  };
  EXPECT_EQ(add("/memfd:one (deleted)", one.get()), 0U);
  ASSERT_EQ(objects.shared_memories_size(), 1);
  const wire::SharedMemory& memory = objects.shared_memories(0);
  EXPECT_EQ(memory.name(), "one");
  EXPECT_EQ(memory.size_bytes(), 8192U);
  EXPECT_EQ(memory.seals(), static_cast<std::uint32_t>(F_SEAL_SHRINK));
  ASSERT_EQ(shared.memories.size(), 1U);
  EXPECT_EQ(shared.memories.begin()->second, "/memfd:one (deleted)");
  // Met again it is the same, as large as it is now.
  ASSERT_EQ(::ftruncate(one.get(), 12288), 0);
  EXPECT_EQ(add("/memfd:one (deleted)", -1), 0U);
  EXPECT_EQ(objects.shared_memories(0).size_bytes(), 12288U);
  const auto gone =
      add_memory(folder.get(), "999999", "/memfd:gone", -1, findings, shared, objects);
  EXPECT_EQ(gone.error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace migrate::inspect
