#!/usr/bin/python3
"""Limits of control groups: a moved process has them at the destination, in a group that goes with
it, and is in its own group again when it has come home."""

import os
import pathlib
import signal
import unittest

import harness
from faithful_test import codes
from harness import DONE, REFUSED, Testbed, wait_until

# Says how many processes it could make, when it is asked.
FORKS = """
import os, sys, time
go, stop = sys.argv[1:]
def wait_for(path):
    while not os.path.exists(path):
        time.sleep(0.005)
print("ready", flush=True)
while not os.path.exists(stop):
    if os.path.exists(go):
        children = []
        try:
            while len(children) < 40:
                pid = os.fork()
                if pid == 0:
                    time.sleep(60)
                    os._exit(0)
                children.append(pid)
        except OSError:
            pass
        for pid in children:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
        os.unlink(go)
        print("made", len(children), flush=True)
    time.sleep(0.005)
print("ok")
sys.exit(42)
"""
LIMIT = 20


def places(pid):
    """The groups of a process, by controllers."""
    lines = pathlib.Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return {line.split(":")[1]: line.split(":", 2)[2] for line in lines}


def directory_of(controller, path):
    return pathlib.Path("/sys/fs/cgroup") / controller / path.lstrip("/")


class GroupsCase(unittest.TestCase):
    arguments = []

    @classmethod
    def setUpClass(cls):
        if "pids" not in places("self"):
            raise unittest.SkipTest("no hierarchy of version 1 for pids is mounted here")
        try:
            cls.testbed = Testbed(2, ["--groups", *cls.arguments])
        except AssertionError as error:
            raise unittest.SkipTest(f"no control groups can be made here: {error}")
        cls.states = {host["name"]: pathlib.Path(host["directory"]) / "state"
                      for host in cls.testbed.hosts()}

    @classmethod
    def tearDownClass(cls):
        cls.testbed.down()

    def start(self, *controllers, prefix=()):
        """A program in a group of its own of each controller, which go at the end of the test."""
        go, stop = (self.testbed.new_path(name) for name in ("go", "stop"))
        process = self.testbed.start("hostA", "setsid", *prefix, "/usr/bin/python3", "-c", FORKS,
                                     go, stop)
        process.go_file, process.stop_file = go, stop
        self.addCleanup(process.kill)
        self.assertTrue(process.wait_ready(), bytes(process.output))
        process.groups = {}
        for controller in controllers:
            group = directory_of(controller, places(process.pid)[controller]) / f"g{process.pid}"
            group.mkdir()
            self.addCleanup(self.remove, group, process)
            process.groups[controller] = group
        return process

    def remove(self, group, process):
        process.kill()
        wait_until(lambda: not (group / "cgroup.procs").read_text())
        group.rmdir()

    def enter(self, process):
        for group in process.groups.values():
            (group / "cgroup.procs").write_text(str(process.pid))

    def limited(self, limit=LIMIT, prefix=()):
        process = self.start("pids", prefix=prefix)
        (process.groups["pids"] / "pids.max").write_text(str(limit))
        self.enter(process)
        return process

    def can_make(self, process):
        """How many children it can have at a time."""
        process.output.clear()
        process.go_file.touch()
        self.assertTrue(wait_until(lambda: process.output.count(b"\n")), self.testbed.logs())
        return int(process.output.split()[1])

    def moves(self, process, destination="hostB", **options):
        outcome = self.testbed.move("hostA", process.pid, destination, **options)
        self.assertEqual(outcome.status, DONE, f"{outcome}\n{self.testbed.logs()}")
        return outcome

    def pid_at(self, host):
        records = self.testbed.control(host, "ps").object["processes"]
        return next(each["pid"] for each in records if each["state"] == "running-here")

    def ends_well(self, process):
        self.assertEqual(harness.finish(process), "", self.testbed.logs())

    def guests(self, host, controller="pids"):
        """The groups that were made for guests at a host."""
        daemon = next(each["daemon_pid"] for each in self.testbed.hosts() if each["name"] == host)
        group = directory_of(controller, places(daemon)[controller])
        return sorted(group.glob("migrate-" + "[0-9a-f]" * 16))


