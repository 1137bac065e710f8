#!/usr/bin/python3
"""A daemon or worker that dies of its own fault says so in the log, and all else goes on."""

import os
import pathlib
import signal
import time
import unittest

import harness
from harness import DONE, Testbed, finish, wait_until

FATAL = (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT,
         signal.SIGSYS, signal.SIGTRAP)


SHORTAGE_SECONDS = 4


def spared(pid):
    """What a process has that has asked the kernel to end others first; empty if it has not."""
    value = pathlib.Path(f"/proc/{pid}/oom_score_adj").read_text()
    return value if int(value) < 0 else ""


class Crash(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        cls.testbed = Testbed(2, ["--supervise"])
        cls.addClassCleanup(cls.testbed.down)

    def daemon(self, host):
        return next(each["daemon_pid"] for each in self.testbed.hosts() if each["name"] == host)

    def record(self, host, process):
        records = self.testbed.control(host, "ps").object.get("processes", [])
        return next((each for each in records if each["process"] == process), {})

    def expect_report(self, host, program, pid, number):
        """A last line that names signal and process, and calls."""
        path = next(each["log"] for each in self.testbed.hosts() if each["name"] == host)
        begin = f"critical {program}[{pid}] ended by signal {int(number)} ({number.name})"

        def report():
            text = pathlib.Path(path).read_text(errors="replace")
            return text[text.index(begin):] if begin in text else ""
        self.assertTrue(wait_until(report), f"{begin}\n{self.testbed.logs()}")
        self.assertRegex(report().splitlines()[1], r"\(.*\)\[0x[0-9a-f]+\]")

    def test_daemon(self):
        for number in FATAL:
            with self.subTest(number.name):
                process = self.testbed.start_keeper("hostA", mib=1)
                self.assertEqual(self.testbed.move("hostA", process.pid, "hostB", "demand").status,
                                 DONE)
                daemon = self.daemon("hostB")
                os.kill(daemon, number)
                self.expect_report("hostB", "migrated", daemon, number)
                self.assertTrue(wait_until(
                    lambda: self.daemon("hostB") not in (None, daemon)
                    and self.testbed.control("hostB", "ping").status == DONE))
                self.assertEqual(self.testbed.move("hostA", process.pid, "hostA").status, DONE,
                                 self.testbed.logs())
                self.assertFalse(finish(process), self.testbed.logs())

    def test_worker(self):
        for number in FATAL:
            for host in ("hostA", "hostB"):
                with self.subTest(number.name, host=host):
                    process = self.testbed.start_keeper("hostA", mib=1)
                    moved = self.testbed.move("hostA", process.pid, "hostB", "demand")
                    self.assertEqual(moved.status, DONE, moved)
                    name = moved.object["process"]
                    worker = self.record(host, name)["worker"]
                    os.kill(worker, number)
                    self.expect_report(host, "migrated-work", worker, number)
                    self.assertTrue(wait_until(
                        lambda: self.record(host, name).get("worker") not in (None, worker)))
                    self.assertFalse(finish(process), self.testbed.logs())

    def test_what_is_killed_for_memory_comes_again(self):
        """Daemon, worker and successors are killed for a while, as by a control group without memory."""
        process = self.testbed.start_keeper("hostA")
        moved = self.testbed.move("hostA", process.pid, "hostB", "demand")
        self.assertEqual(moved.status, DONE, moved)
        process.stop_file.touch()
        end = time.monotonic() + SHORTAGE_SECONDS
        while time.monotonic() < end:
            worker = self.record("hostB", moved.object["process"]).get("worker")
            for pid in filter(None, (worker, self.daemon("hostB"))):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.2)
        problem = finish(process)
        self.assertFalse(problem, f"{problem}\n{self.testbed.logs()}")

    def test_only_ours_ask_to_be_spared(self):
        """Worker and init have what the daemon has; the process has what it had."""
        daemon = self.daemon("hostB")
        # Where the daemon may not ask (no CAP_SYS_RESOURCE), a value that anyone may give it.
        asked = spared(daemon) or "300"
        pathlib.Path(f"/proc/{daemon}/oom_score_adj").write_text(asked)
        process = self.testbed.start_keeper("hostA", mib=1)
        own = pathlib.Path(f"/proc/{process.pid}/oom_score_adj").read_text()
        moved = self.testbed.move("hostA", process.pid, "hostB", wait="done")
        self.assertEqual(moved.status, DONE, moved)
        record = self.record("hostB", moved.object["process"])
        init = pathlib.Path(f"/proc/{record['pid']}/status").read_text()
        init = next(line.split()[1] for line in init.splitlines() if line.startswith("PPid:"))
        for pid, expected in ((record["worker"], asked), (init, asked), (record["pid"], own)):
            value = pathlib.Path(f"/proc/{pid}/oom_score_adj").read_text()
            self.assertEqual(int(value), int(expected))
        self.assertFalse(finish(process), self.testbed.logs())

    def test_a_moved_process_has_its_own_signals(self):
        """What a fault does to it there is what it did at home, and nothing of ours is said."""
        process = self.testbed.start_keeper("hostA", mib=1)
        self.assertEqual(self.testbed.move("hostA", process.pid, "hostB", wait="done").status, DONE)
        os.kill(process.pid, signal.SIGSEGV)
        self.assertEqual(process.wait(), -signal.SIGSEGV, self.testbed.logs())
        self.assertNotIn(b"critical", process.output)


if __name__ == "__main__":
    harness.main()
