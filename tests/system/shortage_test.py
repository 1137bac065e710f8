#!/usr/bin/python3
"""Disk, descriptors and memory that run out, at every step of a move, on either host.

The shortage begins a little further into the move each time. However far it comes, the move is done
or it has failed with the system's reason; the process is whole and in one place, and once there is
room again it moves.
"""

import os
import pathlib
import re
import resource
import unittest

import harness
from harness import DONE, FAILED, MOVES, OTHER, REFUSED, Testbed, finish, wait_until

PAGE = 4096
FINE = MOVES > 1  # the long run
STATE = "/var/lib/migrate"
FILL = """
import os, sys
path, leave = sys.argv[1], int(sys.argv[2])
ballast = os.open(path + "/ballast", os.O_WRONLY | os.O_CREAT)
free = os.statvfs(path)
os.posix_fallocate(ballast, 0, max(1, free.f_bavail * free.f_bsize - leave))
"""


class Shortage(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        cls.testbed = Testbed(2)
        cls.addClassCleanup(cls.testbed.down)

    def daemon(self, host):
        return next(each["daemon_pid"] for each in self.testbed.hosts() if each["name"] == host)

    def attempt(self, process):
        """One move from hostA to hostB; true if it was done. A failure has to say why."""
        outcome = self.testbed.control("hostA", "move", process.pid, "hostB", "--mode", "demand")
        if outcome.status == DONE:
            return True
        self.assertIn(outcome.status, (OTHER, REFUSED, FAILED), outcome)
        self.assertRegex(outcome.text + outcome.errors, r"\w{4}", "a failure without a word")
        return False

    def sweep(self, host, shortages, begin, end):
        """Attempts a move in each of the shortages; how many were done, how many were not."""
        counts = {True: 0, False: 0}
        for shortage in shortages:
            with self.subTest(host=host, shortage=shortage):
                process = self.testbed.start_program("hostA", "memory", "churn")
                try:
                    begin(shortage)
                    done = self.attempt(process)
                finally:
                    end()
                counts[done] += 1
                self.settled(process)
                if not done:
                    moved = self.testbed.move("hostA", process.pid, "hostB", "demand")
                    self.assertEqual(moved.status, DONE, f"{moved}\n{self.testbed.logs()}")
                problem = finish(process, seconds=40)
                self.assertFalse(problem, f"{problem}\n{self.testbed.logs()}")
        self.assertTrue(counts[False], "nothing ran short")
        self.assertTrue(counts[True], "no move was done")

    def settled(self, process):
        """Waits until no session of the process is in doubt, or still without a new worker."""
        def look():
            records = self.testbed.control("hostA", "ps").object.get("processes", [])
            return not [each for each in records if each["pid"] == process.pid and
                        ("doubt" in each.get("waits_for", "") or not each.get("worker_alive"))]
        self.assertTrue(wait_until(look), self.testbed.logs())

    def test_full_disk(self):
        for host in ("hostB", "hostA"):
            mounted = self.testbed.run(host, "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs",
                                       STATE)
            self.assertEqual(mounted.status, DONE, mounted)
            self.testbed.command("restart", host, check=True)

            def fill(pages, host=host):
                filled = self.testbed.run(host, "/usr/bin/python3", "-c", FILL, STATE, pages * PAGE)
                self.assertEqual(filled.status, DONE, filled)
            try:
                self.sweep(host, range(0, 64, 2 if FINE else 9), fill,
                           lambda host=host: self.testbed.run(host, "rm", f"{STATE}/ballast"))
            finally:
                self.testbed.run(host, "umount", "--lazy", STATE)
                self.testbed.command("restart", host)

    def limit(self, host, kind, value):
        hard = resource.prlimit(self.daemon(host), kind)[1]
        resource.prlimit(self.daemon(host), kind, (value, hard))

    def test_no_more_descriptors(self):
        for host in ("hostB", "hostA"):
            pid = self.daemon(host)
            before = resource.prlimit(pid, resource.RLIMIT_NOFILE)[0]
            highest = max(map(int, os.listdir(f"/proc/{pid}/fd")))
            self.sweep(host, range(highest + 1, highest + 60, 1 if FINE else 7),
                       lambda count, host=host: self.limit(host, resource.RLIMIT_NOFILE, count),
                       lambda host=host: self.limit(host, resource.RLIMIT_NOFILE, before))

    def test_no_more_memory(self):
        for host in ("hostB", "hostA"):
            status = pathlib.Path(f"/proc/{self.daemon(host)}/status").read_text()
            used = int(re.search(r"VmSize:\s+(\d+) kB", status)[1]) << 10
            steps = [used + (64 << 10 << (power if FINE else 2 * power))
                     for power in range(15 if FINE else 8)]
            self.sweep(host, steps,
                       lambda size, host=host: self.limit(host, resource.RLIMIT_AS, size),
                       lambda host=host: self.limit(host, resource.RLIMIT_AS,
                                                    resource.RLIM_INFINITY))


# Makes 400 timers and leaves 200 signals pending.
QUEUE = """
import ctypes, os, signal, time
libc = ctypes.CDLL(None)
class Event(ctypes.Structure):
    _fields_ = [("value", ctypes.c_void_p), ("signal", ctypes.c_int), ("notify", ctypes.c_int),
                ("room", ctypes.c_char * 48)]
event, timer = Event(None, signal.SIGRTMIN + 3, 0, b""), ctypes.c_void_p()
for _ in range(400):
    assert libc.timer_create(1, ctypes.byref(event), ctypes.byref(timer)) == 0
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGRTMIN + 4])
for _ in range(200):
    assert libc.sigqueue(os.getpid(), signal.SIGRTMIN + 4, None) == 0
print("ready", flush=True)
time.sleep(600)
"""


def queued_of(pid):
    """How many pending signals and timers the kernel counts to the user of a process."""
    return int(re.search(r"SigQ:\s*(\d+)/", pathlib.Path(f"/proc/{pid}/status").read_text())[1])


# Makes so many inotify descriptors and watches of an epoll set, as far as the kernel lets its user,
# and says how many; keeps them until it is told to stop.
TAKE = """
import ctypes, os, select, sys, time
stop, wanted, watched = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
libc = ctypes.CDLL(None)
instances = []
while len(instances) < wanted and (fd := libc.inotify_init1(0)) >= 0:
    instances.append(fd)
targets = [os.eventfd(0) for _ in range(200)]
sets, watches = [], 0
try:
    while watches < watched:
        if watches % len(targets) == 0:
            sets.append(select.epoll())
        sets[-1].register(targets[watches % len(targets)], select.EPOLLIN)
        watches += 1
except OSError:
    pass
print(len(instances), watches)
print("ready", flush=True)
while not os.path.exists(stop):
    time.sleep(0.05)
"""


class OfOneUser(unittest.TestCase):
    """What the kernel lets a user have so many of is counted to him wherever it comes to, and not to
    root, of whom nothing is left then for others."""

    user = 64031
    most_instances = 100
    most_watches = 12000
    limits = {"fs/inotify/max_user_instances": most_instances,
              "fs/epoll/max_user_watches": most_watches}

    def setUp(self):
        for name, most in self.limits.items():
            path = pathlib.Path("/proc/sys", name)
            before = path.read_text()
            path.write_text(str(most))
            self.addCleanup(path.write_text, before)
        self.testbed = Testbed(2)
        self.addCleanup(self.testbed.down)

    def take(self, host, instances, watches):
        """A process of the user's that takes so many, and how many it has got."""
        stop = self.testbed.new_path()
        process = self.testbed.start(host, "setpriv", f"--reuid={self.user}",
                                     f"--regid={self.user}", "--clear-groups", "/usr/bin/python3",
                                     "-c", TAKE, stop, instances, watches)
        process.stop_file = stop
        self.assertTrue(process.wait_ready(), bytes(process.output))
        return process, [int(word) for word in bytes(process.output).split()[:2]]

    def test_the_kernels_counts_go_with_a_process(self):
        process, taken = self.take("hostA", 60, 6000)
        self.assertEqual(taken, [60, 6000])
        # There is no room for what is at home and at the destination together.
        moved = self.testbed.move("hostA", process.pid, "hostB", "eager")
        self.assertEqual(moved.status, FAILED, moved)
        self.assertIn("inotify", moved.text)
        self.assertIsNone(process.popen.poll())
        process.kill()

        process, taken = self.take("hostA", 40, 4000)
        self.assertEqual(taken, [40, 4000])
        moved = self.testbed.move("hostA", process.pid, "hostB", "eager", "done")
        self.assertEqual(moved.status, DONE, f"{moved}\n{self.testbed.logs()}")
        other, left = self.take("hostB", self.most_instances, self.most_watches)
        self.assertLessEqual(left[0], self.most_instances - 40)
        self.assertLessEqual(left[1], self.most_watches - 4000 + 1000)  # Counted in parts.
        other.kill()
        process.kill()

    def test_pending_signals_and_timers_count_as_the_users(self):
        user = self.user + 1
        process = self.testbed.start("hostA", "setpriv", f"--reuid={user}", f"--regid={user}",
                                     "--clear-groups", "/usr/bin/python3", "-c", QUEUE)
        self.assertTrue(process.wait_ready(), bytes(process.output))
        self.assertEqual(queued_of(process.pid), 600)
        moved = self.testbed.move("hostA", process.pid, "hostB", "eager", "done")
        self.assertEqual(moved.status, DONE, f"{moved}\n{self.testbed.logs()}")
        record = self.testbed.control("hostB", "ps").object["processes"][0]
        # What is left at home counts, too: the timers.
        self.assertGreaterEqual(queued_of(record["pid"]), 600)
        process.kill()


if __name__ == "__main__":
    harness.main()
