#!/usr/bin/python3
"""`check` keeps its word: what would be lost is told, and what may not be moved is refused, also
what becomes so between the look at the running process and the moment when it stands still."""

import json
import os
import signal
import subprocess
import threading
import unittest

import harness
import steps
from harness import DONE, FAILED, REFUSED
from rights_test import ASKERS, OWNER

# A program that runs `prepare`, says "ready", runs `change` once there is the file GO, says
# "changed", and ends well once there is the file STOP.
PROGRAM = """
import ctypes, fcntl, mmap, os, sys, time
go, stop, *words = sys.argv[1:]
def wait_for(path):
    while not os.path.exists(path):
        time.sleep(0.005)
{prepare}
print("ready", flush=True)
{change}
wait_for(stop)
print("ok")
sys.exit(42)
"""
CHANGE = """
wait_for(go)
{0}
print("changed", flush=True)
"""
F_SETSIG = 10


def codes(things):
    return sorted({thing["code"] for thing in things})


class FaithfulCase(steps.StepCase):
    def start(self, prepare, *words, change="", prefix=()):
        go, stop = (self.testbed.new_path(name) for name in ("go", "stop"))
        text = PROGRAM.format(prepare=prepare, change=change and CHANGE.format(change))
        process = self.testbed.start("hostA", "setsid", *prefix, "/usr/bin/python3", "-c", text,
                                     go, stop, *words)
        process.go_file, process.stop_file = go, stop
        self.addCleanup(process.kill)
        self.assertTrue(process.wait_ready(), bytes(process.output))
        return process

    def change_at_offer(self, process, *options):
        """Moves a process, which changes after it was inspected and before it is stopped."""
        self.arm("source.offered")
        outcomes = []
        mover = threading.Thread(target=lambda: outcomes.append(self.testbed.control(
            "hostA", "move", process.pid, "hostB", *options)))
        mover.start()
        worker = self.stopped_at("source.offered", "hostA")
        process.go_file.touch()
        changed = process.wait_output(b"changed\n")
        os.kill(worker, signal.SIGCONT)
        mover.join()
        self.assertTrue(changed, bytes(process.output))
        return outcomes[0]

    def moves(self, process, *options):
        outcome = self.testbed.move("hostA", process.pid, "hostB", options=options)
        self.assertEqual(outcome.status, DONE, f"{outcome}\n{self.testbed.logs()}")
        return outcome.object

    def refused(self, process, *expected):
        """By check and by move."""
        for words in (["check", process.pid], ["move", process.pid, "hostB"]):
            outcome = self.testbed.control("hostA", *words)
            self.assertEqual((outcome.status, outcome.codes()), (REFUSED, sorted(expected)),
                             outcome)

    def ends_well(self, process):
        self.assertEqual(harness.finish(process), "", self.testbed.logs())


class Losses(FaithfulCase):
    """Of what is not carried, each process is told what it has."""

    SIGNAL = f"pipe = os.pipe(); fcntl.fcntl(pipe[0], {F_SETSIG}, 12)"

    def test_told_by_check_and_move(self):
        process = self.start(self.SIGNAL)
        checked = self.testbed.control("hostA", "check", process.pid)
        self.assertEqual((checked.status, checked.object["movable"], checked.object["pid"]),
                         (DONE, True, process.pid), checked)
        self.assertIn("DESCRIPTOR_OWNER", codes(checked.object["losses"]))
        for loss in checked.object["losses"]:
            self.assertTrue(all(loss.values()), loss)
        said = self.testbed.run("hostA", "migratectl", "check", process.pid)
        self.assertTrue(said.text.startswith("movable\n"), said)
        self.assertIn("DESCRIPTOR_OWNER", said.text)
        moved = self.moves(process)
        self.assertEqual(moved["losses"], checked.object["losses"])
        shown = self.testbed.control("hostA", "show", process.pid).object
        self.assertIn("DESCRIPTOR_OWNER", codes(shown["last_move"]["losses"]))
        again = self.testbed.control("hostA", "check", process.pid, "--to", "hostA")
        self.assertNotIn("DESCRIPTOR_OWNER", codes(again.object["losses"]))  # It has it no more.
        self.ends_well(process)

    def test_strict_refuses(self):
        process = self.start(self.SIGNAL)
        for words in (["check", process.pid], ["move", process.pid, "hostB"]):
            outcome = self.testbed.control("hostA", *words, "--strict")
            self.assertEqual((outcome.status, outcome.codes()), (REFUSED, ["LOSS"]), outcome)
            said = [each["object"] for each in outcome.object["refusals"]]
            self.assertTrue(any("DESCRIPTOR_OWNER" in each for each in said), outcome)
        self.moves(process)
        self.ends_well(process)

    def test_what_came_after_the_inspection(self):
        process = self.start("", change=self.SIGNAL)
        before = self.testbed.control("hostA", "check", process.pid).object["losses"]
        self.assertNotIn("DESCRIPTOR_OWNER", codes(before))
        outcome = self.change_at_offer(process)
        self.assertEqual(outcome.status, DONE, outcome)
        self.assertIn("DESCRIPTOR_OWNER", codes(outcome.object["losses"]))
        self.ends_well(process)

    def test_strict_refuses_what_came_after_the_inspection(self):
        process = self.start("", change=self.SIGNAL)
        if self.testbed.control("hostA", "check", process.pid, "--strict").status != DONE:
            self.skipTest("whoever runs the tests has something to lose himself")
        outcome = self.change_at_offer(process, "--strict")
        self.assertEqual((outcome.status, outcome.codes()), (REFUSED, ["LOSS"]), outcome)
        self.ends_well(process)


def load_tests(_loader, tests, _pattern):
    """Not those that were imported."""
    return unittest.TestSuite(test for test in harness.flatten(tests)
                              if type(test).__module__ == __name__)


if __name__ == "__main__":
    harness.main()
