#!/usr/bin/python3
"""Copies of a process that runs on: where they run, what they are, and what becomes of them."""

import collections
import os
import pathlib
import signal
import time
import unittest

import harness
from harness import DONE, REFUSED, SURVIVED, USAGE, Testbed, wait_until

NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]

# Says at its end who and where it is, and what is in its memory.
COUNTING = """
import os, signal, sys, time
MIB = 16
data = bytearray(b"fork" * (MIB << 18))
value = 1
def change(number, frame):
    global value
    value = 2
    data[:4] = b"late"
signal.signal(signal.SIGUSR1, change)
print("ready", flush=True)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.02)
os.write(1, f"said {os.getpid()} {os.uname().nodename} {value} {data.count(b'fork')}\\n".encode())
sys.exit(42)
"""
WHOLE = 16 << 18  # What it counts unless it was told to change.

THREADED = """
import threading, time
threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
print("ready", flush=True)
time.sleep(1000)
"""

CONNECTED = """
import socket, time
connection = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)
print("ready", flush=True)
time.sleep(1000)
"""

# Says so if it runs at home although it is a copy.
BUSY = """
import os, sys
first, home = os.getpid(), os.uname().nodename
data = bytearray(b"x" * (1 << 20))
print("ready", flush=True)
while not os.path.exists(sys.argv[1]):
    for _ in range(100):
        if os.getpid() != first and os.uname().nodename == home:
            os.write(1, b"a copy ran at home\\n")
sys.exit(42)
"""

# May not be looked into by its user.
SECRETIVE = """
import ctypes, os, sys, time
ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE
print("ready", flush=True)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.02)
os.write(1, f"said {os.getpid()} {os.uname().nodename} 1 1\\n".encode())
sys.exit(42)
"""

Said = collections.namedtuple("Said", "pid host value count")


def said(process):
    """What the process and its copies have said, which have one standard output."""
    lines = [line.split()[1:] for line in process.output.decode().splitlines()
             if line.startswith("said ")]
    return [Said(int(pid), host, int(value), int(count)) for pid, host, value, count in lines]


def is_there(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(each) for each in file.read().split()]


def name_of(pid):
    with open(f"/proc/{pid}/comm") as file:
        return file.read().strip()


def copies_here(process):
    """Processes of this machine with its command line that run or are stopped, but for it and guests,
    which have a process of ours for a parent."""
    found = set()
    for entry in os.listdir("/proc"):
        try:
            if entry.isdigit() and is_there(entry):
                with open(f"/proc/{entry}/cmdline") as file:
                    command = file.read()
                with open(f"/proc/{entry}/stat") as file:
                    parent = int(file.read().rpartition(")")[2].split()[1])
                if str(process.stop_file) in command and parent == 1:
                    found.add(int(entry))
        except OSError:
            continue
    return found - {process.pid}


class ForkCase(unittest.TestCase):
    """All tests of a class share a testbed."""

    testbed = None

    @classmethod
    def setUpClass(cls):
        cls.testbed = Testbed(3)
        cls.addClassCleanup(cls.testbed.down)

    def start(self, text=COUNTING, by=()):
        stop = self.testbed.new_path()
        process = self.testbed.start("hostA", *by, "/usr/bin/python3", "-c", text, stop)
        process.stop_file = stop
        self.addCleanup(process.kill)
        process.limit(120)
        self.assertTrue(process.wait_ready(), process.output)
        return process

    def fork(self, process, *words):
        return self.testbed.control("hostA", "fork", process.pid, *words)

    def told(self, process):
        return bytes(process.output[-2000:]).decode(errors="replace") + self.testbed.logs()

    def end(self, process, count):
        """All of them come to their end; what they have said."""
        process.stop_file.touch()
        self.assertEqual(process.wait(), SURVIVED, self.told(process))
        self.assertTrue(wait_until(lambda: len(said(process)) == count), self.told(process))
        self.check_nothing_is_left()
        return said(process)

    def hosted(self, host):
        return self.testbed.control(host, "ps").object["processes"]

    def check_nothing_is_left(self):
        for host in ("hostA", "hostB", "hostC"):
            self.assertTrue(wait_until(lambda: not self.hosted(host)), self.hosted(host))


