#include "libmigrate/inspect/internal/process_facts.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <time.h>

#include <csignal>
#include <string>

#include "base/file.h"
#include "tests/libmigrate/inspect/fake_process.h"

namespace migrate::inspect {
namespace {

constexpr pid_t kPid = FakeProcess::kPid;
constexpr pid_t kOther = FakeProcess::kOther;

class ReadThreads : public testing::Test {
 protected:
  void add(pid_t thread, const std::string& ids) {
    process_.write_of(thread, "status", "Name:\tx\nNSpid:\t" + ids + "\n");
  }
  Result<ThreadIds> read(const ThreadIds& known = {}) {
    return read_threads(process_.view(), known);
  }

  FakeProcess process_;
};

TEST_F(ReadThreads, GivesTheInnermostIdsLeaderFirst) {
  add(3, "3\t2");
  add(kPid, "7\t1");
  EXPECT_EQ(read().value(), (ThreadIds{{kPid, 1}, {3, 2}}));
}

TEST_F(ReadThreads, OneThatIsEndingIsNoThreadAnyMore) {
  add(kPid, "7\t1");
  add(8, "0\t0");
  EXPECT_EQ(read().value(), (ThreadIds{{kPid, 1}}));
}

TEST_F(ReadThreads, WithoutItsLeaderThereIsNoProcess) {
  add(kPid, "0\t0");
  add(8, "8\t2");
  EXPECT_EQ(read().error().code, ErrorCode::kNotFound);
}

TEST_F(ReadThreads, OneThatIsKnownIsNotAskedAgain) {
  add(kPid, "7\t1");
  add(8, "8\t2");
  EXPECT_EQ(read({{8, 5}, {9, 6}}).value(), (ThreadIds{{kPid, 1}, {8, 5}}));
}

class ProcessFacts : public testing::Test {
 protected:
  ProcessFacts() {
    process_.write("timers", "");
    process_.write("stat",
                   "7 (a) b) S 1 2 3 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 5 0 0 0 101 102 103 0 0 "
                   "0 0 0 0 0 0 0 0 0 0 0 0 0 0 104 105 106 107 108 109 110 0\n");
    process_.write("oom_score_adj", "0\n");
    process_.write("limits", read_file("/proc/self/limits").value());
    process_.link("cwd", "/");
  }

  Result<void> read_facts(const ThreadIds& threads = {}) {
    image_ = {};
    refusals_.clear();
    return read_process_facts(process_.view(), threads, image_, refusals_);
  }
  /// What a draft has is not looked at.
  Result<void> read_surroundings_again() {
    image_ = {};
    refusals_.clear();
    return read_surroundings(process_.view(), &draft_, image_, refusals_);
  }
  Result<void> read_all_surroundings() {
    image_ = {};
    refusals_.clear();
    process_.write("auxv", std::string(16, '\0'));
    process_.write("personality", "00040000\n");
    return read_surroundings(process_.view(), nullptr, image_, refusals_);
  }

