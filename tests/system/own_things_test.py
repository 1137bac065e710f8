#!/usr/bin/python3
"""What ordinary programs have of themselves goes with them, there and back, lazy and eager: paths,
files of their own folder of /proc, a pidfd; and handlers learn who has sent a signal."""

import os
import signal
import unittest

import harness
from faithful_test import FaithfulCase
from harness import DONE, wait_until

MODES = ("lazy", "eager")


class Travels(FaithfulCase):
    def travels(self, prepare, check, prefix=()):
        """A program goes to hostB and back, and finds there each time what `check` says."""
        for mode in MODES:
            with self.subTest(mode=mode):
                text = f"{check}\nprint('checked', flush=True)"
                process = self.start(prepare, prefix=prefix, change="".join(
                    f"\nwait_for(go)\nos.unlink(go)\n{text}" for _ in range(2)))
                for number, destination in enumerate(("hostB", "hostA"), 1):
                    outcome = self.testbed.move("hostA", process.pid, destination, mode)
                    self.assertEqual(outcome.status, DONE, f"{outcome}\n{self.testbed.logs()}")
                    process.go_file.touch()
                    self.assertTrue(wait_until(
                        lambda: process.output.count(b"checked\n") >= number
                        or process.popen.poll() is not None), self.testbed.logs())
                    self.assertEqual(process.output.count(b"checked\n"), number,
                                     bytes(process.output))
                self.ends_well(process)

    # The first line of the change waits for the file once more than is needed: see PROGRAM.
    def start(self, prepare, *words, change="", prefix=()):
        lines = change.split("\n")
        at = next((i for i, line in enumerate(lines) if line == "wait_for(go)"), None)
        if at is not None:
            del lines[at]
        return super().start(prepare, *words, change="\n".join(lines), prefix=prefix)

    def test_paths(self):
        self.travels("folder = os.open('/usr', os.O_PATH); name = os.open('/etc/passwd', os.O_PATH)",
                     "assert os.stat('bin', dir_fd=folder).st_ino == os.stat('/usr/bin').st_ino\n"
                     "assert os.fstat(name).st_ino == os.stat('/etc/passwd').st_ino\n"
                     "assert fcntl.fcntl(name, fcntl.F_GETFL) & os.O_PATH")

    def test_files_of_proc(self):
        self.travels(
            "status = open('/proc/self/status'); maps = open('/proc/self/maps', 'rb', 0)\n"
            "memory = os.open('/proc/meminfo', os.O_RDONLY)\n"
            "folder = os.open('/proc/self', os.O_RDONLY); status.read(10)",
            "status.seek(0)\n"
            "assert f'Pid:\\t{os.getpid()}\\n' in status.read()\n"
            "maps.seek(0)\n"
            "assert b'[stack]' in maps.read()\n"
            "assert os.pread(memory, 8, 0) == b'MemTotal'\n"
            "assert 'status' in os.listdir(folder)")

    def test_as_a_user(self):
        self.travels("maps = open('/proc/self/maps', 'rb', 0); own = os.pidfd_open(os.getpid())",
                     "maps.seek(0)\nassert b'[stack]' in maps.read()\n"
                     "import signal\nsignal.pidfd_send_signal(own, 0)",
                     prefix=["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"])

    def test_pidfd(self):
        self.travels(
            "import signal\nown = os.pidfd_open(os.getpid())\n"
            "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])",
            "signal.pidfd_send_signal(own, signal.SIGUSR2)\n"
            "assert signal.sigtimedwait([signal.SIGUSR2], 5).si_pid == os.getpid()")


class Senders(FaithfulCase):
    """si_pid and si_uid are those of the sender at home."""

    RECEIVE = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
print("ready", flush=True)
while not os.path.exists(stop):
    info = signal.sigtimedwait([signal.SIGUSR1], 0.02)
    if info:
        print("got", info.si_code, info.si_pid, info.si_uid, flush=True)
"""
    AS_NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]

    def got(self, process, sender):
        process.output.clear()
        sender()
        self.assertTrue(process.wait_output(b"got"), self.testbed.logs())
        self.assertTrue(wait_until(lambda: process.output.endswith(b"\n")))
        return process.output.decode().split()

    def test_there_and_at_home_again(self):
        for prefix in ([], self.AS_NOBODY):
            process = self.start(self.RECEIVE, prefix=prefix)
            for destination in ("hostB", "hostA"):
                self.moves_to(process, destination)
                for _ in range(3):
                    said = self.got(process, lambda: os.kill(process.pid, signal.SIGUSR1))
                    self.assertEqual(said, ["got", "0", str(os.getpid()), "0"])
            self.ends_well(process)

    def moves_to(self, process, destination):
        outcome = self.testbed.move("hostA", process.pid, destination)
        self.assertEqual(outcome.status, DONE, f"{outcome}\n{self.testbed.logs()}")

    def test_of_another_user(self):
        process = self.start(self.RECEIVE, prefix=self.AS_NOBODY)
        self.moves_to(process, "hostB")
        sender = self.testbed.start("hostA", *self.AS_NOBODY, "kill", "-USR1", process.pid)
        self.assertTrue(process.wait_output(b"got"), self.testbed.logs())
        self.assertTrue(wait_until(lambda: process.output.endswith(b"\n")))
        self.assertEqual(process.output.decode().splitlines()[-1],
                         f"got 0 {sender.pid} 65534")
        self.ends_well(process)


class Changing(FaithfulCase):
    """What a program does all the time is no refusal that comes and goes."""

    def test_one_that_walks_a_tree(self):
        process = self.start(
            "import threading\n"
            "def walk():\n"
            "    while True:\n"
            "        for root, dirs, files in os.walk('/usr/share/doc'):\n"
            "            os.chdir(root)\n"
            "            with open('/usr/bin/env', 'rb') as one: one.read(1)\n"
            "            os.close(os.open(root, os.O_RDONLY))\n"
            "threading.Thread(target=walk, daemon=True).start()")
        for _ in range(30):
            outcome = self.testbed.control("hostA", "check", process.pid)
            self.assertEqual(outcome.status, DONE, outcome)
        self.moves(process)
        self.ends_well(process)


if __name__ == "__main__":
    harness.main()