class Carried(GroupsCase):
    def test_there_and_back(self):
        for mode in ("lazy", "eager"):
            with self.subTest(mode=mode):
                process = self.limited()
                at_home = places(process.pid)["pids"]
                self.assertEqual(self.can_make(process), LIMIT - 1)
                moved = self.moves(process, mode=mode)
                self.assertNotIn("CONTROL_GROUP", codes(moved.object["losses"]))
                self.assertEqual(self.can_make(process), LIMIT - 1)
                there = self.guests("hostB")
                self.assertEqual([(each / "pids.max").read_text() for each in there],
                                 [f"{LIMIT}\n"])
                self.assertEqual(places(self.pid_at("hostB"))["pids"].rpartition("/")[2],
                                 there[0].name)
                self.moves(process, "hostA", mode=mode)
                self.assertTrue(wait_until(lambda: not self.guests("hostB")), "left behind")
                self.assertEqual(places(self.pid_at("hostA"))["pids"], at_home)
                self.assertEqual(self.can_make(process), LIMIT - 2)  # The deputy is there, too.
                self.moves(process, "hostB", mode=mode)
                self.assertEqual(self.can_make(process), LIMIT - 1)
                self.ends_well(process)
                self.assertTrue(wait_until(lambda: not self.guests("hostB")), "left behind")

    def test_of_memory_and_processor(self):
        process = self.start("memory", "cpu")
        (process.groups["memory"] / "memory.limit_in_bytes").write_text(str(512 << 20))
        (process.groups["cpu"] / "cpu.cfs_quota_us").write_text("50000")
        (process.groups["cpu"] / "cpu.shares").write_text("512")
        self.enter(process)
        self.moves(process, wait="done")
        memory = self.guests("hostB", "memory")[0]
        processor = self.guests("hostB", "cpu")[0]
        self.assertEqual(int((memory / "memory.limit_in_bytes").read_text()), 512 << 20)
        self.assertEqual((processor / "cpu.cfs_quota_us").read_text(), "50000\n")
        self.assertEqual((processor / "cpu.shares").read_text(), "512\n")
        self.assertGreater(int((memory / "memory.usage_in_bytes").read_text()), 1 << 20)
        self.assertEqual(self.guests("hostB"), [])  # Nobody has limited that.
        self.ends_well(process)
        self.assertTrue(wait_until(lambda: not self.guests("hostB", "memory")), "left behind")

    def test_what_does_not_fit_is_refused(self):
        process = self.start("memory")
        limit = process.groups["memory"] / "memory.limit_in_bytes"
        self.enter(process)
        limit.write_text(str(1 << 20))  # What it had before is counted where it was.
        for words in (["check", process.pid, "--to", "hostB"], ["move", process.pid, "hostB"]):
            outcome = self.testbed.control("hostA", *words)
            self.assertEqual((outcome.status, outcome.codes()), (REFUSED, ["MEMORY"]), outcome)
        self.assertEqual(self.guests("hostB", "memory"), [])
        self.ends_well(process)

    def test_without_limits_there_is_no_group(self):
        process = self.start("pids")
        self.enter(process)
        self.moves(process)
        self.assertEqual(self.guests("hostB"), [])
        self.ends_well(process)

    def test_check_leaves_nothing(self):
        process = self.limited()
        checked = self.testbed.control("hostA", "check", process.pid, "--to", "hostB")
        self.assertEqual(checked.status, DONE, checked)
        self.assertNotIn("CONTROL_GROUP", codes(checked.object["losses"]))
        self.assertEqual(self.guests("hostB"), [])
        self.ends_well(process)

    def test_a_daemon_clears_what_a_crash_left(self):
        process = self.limited()
        self.moves(process, wait="done")
        there = self.guests("hostB")[0]
        empty = there.with_name("migrate-" + "0" * 16)
        empty.mkdir()
        self.testbed.command("restart", "hostB", check=True)
        self.assertEqual(self.guests("hostB"), [there])
        worker = next(each["worker"] for each in
                      self.testbed.control("hostB", "ps").object["processes"])
        os.kill(worker, signal.SIGKILL)
        self.ends_well(process)
        self.assertTrue(wait_until(lambda: not self.guests("hostB")), "left behind")

    def test_other_kinds_are_told(self):
        process = self.start("devices")
        (process.groups["devices"] / "devices.deny").write_text("a")
        (process.groups["devices"] / "devices.allow").write_text("c 1:* rwm")
        self.enter(process)
        checked = self.testbed.control("hostA", "check", process.pid, "--to", "hostB")
        self.assertIn("CONTROL_GROUP", codes(checked.object["losses"]), checked)
        self.ends_well(process)


