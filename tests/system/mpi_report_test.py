#!/usr/bin/env python3
"""What migmpirun --report tells of a job whose imbalance is known, and that measuring changes nothing else."""

import json
import os
import re
import subprocess
import unittest

import harness
from harness import PROGRAMS, program, wait_until
from mpi_jobs import MIGMPIRUN, PATIENCE, MpiCase

RANKS = 3
TIMES = 6  # So many times as much has rank 0 to compute as each of the others.
MESSAGE_BYTES = 800
BALANCE_CASES = harness.BUILD / "bench" / "balance_cases"
BUILT = (harness.BUILD / "mpi" / "libmigrate-mpi-openmpi.so").exists() and program("mpirun")


@unittest.skipUnless(BUILT, "no Open MPI, or not its headers")
class Report(MpiCase):
    def ranks(self, steps=10**6, units=1000, marks=(), name="ranks", **options):
        stop = self.testbed.new_path()
        job = self.start(RANKS, PROGRAMS / name, steps, TIMES, units, *marks, stop, hosts="hostA:2,hostB:1",
                         **options)
        job.stop_file = stop
        return job

    def told(self, job, *words):
        outcome = job.report("--json", *words)
        self.assertEqual(outcome.status, 0, f"{outcome}\n{bytes(job.process.output[-2000:])}")
        return outcome.object

    def wait_steps(self, job, steps):
        """What is told once each rank has done so many."""
        found = {}

        def done():
            outcome = job.report("--json")
            found.update(outcome.object or {})
            return job.process.popen.poll() is not None or len(found.get("measured", [])) == RANKS and all(
                each["steps"] >= steps for each in found["measured"])
        self.assertTrue(wait_until(done, PATIENCE) and job.process.popen.poll() is None, f"{found}\n{bytes(job.process.output[-2000:])}")
        return found

    def finished(self, job):
        job.stop_file.touch()
        self.assertEqual(job.process.wait(PATIENCE), 0, bytes(job.process.output[-3000:]))
        steps, sum_of_all = re.search(rb"(\d+) steps *(\S+)", job.process.output).groups()
        return int(steps), sum_of_all

    def hold_ranks(self, told):
        """Of each rank, what must be so however fast it is."""
        self.assertEqual([each["rank"] for each in told["measured"]], list(range(RANKS)), told)
        for each in told["measured"]:
            self.assertEqual(each["state"], "running")
            self.assertAlmostEqual(each["outside_s"] + each["inside_s"], each["elapsed_s"], places=6)
            self.assertGreater(each["calls"], 2 * each["steps"])
            self.assertGreaterEqual(each["waited_s"], 0)
            self.assertLess(each["waited_s"], each["outside_s"])
            self.assertGreaterEqual(each["held_up_s"], 0)
            self.assertLess(each["held_up_s"], each["inside_s"])
            self.assertGreater(each["processor_s"], 0)
            # In its communicator the next rank is the one before it in the world.
            (to, sent, messages), = each["partners"]
            self.assertEqual(to, (each["rank"] - 1) % RANKS, each)
            self.assertEqual(sent, MESSAGE_BYTES * messages)
            self.assertEqual(sent, each["sent_bytes"])
            self.assertEqual(messages, each["sent_messages"])
        parallel, balance, communication = (
            told[name] for name in ("parallel_efficiency", "load_balance", "communication_efficiency"))
        self.assertAlmostEqual(parallel, balance * communication, places=6)
        self.assertLessEqual(communication, 1.001)

    def hold_pace(self, before, after):
        """Once it is known what a step is, none is missed."""
        for old, new in zip(before["measured"], after["measured"], strict=True):
            steps, messages = (new[name] - old[name] for name in ("steps", "sent_messages"))
            self.assertLess(abs(steps - messages), 4, (old, new))

    def hold_imbalance(self, told):
        """Eight thirds to six would be 0.44 on a machine with nothing else to do; where ranks wait for a
        processor while they compute, it is more."""
        work = [each["outside_s"] for each in told["measured"]]
        self.assertGreater(work[0], 1.5 * max(work[1:]), told)
        self.assertGreater(told["load_balance"], 1 / RANKS)
        self.assertLess(told["load_balance"], 0.8, told)
        waited = [each["inside_s"] for each in told["measured"]]
        self.assertLess(waited[0], min(waited[1:]), told)

    def test_tells_who_computes_and_who_waits(self):
        job = self.ranks()
        before = self.wait_steps(job, 50)
        told = self.wait_steps(job, 150)
        self.assertEqual(told["ranks"], RANKS)
        self.hold_pace(before, told)
        self.hold_ranks(told)
        self.hold_imbalance(told)
        self.assertEqual({each["step_source"] for each in told["measured"]}, {"recurrence"})
        self.assertEqual([each["host"] for each in told["measured"]], ["hostA", "hostA", "hostB"])
        listed = self.testbed.run("hostA", MIGMPIRUN, "--list", "--hosts", "hostA,hostB,hostC",
                                  "--agent", self.agent)
        self.assertEqual(listed.text, f"{job.name}: {RANKS} ranks of ranks on hostA, hostB\n", listed)
        # For a person, and of a second alone.
        text = job.report("--interval", "1").text
        self.assertRegex(text, rf"job {job.name}: {RANKS} of {RANKS} ranks, .*load balance [0-9.]+%")
        self.assertEqual(len(re.findall(r"(?m)^ +\d+ +host[AB] ", text)), RANKS, text)
        self.finished(job)

    def test_digits_are_those_of_a_run_that_is_not_measured(self):
        jobs = [self.ranks(60, 50, options=options) for options in ((), ("--no-measure",))]
        for job in jobs:
            self.assertEqual(job.process.wait(PATIENCE), 0, bytes(job.process.output[-3000:]))
        first, second = (re.search(rb"60 steps *\S+", job.process.output).group() for job in jobs)
        self.assertEqual(first, second)

    def test_goes_on_telling_whoever_asks(self):
        job = self.ranks()
        self.wait_steps(job, 20)
        following = self.testbed.start("hostA", MIGMPIRUN, "--report", job.name, "--hosts", "hostA,hostB,hostC", "--agent",
                                       self.agent, "--json", "--follow", "--interval", "0.5", stdin=subprocess.PIPE)
        told = []
        for number in range(3):
            following.stdin.write(b"\n")
            following.stdin.flush()
            self.assertTrue(harness.wait_until(lambda: following.output.count(b"\n") > number, PATIENCE),
                            bytes(following.output))
            told.append(json.loads(bytes(following.output).split(b"\n")[number]))
        for each in told:
            self.assertEqual(each["status"], 0, told)
            self.assertEqual([rank["rank"] for rank in each["report"]["measured"]], list(range(RANKS)))
            self.assertEqual(sorted(host["name"] for host in each["report"]["hosts"]), harness.HOSTS)
            self.assertGreater(each["report"]["steps"], 0)
            self.assertAlmostEqual(each["report"]["hosts"][0]["elapsed_s"], 0.5, delta=0.4)
        self.finished(job)
        following.stdin.write(b"\n")
        following.stdin.flush()
        answers = lambda: re.findall(rb"(?m)^\{.*\n", following.output)  # noqa: E731
        self.assertTrue(harness.wait_until(lambda: len(answers()) > 3, PATIENCE), bytes(following.output))
        self.assertIn(json.loads(answers()[3])["status"], (1, 5))
        following.stdin.close()
        self.assertEqual(following.wait(), 0, bytes(following.output))
        usage = self.testbed.run("hostA", MIGMPIRUN, "--follow", "--report", "x")
        self.assertEqual(usage.status, 2, usage)

    def test_says_that_a_job_is_not_measured(self):
        job = self.ranks(options=("--no-measure",))
        self.assertTrue(job.process.wait_output(b"ready", PATIENCE))
        outcome = job.report()
        self.assertEqual(outcome.status, 1, outcome)
        self.assertIn("nothing is measured", outcome.errors)
        self.finished(job)

    def test_counts_steps_that_the_program_marks(self):
        job = self.ranks(marks=("--marks",))
        told = self.wait_steps(job, 20)
        for each in told["measured"]:
            self.assertEqual(each["step_source"], "marks")
            self.assertLess(abs(each["steps"] + 1 - each["sent_messages"]), 3, each)
        self.hold_imbalance(told)
        self.finished(job)

    def test_goes_on_where_ranks_are_moved(self):
        job = self.ranks()
        job.where = job.wait_ranks()
        before = self.wait_steps(job, 50)
        self.assertEqual(job.check().text.count(": movable"), RANKS, job.check())
        self.move(job, 0, "hostC")
        moved = self.wait_steps(job, max(each["steps"] for each in before["measured"]) + 50)
        self.hold_ranks(moved)
        self.assertEqual([each["host"] for each in moved["measured"]], ["hostC", "hostA", "hostB"], moved)
        self.hold_pace(before, moved)
        for old, new in zip(before["measured"], moved["measured"], strict=True):
            for name in ("elapsed_s", "calls", "steps", "sent_bytes", "outside_s", "inside_s"):
                self.assertGreater(new[name], old[name], name)
        lately = self.told(job, "--interval", "4")
        self.hold_imbalance(lately)
        self.assertGreater(lately["steps"], 0)
        self.assertEqual([each["asked_as"] for each in lately["hosts"]], harness.HOSTS)
        for each in lately["hosts"]:
            self.assertEqual(each["name"], each["asked_as"])
            for name in ("elapsed_s", "processors", "used_s", "memory_available_bytes", "rate"):
                self.assertGreater(each[name], 0, each)
        self.move(job, 0, "hostA")
        self.wait_steps(job, max(each["steps"] for each in moved["measured"]) + 50)
        self.finished(job)

    @unittest.skipUnless(BALANCE_CASES.exists(), "balance_cases is not built")
    def test_records_what_policies_are_tried_with(self):
        job = self.ranks()
        self.wait_steps(job, 20)
        file = self.testbed.new_path("json")
        recorder = self.testbed.start("hostA", MIGMPIRUN, "--report", job.name, "--hosts", "hostA,hostB,hostC",
                                      "--agent", self.agent, "--record", file, "--interval", "2")
        self.assertTrue(wait_until(lambda: file.exists() and len(json.loads(file.read_text())["work_s"]) >= 3,
                                   PATIENCE), bytes(recorder.output))
        self.finished(job)
        self.assertEqual(recorder.wait(), 0, bytes(recorder.output))
        recorded = json.loads(file.read_text())
        self.assertEqual([each["name"] for each in recorded["hosts"]], ["hostA", "hostB"])
        self.assertEqual([each["host"] for each in recorded["ranks"]], [0, 0, 1])
        # Each has sent to each other, once in a step, one way.
        self.assertEqual([pair[:2] for pair in recorded["traffic"]], [[0, 1], [0, 2], [1, 2]])
        for *_, sent, messages in recorded["traffic"]:
            self.assertLess(abs(sent - MESSAGE_BYTES), MESSAGE_BYTES / 4, recorded["traffic"])
            self.assertAlmostEqual(sent / messages, MESSAGE_BYTES)
        for row in recorded["work_s"]:
            self.assertEqual(len(row), RANKS)
        works = [sum(column) for column in zip(*recorded["work_s"], strict=True)]
        self.assertGreater(works[0], 1.5 * max(works[1:]), recorded)
        played = subprocess.run([BALANCE_CASES, "--job", file, "--seconds", "100"], check=True,
                                capture_output=True, text=True)
        self.assertIn("greedy-refine", json.loads(played.stdout)["cases"][str(file)]["policies"])

    @unittest.skipUnless((PROGRAMS / "ranks_fortran").exists(), "no Fortran compiler")
    def test_measures_fortran(self):
        job = self.ranks(name="ranks_fortran")
        told = self.wait_steps(job, 100)
        self.hold_ranks(told)
        self.hold_imbalance(told)
        self.finished(job)


@unittest.skipUnless(BUILT, "no Open MPI, or not its headers")
class Settings(unittest.TestCase):
    """What the ranks are given to load."""

    def printed(self, *words, **environment):
        return subprocess.run([MIGMPIRUN, "--mpi", "openmpi", *words], check=True, capture_output=True, text=True,
                              env=os.environ | environment).stdout

    def test_are_printed_for_another_launcher(self):
        printed = self.printed("--print-env", "--job", "melt")
        self.assertRegex(printed, r"(?m)^export LD_PRELOAD=\S*/libmigrate-mpi-openmpi\.so$")
        self.assertIn("export MIGRATE_JOB=melt\n", printed)
        self.assertNotIn("LD_PRELOAD", self.printed("--print-env", "--no-measure"))

    def test_are_beside_what_is_loaded_already(self):
        shown = self.printed("--show", "true", LD_PRELOAD="other.so")
        self.assertRegex(shown, r"-x LD_PRELOAD=\S*/libmigrate-mpi-openmpi\.so other\.so ")
        self.assertNotIn("LD_PRELOAD", self.printed("--show", "--no-measure", "true"))


if __name__ == "__main__":
    harness.main()
