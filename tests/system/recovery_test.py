#!/usr/bin/python3
"""Workers, daemons and cells killed at steps of a move: the process is whole and in one place.

docs/protocol.md lists the steps and how a worker is stopped there. Every program checks its memory
against a pattern, on all pages, before it ends well.
"""

import os
import pathlib
import signal
import time

import harness
from harness import DONE, OTHER, state_of, wait_until
from steps import StepCase


class Recovery(StepCase):
    def test_before_the_decision_it_runs_on_at_the_source(self):
        for step in ("source.offered", "source.captured", "source.restored",
                     "destination.prepared", "destination.restored", "destination.ready"):
            with self.subTest(step):
                process = self.kill_at(step)
                self.expect_whole(process, step)

    def test_in_doubt_it_runs_where_the_destination_says(self):
        for step, there in (("source.parked", False), ("source.run_sent", True),
                            ("destination.run", False), ("destination.kept", False),
                            ("source.running", True)):
            with self.subTest(step):
                process = self.kill_at(step)
                if there:
                    self.assertTrue(self.runs_there(process), self.testbed.logs())
                self.expect_whole(process, step)

    def test_what_eager_brought_stays_at_the_source_until_it_runs_there(self):
        for step in ("destination.ready", "destination.run", "destination.kept"):
            with self.subTest(step):
                self.expect_whole(self.kill_at(step, "eager"), step)

    def test_after_the_decision_new_workers_go_on(self):
        for step in ("source.confirmed", "source.settled", "destination.released",
                     "destination.running"):
            with self.subTest(step):
                process = self.kill_at(step)
                self.assertTrue(self.runs_there(process), self.testbed.logs())
                self.expect_whole(process, step)

    def test_at_the_end(self):
        for step in ("source.done", "destination.done"):
            with self.subTest(step):
                self.expect_whole(self.kill_at(step, "lazy"), step)
        for step in ("destination.exit", "source.exit"):
            with self.subTest(step):
                process = self.testbed.start_program("hostA", "memory", "sequential")
                moved = self.testbed.move("hostA", process.pid, "hostB")
                self.assertEqual(moved.status, DONE, moved)
                host = self.arm(step)
                process.stop_file.touch()
                os.kill(self.stopped_at(step, host, 40), signal.SIGKILL)
                self.expect_whole(process, step)

    def test_a_place_that_has_reported_the_end_ends_without_its_home(self):
        """Home has ended before the new worker there can hear what it took."""
        process = self.testbed.start_program("hostA", "memory", "sequential")
        moved = self.testbed.move("hostA", process.pid, "hostB", wait="done")
        self.assertEqual(moved.status, DONE, moved)
        self.arm("source.exit")
        place = next(each for each in self.records("hostB") if each["state"] == "running-here")
        process.stop_file.touch()
        home = self.stopped_at("source.exit", "hostA", 40)
        if pathlib.Path(f"/proc/{place['worker']}").exists():  # It may have ended by now.
            os.kill(place["worker"], signal.SIGKILL)
        os.kill(home, signal.SIGCONT)
        self.expect_whole(process, "source.exit")
        sessions = self.states["hostB"] / "sessions"
        self.assertTrue(wait_until(lambda: not list(sessions.glob("*.socket"))),
                        self.testbed.logs())

    def test_a_process_killed_in_doubt_has_ended(self):
        """One with several threads, of which each has to be reaped by the worker that traces it."""
        process = self.testbed.start_program("hostA", "threads", "mutex")
        source = self.arm("source.parked")
        mover = self.testbed.start("hostA", "migratectl", "move", process.pid, "hostB")
        pid = self.stopped_at("source.parked", source)
        self.testbed.command("kill-daemon", "hostB", "--signal", "KILL", check=True)
        self.addCleanup(self.testbed.command, "restart", "hostB")
        os.kill(pid, signal.SIGKILL)
        mover.wait()
        self.assertTrue(self.in_doubt(process), self.testbed.logs())
        os.kill(process.pid, signal.SIGKILL)
        self.assertEqual(process.wait(), -signal.SIGKILL, self.testbed.logs())

    def test_a_process_that_ends_during_its_move(self):
        """One with several threads; at its home, and where it has come to."""
        for moves, step in ((0, "source.offered"), (0, "source.frozen"), (0, "source.captured"),
                            (2, "source.offered"), (2, "source.frozen"), (2, "source.captured")):
            with self.subTest(moves=moves, step=step):
                process = self.testbed.start_program("hostA", "threads", "mutex")
                pid = process.pid
                for where in ("hostB", "hostA")[:moves]:
                    moved = self.testbed.move("hostA", process.pid, where, wait="done")
                    self.assertEqual(moved.status, DONE, moved)
                    pid = next((record["pid"] for record in self.records("hostA")
                                if record["process"] == moved.object["process"]
                                and record["state"] == "running-here"), pid)
                self.arm(step)
                mover = self.testbed.start("hostA", "migratectl", "--json", "move", process.pid,
                                           "hostB")
                worker = self.stopped_at(step, "hostA")
                os.kill(pid, signal.SIGKILL)
                os.kill(worker, signal.SIGCONT)
                self.assertEqual(mover.wait(), OTHER, self.testbed.logs())
                self.assertIn("ended meanwhile", bytes(mover.output).decode())
                self.assertEqual(process.wait(), -signal.SIGKILL, self.testbed.logs())

    def test_a_stop_on_the_way_is_kept(self):
        """SIGSTOP, which no mask holds back, while the process stands still for a move."""
        for mode, step, number in (("demand", "destination.restored", signal.SIGCONT),
                                   ("demand", "destination.restored", signal.SIGKILL),
                                   ("eager", "destination.ready", signal.SIGCONT),
                                   ("eager", "destination.ready", signal.SIGKILL)):
            with self.subTest(mode=mode, worker=number.name):
                process = self.testbed.start_program("hostA", "memory", "churn")
                host = self.arm(step)
                mover = self.testbed.start("hostA", "migratectl", "move", process.pid, "hostB",
                                           "--mode", mode)
                worker = self.stopped_at(step, host)
                os.kill(process.pid, signal.SIGSTOP)
                os.kill(worker, number)
                mover.wait()
                where = process.pid
                if number == signal.SIGCONT:
                    where = [record["pid"] for record in self.records("hostB")
                             if record["state"] == "running-here"][-1]
                self.assertTrue(wait_until(lambda: state_of(where) == "T"), self.testbed.logs())
                os.kill(process.pid, signal.SIGCONT)
                self.expect_whole(process, step)

    def test_everything_killed_at_once(self):
        process = self.testbed.start_program("hostA", "memory", "churn")
        moved = self.testbed.move("hostA", process.pid, "hostB", "demand")
        self.assertEqual(moved.status, DONE, moved)
        workers = [record["worker"] for host in ("hostA", "hostB") for record in self.records(host)
                   if record.get("worker_alive")]
        self.assertGreaterEqual(len(workers), 2)
        for host in ("hostA", "hostB"):
            self.testbed.command("kill-daemon", host, "--signal", "KILL", check=True)
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
        time.sleep(0.3)
        for host in ("hostA", "hostB"):
            self.testbed.command("restart", host, check=True)
        self.assertTrue(self.runs_there(process), self.testbed.logs())
        self.expect_whole(process, "everything")

    def test_a_killed_cell_ends_the_deputy(self):
        process = self.testbed.start_program("hostA", "memory", "churn")
        moved = self.testbed.move("hostA", process.pid, "hostB", "demand")
        self.assertEqual(moved.status, DONE, moved)
        there = [record for record in self.records("hostB") if record["state"] == "running-here"]
        parent = pathlib.Path(f"/proc/{there[-1]['pid']}/stat").read_text()
        os.kill(int(parent.rpartition(")")[2].split()[1]), signal.SIGKILL)
        self.assertEqual(process.wait(), -signal.SIGKILL, self.testbed.logs())
        shown = self.testbed.control("hostA", "show", moved.object["process"])
        self.assertIn("killed", shown.object["last_move"]["lost"])

    def test_doubt_is_resolved_by_an_operator(self):
        process = self.testbed.start_program("hostA", "memory", "anonymous")
        source = self.arm("source.parked")
        mover = self.testbed.start("hostA", "migratectl", "move", process.pid, "hostB")
        pid = self.stopped_at("source.parked", source)
        self.testbed.command("kill-daemon", "hostB", "--signal", "KILL", check=True)
        self.addCleanup(self.testbed.command, "restart", "hostB")
        os.kill(pid, signal.SIGKILL)
        mover.wait()
        self.assertTrue(self.in_doubt(process), self.testbed.logs())
        refused = self.testbed.control("hostA", "resolve", process.pid, "--resume-source")
        self.assertNotEqual(refused.status, DONE, refused)  # It asks first.
        resolved = self.testbed.control("hostA", "resolve", process.pid, "--resume-source", "--yes")
        self.assertEqual(resolved.status, DONE, f"{resolved}\n{self.testbed.logs()}")
        self.expect_whole(process, "doubt")


if __name__ == "__main__":
    harness.main()
