#include "libmigrate/guest/core_file.h"

#include <elf.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/procfs.h>
#include <unistd.h>

#include <cstring>
#include <vector>

namespace migrate {
namespace {

CoreOwner owner() {
  return {.inner_pid = 12,
          .pid = 3456,
          .uid = 7,
          .file_uid = 7,
          .gid = 8,
          .signal = 6,
          .command = "a/b",
          .program = "/bin/true",
          .directory = -1};
}

TEST(CoreFile, IsNamedByThePattern) {
  EXPECT_EQ(core_path("core\n", false, owner()), "core");
  EXPECT_EQ(core_path("core", true, owner()), "core.12");
  EXPECT_EQ(core_path("core.%p", true, owner()), "core.12");
  EXPECT_EQ(core_path("/var/%u-%g/%%%P.%s.%e.%E", false, owner()),
            "/var/7-8/%3456.6.a!b.!bin!true");
  EXPECT_EQ(core_path("core%", false, owner()), "core");
}

TEST(CoreFile, IsNotAFileOrOfAnUnknownName) {
  EXPECT_FALSE(core_path("|/usr/lib/handler %p", false, owner()));
  EXPECT_FALSE(core_path("@/run/socket", false, owner()));
  EXPECT_FALSE(core_path("core.%t", false, owner()));
  EXPECT_FALSE(core_path("", true, owner()));
}

UniqueFd make_core(std::uint16_t type, std::int32_t pid) {
  UniqueFd fd(::memfd_create("core", MFD_CLOEXEC));
  Elf64_Ehdr header{};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = ELFCLASS64;
  header.e_type = type;
  header.e_phoff = sizeof(header);
  header.e_phnum = 1;
  struct {
    Elf64_Nhdr first{5, 8, NT_PRSTATUS};
    char first_content[16] = "CORE";
    Elf64_Nhdr second{5, sizeof(elf_prpsinfo), NT_PRPSINFO};
    char second_name[8] = "CORE";
    elf_prpsinfo information{};
  } notes;
  notes.information.pr_pid = pid;
  Elf64_Phdr segment{};
  segment.p_type = PT_NOTE;
  segment.p_offset = sizeof(header) + sizeof(segment);
  segment.p_filesz = sizeof(notes);
  EXPECT_EQ(::write(fd.get(), &header, sizeof(header)), sizeof(header));
  EXPECT_EQ(::write(fd.get(), &segment, sizeof(segment)), sizeof(segment));
  EXPECT_EQ(::write(fd.get(), &notes, sizeof(notes)), sizeof(notes));
  return fd;
}

TEST(CoreFile, IsOfAProcessByItsNotes) {
  EXPECT_TRUE(is_core_of(make_core(ET_CORE, 12).get(), 12));
  EXPECT_FALSE(is_core_of(make_core(ET_CORE, 13).get(), 12));
  EXPECT_FALSE(is_core_of(make_core(ET_EXEC, 12).get(), 12));
  for (int length = 0; length < 300; length += 7) {
    const UniqueFd part = make_core(ET_CORE, 12);
    ASSERT_EQ(::ftruncate(part.get(), length), 0);
    EXPECT_FALSE(is_core_of(part.get(), 13));
  }
}

}  // namespace
}  // namespace migrate