class Copies(ForkCase):
    def test_they_run_where_they_are_sent(self):
        process = self.start()
        outcome = self.fork(process, "--to", "hostB,hostC", "--count", 5)
        self.assertEqual(outcome.status, DONE, f"{outcome}{self.told(process)}")
        copies = outcome.object["processes"]
        self.assertEqual(len({copy["process"] for copy in copies}), 5)
        self.assertEqual(len({copy["identity"] for copy in copies}), 5)
        self.assertTrue(all(is_there(copy["pid"]) for copy in copies))
        self.assertEqual({row["pid"] for row in self.hosted("hostA")},
                         {copy["pid"] for copy in copies})
        ends = self.end(process, 6)
        self.assertEqual(sorted(end.pid for end in ends),
                         sorted([process.pid, *(copy["pid"] for copy in copies)]))
        self.assertEqual(collections.Counter(end.host for end in ends),
                         {"hostA": 1, "hostB": 3, "hostC": 2})
        self.assertEqual({end.count for end in ends}, {WHOLE})

    def test_they_are_what_it_was_then(self):
        process = self.start()
        outcome = self.fork(process, "--to", "hostB,hostC", "--mode", "demand")
        self.assertEqual(outcome.status, DONE, f"{outcome}{self.told(process)}")
        os.kill(process.pid, signal.SIGUSR1)
        ends = {end.host: end for end in self.end(process, 3)}
        self.assertEqual((ends["hostA"].value, ends["hostA"].count), (2, WHOLE - 1))
        for host in ("hostB", "hostC"):
            self.assertEqual((ends[host].value, ends[host].count), (1, WHOLE))

    def test_a_user_copies_his_own(self):
        process = self.start(by=NOBODY)
        mine = self.testbed.run("hostA", *NOBODY, "migratectl", "--json", "fork", process.pid,
                                "--to", "hostB", "--count", 2)
        self.assertEqual(mine.status, DONE, f"{mine}{self.told(process)}")
        self.assertEqual({copy["uid"] for copy in mine.object["processes"]}, {65534})
        self.end(process, 3)

    def test_it_is_no_other_process_afterwards(self):
        process = self.start()
        self.assertEqual(self.fork(process, "--to", "hostB", "--count", 3).status, DONE)
        with open(f"/proc/{process.pid}/task/{process.pid}/children") as children:
            self.assertEqual(children.read(), "")
        moved = self.testbed.control("hostA", "move", process.pid, "hostC")
        self.assertEqual(moved.status, DONE, f"{moved}{self.told(process)}")
        hosts = collections.Counter(end.host for end in self.end(process, 4))
        self.assertEqual(hosts, {"hostB": 3, "hostC": 1})

    def test_one_that_was_sent_moves_on(self):
        process = self.start()
        copies = self.fork(process, "--to", "hostB").object["processes"]
        moved = self.testbed.control("hostA", "move", copies[0]["process"], "hostC")
        self.assertEqual(moved.status, DONE, f"{moved}{self.told(process)}")
        self.assertEqual({end.host for end in self.end(process, 2)}, {"hostA", "hostC"})

    def test_one_that_was_sent_moves_on_at_its_points(self):
        process = self.testbed.start("hostA", harness.PROGRAMS / "traveller", "points", 400)
        self.addCleanup(process.kill)
        self.assertTrue(process.wait_ready(), process.output)
        copies = self.fork(process, "--to", "hostB").object["processes"]
        time.sleep(0.5)  # It comes to a point every 10 ms.
        moved = self.testbed.control("hostA", "move", copies[0]["process"], "hostC", "--at-point")
        self.assertEqual(moved.status, DONE, f"{moved}{self.told(process)}")
        self.assertEqual(process.wait(), SURVIVED, self.told(process))
        self.check_nothing_is_left()
        self.assertIn(b"place hostC", process.output)


