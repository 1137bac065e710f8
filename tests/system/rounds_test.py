#!/usr/bin/python3
"""Modes precopy and hybrid: what is sent while the program runs, when that ends, what counts of it."""

import os
import pathlib
import time
import unittest

import harness
from harness import DONE, REFUSED, Testbed, finish, wait_until

MIB = 32
PAGES = MIB << 8

# Writes all of its memory as fast as it can, and looks at the end whether it is what it wrote last.
WRITER = """
import os, sys
size = int(sys.argv[2]) << 20
held = memoryview(bytearray(size))
blocks = [bytes([value]) * size for value in range(1, 5)]
held[:] = blocks[0]
print("ready", flush=True)
turn = 0
while not os.path.exists(sys.argv[1]):
    turn += 1
    held[:] = blocks[turn % 4]
if held == blocks[turn % 4]:
    print("ok")
    sys.exit(42)
"""

# Writes a byte to one page in 64, each time another value, over and over; nothing else of its memory.
SPARSE = """
import os, sys, time
size = int(sys.argv[2]) << 20
held = bytearray(b"x" * size)
print("ready", flush=True)
turn = 0
while not os.path.exists(sys.argv[1]):
    turn = (turn + 1) % 251
    held[::64 * 4096] = bytes([turn]) * len(range(0, size, 64 * 4096))
    time.sleep(0.001)
for at in range(0, size, 64 * 4096):
    assert held[at] == turn, at
    held[at] = ord("x")
if held.count(b"x") == size:
    print("ok")
    sys.exit(42)
"""

# A heap that grows, and mappings that come and go, while the program is sent.
CHANGING = """
import mmap, os, sys, time
held = [bytearray(b"a" * 4096 * 16) for _ in range(256)]
first = bytearray(b"f" * (int(sys.argv[2]) << 20))
print("ready", flush=True)
turn = 0
while not os.path.exists(sys.argv[1]):
    turn += 1
    if len(held) < 4096:
        held.append(bytearray(b"a" * 1000))
    short = mmap.mmap(-1, 1 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    short[:] = bytes([turn % 256]) * (1 << 20)
    assert short[:] == bytes([turn % 256]) * (1 << 20)
    short.close()
    time.sleep(0.0005)
if first.count(b"f") == len(first) and all(set(each) == {97} for each in held):
    print("ok")
    sys.exit(42)
"""

# Two mappings beside each other, of which one has huge pages where that can be, become one while they are sent
# (as in a heap of numpy's), and with them what watches them.
ADVISED = """
import ctypes, mmap, os, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
size = int(sys.argv[2]) << 20
at = libc.mmap(None, ctypes.c_size_t(2 * size), 3, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, ctypes.c_long(0))
HUGE_PAGE, NO_HUGE_PAGE = 14, 15
def advise(to, advice):
    assert libc.madvise(ctypes.c_void_p(to), ctypes.c_size_t(size), advice) == 0
ctypes.memset(at, 7, 2 * size)
advise(at, NO_HUGE_PAGE)
advise(at + size, HUGE_PAGE)
print("ready", flush=True)
advised = False
while not os.path.exists(sys.argv[1]):
    if not advised and os.path.exists(sys.argv[1] + ".advise"):
        advise(at + size, NO_HUGE_PAGE)
        advised = True
        print("advised", flush=True)
    time.sleep(0.001)
if advised and ctypes.string_at(at, 2 * size).count(7) == 2 * size:
    print("ok")
    sys.exit(42)
"""

