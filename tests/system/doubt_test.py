#!/usr/bin/python3
"""What an operator decides, and what is damaged or killed while nobody looks: never two copies."""

import os
import signal
import threading

import harness
from harness import DONE, REFUSED, finish, wait_until
from steps import StepCase


class Doubt(StepCase):
    hosts = 3

    def begin(self, step, mode="eager", host="hostA", to="hostB"):
        """A process whose move has come to a step; the pid of the worker that stands there."""
        process = self.testbed.start_program("hostA", "memory", "anonymous")
        if host != "hostA":
            moved = self.testbed.move("hostA", process.pid, host, mode, "done")
            self.assertEqual(moved.status, DONE, moved)
        where = to if step.startswith("destination") else host
        (self.states[where] / "stops" / step).touch()
        mover = self.testbed.start("hostA", "migratectl", "move", process.pid, to, "--mode", mode)
        self.addCleanup(mover.kill)
        return process, self.stopped_at(step, where)

    def resolve(self, process, action, host="hostA"):
        return self.testbed.control(host, "resolve", process.pid, "--" + action, "--yes")

    def test_an_answer_counts_more_than_an_operator(self):
        process, worker = self.begin("destination.kept")
        self.testbed.set_link("hostB", "down")
        self.addCleanup(self.testbed.set_link, "hostB", "up")
        os.kill(worker, signal.SIGCONT)
        self.assertTrue(wait_until(lambda: self.in_doubt(process), 30), self.testbed.logs())
        answers = []
        asker = threading.Thread(
            target=lambda: answers.append(self.resolve(process, "resume-source")))
        asker.start()
        self.testbed.set_link("hostB", "up")
        asker.join()
        self.assertEqual(answers[0].status, REFUSED, f"{answers[0]}\n{self.testbed.logs()}")
        self.expect_whole(process, "an answer")

    def test_a_damaged_file_is_no_proof(self):
        process, worker = self.begin("destination.released")
        self.kill_all("hostB")
        os.kill(worker, signal.SIGKILL)
        sessions = self.states["hostB"] / "sessions"
        damaged = max(sessions.glob("cell-*.session"), key=lambda path: path.stat().st_mtime)
        with damaged.open("r+b") as file:
            file.write(bytes(8))
        self.testbed.command("restart", "hostB", check=True)
        self.assertTrue(wait_until(lambda: damaged.with_name(damaged.name + ".damaged").exists()))
        self.assertTrue(self.in_doubt(process), self.testbed.logs())
        told = wait_until(lambda: "its file was damaged" in self.testbed.logs())
        self.assertTrue(told, self.testbed.logs())
        self.assertTrue(self.in_doubt(process), self.testbed.logs())
        self.assertEqual(self.resolve(process, "give-up").status, DONE, self.testbed.logs())
        self.assertEqual(process.wait(), -signal.SIGKILL, self.testbed.logs())

    def kill_at_home(self, process):
        """With nobody of its host looking: the deputy, or the process that stands still."""
        self.kill_all("hostA")
        process.popen.kill()
        process.popen.wait()
        self.testbed.command("restart", "hostA", check=True)

    def runs_at(self, host):
        return [record for record in self.records(host) if record["state"] == "running-here"]

    def test_killed_at_home_is_killed_there(self):
        process = self.testbed.start_program("hostA", "memory", "anonymous")
        moved = self.testbed.move("hostA", process.pid, "hostB", wait="done")
        self.assertEqual(moved.status, DONE, moved)
        self.kill_at_home(process)
        self.assertTrue(wait_until(lambda: not self.runs_at("hostB")), self.testbed.logs())
        self.assertNotIn("its move was not decided", self.testbed.logs())

    def check_killed_there(self, step):
        """The worker at home dies at a step, and the process with it."""
        process, worker = self.begin(step)
        self.assertTrue(wait_until(lambda: self.runs_at("hostB")), self.testbed.logs())
        os.kill(worker, signal.SIGKILL)
        self.kill_at_home(process)
        self.assertTrue(wait_until(lambda: not self.runs_at("hostB")), self.testbed.logs())
        self.assertNotIn("its move was not decided", self.testbed.logs())

    def test_killed_in_doubt_is_killed_there(self):
        self.check_killed_there("source.run_sent")

    def test_killed_before_its_link_is_noted_is_killed_there(self):
        """The worker has become the deputy's in that instant."""
        self.check_killed_there("source.settled")

    def test_who_answers_is_not_given_up(self):
        process = self.testbed.start_program("hostA", "memory", "anonymous")
        moved = self.testbed.move("hostA", process.pid, "hostB", "demand")
        self.assertEqual(moved.status, DONE, moved)
        refused = self.resolve(process, "give-up")
        self.assertEqual(refused.status, REFUSED, refused)
        self.assertIn("which answers", refused.text)
        self.assertEqual(finish(process), "", self.testbed.logs())

    def test_who_calls_home_is_not_resumed(self):
        process, worker = self.begin("source.run_sent")
        self.assertTrue(wait_until(lambda: self.runs_at("hostB")), self.testbed.logs())
        self.testbed.command("kill-daemon", "hostB", check=True)
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: self.in_doubt(process), 5)  # For a moment, until its worker calls.
        refused = self.resolve(process, "resume-source")
        self.assertEqual(refused.status, REFUSED, f"{refused}\n{self.testbed.logs()}")
        self.testbed.command("restart", "hostB", check=True)
        self.assertEqual(finish(process), "", self.testbed.logs())

    def test_who_is_heard_is_not_given_up(self):
        process = self.testbed.start_program("hostA", "memory", "anonymous")
        moved = self.testbed.move("hostA", process.pid, "hostB", wait="done")
        self.assertEqual(moved.status, DONE, moved)
        self.testbed.command("kill-daemon", "hostB", check=True)
        refused = self.resolve(process, "give-up")
        self.testbed.command("restart", "hostB", check=True)
        self.assertEqual(refused.status, REFUSED, f"{refused}\n{self.testbed.logs()}")
        self.assertEqual(finish(process), "", self.testbed.logs())

    def test_an_emptied_state_directory_is_no_proof(self):
        process, worker = self.begin("source.run_sent")
        self.assertTrue(wait_until(lambda: self.runs_at("hostB")), self.testbed.logs())
        there = self.runs_at("hostB")[0]
        os.kill(there["worker"], signal.SIGSTOP)  # Or it would call home.
        self.testbed.command("kill-daemon", "hostB", check=True)
        for path in [*self.states["hostB"].glob("*/*"), *self.states["hostB"].glob("registry*")]:
            if path.is_file() or path.is_socket():
                path.unlink()
        self.testbed.command("restart", "hostB", check=True)
        os.kill(worker, signal.SIGKILL)
        told = wait_until(lambda: [record for record in self.records("hostA")
                                   if "lost its state" in record.get("waits_for", "")], 15)
        os.kill(there["worker"], signal.SIGCONT)
        self.assertTrue(told, self.testbed.logs())
        self.assertEqual(finish(process), "", self.testbed.logs())

    def test_a_new_worker_waits_for_nothing(self):
        process = self.testbed.start_program("hostA", "memory", "anonymous")
        moved = self.testbed.move("hostA", process.pid, "hostB", wait="done")
        self.assertEqual(moved.status, DONE, moved)
        old = [record for record in self.records("hostA") if record["pid"] == process.pid][0]
        os.kill(old["worker"], signal.SIGKILL)

        def new():
            return [record for record in self.records("hostA")
                    if record["pid"] == process.pid and record["worker"] != old["worker"]]
        self.assertTrue(wait_until(new), self.testbed.logs())
        self.assertNotIn("waits_for", new()[0])
        self.assertEqual(finish(process), "", self.testbed.logs())

    def cut_on_the_way(self):
        """Runs at hostC; hostB, where it came from, has no answer and cannot reach hostC. Its worker
        there stands still."""
        process, worker = self.begin("source.run_sent", host="hostB", to="hostC")
        self.assertTrue(wait_until(lambda: self.runs_at("hostC")), self.testbed.logs())
        address = [host["address"] for host in self.testbed.hosts() if host["name"] == "hostC"][0]
        route = ("blackhole", address + "/32")
        self.assertEqual(self.testbed.run("hostB", "ip", "route", "add", *route).status, 0)
        self.addCleanup(self.testbed.run, "hostB", "ip", "route", "del", *route)
        return process, worker

    def test_the_home_is_asked_on_the_way(self):
        """Only the two places cannot reach each other; the home hears both."""
        process, worker = self.cut_on_the_way()
        os.kill(worker, signal.SIGKILL)
        away = wait_until(lambda: [record for record in self.records("hostB")
                                   if record["state"] == "away"], 20)
        self.assertTrue(away, self.testbed.logs())
        refused = self.testbed.control("hostB", "resolve", away[0]["process"], "--resume-source",
                                       "--yes")
        self.assertEqual(refused.status, REFUSED, refused)
        self.assertEqual(finish(process), "", self.testbed.logs())

    def test_what_ended_for_its_home_is_over_on_the_way(self):
        process, worker = self.cut_on_the_way()
        parked = [record["pid"] for record in self.records("hostB")][-1]
        home = [record["worker"] for record in self.records("hostA")][-1]
        os.kill(process.pid, signal.SIGKILL)
        self.assertEqual(process.wait(), -signal.SIGKILL, self.testbed.logs())
        self.assertTrue(wait_until(lambda: not os.path.exists(f"/proc/{home}")),
                        self.testbed.logs())
        os.kill(worker, signal.SIGKILL)
        self.assertTrue(wait_until(lambda: not self.records("hostB") and
                                   not os.path.exists(f"/proc/{parked}"), 20), self.testbed.logs())

    def test_home_hears_what_was_given_up_on_the_way(self):
        process, worker = self.begin("source.parked", host="hostB", to="hostC")
        self.testbed.set_link("hostC", "down")
        self.addCleanup(self.testbed.set_link, "hostC", "up")
        os.kill(worker, signal.SIGCONT)

        def doubted():
            return [record for record in self.records("hostB")
                    if "doubt" in record.get("waits_for", "")]
        self.assertTrue(wait_until(doubted, 30), self.testbed.logs())
        given_up = self.testbed.control("hostB", "resolve", doubted()[0]["process"], "--give-up",
                                        "--yes")
        self.assertEqual(given_up.status, DONE, f"{given_up}\n{self.testbed.logs()}")
        self.assertEqual(process.wait(), -signal.SIGKILL, self.testbed.logs())
        shown = self.testbed.control("hostA", "show", doubted()[0]["process"]
                                     if doubted() else process.pid)
        self.assertIn("gave it up", shown.text + self.testbed.logs())


if __name__ == "__main__":
    harness.main()
