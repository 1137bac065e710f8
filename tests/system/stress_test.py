#!/usr/bin/python3
"""Many threads on a big heap, moved between three hosts under full load; nothing is left behind.

STRESS_MIB (default 128; 1024 for acceptance), STRESS_THREADS (64) and STRESS_MOVES (6; 50) set its
size.
"""

import itertools
import os
import pathlib
import statistics
import time
import unittest

import harness
from harness import DONE, Testbed, finish, processes_of, random_of, wait_until

MIB = int(os.environ.get("STRESS_MIB", "128"))
THREADS = int(os.environ.get("STRESS_THREADS", "64"))
MOVES = int(os.environ.get("STRESS_MOVES", "6"))


KINDS = ("pid", "mnt", "net", "time", "uts")


def inside(testbed):
    """Processes and namespaces of a testbed, but for its daemons, which may be others by now."""
    hosts = testbed.hosts()
    daemons = {host["daemon_pid"] for host in hosts}
    processes, namespaces = set(), set()
    for pid, name in itertools.chain(*(processes_of(host).items() for host in hosts)):
        try:
            namespaces |= {os.readlink(f"/proc/{pid}/ns/{kind}") for kind in KINDS}
            if pid not in daemons:
                processes.add(f"{pid} {name}")
        except OSError:
            pass  # It has ended meanwhile.
    return processes, namespaces


def kib_of(text, name):
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith(name)), 0)


def of_others_kib():
    """Memory that programs have which are not of the build: compilers beside the test, say."""
    kib = 0
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if not os.readlink(process / "exe").startswith(str(harness.BUILD)):
                kib += kib_of((process / "status").read_text(), "RssAnon:")
        except OSError:
            pass  # It has ended, or is the kernel's.
    return kib


def available_mib():
    """That nobody uses, or others do: what they take is not lost. The median of several looks, since
    they take and give while one lasts."""
    looks = []
    for _ in range(9):
        free = kib_of(pathlib.Path("/proc/meminfo").read_text(), "MemAvailable:")
        looks.append(free + of_others_kib())
        time.sleep(0.1)
    return int(statistics.median(looks)) // 1024


class Footprint:
    """What hosts and their daemons hold."""

    def __init__(self, testbed):
        self.held = {}
        for host in testbed.hosts():
            process = pathlib.Path("/proc") / str(host["daemon_pid"])
            self.held[host["name"]] = {
                "mounts": len((process / "mountinfo").read_text().splitlines()),
                "session files": len(os.listdir(pathlib.Path(host["state"]) / "sessions")),
                "descriptors": len(os.listdir(process / "fd")),
                "threads": len(os.listdir(process / "task")),
                "mappings": len((process / "maps").read_text().splitlines()) // 10,
                "mib": int((process / "statm").read_text().split()[1]) // 256 // 16}
        self.processes, self.namespaces = inside(testbed)

    def more_than(self, before):
        """What there is more of than before, by host."""
        problems = [f"{name}: {what} {now}, before {before.held[name][what]}"
                    for name, held in self.held.items() for what, now in held.items()
                    if now > before.held[name][what]]
        return (problems + sorted(self.processes - before.processes) +
                sorted(self.namespaces - before.namespaces))


class Stress(unittest.TestCase):
    """One process, alone with three hosts."""

    def settle(self, testbed, before):
        """What is still held after some time for ends and clean-up."""
        problems = []

        def clean():
            nonlocal problems
            problems = Footprint(testbed).more_than(before)
            return not problems
        wait_until(clean)
        return problems

    def warm_up(self, testbed):
        """One small move each way, so that what a daemon keeps for good is there."""
        process = testbed.start_program("hostA", "threads", "ids")
        for where in ("hostB", "hostC", "hostA"):
            outcome = testbed.move("hostA", process.pid, where, wait="done")
            self.assertEqual(outcome.status, DONE, f"{outcome}\n{testbed.logs()}")
        self.assertEqual(finish(process), "")
        time.sleep(1)

    def test_heap_of_many_threads(self):
        source = random_of("stress")
        with Testbed(3) as testbed:
            self.warm_up(testbed)
            before, memory_before = Footprint(testbed), available_mib()
            environment = os.environ | {"STRESS_MIB": str(MIB), "STRESS_THREADS": str(THREADS)}
            process = testbed.start_program("hostA", "stress", "heap", seconds=36000,
                                            env=environment)
            where = "hostA"
            for number in range(MOVES):
                where = source.choice([host for host in harness.HOSTS if host != where])
                mode = source.choice(harness.MODES)
                wait = "resumed" if mode == "demand" else source.choice(["resumed", "done"])
                outcome = testbed.move("hostA", process.pid, where, mode, wait)
                self.assertEqual(outcome.status, DONE,
                                 f"move {number + 1} to {where}, {mode}: {outcome}\n"
                                 f"{bytes(process.output[-500:])}\n{testbed.logs()}")
                time.sleep(source.uniform(0, 1))
            self.assertEqual(finish(process, seconds=300), "", testbed.logs())
            self.assertEqual(self.settle(testbed, before), [], testbed.logs())
            wait_until(lambda: available_mib() > memory_before - 200, 60)  # The kernel takes its time.
            self.assertGreater(available_mib(), memory_before - 200)

    def test_many_short_processes(self):
        """Nothing is left of processes that end away from home, by themselves or by a signal."""
        with Testbed(3) as testbed:
            self.warm_up(testbed)
            before = Footprint(testbed)
            for number in range(2 * MOVES):
                process = testbed.start_program("hostA", "threads", "ids")
                where = harness.HOSTS[1 + number % 2]
                outcome = testbed.move("hostA", process.pid, where)
                self.assertEqual(outcome.status, DONE, f"{outcome}\n{testbed.logs()}")
                if number % 3 == 0:
                    process.popen.kill()
                    self.assertEqual(process.wait(), -9)
                else:
                    self.assertEqual(finish(process), "", testbed.logs())
            self.assertEqual(self.settle(testbed, before), [], testbed.logs())


if __name__ == "__main__":
    harness.main()
