"""Test cases that stop the worker of a move at a step (docs/protocol.md lists them)."""

import contextlib
import os
import pathlib
import signal
import threading
import unittest

from harness import Testbed, finish, state_of, wait_until


class StepCase(unittest.TestCase):
    hosts = 2

    @classmethod
    def setUpClass(cls):
        cls.testbed = Testbed(cls.hosts, ["--daemon-arg=--debug-stops"])
        cls.states = {host["name"]: pathlib.Path(host["directory"]) / "state"
                      for host in cls.testbed.hosts()}

    @classmethod
    def tearDownClass(cls):
        cls.testbed.down()

    def arm(self, step):
        host = "hostA" if step.startswith("source") else "hostB"
        (self.states[host] / "stops" / step).touch()
        return host

    def stopped_at(self, step, host, seconds=15):
        """The pid of the worker that stands at a step."""
        folder = self.states[host] / "stops"

        def look():
            for claimed in folder.glob(step + ".[0-9]*"):
                pid = int(claimed.name.rpartition(".")[2])
                if state_of(pid) in ("T", "t"):
                    claimed.unlink()
                    return pid
            return None
        pid = wait_until(look, seconds)
        self.assertTrue(pid, f"no worker came to {step}\n{self.testbed.logs()}")
        return pid

    def kill_at(self, step, mode="demand", program=("memory", "churn"), more=()):
        """Moves a program from hostA to hostB and kills the worker at a step; the program."""
        process = self.testbed.start_program("hostA", *program)
        host = self.arm(step)
        mover = threading.Thread(target=lambda: setattr(process, "moved", self.testbed.control(
            "hostA", "move", process.pid, "hostB", "--mode", mode)))
        mover.start()
        pid = self.stopped_at(step, host)
        for action in more:
            action()
        os.kill(pid, signal.SIGKILL)
        mover.join()
        return process

    def expect_whole(self, process, step):
        problem = finish(process, seconds=40)
        self.assertFalse(problem, f"killed at {step}: {problem}\n{self.testbed.logs()}")

    def records(self, host):
        return self.testbed.control(host, "ps").object["processes"]

    def runs_there(self, process):
        """True once hostB says that it runs the process."""
        return wait_until(lambda: [record for record in self.records("hostB")
                                   if record["state"] == "running-here"
                                   and record.get("worker_alive")], 10)

    def in_doubt(self, process):
        return wait_until(lambda: [record for record in self.records("hostA")
                                   if record["pid"] == process.pid
                                   and "doubt" in record.get("waits_for", "")], 10)

    def kill_all(self, host):
        """Kills a host's daemon and its workers; what they serve is left as it is."""
        workers = [record["worker"] for record in self.records(host) if record.get("worker_alive")]
        self.testbed.command("kill-daemon", host, "--signal", "KILL", check=True)
        for worker in workers:
            with contextlib.suppress(ProcessLookupError):  # It may have ended since.
                os.kill(worker, signal.SIGKILL)
