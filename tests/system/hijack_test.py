#!/usr/bin/python3
"""The memory of a process is its user's, also while we hold it and run scripts in it: he may make
it run another program, which has rights that he does not have. MIGRATE_ROUNDS repeats what depends
on moments (3)."""

import os
import pathlib
import shutil
import signal
import threading

import harness
from harness import DONE, processes_of, state_of, wait_until
from rights_test import ASKERS, ROUNDS, RightsCase

# Opens the memory of a process, says "ready", and once there is a file, writes over what the
# process runs in its script area: execve(PROGRAM), or a loop without end. `after`: at the end of
# these bytes; none: at the area's start. Says whether it could.
HIJACK = """
import os, sys, time
pid, go, program, after = sys.argv[1:]
loop = bytes.fromhex("ebfe")
run = bytes.fromhex("488d3d0d00000031f631d2b83b0000000f05") + loop + program.encode() + bytes(1)
try:
    maps = open(f"/proc/{pid}/maps")
    memory = os.open(f"/proc/{pid}/mem", os.O_RDWR)
    print("ready", flush=True)
    while not os.path.exists(go):
        time.sleep(0.002)
    area = next(line for line in maps if " rwxp 00000000 00:00 0" in line)
    at = int(area.partition("-")[0], 16)
    if after:
        wanted = bytes.fromhex(after)
        at += os.pread(memory, 4096, at).index(wanted) + len(wanted)
    os.pwrite(memory, run if program else loop, at)
    print("written", flush=True)
except (OSError, StopIteration, ValueError) as error:
    print(type(error).__name__, flush=True)
"""
PARKING_CALL = "b8800000000f05"  # mov $SYS_rt_sigtimedwait, %eax; syscall
RUN_ANOTHER = "was made to run another program"


class HijackCase(RightsCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        unreadable = cls.programs["unreadable"] = cls.testbed.work / "unreadable"
        shutil.copy(harness.PROGRAMS / "static_loop", unreadable)
        os.chown(unreadable, 0, 0)
        unreadable.chmod(0o711)

    def opened(self, pid, program="setuid", after=""):
        """Its owner's program, which has the memory open."""
        go = self.testbed.new_path("hijack")
        hijacker = self.testbed.start("hostA", *ASKERS["owner"], "/usr/bin/python3", "-c", HIJACK,
                                      pid, go, self.programs.get(program, program), after, cwd="/")
        hijacker.go_file = go
        self.addCleanup(hijacker.kill)
        return hijacker

    def hijack(self, hijacker):
        """What it says."""
        hijacker.go_file.touch()
        hijacker.wait(10)
        return bytes(hijacker.output).decode().split()[-1]

    def move_to(self, step, process):
        """Starts a move by its owner, up to a step: the thread, its outcomes, and the worker."""
        self.arm(step)
        outcomes = []
        mover = threading.Thread(target=lambda: outcomes.append(self.move("owner", process)))
        mover.start()
        return mover, outcomes, self.stopped_at(step, "hostA")

    def log(self, host):
        return pathlib.Path(self.testbed._logs[host]).read_text()

    def is_there(self, process):
        records = self.testbed.control("hostB", "ps").object["processes"]
        return [each for each in records if str(process.stop_file) in each["command"]]


class Frozen(HijackCase):
    """Our next script would run in the other program."""

    def test_runs_another(self):
        for step in ("source.captured", "source.restored"):
            for _ in range(ROUNDS):
                process = self.start("plain", "say", "ready", "wait", "STOP", "end")
                hijacker = self.opened(process.pid)
                self.assertTrue(hijacker.wait_output(b"ready\n"))
                mover, _, worker = self.move_to(step, process)
                self.assertEqual(self.hijack(hijacker), "written")
                os.kill(worker, signal.SIGCONT)
                mover.join()
                status = process.wait(10)
                self.assertEqual(status, -signal.SIGKILL, f"{step}: {bytes(process.output)}")
                self.assertTrue(wait_until(lambda: not self.is_there(process)), step)
                self.assertTrue(wait_until(lambda: RUN_ANOTHER in self.log("hostA")))

    def test_never_ends(self):
        """What he gets is a worker that waits; ending his process ends it."""
        process = self.start("plain", "say", "ready", "wait", "STOP", "end")
        hijacker = self.opened(process.pid, "")
        self.assertTrue(hijacker.wait_output(b"ready\n"))
        mover, outcomes, worker = self.move_to("source.captured", process)
        self.assertEqual(self.hijack(hijacker), "written")
        os.kill(worker, signal.SIGCONT)
        other = self.start("plain", "say", "ready", "wait", "STOP", "end")
        self.assertEqual(self.move("owner", other).status, DONE, self.testbed.logs())
        self.ends_well(other)
        process.kill()
        mover.join()
        self.assertNotEqual(outcomes[0].status, DONE, outcomes[0])
        self.assertTrue(wait_until(lambda: state_of(worker) == ""), self.testbed.logs())


class Parked(HijackCase):
    """What stays at home is a process of the user's, and a source of pages."""

    def test_cannot_be_opened(self):
        process = self.start("plain", "say", "ready", "wait", "STOP", "end")
        self.assertEqual(self.move("owner", process, more=["--mode", "demand"]).status, DONE)
        self.assertEqual(self.hijack(self.opened(process.pid)), "PermissionError")
        self.ends_well(process)

    def test_opened_before(self):
        """Whoever opened it before may make it another program, whose pages are nobody's then."""
        for program in ("unreadable", "setuid"):
            for _ in range(ROUNDS):
                process = self.start("plain", "hold", "say", "ready", "wait", "GO", "look", "wait",
                                     "STOP", "end")
                hijacker = self.opened(process.pid, program, PARKING_CALL)
                self.assertTrue(hijacker.wait_output(b"ready\n"))
                moved = self.move("owner", process, more=["--mode", "demand"])
                self.assertEqual(moved.status, DONE, moved)
                self.assertEqual(self.hijack(hijacker), "written")
                os.kill(process.pid, signal.SIGUSR1)  # The parking call returns.
                process.go_file.touch()
                self.assertTrue(wait_until(lambda: not self.is_there(process)),
                                self.testbed.logs())
                self.assertNotIn(b"leak", process.output)
                process.kill()


class LeftInACell(HijackCase):
    """A child of a moved process that has become root is not ended for its user."""

    def test_all_root(self):
        process = self.start("plain", "say", "ready", "wait", "GO", "leave", "LATER", "leave",
                             "STOP", "exec", "setuid", "root", "say", "changed", "wait", "STOP",
                             "say", "lives")
        # In the network of its home it could not become root there.
        moved = self.move("owner", process, more=["--mode", "demand", "--network", "place"])
        self.assertEqual(moved.status, DONE, moved)
        self.change(process)
        process.later_file.touch()
        self.assertEqual(process.wait(), harness.SURVIVED)
        (host,) = [each for each in self.testbed.hosts() if each["name"] == "hostA"]
        keepers = wait_until(lambda: [pid for pid, name in processes_of(host).items()
                                      if name == "migrate-keeper"])
        killed = self.testbed.run("hostA", *ASKERS["owner"], "kill", "-KILL", keepers[0])
        self.assertEqual(killed.status, 0, killed)
        self.assertTrue(wait_until(lambda: "are not ended" in self.log("hostB")))
        process.stop_file.touch()
        self.assertTrue(process.wait_output(b"lives\n"), self.testbed.logs())


if __name__ == "__main__":
    harness.main()
