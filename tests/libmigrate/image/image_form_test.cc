#include "libmigrate/image/image_form.h"

#include <gtest/gtest.h>
#include <limits.h>
#include <signal.h>
#include <sys/resource.h>

#include <functional>

#include "libmigrate/arch/arch.h"
#include "libmigrate/image/only_process.h"

namespace migrate {
namespace {

// A process of one thread with a mapping, a pipe and a descriptor.
wire::Image sound_image() {
  wire::Image image;
  mutable_only_process(image).set_process_id(7);
  mutable_only_process(image).set_working_directory("/");
  mutable_only_process(image).mutable_executable()->set_path("/bin/true");
  wire::Thread& thread = *mutable_only_process(image).add_threads();
  thread.set_id(7);
  thread.set_general_registers(std::string(sizeof(arch::GeneralRegisters), '\0'));
  thread.set_alternate_stack(std::string(sizeof(stack_t), '\0'));
  wire::Mapping& mapping = *mutable_only_process(image).add_mappings();
  mapping.set_start(0x10000);
  mapping.set_end(0x12000);
  image.mutable_objects()->add_pipes()->set_capacity_bytes(4096);
  image.mutable_objects()->add_files()->set_kind(wire::OpenFile::PIPE);
  mutable_only_process(image).add_descriptors();
  mutable_only_process(image).set_signal_actions(std::string(64UL * 32UL, '\0'));
  return image;
}

TEST(ImageForm, AcceptsASoundImage) {
  EXPECT_TRUE(check_form(sound_image(), ImageStage::kFinal));
  EXPECT_TRUE(check_form(sound_image(), ImageStage::kDraft));
}

TEST(ImageForm, ADraftNeedsNoRegisters) {
  wire::Image image = sound_image();
  mutable_only_process(image).mutable_threads(0)->clear_general_registers();
  mutable_only_process(image).mutable_threads(0)->clear_alternate_stack();
  mutable_only_process(image).clear_signal_actions();
  EXPECT_TRUE(check_form(image, ImageStage::kDraft));
  EXPECT_EQ(check_form(image, ImageStage::kFinal).error().code, ErrorCode::kCorrupt);
}

struct Flaw {
  const char* what;
  std::function<void(wire::Image&)> make;
};

void PrintTo(const Flaw& flaw, std::ostream* stream) {
  *stream << flaw.what;
}

class ImageFlaws : public testing::TestWithParam<Flaw> {};

TEST_P(ImageFlaws, AreRefused) {
  wire::Image image = sound_image();
  GetParam().make(image);
  const auto checked = check_form(image, ImageStage::kFinal);
  ASSERT_FALSE(checked);
  EXPECT_EQ(checked.error().code, ErrorCode::kCorrupt);
}

INSTANTIATE_TEST_SUITE_P(
    All, ImageFlaws,
    testing::Values(
        Flaw{"no process", [](auto& image) { image.clear_processes(); }},
        Flaw{"two processes", [](auto& image) { *image.add_processes() = image.processes(0); }},
        Flaw{"no thread", [](auto& image) { mutable_only_process(image).clear_threads(); }},
        Flaw{"another first thread",
             [](auto& image) { mutable_only_process(image).mutable_threads(0)->set_id(8); }},
        Flaw{"two threads of one id",
             [](auto& image) {
               *mutable_only_process(image).add_threads() = only_process(image).threads(0);
             }},
        Flaw{"short registers",
             [](auto& image) {
               mutable_only_process(image).mutable_threads(0)->set_general_registers("x");
             }},
        Flaw{"a signal that is none",
             [](auto& image) {
               mutable_only_process(image).add_pending_signals(
                   std::string(sizeof(siginfo_t), '\0'));
             }},
        Flaw{"63 signal actions",
             [](auto& image) {
               mutable_only_process(image).set_signal_actions(std::string(63UL * 32UL, '\0'));
             }},
        Flaw{"a mapping of the kernel's addresses",
             [](auto& image) {
               mutable_only_process(image).mutable_mappings(0)->set_end(~0xfffULL);
             }},
        Flaw{"a mapping that ends before it starts",
             [](auto& image) { mutable_only_process(image).mutable_mappings(0)->set_end(0x8000); }},
        Flaw{"mappings that overlap",
             [](auto& image) {
               *mutable_only_process(image).add_mappings() = only_process(image).mappings(0);
             }},
        Flaw{"a mapping between pages",
             [](auto& image) {
               mutable_only_process(image).mutable_mappings(0)->set_start(0x10001);
             }},
        Flaw{"advised pages that are none",
             [](auto& image) {
               wire::AdvisedRange& advised = *mutable_only_process(image).add_advised();
               advised.set_start(0x10001);
               advised.set_end(0x12000);
             }},
        Flaw{"advised pages that descend",
             [](auto& image) {
               for (const std::uint64_t start : {0x12000, 0x11000}) {
                 wire::AdvisedRange& advised = *mutable_only_process(image).add_advised();
                 advised.set_start(start);
                 advised.set_end(start + 0x1000);
               }
             }},
        Flaw{"a range of access that is none",
             [](auto& image) {
               wire::AccessRange& access = *mutable_only_process(image).add_access();
               access.set_start(0x11000);
               access.set_end(0x11000);
             }},
        Flaw{"ranges of access that overlap",
             [](auto& image) {
               for (const std::uint64_t start : {0x10000, 0x11000}) {
                 wire::AccessRange& access = *mutable_only_process(image).add_access();
                 access.set_start(start);
                 access.set_end(start + 0x2000);
               }
             }},
        Flaw{"a mapping of no file",
             [](auto& image) {
               mutable_only_process(image).mutable_mappings(0)->set_kind(wire::Mapping::FILE_COPY);
             }},
        Flaw{"a mapping of no shared memory",
             [](auto& image) {
               mutable_only_process(image).mutable_mappings(0)->set_kind(
                   wire::Mapping::SHARED_MEMORY);
             }},
        Flaw{"a descriptor of no file",
             [](auto& image) { mutable_only_process(image).mutable_descriptors(0)->set_file(1); }},
        Flaw{"a file of no pipe",
             [](auto& image) { image.mutable_objects()->mutable_files(0)->set_object(1); }},
        Flaw{"a file of a kind that is none",
             [](auto& image) {
               image.mutable_objects()->mutable_files(0)->set_kind(
                   static_cast<wire::OpenFile::Kind>(99));
             }},
        Flaw{"a timer of a clock that timers cannot have",
             [](auto& image) {
               image.mutable_objects()->mutable_files(0)->set_kind(wire::OpenFile::TIMERFD);
               image.mutable_objects()->mutable_files(0)->set_clock(99);
             }},
        Flaw{"a file of another process's folder in /proc",
             [](auto& image) {
               wire::OpenFile& file = *image.mutable_objects()->mutable_files(0);
               file.set_kind(wire::OpenFile::PROC_FILE);
               file.set_object(1);
               file.mutable_identity()->set_path("/proc/1/environ");
             }},
        Flaw{"a pipe that holds too much",
             [](auto& image) {
               image.mutable_objects()->mutable_pipes(0)->set_content(std::string(4097, 'x'));
             }},
        Flaw{"a path with a zero",
             [](auto& image) {
               mutable_only_process(image).set_working_directory(std::string("/a\0b", 4));
             }},
        Flaw{"a path that is relative",
             [](auto& image) { mutable_only_process(image).set_working_directory("a"); }},
        Flaw{"a starter page that is short", [](auto& image) {
               mutable_only_process(image).add_starter_pages()->set_content("x");
             }}));

// What the kernel would refuse late, or a peer could have us set aside memory for without end.
INSTANTIATE_TEST_SUITE_P(
    Excesses, ImageFlaws,
    testing::Values(
        Flaw{"more limits than there are",
             [](auto& image) {
               for (int i = 0; i <= RLIM_NLIMITS; ++i) {
                 mutable_only_process(image).add_resource_limits();
               }
             }},
        Flaw{"an auxiliary vector without end",
             [](auto& image) {
               mutable_only_process(image).mutable_memory()->set_auxv(std::string(4097, 'x'));
             }},
        Flaw{"an extended state without end",
             [](auto& image) {
               mutable_only_process(image).mutable_threads(0)->set_extended_state(
                   std::string(65537, 'x'));
             }},
        Flaw{"more processors than there can be",
             [](auto& image) {
               mutable_only_process(image).mutable_threads(0)->set_affinity(std::string(4097, 'x'));
             }},
        Flaw{"more groups than a process can have",
             [](auto& image) {
               auto& credentials =
                   *mutable_only_process(image).mutable_threads(0)->mutable_credentials();
               for (int group = 0; group <= NGROUPS_MAX; ++group) {
                 credentials.add_groups(1);
               }
             }},
        Flaw{"a wait of centuries",
             [](auto& image) {
               mutable_only_process(image).mutable_threads(0)->set_wait_remaining_ns(1ULL << 63U);
             }},
        Flaw{"a short alternate stack",
             [](auto& image) {
               mutable_only_process(image).mutable_threads(0)->set_alternate_stack("x");
             }},
        Flaw{"a thread's signal of a wrong size",
             [](auto& image) {
               mutable_only_process(image).mutable_threads(0)->add_pending_signals("x");
             }},
        Flaw{"a fourth interval timer",
             [](auto& image) {
               for (int i = 0; i < 4; ++i) {
                 mutable_only_process(image).add_interval_timers();
               }
             }},
        Flaw{
            "a timer whose number is none",
            [](auto& image) { mutable_only_process(image).add_posix_timers()->set_id(1U << 31U); }},
        Flaw{"more control groups than a process is in",
             [](auto& image) {
               for (int i = 0; i < 65; ++i) {
                 mutable_only_process(image).mutable_control_groups()->add_places("memory:/a");
               }
             }},
        Flaw{"a control group whose name has no end", [](auto& image) {
               mutable_only_process(image).mutable_control_groups()->add_places(
                   std::string(65537, 'x'));
             }}));

INSTANTIATE_TEST_SUITE_P(
    Memory, ImageFlaws,
    testing::Values(
        Flaw{"an offset between pages",
             [](auto& image) { mutable_only_process(image).mutable_mappings(0)->set_offset(1); }},
        Flaw{"a protection that is none",
             [](auto& image) {
               mutable_only_process(image).mutable_mappings(0)->set_protection(1U << 3U);
             }},
        Flaw{"a guard between pages",
             [](auto& image) {
               wire::AddressRange& guard = *mutable_only_process(image).add_guards();
               guard.set_start(0x10001);
               guard.set_end(0x12000);
             }},
        Flaw{"a guard of the kernel's addresses",
             [](auto& image) {
               wire::AddressRange& guard = *mutable_only_process(image).add_guards();
               guard.set_start(0x10000);
               guard.set_end(~0xfffULL);
             }},
        Flaw{"a starter page of the kernel's",
             [](auto& image) {
               wire::StarterPage& page = *mutable_only_process(image).add_starter_pages();
               page.set_address(1ULL << 63U);
               page.set_content(std::string(4096, 'x'));
             }},
        Flaw{"a memory file that would be set-user-id",
             [](auto& image) { image.mutable_objects()->add_shared_memories()->set_mode(04755); }},
        Flaw{"a memory file whose name has a zero",
             [](auto& image) {
               image.mutable_objects()->add_shared_memories()->set_name(std::string("a\0b", 3));
             }},
        Flaw{"a memory file without end",
             [](auto& image) {
               image.mutable_objects()->add_shared_memories()->set_size_bytes(1ULL << 62U);
             }},
        Flaw{"a pipe that would be set-user-id",
             [](auto& image) { image.mutable_objects()->mutable_pipes(0)->set_mode(04755); }},
        Flaw{"a descriptor that is there twice", [](auto& image) {
               *mutable_only_process(image).add_descriptors() = only_process(image).descriptors(0);
             }}));

}  // namespace
}  // namespace migrate
