// What the destination compares.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/file.h"
#include "libmigrate/arch/arch.h"
#include "libmigrate/image/only_process.h"
#include "libmigrate/proc/file_identity.h"
#include "libmigrate/proc/proc_text.h"
#include "libmigrate/rules/destination_rules.h"
#include "libmigrate/rules/host_facts.h"
#include "tests/libmigrate/inspect/held_process.h"

namespace migrate {
namespace {

using test::codes;
using test::text;

wire::HostFacts facts() {
  return host_facts().value_or(wire::HostFacts());
}

TEST(ProcText, ParsesMaps) {
  const auto entries = parse_maps(
      "7f00-8000 rw-s 00001000 fe:00 17                 /a b (deleted)\n"
      "Size:     4 kB\nProtectionKey:  3\nVmFlags: rd wr \n9000-a000 ---p 00000000 00:00 0 \n");
  ASSERT_TRUE(entries);
  ASSERT_EQ(entries->size(), 2U);
  EXPECT_EQ((*entries)[0].name, "/a b (deleted)");
  EXPECT_EQ((*entries)[0].offset, 0x1000U);
  EXPECT_EQ((*entries)[0].flags, "rd wr");
  EXPECT_EQ((*entries)[0].protection_key, 3U);
  EXPECT_TRUE((*entries)[0].shared);
  EXPECT_EQ((*entries)[1].name, "");
  EXPECT_FALSE(parse_maps("nonsense\n"));
  EXPECT_FALSE(parse_maps("VmFlags: rd\n"));
}

TEST(HostFacts, AreFilled) {
  const wire::HostFacts own = facts();
  EXPECT_EQ(own.architecture(), "x86_64");
  EXPECT_GT(own.cpu_features_size(), 10);
  const auto state = arch::decode_processor_state(own.processor_state());
  ASSERT_TRUE(state);
  EXPECT_NE(state->components, 0U);
  EXPECT_GE(state->area_bytes, 576U);
  EXPECT_EQ(own.page_bytes(), 4096U);
  EXPECT_EQ(own.boot_id().size(), 36U);
  EXPECT_EQ(own.vdso_sha256().size(), 32U);
}

TEST(DestinationRules, SameHostAccepts) {
  const test::HeldProcess process([] { ::open("/etc/passwd", O_RDONLY); });
  const Inspection inspection = test::inspect(process.pid());
  const auto refusals = check_against_host(inspection.image, facts(), facts());
  EXPECT_TRUE(refusals.empty()) << text(refusals);
}

TEST(DestinationRules, MachineDiffers) {
  wire::HostFacts source = facts();
  source.add_cpu_features("avx9000");
  source.add_cpu_features("amx_more");
  source.add_cpu_features("vmx");
  source.set_processor_state(arch::encode({0, 1U << 20U}));
  source.set_page_bytes(16384);
  source.set_vdso_sha256("other");
  const auto refusals = check_against_host({}, source, facts());
  EXPECT_EQ(refusals.size(), 5U) << text(refusals);
  EXPECT_EQ(codes(refusals), (std::set<std::string>{"CPU_FEATURE", "XSAVE", "PAGE_SIZE", "VDSO"}));
  source.set_architecture("aarch64");
  EXPECT_EQ(codes(check_against_host({}, source, facts())), std::set<std::string>{"ARCH"});
}

class FileRules : public testing::Test {
 protected:
  void SetUp() override { std::ofstream(path_) << "content"; }
  void TearDown() override { ::unlink(path_.c_str()); }

  wire::FileIdentity identity(bool with_content) const {
    auto found = identify_at(AT_FDCWD, path_, path_).value_or(wire::FileIdentity());
    if (with_content) {
      const auto file = open_file(path_, O_RDONLY);
      EXPECT_TRUE(file && add_content_identity(file->get(), 100, found));
    }
    return found;
  }

  std::set<std::string> codes_for(const wire::Image& image, bool same_boot) const {
    wire::HostFacts source = facts();
    if (!same_boot) {
      source.set_boot_id("another");
    }
    return codes(check_against_host(image, source, facts()));
  }

  static wire::Image mapped(const wire::FileIdentity& file) {
    wire::Image image;
    *image.mutable_objects()->add_mapped_files() = file;
    mutable_only_process(image).add_mappings()->set_kind(wire::Mapping::FILE_LOCAL);
    return image;
  }
  static wire::Image opened(const wire::FileIdentity& file, std::uint32_t flags) {
    wire::Image image;
    *image.mutable_objects()->add_files()->mutable_identity() = file;
    image.mutable_objects()->mutable_files(0)->set_flags(flags);
    mutable_only_process(image).add_descriptors()->set_number(5);
    return image;
  }

  std::string path_ =
      std::filesystem::temp_directory_path() / ("rules_test_file_" + std::to_string(::getpid()));
};

TEST_F(FileRules, MappedFilesCompareByContent) {
  wire::FileIdentity file = identity(true);
  EXPECT_TRUE(codes_for(mapped(file), true).empty());
  EXPECT_TRUE(codes_for(mapped(file), false).empty());
  file.set_inode(file.inode() + 1);
  EXPECT_TRUE(codes_for(mapped(file), true).empty()) << "another inode, the same content";
  file.set_sha256("other");
  EXPECT_EQ(codes_for(mapped(file), true), std::set<std::string>{"FILE_DIFFERS"});
  file.clear_sha256();
  EXPECT_EQ(codes_for(mapped(file), true), std::set<std::string>{"FILE_DIFFERS"});
  file.set_path("/nowhere");
  EXPECT_EQ(codes_for(mapped(file), true), std::set<std::string>{"FILE_MISSING"});
}

TEST_F(FileRules, OpenFilesMustBeTheSame) {
  wire::FileIdentity file = identity(true);
  EXPECT_TRUE(codes_for(opened(file, O_RDWR), true).empty());
  EXPECT_EQ(codes_for(opened(file, O_RDWR), false), std::set<std::string>{"FILE_DIFFERS"});
  EXPECT_TRUE(codes_for(opened(file, O_RDONLY), false).empty());
  EXPECT_EQ(codes_for(opened(identity(false), O_RDONLY), false),
            std::set<std::string>{"FILE_DIFFERS"});
  file.set_inode(file.inode() + 1);
  EXPECT_EQ(codes_for(opened(file, O_RDONLY), true), std::set<std::string>{"FILE_DIFFERS"});
  wire::FileIdentity changed = identity(true);
  changed.set_mtime_ns(changed.mtime_ns() - 1);
  EXPECT_EQ(codes_for(opened(changed, O_RDONLY), false), std::set<std::string>{"FILE_DIFFERS"});
}

TEST(FileIdentity, BuildIdOfOurselves) {
  const auto file = open_file("/proc/self/exe", O_RDONLY);
  ASSERT_TRUE(file);
  const auto build_id = read_build_id(file->get());
  ASSERT_TRUE(build_id);
  EXPECT_TRUE(build_id->empty() || build_id->size() == 20U);
  EXPECT_EQ(filesystem_class(0xEF53), FilesystemClass::kLocal);
  EXPECT_EQ(filesystem_class(0x6969), FilesystemClass::kNetwork);
  EXPECT_EQ(filesystem_class(0x9fa0), FilesystemClass::kKernel);
  EXPECT_EQ(filesystem_class(0x1234567), FilesystemClass::kUnknown);
}

}  // namespace
}  // namespace migrate
