#!/usr/bin/python3
"""Mode auto: which mode is chosen for which program and wish, and that the program is moved in it."""

import math
import os
import pathlib
import signal
import subprocess
import unittest

import harness
from harness import DONE, FAILED, USAGE, Testbed, finish, state_of, wait_until

WISHES = ("stop", "exposure", "bytes")
# Longer than by default: a busy machine lets a program run now and then.
SAMPLE = ("--sample", "0.6")
LONG_SAMPLE = ("--sample", "3.2")  # a sixteenth of which is enough to write all

# Holds memory, does with it what its kind says, and looks at the end whether it is what it wrote.
PROGRAM = """
import ctypes, os, sys, threading, time
stop, size, kind = sys.argv[1], int(float(sys.argv[2]) * (1 << 20)), sys.argv[3]
PAGE = 4096
held = bytearray(b"x" * size)
view = memoryview(held)
expected = {}
whole = (ctypes.c_char * size).from_buffer(held)
def write(start, length, value):
    view[start:start + length] = bytes([value]) * length
def go_on(turn):
    value = turn % 251
    if kind == "write":
        ctypes.memset(whole, value, size)
    elif kind == "hot":
        write(0, size // 16, value)
        expected.update({at: value for at in range(0, size // 16, PAGE)})
        time.sleep(0.002)
    elif kind == "sparse":
        view[::64 * PAGE] = bytes([value]) * len(range(0, size, 64 * PAGE))
        expected.update({at: value for at in range(0, size, 64 * PAGE)})
        time.sleep(0.002)
    elif kind == "walk":
        for page in range(turn * 32, turn * 32 + 32):
            write(page * PAGE % size, PAGE, value)
            expected[page * PAGE % size] = value
        time.sleep(0.01)
    elif kind == "read":
        assert held.count(b"y") == 0
    else:
        time.sleep(0.02)
def wait():
    while not os.path.exists(stop):
        time.sleep(0.2)
threads = [threading.Thread(target=wait) for _ in range(8 if kind == "threads" else 0)]
for thread in threads:
    thread.start()
print("ready", flush=True)
turn = 0
while not os.path.exists(stop):
    turn += 1
    go_on(turn)
for thread in threads:
    thread.join()
for at in range(0, size, PAGE):
    assert held[at] == expected.get(at, turn % 251 if kind == "write" else ord("x")), at
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

# Name, MiB, kind.
PROGRAMS = [("idle", 48, "idle"), ("reads", 48, "read"), ("writes all", 48, "write"),
            ("hot set", 48, "hot"), ("sparse", 48, "sparse"), ("walks", 32, "walk"),
            ("small", 0.5, "idle"), ("small, writes all", 0.5, "write"), ("big", 160, "idle"),
            ("threads", 16, "threads")]

# By what a wish judges, and how much more than the least counts as equal: part of it, and amount.
# Which mode that is depends on how fast this machine is.
CRITERIA = {"stop": ("stop_us", 0.25, 2000), "exposure": ("independence_us", 0.25, 5000),
            "bytes": ("least_bytes", 0.05, 65536)}


class AdvisorTest(unittest.TestCase):

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

    def advice(self, process, wish, *options):
        outcome = self.testbed.control("hostA", "check", process.pid, "--to", "hostB", "--mode", "auto",
                                       "--wish", wish, *(options or SAMPLE))
        self.assertEqual(outcome.status, DONE, f"{outcome}\n{self.testbed.logs()}")
        choice = outcome.object["choice"]
        self.assertEqual(choice["wish"], wish)
        self.assertEqual([mode["mode"] for mode in choice["modes"]],
                         ["lazy", "demand", "eager", "precopy", "hybrid"])
        self.assertNotIn("why_not", self.of(choice, choice["mode"]))
        self.assertNotIn(state_of(process.pid), ("t", "T", ""))
        return choice

    @staticmethod
    def of(choice, mode):
        return next(one for one in choice["modes"] if one["mode"] == mode)

    def test_each_program_gets_a_mode_that_suits_its_wish(self):
        for name, mib, kind in PROGRAMS:
            process = self.start(PROGRAM, mib, kind)
            for wish, (member, part, amount) in CRITERIA.items():
                with self.subTest(program=name, wish=wish):
                    sample = LONG_SAMPLE if kind == "write" else SAMPLE
                    choice = self.advice(process, wish, *sample)
                    figures = {one["mode"]: math.inf if one[member] is None else one[member]
                               for one in choice["modes"] if "why_not" not in one}
                    self.assertLessEqual(figures[choice["mode"]],
                                         min(figures.values()) * (1 + part) + amount + 1, choice)
                    self.assertGreaterEqual(choice["pages"], mib * 256)
            self.assertEqual(finish(process), "", self.testbed.logs())

    def test_what_writes_all_is_never_sent_in_rounds_and_that_is_said(self):
        process = self.start(PROGRAM, 64, "write")
        for wish in WISHES:
            choice = self.advice(process, wish, *LONG_SAMPLE)
            self.assertNotIn(choice["mode"], ("precopy", "hybrid"))
            self.assertGreater(choice["written_share"], 0.5)
            for mode in ("precopy", "hybrid"):
                self.assertIn("as fast as could be sent", self.of(choice, mode)["why_not"])
        self.assertEqual(finish(process), "", self.testbed.logs())

    def test_it_is_moved_in_the_mode_that_is_told(self):
        for wish, kind in (("stop", "write"), ("exposure", "idle"), ("bytes", "sparse"),
                           ("exposure", "hot"), ("stop", "threads")):
            with self.subTest(wish=wish, kind=kind):
                process = self.start(PROGRAM, 16, kind)
                outcome = self.testbed.move("hostA", process.pid, "hostB", "auto", "resumed",
                                            options=("--wish", wish, *SAMPLE))
                self.assertEqual(outcome.status, DONE, f"{outcome}\n{self.testbed.logs()}")
                choice = outcome.object["choice"]
                self.assertEqual(choice["mode"], outcome.object["mode"])
                self.assertEqual("rounds" in outcome.object, choice["mode"] in ("precopy", "hybrid"))
                self.assertIn("choose", outcome.object["phases_us"])
                rows = self.testbed.control("hostA", "show", process.pid).object
                self.assertEqual(rows["mode"], choice["mode"])
                self.assertEqual(finish(process), "", self.testbed.logs())

    def test_outcome_and_forecast_are_compared(self):
        process = self.start(PROGRAM, 16, "idle")
        outcome = self.testbed.move("hostA", process.pid, "hostB", "auto", "done",
                                    options=("--wish", "exposure", *SAMPLE))
        self.assertEqual(outcome.status, DONE, f"{outcome}\n{self.testbed.logs()}")
        ratios = outcome.object["choice"]["to_prediction"]
        self.assertGreater(ratios["stop"], 0)
        self.assertTrue(0.5 < ratios["bytes"] < 2, outcome.object)
        self.assertEqual(ratios["independence"] is None,
                         outcome.object["mode"] in ("eager", "precopy"), outcome.object)
        text = self.testbed.run("hostA", "migratectl", "show", process.pid).text
        self.assertIn("measured to foretold", text)
        self.assertEqual(finish(process), "", self.testbed.logs())

    def test_moves_tell_how_fast_the_next_one_will_be(self):
        with Testbed(2) as testbed:
            process = testbed.start_keeper("hostA", mib=16)
            self.addCleanup(process.kill)
            check = ("check", process.pid, "--to", "hostB", "--mode", "auto")
            first = testbed.control("hostA", *check)
            self.assertEqual(first.object["choice"]["speeds_from"], "probe", first)
            self.assertGreater(first.object["choice"]["bytes_per_second"], 0)
            moved = testbed.move("hostA", process.pid, "hostB", "lazy", "done")
            self.assertEqual(moved.status, DONE, moved)
            other = testbed.start_keeper("hostA", mib=16)
            self.addCleanup(other.kill)
            check = ("check", other.pid, "--to", "hostB", "--mode", "auto")
            self.assertTrue(wait_until(lambda: testbed.control("hostA", *check).object["choice"][
                "speeds_from"] == "moves"))
            self.assertEqual(finish(process), "", testbed.logs())
            self.assertEqual(finish(other), "", testbed.logs())

    def test_a_program_that_cannot_be_sent_in_rounds_is_not(self):
        path = self.testbed.new_path()
        path.write_bytes(b"d" * 8192)
        try:
            os.close(os.open(path, os.O_RDONLY | os.O_DIRECT))
        except OSError:
            self.skipTest("no O_DIRECT in this folder")
        process = self.start(DIRECT, path)
        for wish in WISHES:
            choice = self.advice(process, wish)
            self.assertNotIn(choice["mode"], ("precopy", "hybrid"))
            for mode in ("precopy", "hybrid"):
                self.assertIn("DIRECT_IO", self.of(choice, mode)["why_not"])
        outcome = self.testbed.move("hostA", process.pid, "hostB", "auto", "resumed",
                                    options=("--wish", "exposure"))
        self.assertEqual(outcome.status, DONE, f"{outcome}\n{self.testbed.logs()}")
        self.assertNotIn(outcome.object["mode"], ("precopy", "hybrid"))
        self.assertEqual(finish(process), "", self.testbed.logs())

    def test_a_guest_is_advised_at_the_host_where_it_is(self):
        process = self.start(PROGRAM, 8, "idle")
        self.assertEqual(self.testbed.move("hostA", process.pid, "hostB", wait="done").status, DONE)
        outcome = self.testbed.control("hostA", "check", process.pid, "--to", "hostA", "--mode", "auto")
        self.assertEqual(outcome.status, DONE, f"{outcome}\n{self.testbed.logs()}")
        self.assertIn("choice", outcome.object)
        back = self.testbed.move("hostA", process.pid, "hostA", "auto", "done",
                                 options=("--wish", "exposure"))
        self.assertEqual(back.status, DONE, f"{back}\n{self.testbed.logs()}")
        self.assertIn("choice", back.object)
        self.assertEqual(finish(process), "", self.testbed.logs())

    def test_it_can_be_cancelled_while_the_program_is_watched(self):
        process = self.start(PROGRAM, 4, "idle")
        mover = self.testbed.start("hostA", "migratectl", "move", process.pid, "hostB", "--mode", "auto",
                                   "--sample", "50", stderr=subprocess.PIPE)
        self.addCleanup(mover.kill)
        self.assertTrue(wait_until(lambda: self.testbed.control(
            "hostA", "show", process.pid).object.get("state") == "moving"))
        os.kill(mover.pid, signal.SIGINT)
        self.assertEqual(mover.wait(30), FAILED, self.testbed.logs())
        self.assertEqual(finish(process), "", self.testbed.logs())

    def test_without_a_destination_there_is_nothing_to_choose_by(self):
        process = self.start(PROGRAM, 1, "idle")
        outcome = self.testbed.control("hostA", "check", process.pid, "--mode", "auto")
        self.assertEqual(outcome.status, USAGE, outcome)
        wrong = self.testbed.control("hostA", "move", process.pid, "hostB", "--mode", "auto", "--wish",
                                     "speed")
        self.assertEqual(wrong.status, USAGE, wrong)
        self.assertEqual(finish(process), "", self.testbed.logs())


class ArrivalsTest(unittest.TestCase):

    def test_a_daemon_notes_how_pages_came_if_it_is_told_to(self):
        with Testbed(2, ["--daemon-arg=--trace-arrivals"]) as testbed:
            folder = pathlib.Path(testbed.hosts()[1]["state"]) / "arrivals"
            for mode in ("lazy", "demand", "eager", "hybrid"):
                process = testbed.start_keeper("hostA", mib=4)
                self.addCleanup(process.kill)
                outcome = testbed.move("hostA", process.pid, "hostB", mode)
                self.assertEqual(outcome.status, DONE, f"{outcome}\n{testbed.logs()}")
                self.assertEqual(finish(process), "", testbed.logs())
                path = folder / outcome.object["id"]
                self.assertTrue(wait_until(path.exists), f"{mode}: {os.listdir(folder)}")
                pages = {}
                for line in wait_until(lambda path=path: path.read_text().splitlines()):
                    _, way, _, count = line.split()
                    pages[way] = pages.get(way, 0) + int(count)
                came = {"lazy": "push", "demand": "fault", "eager": "push", "hybrid": "staged"}[mode]
                self.assertGreater(pages[came], 100, pages)


if __name__ == "__main__":
    harness.main()
