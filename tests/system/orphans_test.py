#!/usr/bin/python3
"""Programs that end while their children are owed pages: the children stay whole, the program's end
is told at once, and nothing is left behind when the last of them has ended.

MIGRATE_ORPHANS sets how many programs end at random moments of a move (default 12; 200 long run).
"""

import concurrent.futures
import os
import pathlib
import signal
import threading
import time
import unittest

import harness
from harness import (DONE, JOBS, OTHER, REFUSED, SURVIVED, Testbed, processes_of, random_of,
                     state_of, wait_until)
from steps import StepCase

COUNT = int(os.environ.get("MIGRATE_ORPHANS", "12"))
CHILDREN = {"daemonise": 1, "background": 1, "generations": 3}


def beside(process, name):
    return pathlib.Path(f"{process.stop_file}.{name}")


def end_parent(process, seconds=10):
    """Makes the program end; its exit status, as soon as whoever waits for it has that."""
    process.stop_file.touch()
    try:
        return process.popen.wait(seconds)
    except Exception:  # noqa: BLE001
        return None


def let_children_end(process, name, seconds=30):
    """What is wrong with the children's memory, or nothing."""
    beside(process, "go").touch()
    files = [beside(process, f"child.{number}") for number in range(CHILDREN[name])]
    wait_until(lambda: all(file.exists() for file in files), seconds)
    said = [file.read_text() if file.exists() else "nothing" for file in files]
    return "" if all(each == "whole" for each in said) else f"children said {said}"


class OrphansCase(StepCase):
    """What all these tests look at."""

    def records(self, host, state=None):
        return [record for record in super().records(host)
                if state is None or record["state"] == state]

    def start(self, name="daemonise", mode="demand", options=()):
        """A program that runs at hostB, and whose memory is at hostA."""
        process = self.testbed.start_program("hostA", "orphans", name)
        moved = self.testbed.move("hostA", process.pid, "hostB", mode, options=options)
        self.assertEqual(moved.status, DONE, moved)
        return process

    def keeper(self, process):
        """The row at home once the program has ended, and the pid of what keeps its memory."""
        row = wait_until(lambda: [each for each in self.records("hostA", "children-left")
                                  if each["pid"] == process.pid])
        self.assertTrue(row, self.testbed.logs())
        host = next(each for each in self.testbed.hosts() if each["name"] == "hostA")
        keepers = [pid for pid, name in processes_of(host).items() if name == "migrate-keeper"]
        return row[0], keepers[-1] if keepers else None

    def left(self):
        """What of moves is still on any host."""
        found = []
        for host in self.testbed.hosts():
            name, state = host["name"], self.states[host["name"]]
            found += [f"{name}: row {row['state']} {row['command']}" for row in self.records(name)]
            found += [f"{name}: {path}" for folder in ("sessions", "mailbox")
                      for path in (state / folder).iterdir() if path.name != "id"]
            found += [f"{name}: {pid} {comm}" for pid, comm in processes_of(host).items()
                      if comm != "migrated"]
        return found

    def expect_nothing_left(self, seconds=20):
        wait_until(lambda: not self.left(), seconds)
        self.assertEqual(self.left(), [], self.testbed.logs())

    def expect_whole_children(self, process, name):
        problem = let_children_end(process, name)
        self.assertFalse(problem, f"{problem}\n{self.testbed.logs()}")


class Orphans(OrphansCase):
    def test_the_end_is_told_at_once_and_the_children_are_shown(self):
        process = self.start()
        self.assertEqual(end_parent(process, 5), SURVIVED, self.testbed.logs())
        row, keeper = self.keeper(process)
        self.assertEqual(row["exit_status"] >> 8, SURVIVED, row)
        self.assertGreater(row["owed_pages"], 0)
        self.assertEqual(pathlib.Path(f"/proc/{keeper}/cwd").resolve(), pathlib.Path("/"))
        self.assertEqual(os.listdir(f"/proc/{keeper}/fd"), [])  # Pipes have seen their end.
        self.assertIn(b"daemonise", pathlib.Path(f"/proc/{keeper}/cmdline").read_bytes())
        self.assertTrue(self.records("hostB", "children-left"))
        waited = self.testbed.control("hostA", "wait", "--for", "exit", row["process"])
        self.assertEqual(waited.status, SURVIVED, waited)  # As the program.
        moved = self.testbed.control("hostA", "move", row["process"], "hostB")
        self.assertEqual(moved.status, OTHER, moved)
        refused = self.testbed.control("hostA", "resolve", row["process"], "--give-up", "--yes")
        self.assertEqual(refused.status, REFUSED, refused)
        self.assertIn(f"kill pid {keeper}", refused.text)
        self.expect_whole_children(process, "daemonise")
        self.expect_nothing_left()

    def test_output_of_children_arrives(self):
        process = self.start("background")
        self.assertEqual(end_parent(process), SURVIVED)
        time.sleep(2.5)  # Longer than anyone waits for a place to say good-bye.
        self.expect_whole_children(process, "background")
        self.assertTrue(process.wait_output(b"child.0 whole\n"), process.output)
        process.wait(10)
        self.assertFalse(process._reader.is_alive(), "the pipe did not see its end")
        self.expect_nothing_left()

    def test_home_is_not_there_when_the_program_ends(self):
        process = self.start("generations")
        self.testbed.set_link("hostA", "down")
        process.stop_file.touch()
        time.sleep(1)
        self.assertIsNone(process.popen.poll())
        self.testbed.set_link("hostA", "up")
        self.assertEqual(end_parent(process, 30), SURVIVED)
        self.expect_whole_children(process, "generations")
        self.expect_nothing_left()

    def test_new_workers_of_the_home_go_on(self):
        for step in ("source.exit", "source.keeper", "source.keeper_noted", "source.ended"):
            for name in CHILDREN:
                with self.subTest(step=step, name=name):
                    process = self.start(name)
                    self.arm(step)
                    process.stop_file.touch()
                    os.kill(self.stopped_at(step, "hostA"), signal.SIGKILL)
                    self.assertEqual(end_parent(process), SURVIVED, self.testbed.logs())
                    self.expect_whole_children(process, name)
                    self.expect_nothing_left()

    def test_new_workers_serve_the_children(self):
        for host in ("hostA", "hostB"):
            with self.subTest(host):
                process = self.start("background")
                self.assertEqual(end_parent(process), SURVIVED)
                self.keeper(process)
                worker = self.records(host, "children-left")[0]["worker"]
                os.kill(worker, signal.SIGKILL)
                self.expect_whole_children(process, "background")
                self.assertTrue(process.wait_output(b"child.0 whole\n"), process.output)
                self.expect_nothing_left()

    def test_who_kills_the_keeper_ends_the_children(self):
        for worker_first in (False, True):
            with self.subTest(worker_first=worker_first):
                process = self.start()
                self.assertEqual(end_parent(process), SURVIVED)
                row, keeper = self.keeper(process)
                if worker_first:
                    os.kill(row["worker"], signal.SIGKILL)
                os.kill(keeper, signal.SIGKILL)
                self.expect_nothing_left()
                self.assertIn("children of process", self.testbed.logs())
                self.assertFalse(beside(process, "child.0").exists())

    def test_killing_the_last_child_ends_the_cell(self):
        process = self.start()
        self.assertEqual(end_parent(process), SURVIVED)
        self.keeper(process)
        host = next(each for each in self.testbed.hosts() if each["name"] == "hostB")
        for pid, name in processes_of(host).items():
            if name == "orphans":
                os.kill(pid, signal.SIGKILL)
        self.expect_nothing_left()

    def test_a_killed_deputy_ends_the_children_too(self):
        process = self.start("background")
        process.stop_file.touch()
        os.kill(process.pid, signal.SIGKILL)
        self.expect_nothing_left()