class Ruled(GroupsCase):
    """Where a rule says below which group."""

    # All programs of hostA, in whatever group they are.
    arguments = ["--daemon-arg=--group-rules=/*=/migrate-rule-test"]

    def setUp(self):
        self.below = directory_of("pids", "/migrate-rule-test")
        try:
            self.below.mkdir(exist_ok=True)
        except OSError as error:
            self.skipTest(f"no control group can be made there: {error}")
        self.addCleanup(self.below.rmdir)

    def test_there(self):
        process = self.limited()
        self.moves(process)
        there = places(self.pid_at("hostB"))["pids"]
        self.assertTrue(there.startswith("/migrate-rule-test/migrate-"), there)
        self.assertEqual(self.can_make(process), LIMIT - 1)
        self.ends_well(process)
        self.assertTrue(wait_until(lambda: not list(self.below.glob("migrate-*"))), "left behind")

    def test_of_a_user_who_may_not_enter_it(self):
        """From a host that may bring no root's processes."""
        self.testbed.command("kill-daemon", "hostB", check=True)
        self.addCleanup(self.testbed.command, "restart", "hostB")
        daemon = self.testbed.start(
            "hostB", "migrated", "--listen", "tcp://10.213.0.2:7070", "--insecure",
            "--allow", "*@*", "--group-rules=/*=/migrate-rule-test")
        self.addCleanup(daemon.kill)
        self.assertTrue(wait_until(lambda: self.testbed.run("hostB", "migratectl", "ps").status
                                   == DONE), bytes(daemon.output))
        for owner, is_ruled in ((0, False), (65534, True)):
            os.chown(self.below / "cgroup.procs", owner, 0)
            process = self.limited(prefix=["setpriv", "--reuid=65534", "--regid=65534",
                                           "--clear-groups"])
            self.moves(process)
            there = places(self.pid_at("hostB"))["pids"]
            self.assertEqual(there.startswith("/migrate-rule-test/"), is_ruled, there)
            self.ends_well(process)
            self.assertTrue(wait_until(lambda: not [
                each for each in self.testbed.control("hostB", "ps").object["processes"]
                if each["state"] == "running-here"]))


class Quotas(unittest.TestCase):
    """Hosts with processors of their own."""

    def test_a_moved_process_has_those_of_the_place_where_it_is(self):
        if "cpu" not in places("self"):
            self.skipTest("no hierarchy of version 1 for processors alone is mounted here")
        testbed = Testbed(2, ["--cpus", "0.25,0.5"])
        self.addCleanup(testbed.down)
        process = testbed.start_keeper("hostA")

        def host_of(pid):
            return places(pid)["cpu"].split("/")[-2:]

        self.assertEqual(host_of(process.pid), [f"testbed-{testbed.name}-hostA", "programs"])
        checked = testbed.control("hostA", "check", process.pid, "--to", "hostB")
        self.assertEqual(checked.status, DONE, checked)
        self.assertNotIn("CONTROL_GROUP", codes(checked.object["losses"]))
        outcome = testbed.move("hostA", process.pid, "hostB", wait="done")
        self.assertEqual(outcome.status, DONE, f"{outcome}\n{testbed.logs()}")
        there = testbed.control("hostB", "ps").object["processes"][0]["pid"]
        # It has taken no quota along, and has none but that of all programs there.
        group, own = host_of(there)
        self.assertEqual(group, f"testbed-{testbed.name}-hostB")
        self.assertRegex(own, "^migrate-[0-9a-f]{16}$")
        self.assertEqual(harness.finish(process), "", testbed.logs())


class Lost(GroupsCase):
    """At a destination that can make none."""

    def setUp(self):
        self.process = self.limited()
        hierarchy = "/sys/fs/cgroup/pids"
        mounted = self.testbed.run("hostB", "mount", "-o", "remount,bind,ro", hierarchy)
        self.assertEqual(mounted.status, 0, mounted)
        self.addCleanup(self.testbed.run, "hostB", "mount", "-o", "remount,bind,rw", hierarchy)

    def test_is_told(self):
        checked = self.testbed.control("hostA", "check", self.process.pid, "--to", "hostB")
        lost = [each for each in checked.object["losses"] if each["code"] == "CONTROL_GROUP"]
        self.assertTrue(any(each["object"] == f"pids.max {LIMIT}" for each in lost), checked)
        strict = self.testbed.control("hostA", "check", self.process.pid, "--to", "hostB",
                                      "--strict")
        self.assertEqual((strict.status, strict.codes()), (REFUSED, ["LOSS"]), strict)
        moved = self.moves(self.process)
        self.assertIn("CONTROL_GROUP", codes(moved.object["losses"]))
        self.assertEqual(self.can_make(self.process), 40)
        self.ends_well(self.process)


class Kept(Lost):
    """The same, of hosts that insist on limits."""

    arguments = ["--daemon-arg=--keep-limits"]

    def test_is_told(self):
        for words in (["check", self.process.pid, "--to", "hostB"],
                      ["move", self.process.pid, "hostB"]):
            outcome = self.testbed.control("hostA", *words)
            self.assertEqual((outcome.status, outcome.codes()), (REFUSED, ["GROUP_LIMITS"]),
                             outcome)
        self.ends_well(self.process)


if __name__ == "__main__":
    harness.main()