class Ends(ForkCase):
    """What harms one copy harms nobody else."""

    def test_one_that_is_killed(self):
        process = self.start()
        copies = self.fork(process, "--to", "hostB,hostC", "--count", 4).object["processes"]
        os.kill(copies[0]["pid"], signal.SIGKILL)
        self.assertTrue(wait_until(lambda: len(self.hosted("hostB") + self.hosted("hostC")) == 3),
                        self.told(process))
        self.assertEqual(len(self.end(process, 4)), 4)

    def test_a_destination_that_takes_none_gets_no_more(self):
        process = self.start()
        outcome = self.fork(process, "--to", "hostB,10.213.0.77", "--count", 40)
        self.assertNotEqual(outcome.status, DONE, outcome)
        self.assertEqual(len(outcome.object["processes"]), 20, outcome)
        made = [copy for copy in outcome.object["failed"] if "pid" in copy]
        self.assertEqual(len(outcome.object["failed"]), 20, outcome)
        self.assertLess(len(made), 8, outcome)
        self.assertEqual(len(self.end(process, 21)), 21)

    def test_more_than_its_user_may_have(self):
        user = ["setpriv", "--reuid=61018", "--regid=61018", "--clear-groups", "prlimit", "--nproc=8"]
        process = self.start(by=user)
        outcome = self.fork(process, "--to", "hostB", "--count", 30)
        self.assertNotEqual(outcome.status, DONE, outcome)
        copies = len(outcome.object["processes"])
        self.assertIn(copies, range(1, 8), outcome)
        self.assertEqual(len(outcome.object["failed"]), 30 - copies, outcome)
        self.assertFalse([copy for copy in outcome.object["failed"] if "pid" in copy], outcome)
        self.assertEqual(len(self.end(process, copies + 1)), copies + 1)

    def test_those_of_a_host_that_is_lost(self):
        process = self.start()
        copies = self.fork(process, "--to", "hostB,hostC", "--count", 4).object["processes"]
        theirs = {row["process"] for row in self.hosted("hostB")}
        self.testbed.command("kill-daemon", "hostB", "--signal", "KILL", check=True)
        lost = [copy for copy in copies if copy["process"] in theirs]
        self.assertEqual(len(lost), 2, copies)
        for copy in lost:
            os.kill(copy["pid"], signal.SIGKILL)
        process.stop_file.touch()
        self.assertEqual(process.wait(), SURVIVED, self.told(process))
        self.assertTrue(wait_until(
            lambda: [end.host for end in said(process)].count("hostC") == 2), self.told(process))
        self.testbed.command("restart", "hostB", check=True)
        self.check_nothing_is_left()

    def test_one_that_cannot_be_sent(self):
        process = self.start()
        outcome = self.fork(process, "--to", "hostB,10.213.0.77", "--count", 4)
        self.assertNotEqual(outcome.status, DONE, outcome)
        self.assertEqual(len(outcome.object["processes"]), 2, outcome)
        failed = outcome.object["failed"]
        self.assertEqual([copy["destination"] for copy in failed], ["10.213.0.77"] * 2)
        for copy in failed:
            self.assertTrue(wait_until(lambda: not is_there(copy["pid"])))
        self.assertEqual(len(self.end(process, 3)), 3)

    def begin_many(self, process):
        """Asks for many copies, and returns when some are under way."""
        client = self.testbed.start("hostA", "migratectl", "fork", process.pid, "--to",
                                    "hostB,hostC", "--count", 60)
        self.addCleanup(client.kill)
        self.assertTrue(wait_until(lambda: self.hosted("hostA")), self.told(process))
        return client

    def check_some_were_made(self, process):
        """All that were begun run elsewhere, and the others have ended."""
        count = [0]

        def comes_to_rest():
            before, rows = count[0], self.hosted("hostA")
            count[0] = len(rows)
            time.sleep(1)
            return before == count[0] > 0 and all(row["state"] in ("away", "done") for row in rows)

        self.assertTrue(wait_until(comes_to_rest, 30), self.hosted("hostA"))
        self.assertLess(count[0], 60)
        elsewhere = {row["pid"] for row in self.hosted("hostA")}
        self.assertEqual(copies_here(process) - elsewhere, set())
        self.assertEqual(len(self.end(process, count[0] + 1)), count[0] + 1)

    def test_those_of_a_client_that_is_killed(self):
        process = self.start()
        self.begin_many(process).kill()
        self.check_some_were_made(process)

    def test_those_of_a_server_that_is_killed(self):
        process = self.start()
        self.begin_many(process)
        daemon = next(host["daemon_pid"] for host in self.testbed.hosts()
                      if host["name"] == "hostA")

        def serving_alone():  # Whoever asked the daemon something before may have just been answered.
            pids = [pid for pid in children(daemon) if name_of(pid) == "migrated"]
            return pids if len(pids) == 1 else None
        serving = wait_until(serving_alone)
        self.assertTrue(serving, self.told(process))
        os.kill(serving[0], signal.SIGKILL)
        self.check_some_were_made(process)