class RandomMoments(OrphansCase):
    hosts = 3

    def job(self, number):
        source = random_of("orphans", number)
        name = list(CHILDREN)[number % len(CHILDREN)]
        mode = source.choice(harness.MODES)
        process = self.testbed.start_program("hostA", "orphans", name)
        options = ["--bandwidth", "4"] if mode == "lazy" else []
        places = ["hostB", "hostC"][:source.choice((1, 1, 2))]

        def move():
            for place in places:
                self.testbed.control("hostA", "move", process.pid, place, "--mode", mode, *options)
        mover = threading.Thread(target=move)
        mover.start()
        time.sleep(source.uniform(0, 0.3))
        process.stop_file.touch()
        time.sleep(source.uniform(0, 0.5))
        problem = let_children_end(process, name)
        status = process.wait(20)
        mover.join()
        if status != SURVIVED:
            problem += f" it ended with {status}"
        if name == "background" and b"child.0 whole\n" not in process.output:
            problem += f" it said {bytes(process.output)}"
        return f"{number} ({name}, {mode}, {places}): {problem}" if problem else ""

    def test_a_host_on_the_way_serves_them(self):
        for mode in ("demand", "lazy"):
            for name in CHILDREN:
                with self.subTest(mode=mode, name=name):
                    process = self.testbed.start_program("hostA", "orphans", name)
                    for place, how, wait in (("hostB", "lazy", "done"), ("hostC", mode, "resumed")):
                        moved = self.testbed.move("hostA", process.pid, place, how, wait,
                                                  options=["--bandwidth", "4"])
                        self.assertEqual(moved.status, DONE, moved)
                    self.assertEqual(end_parent(process), SURVIVED, self.testbed.logs())
                    self.assertTrue(self.records("hostB", "away"), self.testbed.logs())
                    self.expect_whole_children(process, name)
                    self.expect_nothing_left()

    def test_programs_that_end_at_random_moments(self):
        with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
            problems = [each for each in pool.map(self.job, range(COUNT)) if each]
        self.assertEqual(problems, [], self.testbed.logs())
        self.expect_nothing_left()


class Lost(OrphansCase):
    """The children's host is gone for good."""

    @classmethod
    def setUpClass(cls):
        cls.testbed = Testbed(2, ["--daemon-arg=--debug-stops", "--daemon-arg=--end-waiting-s=12"])
        cls.states = {host["name"]: pathlib.Path(host["directory"]) / "state"
                      for host in cls.testbed.hosts()}

    def test_an_operator_gives_them_up(self):
        process = self.start()
        self.assertEqual(end_parent(process), SURVIVED)
        row, keeper = self.keeper(process)
        self.testbed.set_link("hostB", "down")
        try:
            resolved = wait_until(lambda: self.testbed.control(
                "hostA", "resolve", row["process"], "--give-up", "--yes").status == DONE, 20)
            self.assertTrue(resolved, self.testbed.logs())
            self.assertTrue(wait_until(lambda: not state_of(keeper)), self.testbed.logs())
        finally:
            self.testbed.set_link("hostB", "up")
        self.expect_nothing_left(40)

    def test_after_a_time_they_are_given_up_at_either_end(self):
        process = self.start()
        self.assertEqual(end_parent(process), SURVIVED)
        _, keeper = self.keeper(process)
        self.testbed.set_link("hostB", "down")
        try:
            self.assertTrue(wait_until(lambda: not state_of(keeper), 30), self.testbed.logs())
        finally:
            self.testbed.set_link("hostB", "up")
        self.expect_nothing_left(40)


if __name__ == "__main__":
    harness.main()
