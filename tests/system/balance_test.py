#!/usr/bin/env python3
"""migratectl balance: ranks leave a slow host by themselves, a balanced job is left alone, and nothing is lost
with a balancer that is killed."""

import json
import re
import signal
import subprocess
import unittest

import harness
from harness import PROGRAMS, program, wait_until
from mpi_jobs import PATIENCE, MpiCase

RANKS = 4
UNITS = 2000
HOSTS = "hostA,hostB,hostC"
BUILT = (harness.BUILD / "mpi" / "libmigrate-mpi-openmpi.so").exists() and program("mpirun")


def placed(job):
    """{rank: host} as they measure themselves; fewer while some are moved."""
    outcome = job.report("--json")
    return {each["rank"]: each["host"] for each in (outcome.object or {}).get("measured", [])}


class Balancer:
    """`migratectl balance`, and what it says."""

    def __init__(self, case, job, *words, hosts=HOSTS):
        self.process = case.testbed.start("hostA", "migratectl", "--json", "balance", job.name, "--hosts", hosts,
                                          "--agent", case.agent, "--interval", "2", *words)

    def events(self, kind=None):
        lines = bytes(self.process.output).split(b"\n")[:-1]
        found = [json.loads(line) for line in lines if line.startswith(b"{")]
        for each in found:
            if problem := harness.output_problem(["balance"], each):
                raise AssertionError(problem)
        return [each for each in found if kind in (None, each["event"])]

    def plans(self):
        return [each for each in self.events("decision") if each["moves"]]

    def wait(self, condition):
        """Until that is true of it, or it has ended."""
        return wait_until(lambda: condition() or self.process.popen.poll() is not None, PATIENCE) and condition()

    def __str__(self):
        return bytes(self.process.output[-6000:]).decode(errors="replace")


class BalanceCase(MpiCase):
    cpus = ""

    def setUp(self):
        self.arguments = ["--cpus", self.cpus]
        try:
            super().setUp()
        except AssertionError as error:
            if "without --cpus" in str(error):
                self.skipTest(str(error))
            raise

    def ranks(self):
        stop = self.testbed.new_path()
        job = self.start(RANKS, PROGRAMS / "ranks", 10**6, 1, UNITS, stop)
        job.stop_file = stop
        self.assertTrue(job.process.wait_output(b"ready", PATIENCE), bytes(job.process.output))
        return job

    def finished(self, job):
        """That its output is that of a run that nobody has moved."""
        job.stop_file.touch()
        self.assertEqual(job.process.wait(PATIENCE), 0, bytes(job.process.output[-3000:]))
        told = re.search(rb"(\d+) steps \S+", job.process.output)
        unmoved = subprocess.run(
            [program("mpirun"), "-np", str(RANKS), "--oversubscribe", "--allow-run-as-root", "--mca",
             "mpi_yield_when_idle", "1", PROGRAMS / "ranks", told.group(1), "1", str(UNITS)],
            check=True, capture_output=True, timeout=PATIENCE)
        self.assertIn(told.group(), unmoved.stdout)


@unittest.skipUnless(BUILT, "no Open MPI, or not its headers")
class Slow(BalanceCase):
    """One host of three has a third of what the others have, and none so much that a busy machine lacks it."""

    cpus = "0.3,0.1,0.3"

    def leaves(self, balancer, job):
        """All ranks are measured, and none of them on the slow host any more."""
        found = {}

        def left():
            found.clear()
            found.update(placed(job))
            return len(found) == RANKS and "hostB" not in found.values()
        self.assertTrue(balancer.wait(left), f"{found}\n{balancer}\n{self.testbed.logs()}")

    def test_ranks_leave_it_by_themselves(self):
        job = self.ranks()
        planner = Balancer(self, job, "--policy", "plan-only")
        self.assertTrue(planner.wait(planner.plans), planner)
        self.assertEqual([each["carried_out"] for each in planner.plans()], [False] * len(planner.plans()))
        self.assertEqual([placed(job)[rank] for rank in range(RANKS)], ["hostA", "hostA", "hostB", "hostB"])
        planner.process.popen.send_signal(signal.SIGTERM)
        self.assertEqual(planner.process.wait(), 0, planner)

        balancer = Balancer(self, job)
        self.leaves(balancer, job)
        for each in balancer.events("move"):
            self.assertIn(each["state"], ("moved", "refused"), balancer)
        plan = balancer.plans()[0]
        self.assertIn("hostB", {each["from"] for each in plan["moves"]}, balancer)
        self.assertLess(plan["expected_step_after_s"], plan["expected_step_s"])
        slow, fast = (next(each for each in plan["hosts"] if each["name"] == name) for name in ("hostB", "hostC"))
        self.assertLess(slow["processors"], fast["processors"], plan)
        # What it promised is compared to what came.
        self.assertTrue(balancer.wait(lambda: any("last_plan" in each for each in balancer.events("decision"))
                                      or any(each["state"] != "moved" for each in balancer.events("move"))),
                        balancer)
        self.finished(job)
        self.assertEqual(balancer.process.wait(PATIENCE), 0, balancer)
        self.assertEqual(balancer.events()[-1]["reason"], "the job has ended", balancer)

    def test_goes_on_after_a_balancer_that_was_killed(self):
        job = self.ranks()
        balancer = Balancer(self, job)
        self.assertTrue(balancer.wait(balancer.plans), balancer)
        balancer.process.kill()  # While what it has just told of is done.
        again = Balancer(self, job)
        self.leaves(again, job)
        self.assertTrue(again.wait(lambda: again.events("decision")), again)
        self.finished(job)
        self.assertEqual(again.process.wait(PATIENCE), 0, again)


@unittest.skipUnless(BUILT, "no Open MPI, or not its headers")
class Even(BalanceCase):
    cpus = "0.3,0.3,0.3"

    def test_a_balanced_job_is_left_alone(self):
        job = self.ranks()
        before = placed(job)
        balancer = Balancer(self, job, hosts="hostA,hostB")
        self.assertTrue(balancer.wait(lambda: len(balancer.events("decision")) >= 3), balancer)
        self.assertEqual((balancer.plans(), balancer.events("move")), ([], []), balancer)
        other = Balancer(self, job)
        self.assertEqual(other.process.wait(), 1, other)
        self.assertIn("does so already", str(other))
        balancer.process.popen.send_signal(signal.SIGTERM)
        self.assertEqual(balancer.process.wait(), 0, balancer)
        self.assertEqual(balancer.events()[-1]["reason"], "told to end", balancer)
        self.assertEqual(placed(job), before)
        self.finished(job)

    def test_a_host_is_left_whatever_it_costs(self):
        job = self.ranks()
        balancer = Balancer(self, job, "--leave", "hostB")
        self.assertTrue(balancer.wait(lambda: len(places := placed(job)) == RANKS and "hostB" not in places.values()),
                        balancer)
        self.finished(job)
        self.assertEqual(balancer.process.wait(PATIENCE), 0, balancer)

    def test_says_that_there_is_no_such_job(self):
        outcome = self.testbed.run("hostA", "migratectl", "balance", "nobody", "--hosts", HOSTS, "--agent",
                                   self.agent, "--interval", "1")
        self.assertEqual(outcome.status, 1, outcome)
        self.assertIn("no rank of a job nobody", outcome.errors)


if __name__ == "__main__":
    harness.main()