# Two mappings that were sent become one that was not, in their place, and that grows as a whole
# once the process is elsewhere.
JOINED = """
import ctypes, mmap, os, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = libc.mremap.restype = ctypes.c_void_p
PAGE = 4096
WRITABLE = mmap.PROT_READ | mmap.PROT_WRITE
def place(at, pages, protection, fixed=0x10):
    found = libc.mmap(ctypes.c_void_p(at), ctypes.c_size_t(pages * PAGE), protection,
                      mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | fixed, -1, ctypes.c_long(0))
    assert found != ctypes.c_void_p(-1).value, ctypes.get_errno()
    return found
room = place(0, 256, 0, fixed=0)
for first in (64, 128):
    ctypes.memset(place(room + first * PAGE, 32, WRITABLE), 97, 32 * PAGE)
held = bytearray(b"x" * (int(sys.argv[2]) << 20))
print("ready", flush=True)
def followed():
    with open("/proc/self/smaps") as lines:
        return any(line.startswith("VmFlags") and " uw" in line for line in lines)
while not followed():
    time.sleep(0.01)
whole = place(room + 64 * PAGE, 96, WRITABLE)
for page in range(96):
    ctypes.memset(whole + page * PAGE, page + 1, PAGE)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.01)
moved = libc.mremap(ctypes.c_void_p(whole), ctypes.c_size_t(96 * PAGE),
                    ctypes.c_size_t(200 * PAGE), 1)
assert moved != ctypes.c_void_p(-1).value, os.strerror(ctypes.get_errno())
for page in range(96):
    assert ctypes.string_at(moved + page * PAGE, PAGE) == bytes([page + 1]) * PAGE, page
print("ok")
sys.exit(42)
"""

DIRECT = """
import os, sys, time
direct = os.open(sys.argv[2], os.O_RDONLY | os.O_DIRECT)
print("ready", flush=True)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.05)
print("ok")
sys.exit(42)
"""


