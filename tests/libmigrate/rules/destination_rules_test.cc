// What the destination compares.
#include "libmigrate/rules/destination_rules.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <thread>

#include "base/file.h"
#include "libmigrate/arch/arch.h"
#include "libmigrate/image/only_process.h"
#include "libmigrate/proc/file_identity.h"
#include "libmigrate/rules/host_facts.h"
#include "tests/libmigrate/inspect/held_process.h"

namespace migrate {
namespace {

using test::codes;
using test::text;

wire::HostFacts facts() {
  return host_facts().value_or(wire::HostFacts());
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

  // The same inode of the same kernel is the same file, whatever is said of its content.
  wire::FileIdentity identity_of_another() const {
    wire::FileIdentity found = identity(true);
    found.set_inode(found.inode() + 1);
    found.set_sha256("other");
    return found;
  }

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

// Whoever writes to a file, or sees what others write, must have the very one.
TEST_F(FileRules, FilesThatAreSharedMustBeTheSameIfTheyAreWritten) {
  wire::FileIdentity file = identity(true);
  const auto shared = [&](std::uint32_t protection) {
    wire::Image image = mapped(file);
    mutable_only_process(image).mutable_mappings(0)->set_kind(wire::Mapping::SHARED_FILE);
    mutable_only_process(image).mutable_mappings(0)->set_protection(protection);
    return image;
  };
  EXPECT_TRUE(codes_for(shared(PROT_READ | PROT_WRITE), true).empty());
  EXPECT_EQ(codes_for(shared(PROT_READ | PROT_WRITE), false),
            std::set<std::string>{"FILE_DIFFERS"});
  EXPECT_TRUE(codes_for(shared(PROT_READ), false).empty());
}

TEST_F(FileRules, FilesOfNoMappingDoNotCount) {
  wire::Image image = mapped(identity_of_another());
  mutable_only_process(image).clear_mappings();
  EXPECT_TRUE(codes_for(image, true).empty());
}

TEST_F(FileRules, TheExecutableIsComparedOnceUnlessItIsNotLookedFor) {
  const wire::FileIdentity file = identity_of_another();
  wire::Image image = mapped(file);
  *mutable_only_process(image).mutable_executable() = file;
  const auto refusals = check_against_host(image, facts(), facts());
  ASSERT_EQ(refusals.size(), 1U) << text(refusals);
  EXPECT_EQ(refusals[0].object(), "executable " + path_);
  mutable_only_process(image).set_without_executable(true);
  mutable_only_process(image).clear_mappings();
  EXPECT_TRUE(codes_for(image, true).empty());
}

TEST_F(FileRules, ARefusalTellsHowTheFilesDiffer) {
  wire::FileIdentity file = identity_of_another();
  const auto reason = [&] {
    const auto refusals = check_against_host(mapped(file), facts(), facts());
    return refusals.empty() ? std::string() : refusals[0].reason();
  };
  EXPECT_NE(reason().find("its content is not the same"), std::string::npos) << reason();
  file.set_size_bytes(8);
  EXPECT_NE(reason().find("8 bytes there, 7 here"), std::string::npos) << reason();
  file.clear_sha256();
  EXPECT_NE(reason().find("neither"), std::string::npos) << reason();
}

TEST_F(FileRules, AnOpenFileIsComparedOnceHoweverManyDescriptorsItHas) {
  wire::FileIdentity file = identity(true);
  file.set_path("/nowhere");
  wire::Image image = opened(file, O_RDWR);
  mutable_only_process(image).add_descriptors()->set_number(9);
  const auto refusals = check_against_host(image, facts(), facts());
  ASSERT_EQ(refusals.size(), 1U) << text(refusals);
  EXPECT_EQ(refusals[0].object(), "descriptor 5 -> /nowhere");
}

TEST_F(FileRules, WhatIsMissingIsToldByItsIndex) {
  const wire::FileIdentity here = identity(true);
  const wire::FileIdentity other = identity_of_another();
  wire::Image image;
  *mutable_only_process(image).mutable_executable() = here;
  for (const auto& [file, kind] :
       {std::pair(here, wire::Mapping::FILE_LOCAL), std::pair(other, wire::Mapping::FILE_COPY),
        std::pair(other, wire::Mapping::SHARED_FILE)}) {
    wire::Mapping& mapping = *mutable_only_process(image).add_mappings();
    mapping.set_kind(kind);
    mapping.set_file(static_cast<std::uint32_t>(image.objects().mapped_files_size()));
    *image.mutable_objects()->add_mapped_files() = file;
  }
  const auto everybody = [](const wire::FileIdentity&) { return true; };
  MissingFiles missing = find_missing_files(image, true, everybody);
  EXPECT_EQ(missing.mapped, (std::vector<std::uint32_t>{1, 2}));
  EXPECT_FALSE(missing.executable);

  // What its user may not open is as good as not there.
  missing = find_missing_files(image, true, [](const wire::FileIdentity&) { return false; });
  EXPECT_EQ(missing.mapped, (std::vector<std::uint32_t>{0, 1, 2}));
  EXPECT_TRUE(missing.executable);
  mutable_only_process(image).set_without_executable(true);
  EXPECT_FALSE(find_missing_files(image, true, [](const auto&) { return false; }).executable);
}

TEST(DestinationRules, AWorkingDirectoryMustBeOne) {
  const auto found = [](const char* directory) {
    wire::Image image;
    mutable_only_process(image).set_working_directory(directory);
    return codes(check_against_host(image, facts(), facts()));
  };
  EXPECT_TRUE(found("/").empty());
  EXPECT_EQ(found("/nowhere"), std::set<std::string>{"FILE_MISSING"});
  EXPECT_EQ(found("/etc/passwd"), std::set<std::string>{"FILE_MISSING"});
}

TEST(DestinationRules, MemoryMustBeThere) {
  constexpr std::uint64_t kMebibyte = std::uint64_t{1} << 20U;
  EXPECT_TRUE(check_memory(kMebibyte, kMebibyte).empty());
  const auto refusals = check_memory(3 * kMebibyte, 2 * kMebibyte);
  ASSERT_EQ(refusals.size(), 1U);
  EXPECT_EQ(refusals[0].code(), "MEMORY");
  EXPECT_EQ(refusals[0].object(), "3 MiB");
  EXPECT_NE(refusals[0].reason().find("2 MiB available"), std::string::npos);
}

TEST(DestinationRules, SchedulingThatThisDaemonMayNotSetIsRefused) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, 2> before{};
  ASSERT_EQ(::syscall(SYS_capget, &header, before.data()), 0);
  wire::Image image;
  wire::Thread& thread = *mutable_only_process(image).add_threads();
  thread.set_affinity(std::string(128, '\xff'));
  const auto refused = [&] { return codes(check_against_host(image, facts(), facts())); };
  const std::set<std::string> kRights{"SCHEDULING_RIGHTS"};
  const std::set<std::string> kNothing;
  const bool may = (before[0].permitted & (1U << CAP_SYS_NICE)) != 0;
  thread.set_policy(SCHED_FIFO);
  EXPECT_EQ(refused(), may ? kNothing : kRights);
  std::set<std::string> raised;
  std::set<std::string> common;
  std::set<std::string> of_root;
  std::set<std::string> of_user;
  std::thread([&] {  // Capabilities are a thread's own.
    std::array<__user_cap_data_struct, 2> fewer = before;
    fewer[0].permitted &= ~(1U << CAP_SYS_NICE);
    fewer[0].effective &= fewer[0].permitted;
    ASSERT_EQ(::syscall(SYS_capset, &header, fewer.data()), 0);
    raised = refused();
    thread.set_policy(SCHED_OTHER);
    common = refused();
    thread.set_nice(10);
    of_root = refused();
    thread.mutable_credentials()->set_uid_effective(64001);
    of_user = refused();
  })
      .join();
  EXPECT_EQ(raised, kRights);
  EXPECT_EQ(common, kNothing);
  EXPECT_EQ(of_root, kNothing);
  EXPECT_EQ(of_user, kRights);
}

TEST(DestinationRules, CapabilitiesThatThisDaemonHasNotAreRefused) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, 2> before{};
  ASSERT_EQ(::syscall(SYS_capget, &header, before.data()), 0);
  const std::uint64_t own = before[0].permitted | (std::uint64_t{before[1].permitted} << 32U);
  constexpr std::uint64_t kUnknown = std::uint64_t{1} << 62U;  // No kernel has so many.
  wire::Image image;
  wire::Credentials& wanted = *mutable_only_process(image).add_threads()->mutable_credentials();
  const auto refused = [&] { return codes(check_against_host(image, facts(), facts())); };
  wanted.set_capabilities_permitted(own);
  EXPECT_FALSE(refused().contains("CAPABILITIES"));
  wanted.set_capabilities_permitted(own | kUnknown);
  EXPECT_TRUE(refused().contains("CAPABILITIES"));
  wanted.set_capabilities_permitted(own);
  wanted.set_capabilities_bounding(kUnknown);  // It can only become smaller.
  EXPECT_FALSE(refused().contains("CAPABILITIES"));
}

TEST(DestinationRules, AFeatureThatNoProgramUsesIsNotMissed) {
  wire::HostFacts source = facts();
  source.add_cpu_features("vmx");
  EXPECT_TRUE(check_against_host({}, source, facts()).empty());
}

}  // namespace
}  // namespace migrate