  FakeProcess process_;
  wire::ProcessImage draft_;
  wire::ProcessImage image_;
  Refusals refusals_;
};

TEST_F(ProcessFacts, IdsAreThoseOfTheInnermostNamespace) {
  process_.view().status_text =
      "Umask:\t0027\nNSpid:\t900\t12\nNSpgid:\t901\t13\nNSsid:\t902\t14\nTHP_enabled:\t0\n";
  ASSERT_TRUE(read_facts());
  EXPECT_EQ(image_.process_id(), 12U);
  EXPECT_EQ(image_.umask(), 027U);
  EXPECT_EQ(image_.thp_disabled(), 1U);
  process_.view().status_text = "";  // A kernel without these lines.
  ASSERT_TRUE(read_facts());
  EXPECT_EQ(image_.thp_disabled(), 0U);
  EXPECT_EQ(image_.umask(), 0U);
}

TEST_F(ProcessFacts, TimersAreReadBlockByBlock) {
  process_.write("timers",
                 "ID: 3\nsignal: 34/00007f00dead0010\nnotify: signal/tid.5000002\nClockID: 1\n"
                 "ID: 4\nsignal: 14/0\nnotify: none/pid.7\nClockID: -6\n"
                 "ID: 9\nsignal: 10/ff\nnotify: thread/pid.7\nClockID: 0\n");
  ASSERT_TRUE(read_facts({{kPid, 1}, {kOther, 2}}));
  ASSERT_EQ(image_.posix_timers_size(), 3);
  const wire::PosixTimer& of_thread = image_.posix_timers(0);
  EXPECT_EQ(of_thread.id(), 3U);
  EXPECT_EQ(of_thread.signal(), 34);
  EXPECT_EQ(of_thread.signal_value(), 0x7f00dead0010U);
  EXPECT_EQ(of_thread.notify(), SIGEV_SIGNAL | SIGEV_THREAD_ID);
  EXPECT_EQ(of_thread.thread(), 2U);
  EXPECT_EQ(of_thread.clock(), CLOCK_MONOTONIC);
  EXPECT_EQ(image_.posix_timers(1).notify(), SIGEV_NONE);
  EXPECT_EQ(image_.posix_timers(1).clock(), -6);
  EXPECT_EQ(image_.posix_timers(2).notify(), SIGEV_THREAD);
  EXPECT_EQ(image_.posix_timers(2).thread(), 0U);
}

TEST_F(ProcessFacts, OddTimersHarmNobody) {
  process_.write("timers",
                 "signal: 14/1\nClockID: 1\n\nID:\nsignal:\nnotify:\nClockID:\nfuture: 1\n");
  ASSERT_TRUE(read_facts());
  ASSERT_EQ(image_.posix_timers_size(), 1);  // What comes before the first is of none.
  EXPECT_EQ(image_.posix_timers(0).signal(), 0);
  EXPECT_EQ(image_.posix_timers(0).signal_value(), 0U);
}

TEST_F(ProcessFacts, MoreTimersThanFitAreRefused) {
  std::string text;
  for (int i = 0; i < 513; ++i) {
    text += "ID: " + std::to_string(i) + "\n";
  }
  process_.write("timers", text);
  ASSERT_TRUE(read_facts());
  expect_refused(refusals_, "TIMERS", "513 timers; at most 512");
}

TEST_F(ProcessFacts, AKernelThatHidesTimersIsAReason) {
  std::filesystem::remove(process_.folder() + "/timers");
  ASSERT_TRUE(read_facts());
  expect_refused(refusals_, "TIMERS_HIDDEN", "pid " + std::to_string(kPid));
}

TEST_F(ProcessFacts, PlacesOfMemoryAreReadBehindAnyName) {
  ASSERT_TRUE(read_surroundings_again());
  EXPECT_EQ(lines_of(refusals_), "");
  const wire::MemoryMap& memory = image_.memory();
  EXPECT_EQ(memory.start_code(), 101U);
  EXPECT_EQ(memory.end_code(), 102U);
  EXPECT_EQ(memory.start_stack(), 103U);
  EXPECT_EQ(memory.start_data(), 104U);
  EXPECT_EQ(memory.end_data(), 105U);
  EXPECT_EQ(memory.start_brk(), 106U);
  EXPECT_EQ(memory.arg_start(), 107U);
  EXPECT_EQ(memory.env_end(), 110U);
  EXPECT_EQ(memory.brk(), 0U);  // Which only the process itself can tell.
  EXPECT_EQ(image_.working_directory(), "/");
  process_.write("stat", "7 (a) S 1\n");  // Cut off: nothing is made of it.
  ASSERT_TRUE(read_surroundings_again());
  EXPECT_EQ(image_.memory().start_code(), 0U);
}

TEST_F(ProcessFacts, TheBreakIsAtMostTheEndOfTheHeap) {
  process_.link("exe", "/proc/self/exe");
  ASSERT_TRUE(read_all_surroundings());
  EXPECT_EQ(image_.memory().brk(), 106U);
  image_ = {};
  wire::Mapping& heap = *image_.add_mappings();
  heap.set_name("[heap]");
  heap.set_end(4096);
  ASSERT_TRUE(read_surroundings(process_.view(), nullptr, image_, refusals_));
  EXPECT_EQ(image_.memory().brk(), 4096U);
  EXPECT_EQ(image_.personality(), 0x40000U);
  EXPECT_EQ(image_.memory().auxv().size(), 16U);
}

TEST_F(ProcessFacts, NumbersMayBeBelowZero) {
  process_.write("oom_score_adj", "-1000\n");
  process_.write("autogroup", "/autogroup-17 nice -3\n");
  process_.write("coredump_filter", "00000033\n");
  process_.write("loginuid", "1000");
  ASSERT_TRUE(read_surroundings_again());
  EXPECT_EQ(image_.oom_score_adjust(), -1000);
  EXPECT_EQ(image_.autogroup_nice(), -3);
  EXPECT_EQ(image_.coredump_filter(), 0x33U);
  EXPECT_EQ(image_.login_user(), 1000U);
  process_.write("oom_score_adj", "17\n");
  process_.write("autogroup", "/autogroup-17 nice 4\n");
  process_.write("loginuid", "4294967295");  // Nobody has logged in.
  ASSERT_TRUE(read_surroundings_again());
  EXPECT_EQ(image_.oom_score_adjust(), 17);
  EXPECT_EQ(image_.autogroup_nice(), 4);
  EXPECT_FALSE(image_.has_login_user());
  std::filesystem::remove(process_.folder() + "/oom_score_adj");
  EXPECT_EQ(read_surroundings_again().error().code, ErrorCode::kNotFound);
}

TEST_F(ProcessFacts, LimitsAreThoseThatTheSystemCallGives) {
  ASSERT_TRUE(read_surroundings_again());
  ASSERT_EQ(image_.resource_limits_size(), RLIM_NLIMITS);
  for (int resource = 0; resource < RLIM_NLIMITS; ++resource) {
    rlimit own{};
    ASSERT_EQ(::getrlimit(static_cast<__rlimit_resource>(resource), &own), 0);
    EXPECT_EQ(image_.resource_limits(resource).soft(), own.rlim_cur) << resource;
    EXPECT_EQ(image_.resource_limits(resource).hard(), own.rlim_max) << resource;
  }
}

TEST_F(ProcessFacts, ALimitThatIsNotKnownIsRefused) {
  const std::string limits = read_file("/proc/self/limits").value();
  process_.write("limits", limits + "Max of tomorrow           1                    2\n");
  ASSERT_TRUE(read_surroundings_again());
  expect_refused(refusals_, "UNKNOWN_ATTRIBUTE", "Max of tomorrow");
  std::string other = limits;
  other.replace(other.find("Max open files"), 14, "Max shut files");
  process_.write("limits", other);
  ASSERT_TRUE(read_surroundings_again());
  expect_refused(refusals_, "UNKNOWN_ATTRIBUTE", "Max shut files");
  process_.write("limits", limits.substr(0, limits.find("Max realtime timeout")));
  EXPECT_EQ(read_surroundings_again().error().code, ErrorCode::kCorrupt);
  process_.write("limits", "");
  EXPECT_EQ(read_surroundings_again().error().code, ErrorCode::kCorrupt);
}

TEST_F(ProcessFacts, AWorkingDirectoryThatItsPathDoesNotLeadToIsRefused) {
  process_.link("cwd", process_.folder() + "/gone");
  ASSERT_TRUE(read_surroundings_again());
  expect_refused(refusals_, "DELETED_FILE", "working directory " + process_.folder() + "/gone");
  process_.link("cwd", process_.folder());
  ASSERT_TRUE(read_surroundings_again());
  EXPECT_EQ(lines_of(refusals_), "");
  EXPECT_EQ(image_.working_directory(), process_.folder());
}

TEST_F(ProcessFacts, OfADraftTheProgramIsKept) {
  draft_.set_personality(0x40000);
  draft_.mutable_executable()->set_path("/bin/a");
  draft_.set_without_executable(true);
  draft_.mutable_memory()->set_auxv("aux");
  ASSERT_TRUE(read_surroundings_again());
  EXPECT_EQ(image_.personality(), 0x40000U);
  EXPECT_EQ(image_.executable().path(), "/bin/a");
  EXPECT_TRUE(image_.without_executable());
  EXPECT_EQ(image_.memory().auxv(), "aux");
}

TEST_F(ProcessFacts, AProgramOfAnotherKindIsRefused) {
  process_.write("program", "#!/bin/sh\n" + std::string(100, ' '));
  const std::string path = process_.folder() + "/program";
  process_.link("exe", path);
  ASSERT_TRUE(read_all_surroundings());
  expect_refused(refusals_, "ARCH", "executable " + path);
  process_.write("program",
                 "\x7f"
                 "ELF");  // Torn.
  ASSERT_TRUE(read_all_surroundings());
  expect_refused(refusals_, "ARCH", "executable " + path);
  EXPECT_EQ(image_.executable().path(), path);
  process_.link("exe", process_.folder() + "/gone");
  ASSERT_TRUE(read_all_surroundings());
  expect_refused(refusals_, "DELETED_FILE", "executable");
}

TEST_F(ProcessFacts, CredentialsAreTheLeadersOwnAndOthersOfTheDraft) {
  const std::string status =
      "Uid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t10 20 30 \nCapInh:\t0000000000000001\n"
      "CapPrm:\t00000000000000ff\nCapEff:\t0000000000000002\nCapBnd:\t000001ffffffffff\n"
      "CapAmb:\t0000000000000000\nNoNewPrivs:\t1\n";
  process_.view().status_text = status;
  process_.write_of(kPid, "comm", "leader\n");
  process_.write_of(kOther, "comm", "a b\n");
  process_.write_of(kOther, "status", "Uid:\t9\t9\t9\t9\n");
  const ThreadIds threads{{kPid, 1}, {kOther, 2}};
  read_thread_facts(process_.view(), threads, nullptr, image_, refusals_);
  ASSERT_EQ(image_.threads_size(), 2);
  EXPECT_EQ(image_.name(), "leader");
  EXPECT_EQ(image_.threads(1).name(), "a b");
  const wire::Credentials& leader = image_.threads(0).credentials();
  EXPECT_EQ(leader.uid_real(), 1U);
  EXPECT_EQ(leader.uid_filesystem(), 4U);
  EXPECT_EQ(leader.gid_effective(), 6U);
  ASSERT_EQ(leader.groups_size(), 3);
  EXPECT_EQ(leader.groups(2), 30U);
  EXPECT_EQ(leader.capabilities_permitted(), 0xffU);
  EXPECT_EQ(leader.capabilities_bounding(), 0x1ffffffffffU);
  EXPECT_TRUE(leader.no_new_privileges());
  EXPECT_EQ(image_.threads(1).credentials().uid_real(), 9U);
  wire::ProcessImage draft = image_;
  draft.mutable_threads(1)->set_timer_slack_ns(77);
  process_.view().status_text = "Uid:\t0\t0\t0\t0\n";
  process_.write_of(kOther, "status", "Uid:\t8\t8\t8\t8\n");
  wire::ProcessImage again;
  read_thread_facts(process_.view(), threads, &draft, again, refusals_);
  EXPECT_EQ(again.threads(0).credentials().uid_real(), 0U);
  EXPECT_EQ(again.threads(1).credentials().uid_real(), 9U);
  EXPECT_EQ(again.threads(1).timer_slack_ns(), 77U);
}

TEST_F(ProcessFacts, ControlGroupsAreThoseOfItsHomeWhileItsPlacesAreOurs) {
  Findings findings;
  process_.write("cgroup", "4:memory:/none/such\n2:cpu:/\n0::/none/such2\n");
  read_control_groups(process_.view(), findings, image_);
  ASSERT_EQ(image_.control_groups().places_size(), 2);  // The root group is nobody's choice.
  EXPECT_EQ(image_.control_groups().places(0), "memory:/none/such");
  EXPECT_EQ(image_.control_groups().places(1), ":/none/such2");
  process_.view().known.group_places = findings.groups_text;
  process_.view().known.home_groups.set_origin("home");
  image_ = {};
  read_control_groups(process_.view(), findings, image_);
  EXPECT_EQ(image_.control_groups().origin(), "home");
  EXPECT_EQ(image_.control_groups().places_size(), 0);
  process_.write("cgroup", "0::/moved\n");  // Somebody has put it elsewhere since.
  image_ = {};
  read_control_groups(process_.view(), findings, image_);
  EXPECT_NE(image_.control_groups().origin(), "home");
  EXPECT_EQ(image_.control_groups().places(0), ":/moved");
}

class ProcessChecks : public testing::Test {
 protected:
  ProcessChecks() { process_.write("attr/current", ""); }