class InTheFreeze(ForkCase):
    """The worker of a copy is killed before the copy is elsewhere, and who made it as well: it does not
    run here for want of somebody who sees to it."""

    @classmethod
    def setUpClass(cls):
        cls.testbed = Testbed(3, ["--daemon-arg=--debug-stops"])
        cls.addClassCleanup(cls.testbed.down)

    def stopped_at(self, step):
        for file in self.stops.glob(step + ".*"):
            pid = int(file.name.rsplit(".", 1)[1])
            if harness.state_of(pid) == "T":
                file.unlink()
                return pid
        return None

    def check_killed_at(self, step, and_its_maker=True):
        host = next(each for each in self.testbed.hosts() if each["name"] == "hostA")
        self.stops = pathlib.Path(host["directory"]) / "state" / "stops"
        process = self.start(BUSY)
        (self.stops / step).touch()
        client = self.testbed.start("hostA", "migratectl", "--json", "fork", process.pid, "--to",
                                    "hostB")
        self.addCleanup(client.kill)
        worker = wait_until(lambda: self.stopped_at(step))
        self.assertTrue(worker, self.told(process))
        self.assertTrue(copies_here(process))
        makers = [pid for pid in children(host["daemon_pid"]) if name_of(pid) == "migrated"]
        self.assertEqual(len(makers), 1)
        for pid in [*(makers if and_its_maker else ()), worker]:
            os.kill(pid, signal.SIGKILL)
        self.assertTrue(wait_until(lambda: not copies_here(process), 40), self.told(process))
        client.wait()
        process.stop_file.touch()
        self.assertEqual(process.wait(), SURVIVED, self.told(process))
        self.assertNotIn(b"ran at home", process.output)
        self.check_nothing_is_left()

    def test_before_it_is_captured(self):
        self.check_killed_at("source.frozen")
        self.check_killed_at("source.frozen", and_its_maker=False)

    def test_when_it_is_captured(self):
        self.check_killed_at("source.captured")

    def test_when_its_image_is_sent(self):
        self.check_killed_at("source.image_sent")

    def test_when_it_is_parked(self):
        self.check_killed_at("source.parked")
        self.check_killed_at("source.parked", and_its_maker=False)

    def test_when_it_is_restored(self):
        self.check_killed_at("source.restored")

    def test_before_it_is_frozen(self):
        self.check_killed_at("source.offered")


class Refused(ForkCase):
    """Nothing is copied, and the process runs on."""

    def check_refused(self, process, *codes):
        outcome = self.fork(process, "--to", "hostB")
        self.assertEqual((outcome.status, outcome.codes()), (REFUSED, list(codes)), outcome)
        self.assertTrue(is_there(process.pid))

    def test_threads(self):
        self.check_refused(self.start(THREADED), "COPY_THREADS")

    def test_what_would_refuse_each_copy(self):
        self.check_refused(self.start(CONNECTED), "SOCKET_KIND")

    def test_one_that_is_away_or_has_been(self):
        process = self.start()
        self.assertEqual(self.testbed.move("hostA", process.pid, "hostC").status, DONE)
        self.check_refused(process, "COPY_MOVED")
        self.assertEqual(self.testbed.move("hostA", process.pid, "hostA").status, DONE)
        self.check_refused(process, "COPY_MOVED")
        self.assertEqual({end.host for end in self.end(process, 1)}, {"hostA"})

    def test_one_of_somebody_else(self):
        process = self.start()
        outcome = self.testbed.run("hostA", *NOBODY, "migratectl", "--json", "fork", process.pid,
                                   "--to", "hostB")
        self.assertEqual(outcome.status, REFUSED, outcome)
        self.end(process, 1)

    def test_one_that_may_not_be_looked_into(self):
        process = self.start(SECRETIVE, NOBODY)
        outcome = self.testbed.run("hostA", *NOBODY, "migratectl", "--json", "fork", process.pid,
                                   "--to", "hostB")
        self.assertEqual((outcome.status, outcome.object.get("refusals", [])), (REFUSED, []), outcome)
        self.end(process, 1)

    def test_wrong_use(self):
        process = self.start()
        for words in (("--to", "hostA"), ("--to", "hostB", "--count", "1025"),
                      ("--to", "hostB", "--count", "-1"), ()):
            outcome = self.fork(process, *words)
            self.assertEqual(outcome.status, USAGE, f"{words}: {outcome}")
        self.end(process, 1)


if __name__ == "__main__":
    harness.main()