class RoundsTest(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        cls.testbed = Testbed(2)
        cls.addClassCleanup(cls.testbed.down)

    def start(self, text, *arguments):
        stop = self.testbed.new_path()
        process = self.testbed.start("hostA", "/usr/bin/python3", "-c", text, stop, *arguments)
        self.addCleanup(process.kill)
        process.stop_file = stop
        self.assertTrue(process.wait_ready(), bytes(process.output))
        return process

    def move(self, process, mode, *options, wait="done", to="hostB"):
        outcome = self.testbed.move("hostA", process.pid, to, mode, wait, options=options)
        self.assertEqual(outcome.status, DONE, f"{outcome}\n{self.testbed.logs()}")
        rounds = outcome.object["rounds"]
        self.assertEqual(len(rounds["each"]), rounds["count"])
        self.assertEqual(rounds["used_pages"] + rounds["dropped_pages"], rounds["staged_pages"])
        self.assertEqual(rounds["used_pages"], outcome.object["pages"]["staged"], outcome)
        return outcome.object

    def finish(self, process):
        self.assertEqual(finish(process), "", self.testbed.logs())

    def test_hybrid_sends_no_clean_page_twice(self):
        process = self.testbed.start_keeper("hostA", mib=MIB)
        self.addCleanup(process.kill)
        result = self.move(process, "hybrid")
        rounds = result["rounds"]
        self.assertEqual(rounds["ended_by"], "downtime", rounds)
        self.assertGreater(rounds["used_pages"], PAGES)
        # All that comes later are the few pages that it wrote meanwhile.
        later = result["wire_bytes"] - rounds["bytes"]
        self.assertLess(later, 2 << 20, result)
        written = sum(each["written_pages"] for each in rounds["each"])
        sent = sum(result["pages"][name] for name in ("push", "fault", "prefetch"))
        self.assertLessEqual(sent, rounds["dropped_pages"] + written + 256, result)
        self.finish(process)

    def test_what_is_written_meanwhile_is_the_newest(self):
        for mode in ("precopy", "hybrid"):
            with self.subTest(mode):
                process = self.start(SPARSE, MIB)
                result = self.move(process, mode, "--downtime", "0", "--rounds", "4")
                self.assertGreater(result["rounds"]["used_pages"], PAGES / 2)
                self.finish(process)

    def test_who_writes_as_fast_as_can_be_sent_ends_the_rounds(self):
        for mode in ("precopy", "hybrid"):
            with self.subTest(mode):
                process = self.start(WRITER, 8)
                # Bandwidth counts in rounds, too: no machine is so slow that it writes less.
                rounds = self.move(process, mode, "--downtime", "1", "--rounds", "50",
                                   "--bandwidth", "16")["rounds"]
                self.assertEqual(rounds["ended_by"], "dirty_rate", rounds)
                *before, last = rounds["each"]
                self.assertGreaterEqual(last["written_pages"] * 10, last["pages"] * 9, rounds)
                for each in before:
                    self.assertLess(each["written_pages"] * 10, each["pages"] * 9, rounds)
                self.finish(process)

    def test_rounds_are_as_many_as_wanted(self):
        process = self.start(SPARSE, MIB)
        result = self.move(process, "precopy", "--rounds", "1", "--downtime", "0")
        self.assertEqual(result["rounds"]["count"], 1)
        self.assertEqual(result["rounds"]["ended_by"], "rounds")
        self.assertEqual(result["pages"]["fault"], 0)  # All was there before it ran.
        self.finish(process)

    def test_mappings_come_and_go_while_it_is_sent(self):
        for mode in ("precopy", "hybrid"):
            with self.subTest(mode):
                process = self.start(CHANGING, MIB)
                for destination in ("hostB", "hostA", "hostB"):
                    self.move(process, mode, "--downtime", "0", "--rounds", "3", "--retry", "10",
                              to=destination)
                self.finish(process)

    def test_what_becomes_one_mapping_is_still_watched_by_nobody_else(self):
        for mode in ("precopy", "hybrid"):
            with self.subTest(mode):
                process = self.start(ADVISED, MIB)
                moving = self.testbed.start("hostA", "migratectl", "--json", "move", process.pid, "hostB", "--mode",
                                            mode, "--bandwidth", MIB)
                time.sleep(0.8)  # The rounds have begun, and take two seconds.
                pathlib.Path(f"{process.stop_file}.advise").touch()
                self.assertTrue(process.wait_output(b"advised"), bytes(moving.output))
                self.assertEqual(moving.wait(), DONE, bytes(moving.output))
                self.finish(process)

    def test_what_is_one_mapping_is_one_there(self):
        for mode in ("precopy", "hybrid"):
            with self.subTest(mode):
                process = self.start(JOINED, MIB)
                self.move(process, mode, "--bandwidth", "32")
                self.finish(process)

    def test_direct_io_is_refused(self):
        path = self.testbed.new_path("direct")
        path.write_bytes(bytes(8192))
        process = self.start(DIRECT, path)
        for options in (["check", process.pid, "--mode", "hybrid"],
                        ["check", process.pid, "--mode", "precopy", "--to", "hostB"],
                        ["move", process.pid, "hostB", "--mode", "precopy"]):
            outcome = self.testbed.control("hostA", *options)
            self.assertEqual((outcome.status, outcome.codes()), (REFUSED, ["DIRECT_IO"]), outcome)
        self.assertEqual(self.testbed.control("hostA", "check", process.pid).status, DONE)
        self.finish(process)

    def test_a_move_that_comes_to_nothing_leaves_nothing_behind(self):
        process = self.start(SPARSE, MIB)
        before = self.descriptors(process.pid)
        move = self.testbed.start("hostA", "migratectl", "--json", "move", process.pid, "hostB",
                                  "--mode", "precopy", "--bandwidth", "4", "--wait", "done")
        self.addCleanup(move.kill)
        self.assertTrue(wait_until(lambda: self.follows(process.pid)), "its writes are not followed")
        move.popen.terminate()
        self.assertIsNotNone(move.wait())
        self.assertTrue(wait_until(lambda: not self.follows(process.pid)),
                        "its memory is still registered")
        self.assertEqual(self.descriptors(process.pid), before)
        self.finish(process)

    @staticmethod
    def follows(pid):
        with open(f"/proc/{pid}/smaps", encoding="ascii", errors="replace") as lines:
            return any(line.startswith("VmFlags") and " uw" in line for line in lines)

    @staticmethod
    def descriptors(pid):
        return sorted(os.listdir(f"/proc/{pid}/fd"))


if __name__ == "__main__":
    harness.main()
