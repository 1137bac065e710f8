"""Jobs of MPI that migmpirun starts on the hosts of a testbed."""

import itertools
import re
import unittest

import harness
from harness import BIN, DONE, Testbed, wait_until

MIGMPIRUN = BIN / "migmpirun"
PATIENCE = 180


class Job:
    """A job of MPI in a testbed."""

    _names = itertools.count()

    def __init__(self, testbed, agent, ranks, *words, hosts="hostA:2,hostB:2", options=()):
        self.testbed = testbed
        self.name = f"job{next(self._names)}"
        self.ranks = ranks
        self.agent = agent
        self.process = testbed.start("hostA", MIGMPIRUN, "--job", self.name, "--hosts", hosts, "-np", ranks,
                                     "--agent", agent, *options, *words)

    def check(self):
        """What `migmpirun --check` says."""
        return self.testbed.run("hostA", MIGMPIRUN, "--check", self.name, "--hosts", "hostA,hostB",
                                "--agent", self.agent)

    def report(self, *words):
        """What `migmpirun --report` says."""
        return self.testbed.run("hostA", MIGMPIRUN, "--report", self.name, "--hosts", "hostA,hostB,hostC",
                                "--agent", self.agent, *words)

    def wait_ranks(self):
        """{rank: (host, pid)} once all are there."""
        found = {}

        def all_there():
            found.update({int(rank): (host, int(pid)) for rank, host, pid in
                          re.findall(r"^rank (\d+) on (\w+) \(\w+, pid (\d+)\)", self.check().text, re.M)})
            return len(found) == self.ranks
        if not wait_until(all_there, PATIENCE):
            raise AssertionError(f"only {found} of {self.ranks} ranks: {bytes(self.process.output[-2000:])}")
        return found


def make_agent(testbed):
    """What ssh would be: the host's namespaces are those of a program that waits there, and its groups, if it has
    some, are seen in them."""
    waiting = {host: testbed.start(host, "sleep", "infinity").pid for host in harness.HOSTS}
    agent = testbed.work / "agent"
    lines = "\n".join(f"{host}) pid={pid} ;;" for host, pid in waiting.items())
    agent.write_text(f'#!/bin/sh\ncase $1 in\n{lines}\nesac\nshift\n'
                     f'export PATH="{BIN}:$PATH"\n'
                     'exec nsenter --target "$pid" --net --mount --uts -- sh -c \''
                     'for group in /sys/fs/cgroup/programs /sys/fs/cgroup/*/programs; do '
                     '[ ! -e "$group" ] || echo $$ >"$group/cgroup.procs"; done; '
                     'exec sh -c "$1"\' sh "$*"\n')
    agent.chmod(0o755)
    return agent


class MpiCase(unittest.TestCase):
    """Three hosts, and what starts commands on each of them."""

    arguments = ()

    def setUp(self):
        self.testbed = Testbed(3, self.arguments)
        self.addCleanup(self.testbed.down)
        self.agent = make_agent(self.testbed)

    def start(self, ranks, *words, mpi="openmpi", **options):
        if mpi == "mpich":
            return Job(self.testbed, self.agent, ranks, "--mpi", mpi, "--", "-iface", "eth0", *words,
                       **options)
        return Job(self.testbed, self.agent, ranks, "--mpi", mpi, "--", "--allow-run-as-root", *words, **options)

    def move(self, job, rank, place):
        home, pid = job.where[rank]
        outcome = self.testbed.move(home, pid, place, patience=20)
        self.assertEqual(outcome.status, DONE, f"rank {rank} to {place}: {outcome}\n{self.testbed.logs()}")
