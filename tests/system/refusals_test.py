#!/usr/bin/python3
"""What cannot be moved is refused, with its code, before anything is stopped, and goes on."""

import os
import pathlib
import shutil
import signal
import sys
import tempfile
import time
import unittest

import harness
from harness import DONE, REFUSED, SKIPPED, Testbed, finish


def verdict_problem(outcome, expected, what):
    """What is wrong with a refusal, or nothing."""
    if outcome.status != REFUSED:
        return f"{what}: expected to be refused: {outcome}"
    if not set(expected) <= set(outcome.codes()):
        return f"{what}: expected {expected}, got {outcome.codes()}: {outcome}"
    for refusal in outcome.object["refusals"]:
        for part in ("object", "reason", "remedy"):
            if not refusal.get(part):
                return f"{what}: {refusal['code']} has no {part}: {refusal}"
    return ""


class Refusals(harness.GeneratedJobs):
    """One test for each program of `refused`."""


def make_refusal(name, codes):
    def job(test):
        stop = test.testbed.new_path()
        process = test.testbed.start("hostA", harness.PROGRAMS / "refused", name, stop, "300")
        process.stop_file = stop
        if not process.wait_ready():
            status = process.wait(1)
            said = bytes(process.output).decode(errors="replace").strip()
            if status == SKIPPED:
                print(f"refusals: {name} SKIPPED on this machine: {said}", file=sys.stderr)
                return ""
            return f"not ready: {status} {said}"
        checked = test.testbed.control("hostA", "check", process.pid)
        if name.startswith("hidden_"):  # Nobody sees it from outside: move looks once it is stopped.
            problem = "" if checked.status == DONE else f"check: {checked}"
            moved = test.testbed.move("hostA", process.pid, "hostB", patience=0)
            return problem or verdict_problem(moved, codes, "move") or finish(process)
        problem = verdict_problem(checked, codes, "check")
        if not problem and checked.object.get("movable") is not False:
            problem = f"check does not say that it is not movable: {checked}"
        # Under another root, files are not where their names say.
        if not problem and len(checked.codes()) > len(codes) and name != "changed_root":
            problem = f"more refusals than expected: {checked}"
        moved = test.testbed.move("hostA", process.pid, "hostB", patience=0)
        problem = problem or verdict_problem(moved, codes, "move")
        return problem or finish(process)
    return job


for refused_name, refused_codes in harness.list_properties("refused"):
    harness.add_job(Refusals, refused_name, make_refusal(refused_name, refused_codes.split(",")))


