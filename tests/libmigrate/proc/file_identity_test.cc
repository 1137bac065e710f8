#include "libmigrate/proc/file_identity.h"

#include <elf.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <limits.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <string>

#include "base/file.h"
#include "tests/base/code_of.h"
#include "tests/transport/temporary_directory.h"

namespace migrate {
namespace {

constexpr std::uint64_t kNfs = 0x6969;

std::string hexadecimal(const std::string& bytes) {
  std::string text;
  for (const char byte : bytes) {
    constexpr const char* kDigits = "0123456789abcdef";
    const auto value = static_cast<unsigned char>(byte);
    text += {kDigits[value >> 4U], kDigits[value & 15U]};
  }
  return text;
}

template <class T>
void append(std::string& bytes, const T& value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

std::string note(std::uint32_t type, std::string name, std::string description,
                 std::size_t alignment = 4) {
  const Elf64_Nhdr header{static_cast<Elf64_Word>(name.size()),
                          static_cast<Elf64_Word>(description.size()), type};
  const auto padded = [alignment](std::string text) {
    text.resize((text.size() + alignment - 1) / alignment * alignment);
    return text;
  };
  std::string bytes;
  append(bytes, header);
  return bytes + padded(std::move(name)) + padded(std::move(description));
}

const std::string kGnu("GNU\0", 4);

class IdentityTest : public testing::Test {
 protected:
  UniqueFd make(const std::string& name, const std::string& content) const {
    UniqueFd fd = open_file(directory_.file(name), O_RDWR | O_CREAT | O_TRUNC).value();
    EXPECT_TRUE(write_all(fd.get(), std::as_bytes(std::span(content))));
    return fd;
  }

  /// The build-id of an ELF file with one segment of notes, as `change` leaves it.
  template <class Change>
  std::string build_id_of(const std::string& notes, Change change) const {
    Elf64_Ehdr header{};
    std::memcpy(header.e_ident, ELFMAG, SELFMAG);
    header.e_ident[EI_CLASS] = ELFCLASS64;
    header.e_phoff = sizeof(header);
    header.e_phentsize = sizeof(Elf64_Phdr);
    header.e_phnum = 1;
    Elf64_Phdr segment{};
    segment.p_type = PT_NOTE;
    segment.p_offset = sizeof(header) + sizeof(segment);
    segment.p_filesz = notes.size();
    segment.p_align = 4;
    change(header, segment);
    std::string bytes;
    append(bytes, header);
    append(bytes, segment);
    const UniqueFd fd = make("elf", bytes + notes);
    return read_build_id(fd.get()).value();
  }
  std::string build_id_of(const std::string& notes) const {
    return build_id_of(notes, [](Elf64_Ehdr&, Elf64_Phdr&) {});
  }

  wire::FileIdentity identity(const std::string& name) const {
    return identify_at(AT_FDCWD, directory_.file(name), directory_.file(name)).value();
  }

  test::TemporaryDirectory directory_;
};

TEST(FilesystemClasses, AreKnownByTheirNumber) {
  EXPECT_EQ(filesystem_class(0xEF53), FilesystemClass::kLocal);
  EXPECT_EQ(filesystem_class(kNfs), FilesystemClass::kNetwork);
  EXPECT_EQ(filesystem_class(0x9fa0), FilesystemClass::kKernel);
  EXPECT_EQ(filesystem_class(0x958458f6), FilesystemClass::kHugePages);
  EXPECT_EQ(filesystem_class(0), FilesystemClass::kUnknown);
  EXPECT_EQ(filesystem_class(0x12345678), FilesystemClass::kUnknown);
  // As a signed f_type with the top bit set comes back.
  EXPECT_EQ(filesystem_class(0xffffffff9123683eULL), FilesystemClass::kLocal);
  EXPECT_EQ(filesystem_class(0xffffffffFF534D42ULL), FilesystemClass::kNetwork);
}

TEST(FilesystemClasses, OfWhatIsMountedHere) {
  EXPECT_EQ(filesystem_class(filesystem_type_at(AT_FDCWD, "/proc").value()),
            FilesystemClass::kKernel);
  const UniqueFd folder = open_file("/proc", O_RDONLY | O_DIRECTORY).value();
  EXPECT_EQ(filesystem_type_at(folder.get(), "").value(), 0x9fa0U);
  EXPECT_EQ(filesystem_type_at(folder.get(), "self").value(), 0x9fa0U);
  EXPECT_EQ(test::code_of(filesystem_type_at(folder.get(), "nothing")), ErrorCode::kNotFound);
}

TEST(Paths, AreAbsoluteWholeAndShortEnough) {
  EXPECT_TRUE(is_path("/"));
  EXPECT_TRUE(is_path("/a b\n (deleted)"));
  EXPECT_TRUE(is_path("/" + std::string(PATH_MAX - 2, 'a')));
  EXPECT_FALSE(is_path("/" + std::string(PATH_MAX - 1, 'a')));
  EXPECT_FALSE(is_path(""));
  EXPECT_FALSE(is_path("a"));
  EXPECT_FALSE(is_path(std::string_view("/a\0b", 4)));
  EXPECT_FALSE(is_path(std::string_view("/a\0", 3)));
}

TEST_F(IdentityTest, HashesAreThoseOfTheStandard) {
  const std::string of_abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
  EXPECT_EQ(hexadecimal(sha256("abc")), of_abc);
  EXPECT_EQ(hexadecimal(sha256("")),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  const UniqueFd fd = make("abc", "abc");
  ASSERT_EQ(::lseek(fd.get(), 2, SEEK_SET), 2);
  EXPECT_EQ(hexadecimal(sha256_of_file(fd.get()).value()), of_abc);
  EXPECT_EQ(::lseek(fd.get(), 0, SEEK_CUR), 2);
  const std::string large(700'000, 'x');  // Several reads.
  EXPECT_EQ(sha256_of_file(make("large", large).get()).value(), sha256(large));
  EXPECT_FALSE(sha256_of_file(-1));
}

TEST_F(IdentityTest, ABuildIdIsFoundAmongOtherNotes) {
  EXPECT_EQ(build_id_of(note(NT_GNU_BUILD_ID, kGnu, "0123456789")), "0123456789");
  EXPECT_EQ(build_id_of(note(1, kGnu, "abi") + note(NT_GNU_BUILD_ID, "Go", "none") +
                        note(NT_GNU_BUILD_ID, kGnu, "it")),
            "it");
  const auto by_eight = [](Elf64_Ehdr&, Elf64_Phdr& segment) { segment.p_align = 8; };
  EXPECT_EQ(build_id_of(note(1, "Fourteen bytes", "x", 8) + note(NT_GNU_BUILD_ID, kGnu, "it", 8),
                        by_eight),
            "it");
}

TEST_F(IdentityTest, AFileThatLiesAboutItselfHasNoBuildId) {
  const std::string good = note(NT_GNU_BUILD_ID, kGnu, "0123456789");
  EXPECT_EQ(build_id_of(""), "");
  EXPECT_EQ(build_id_of(good.substr(0, good.size() - 4)), "");  // Its description is cut.
  EXPECT_EQ(build_id_of(good.substr(0, 11)), "");
  for (const std::size_t field : {0, 4}) {  // The sizes of name and description.
    for (const std::uint32_t size : {~0U, ~0U - 3, 0x80000000U, 4096U}) {
      std::string notes = good;
      std::memcpy(notes.data() + field, &size, sizeof(size));
      EXPECT_EQ(build_id_of(notes), "") << field << " " << size;
    }
  }
  using Header = Elf64_Ehdr;
  using Segment = Elf64_Phdr;
  EXPECT_EQ(build_id_of(good, [](Header& header, Segment&) { header.e_ident[1] = 'L'; }), "");
  EXPECT_EQ(build_id_of(good, [](Header& header, Segment&) { header.e_ident[EI_CLASS] = 1; }), "");
  EXPECT_EQ(build_id_of(good, [](Header& header, Segment&) { header.e_phentsize = 8; }), "");
  EXPECT_EQ(build_id_of(good, [](Header& header, Segment&) { header.e_phnum = 0xffff; }), "");
  EXPECT_EQ(build_id_of(good, [](Header& header, Segment&) { header.e_phnum = 200; }), "");
  EXPECT_EQ(build_id_of(good, [](Header& header, Segment&) { header.e_phoff = ~0ULL; }), "");
  EXPECT_EQ(build_id_of(good, [](Header&, Segment& segment) { segment.p_type = PT_LOAD; }), "");
  EXPECT_EQ(build_id_of(good, [](Header&, Segment& segment) { segment.p_offset = ~0ULL; }), "");
  EXPECT_EQ(build_id_of(good, [](Header&, Segment& segment) { segment.p_filesz = 1U << 20U; }), "");
  EXPECT_EQ(build_id_of(good, [](Header&, Segment& segment) { segment.p_filesz = ~0ULL; }), "");
  EXPECT_EQ(read_build_id(make("text", "no ELF file").get()).value(), "");
  EXPECT_EQ(read_build_id(make("empty", "").get()).value(), "");
}

TEST_F(IdentityTest, IsWhatStatTells) {
  const UniqueFd fd = make("file", "twelve bytes");
  ASSERT_EQ(::fchmod(fd.get(), 0640), 0);
  struct stat status {};
  ASSERT_EQ(::fstat(fd.get(), &status), 0);
  const wire::FileIdentity by_name = identity("file");
  EXPECT_EQ(by_name.path(), directory_.file("file"));
  EXPECT_EQ(by_name.mode(), S_IFREG | 0640U);
  EXPECT_EQ(by_name.inode(), status.st_ino);
  EXPECT_EQ(by_name.device_major(), major(status.st_dev));
  EXPECT_EQ(by_name.device_minor(), minor(status.st_dev));
  EXPECT_EQ(by_name.size_bytes(), 12U);
  EXPECT_EQ(by_name.mtime_ns(), status.st_mtim.tv_sec * 1'000'000'000LL + status.st_mtim.tv_nsec);
  EXPECT_EQ(by_name.ctime_ns(), status.st_ctim.tv_sec * 1'000'000'000LL + status.st_ctim.tv_nsec);
  const auto by_descriptor = identify_at(fd.get(), "", directory_.file("file"));
  EXPECT_EQ(by_descriptor.value().SerializeAsString(), by_name.SerializeAsString());
  ASSERT_EQ(::symlink("file", directory_.file("link").c_str()), 0);
  EXPECT_EQ(identity("link").inode(), status.st_ino);
  const auto missing = identify_at(AT_FDCWD, directory_.file("none"), "the one");
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, ErrorCode::kNotFound);
  EXPECT_EQ(missing.error().object, "the one");
}

TEST_F(IdentityTest, OfADeviceIsTheDeviceAndNotWhereItLies) {
  const wire::FileIdentity null = identify_at(AT_FDCWD, "/dev/null", "/dev/null").value();
  EXPECT_TRUE(S_ISCHR(null.mode()));
  EXPECT_EQ(null.device_major(), 1U);
  EXPECT_EQ(null.device_minor(), 3U);
  EXPECT_TRUE(is_surely(null, open_file("/dev/null", O_RDONLY)->get()));
  EXPECT_FALSE(is_surely(null, open_file("/dev/zero", O_RDONLY)->get()));
}

TEST_F(IdentityTest, ContentIsToldByBuildIdOrByHashUpToALimit) {
  wire::FileIdentity told;
  told.set_size_bytes(3);
  ASSERT_TRUE(add_content_identity(make("abc", "abc").get(), 3, told));
  EXPECT_EQ(told.sha256(), sha256("abc"));
  told.clear_sha256();
  ASSERT_TRUE(add_content_identity(make("abc", "abc").get(), 2, told));
  EXPECT_EQ(told.sha256(), "");
}

TEST_F(IdentityTest, TheSameFileIsToldByInodeAndDeviceAndUnchangedByItsTimesToo) {
  make("one", "1");
  make("two", "1");
  const wire::FileIdentity one = identity("one");
  EXPECT_TRUE(same_file(one, one));
  EXPECT_FALSE(same_file(one, identity("two")));
  wire::FileIdentity other = one;
  other.set_device_major(one.device_major() + 1);
  EXPECT_FALSE(same_file(one, other));
  other = one;
  other.set_device_minor(one.device_minor() + 1);
  EXPECT_FALSE(same_file(one, other));
  EXPECT_TRUE(unchanged(one, one));
  for (int member = 0; member < 3; ++member) {
    other = one;
    member == 0   ? other.set_size_bytes(2)
    : member == 1 ? other.set_mtime_ns(one.mtime_ns() + 1)
                  : other.set_ctime_ns(one.ctime_ns() + 1);
    EXPECT_TRUE(same_file(one, other));
    EXPECT_FALSE(unchanged(one, other)) << member;
  }
}

TEST_F(IdentityTest, AFileIsSurelyItselfByItsBirth) {
  const UniqueFd fd = make("file", "text");
  wire::FileIdentity file = identity("file");
  if (file.birth_ns() == 0) {
    GTEST_SKIP() << "the file system knows no time of birth";
  }
  EXPECT_TRUE(is_surely(file, fd.get()));
  ASSERT_EQ(::ftruncate(fd.get(), 2), 0);  // It grew or shrank since: still the same.
  EXPECT_TRUE(is_surely(file, fd.get()));
  file.set_birth_ns(file.birth_ns() + 1);  // The inode is another file's by now.
  EXPECT_FALSE(is_surely(file, fd.get()));
}

TEST_F(IdentityTest, WithoutABirthOnlyAllItsTimesWillDo) {
  const UniqueFd fd = make("file", "text");
  wire::FileIdentity file = identity("file");
  file.clear_birth_ns();
  EXPECT_TRUE(is_surely(file, fd.get()));
  file.set_ctime_ns(file.ctime_ns() - 1);
  EXPECT_FALSE(is_surely(file, fd.get()));
}

TEST_F(IdentityTest, AnotherFileWillDoWithTheSameContentOnly) {
  const UniqueFd mine = make("mine", "the content");
  wire::FileIdentity file = identity("mine");
  const UniqueFd copy = make("copy", "the content");
  const UniqueFd other = make("other", "the contenT");
  const UniqueFd longer = make("longer", "the content!");
  EXPECT_FALSE(is_surely(file, copy.get()));  // Nothing tells.
  file.set_sha256(sha256("the content"));
  EXPECT_TRUE(is_surely(file, copy.get()));
  EXPECT_FALSE(is_surely(file, other.get()));
  EXPECT_FALSE(is_surely(file, longer.get()));
  file.set_build_id("0123");  // It is the build-id then that must be the same.
  EXPECT_FALSE(is_surely(file, copy.get()));
}

TEST_F(IdentityTest, WhatIsOfAnotherTypeIsNotIt) {
  make("file", "");
  const UniqueFd folder = open_file(directory_.path(), O_RDONLY | O_DIRECTORY).value();
  wire::FileIdentity file = identify_at(folder.get(), "", directory_.path()).value();
  EXPECT_TRUE(is_surely(file, folder.get()));
  file.set_mode((file.mode() & ~std::uint32_t{S_IFMT}) | S_IFREG);
  EXPECT_FALSE(is_surely(file, folder.get()));
}

TEST_F(IdentityTest, OnANetworkTheInodeTellsIfTheFileSystemIsTheSame) {
  const UniqueFd fd = make("file", "text");
  wire::FileIdentity file = identity("file");
  file.clear_birth_ns();
  file.set_mtime_ns(1);
  file.set_filesystem_type(kNfs);  // Here it lies on another one, where inodes mean nothing.
  EXPECT_FALSE(is_surely(file, fd.get()));
}

}  // namespace
}  // namespace migrate