  Refusals of_process(bool frozen = false) {
    Refusals refusals;
    check_process(process_.view(), frozen, refusals);
    std::erase_if(refusals, [](const auto& each) { return each.code() == "SECURITY_LABEL"; });
    return refusals;
  }
  Refusals of_leader(const std::string& status, bool frozen = false) {
    process_.view().status_text = status;
    Refusals refusals;
    check_threads(process_.view(), {{kPid, 1}}, frozen, refusals);
    return refusals;
  }

  FakeProcess process_;
};

TEST_F(ProcessChecks, ANamespaceOfItsOwnIsRefusedUnlessWeMadeIt) {
  process_.view().own_namespaces = {{"net", "net:[1]"}, {"uts", "uts:[2]"}};
  process_.link("ns/net", "net:[9]");
  process_.link("ns/uts", "uts:[2]");
  expect_refused(of_process(), "NAMESPACE", "net namespace net:[9]");
  process_.view().known.own_namespaces = {"net:[9]"};
  EXPECT_EQ(lines_of(of_process()), "");
}

TEST_F(ProcessChecks, APidNamespaceWithoutAProcessIsRefused) {
  process_.view().own_namespaces = {{"pid", "pid:[1]"}, {"pid_for_children", "pid:[1]"}};
  process_.link("ns/pid", "pid:[1]");
  expect_refused(of_process(), "NAMESPACE", "in which no process is yet");
  process_.link("ns/pid_for_children", "pid:[1]");
  EXPECT_EQ(lines_of(of_process()), "");
}

TEST_F(ProcessChecks, AnotherRootIsRefused) {
  process_.view().root = open_file(process_.folder(), O_PATH | O_DIRECTORY).value();
  process_.link("root", "/jail");
  expect_refused(of_process(), "CHROOT", "root directory /jail");
}

TEST_F(ProcessChecks, ATracerIsAReasonUnlessItIsOurs) {
  process_.view().status_text = "TracerPid:\t44\n";
  expect_refused(of_process(), "TRACED", "by pid 44");
  EXPECT_EQ(lines_of(of_process(true)), "");
  process_.view().status_text = "TracerPid:\t0\n";
  EXPECT_EQ(lines_of(of_process()), "");
}

TEST_F(ProcessChecks, WhatStatusShowsOfAThreadThatIsNotCarriedIsRefused) {
  EXPECT_EQ(lines_of(of_leader("State:\tS (sleeping)\nSeccomp:\t0\nSeccomp_filters:\t0\n")), "");
  expect_refused(of_leader("State:\tS\nSeccomp:\t1\n"), "SECCOMP", "strict mode");
  expect_refused(of_leader("State:\tS\nSeccomp:\t2\nSeccomp_filters:\t3\n"), "SECCOMP",
                 "3 filters");
  expect_refused(of_leader("State:\tS\nSpeculation_Store_Bypass:\tthread force mitigated\n"),
                 "UNKNOWN_ATTRIBUTE", "Speculation_Store_Bypass: thread force mitigated");
  EXPECT_EQ(lines_of(of_leader("State:\tS\nSpeculation_Store_Bypass:\tthread mitigated\n")), "");
  expect_refused(of_leader("State:\tS\nSpeculationIndirectBranch:\talways force disabled\n"),
                 "UNKNOWN_ATTRIBUTE", "SpeculationIndirectBranch");
}

TEST_F(ProcessChecks, WhoeverIsStoppedOrHasEndedIsRefused) {
  expect_refused(of_leader("State:\tT (stopped)\n"), "STOPPED", std::to_string(kPid));
  expect_refused(of_leader("State:\tZ (zombie)\n"), "ZOMBIE", "thread");
  expect_refused(of_leader("State:\tX (dead)\n"), "ZOMBIE", "thread");
  EXPECT_EQ(lines_of(of_leader("State:\tt (tracing stop)\n", true)), "");
  EXPECT_EQ(lines_of(of_leader("State:\tD (disk sleep)\n")), "");
}

TEST_F(ProcessChecks, OtherThreadsAreLookedAtWhileTheyRun) {
  process_.view().status_text = "State:\tS\n";
  process_.write_of(kOther, "status", "State:\tS\nSeccomp:\t1\n");
  process_.link("ns/net", "net:[1]");
  process_.link("task/" + std::to_string(kOther) + "/ns/net", "net:[1]");
  const auto check = [&](bool frozen) {
    Refusals refusals;
    check_threads(process_.view(), {{kPid, 1}, {kOther, 2}}, frozen, refusals);
    return refusals;
  };
  expect_refused(check(false), "SECCOMP", "thread " + std::to_string(kOther));
  EXPECT_EQ(lines_of(check(true)), "");                // As the draft had it.
  process_.write_of(kOther, "status", "State:\tT\n");  // Only the process as a whole stops.
  EXPECT_EQ(lines_of(check(false)), "");
  process_.link("task/" + std::to_string(kOther) + "/ns/net", "net:[5]");
  expect_refused(check(false), "NAMESPACE", "net:[5]");
}

}  // namespace
}  // namespace migrate::inspect