class Destination(unittest.TestCase):
    """What the destination lacks, or has in another version."""

    def test_movable(self):
        with Testbed() as testbed:
            process = testbed.start_program("hostA", "threads", "ids")
            for options in ([], ["--to", "hostB:7070"]):
                outcome = testbed.control("hostA", "check", process.pid, *options)
                self.assertEqual(outcome.status, DONE, outcome)
                self.assertIs(outcome.object["movable"], True)
                self.assertEqual(outcome.codes(), [])
            self.assertEqual(finish(process), "")

    def expect(self, testbed, process, *codes, to="hostB:7070", options=()):
        checked = testbed.control("hostA", "check", process.pid, "--to", to, *options)
        self.assertEqual(verdict_problem(checked, codes, "check --to"), "", testbed.logs())
        moved = testbed.move("hostA", process.pid, to, patience=0, options=options)
        self.assertEqual(verdict_problem(moved, codes, "move"), "", testbed.logs())

    def test_file_missing(self):
        with Testbed() as testbed:
            process = testbed.start("hostA", harness.PROGRAMS / "files", "offset", "/tmp/stop", 300)
            self.assertTrue(process.wait_ready())
            self.expect(testbed, process, "FILE_MISSING")
            testbed.run("hostA", "touch", "/tmp/stop")
            self.assertEqual(process.wait(), harness.SURVIVED)

    def test_file_differs(self):
        with Testbed() as testbed:
            process = testbed.start("hostA", harness.PROGRAMS / "files", "offset", "/tmp/stop", 300)
            self.assertTrue(process.wait_ready())
            testbed.run("hostB", "sh", "-c", "echo other >/tmp/stop.offset")
            self.expect(testbed, process, "FILE_DIFFERS")
            testbed.run("hostA", "touch", "/tmp/stop")
            self.assertEqual(process.wait(), harness.SURVIVED)

    def with_own_program(self, change, *codes):
        """Runs a copy of a program in a folder of which each host has its own view."""
        folder = pathlib.Path(tempfile.mkdtemp(dir="/var/tmp"))
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        shutil.copy(harness.PROGRAMS / "threads", folder / "program")
        with Testbed(2, ["--overlay", folder]) as testbed:
            stop = testbed.new_path()
            process = testbed.start("hostA", folder / "program", "ids", stop, 300)
            process.stop_file = stop
            self.assertTrue(process.wait_ready())
            outcome = testbed.run("hostB", "sh", "-c", change, "sh", folder / "program",
                                  harness.PROGRAMS / "memory")
            self.assertEqual(outcome.status, 0, outcome)
            if codes:
                self.expect(testbed, process, *codes)
            else:
                outcome = testbed.move("hostA", process.pid, "hostB")
                self.assertEqual(outcome.status, DONE, f"{outcome}\n{testbed.logs()}")
            self.assertEqual(finish(process), "")

    def test_program_missing(self):
        self.with_own_program('rm "$1"', "FILE_MISSING")

    def test_program_of_another_version(self):
        self.with_own_program('cp "$2" "$1"', "FILE_DIFFERS")

    def test_same_program_by_build_id(self):
        self.with_own_program('cp "$1" "$1.new" && mv "$1.new" "$1"')

    def start_daemon(self, testbed, port, *options, by=()):
        """Another one in hostB."""
        daemon = testbed.start(
            "hostB", *by, "migrated", "--listen", f"tcp://0.0.0.0:{port}", "--insecure", "--state",
            f"/var/lib/migrate/{port}", "--socket", f"/run/migrate/{port}.sock", "--allow", "root@*",
            *options)
        self.assertTrue(daemon.wait_output(b"state in"), bytes(daemon.output))
        return daemon

    def expect_taken(self, testbed, process, to, *options):
        checked = testbed.control("hostA", "check", process.pid, "--to", to, *options)
        self.assertEqual(checked.status, DONE, checked)
        moved = testbed.move("hostA", process.pid, to, options=options)
        self.assertEqual(moved.status, DONE, f"{moved}\n{testbed.logs()}")
        self.assertEqual(finish(process), "")

    def test_no_network_of_home(self):
        without = ("/usr/bin/setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw")
        with Testbed() as testbed:
            self.start_daemon(testbed, 7171, by=without)
            process = testbed.start_program("hostA", *without, harness.PROGRAMS / "threads", "ids")
            self.expect(testbed, process, "NO_HOME_NETWORK", to="hostB:7171")
            run = (*without, "migratectl", "run", "--on", "hostB:7171")
            refused = testbed.run("hostA", *run, "/bin/true")
            self.assertEqual(refused.status, 125, refused)
            self.assertIn("--network place", refused.errors)
            copied = testbed.control("hostA", "fork", process.pid, "--to", "hostB:7171")
            self.assertNotEqual(copied.status, DONE, copied)
            ran = testbed.run("hostA", *run, "--network", "place", "/bin/true")
            self.assertEqual(ran.status, 0, f"{ran}\n{testbed.logs()}")
            self.expect_taken(testbed, process, "hostB:7171", "--network", "place")

    def test_a_network_device_that_comes_and_goes(self):
        """A daemon that had none when it started looks again; one that had loses no process."""
        def change(daemon, *command):
            outcome = testbed.run("hostB", "nsenter", f"--mount=/proc/{daemon.pid}/ns/mnt", *command)
            self.assertEqual(outcome.status, 0, outcome)

        hide = ("mount", "-t", "tmpfs", "none", "/dev/net")
        with Testbed() as testbed:
            later = self.start_daemon(testbed, 7171, by=(
                "unshare", "--mount", "sh", "-c", " ".join(hide) + ' && exec "$@"', "sh"))
            process = testbed.start_program("hostA", "threads", "ids")
            self.expect(testbed, process, "NO_HOME_NETWORK", to="hostB:7171")
            once = self.start_daemon(testbed, 7272, by=("unshare", "--mount"))
            change(once, *hide)
            moved = testbed.move("hostA", process.pid, "hostB:7272", patience=0)
            self.assertEqual(moved.status, harness.FAILED, moved)
            self.assertIn("/dev/net/tun", str(moved))
            change(later, "umount", "/dev/net")
            self.expect_taken(testbed, process, "hostB:7171")

    def test_no_network_of_the_place(self):
        with Testbed() as testbed:
            self.start_daemon(testbed, 7171, "--only-home-network")
            process = testbed.start_program("hostA", "threads", "ids")
            self.expect(testbed, process, "NO_PLACE_NETWORK", to="hostB:7171",
                        options=("--network", "place"))
            self.expect_taken(testbed, process, "hostB:7171")

    def start_parent(self, testbed, text):
        stop = testbed.new_path()
        process = testbed.start("hostA", "/usr/bin/python3", "-c", text, stop)
        process.stop_file = stop
        self.assertTrue(process.wait_ready())
        return process

    def test_children_that_end_are_waited_for(self):
        parent = """
import os, subprocess, sys, time
child = subprocess.Popen(["/usr/bin/sleep", "600"])
print("ready", flush=True)
child.wait()
while not os.path.exists(sys.argv[1]):
    time.sleep(0.05)
print("ok")
sys.exit(42)
"""
        with Testbed() as testbed:
            process = self.start_parent(testbed, parent)
            at_once = testbed.move("hostA", process.pid, "hostB", patience=0)
            self.assertEqual((at_once.status, at_once.codes()), (REFUSED, ["CHILDREN"]), at_once)
            move = testbed.start("hostA", "migratectl", "--json", "move", process.pid, "hostB", "--retry", "60")
            time.sleep(0.5)  # It is refused meanwhile, some times.
            self.assertIsNone(move.popen.poll())
            child = int(pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text())
            os.kill(child, signal.SIGKILL)
            self.assertEqual(move.wait(60), DONE, bytes(move.output))
            self.assertEqual(finish(process), "")

    def test_a_program_that_has_children_nearly_always_is_moved_between_two(self):
        parent = """
import os, subprocess, sys, time
print("ready", flush=True)
while not os.path.exists(sys.argv[1]):
    subprocess.run(["/usr/bin/sleep", "0.25"])
    time.sleep(0.03)  # Shorter than what comes between looking at it and freezing it.
print("ok")
sys.exit(42)
"""
        with Testbed() as testbed:
            process = self.start_parent(testbed, parent)
            for mode, host in (("lazy", "hostB"), ("precopy", "hostA")):
                outcome = testbed.control("hostA", "move", process.pid, host, "--mode", mode, "--retry", "180",
                                          seconds=200)  # Chance, on a busy host.
                self.assertEqual(outcome.status, DONE, outcome)
            self.assertEqual(finish(process), "")

    def test_no_such_host(self):
        with Testbed() as testbed:
            process = testbed.start_program("hostA", "threads", "ids")
            for where in ("hostB:9", "no-such-host"):
                outcome = testbed.move("hostA", process.pid, where, patience=0)
                self.assertNotEqual(outcome.status, DONE, outcome)
                self.assertNotEqual(outcome.status, harness.LOST, outcome)
                self.assertTrue(outcome.object.get("error"), outcome)
            self.assertEqual(finish(process), "")


def load_tests(_loader, tests, _pattern):
    tests = list(harness.flatten(tests))
    jobs = [test for test in tests if isinstance(test, harness.Job)]
    others = [test for test in tests if not isinstance(test, harness.Job)]
    return unittest.TestSuite([harness.ParallelSuite(jobs), unittest.TestSuite(others)])


if __name__ == "__main__":
    harness.main()
