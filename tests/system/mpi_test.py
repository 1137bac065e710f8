#!/usr/bin/env python3
"""Ranks of unmodified MPI programs, moved while they work: all end well, with the digits of a run that was not moved.

The job is started by migmpirun on two hosts of a testbed; its ranks go to a third, to each other's, and home.
"""

import concurrent.futures
import re
import unittest

import harness
from harness import program
from mpi_jobs import PATIENCE, MpiCase

# Lennard-Jones liquid, as LAMMPS' own benchmark in.lj; digits of each line depend on all atoms.
MELT = """
units lj
atom_style atomic
lattice fcc 0.8442
region box block 0 {size} 0 {size} 0 {size}
create_box 1 box
create_atoms 1 box
mass 1 1.0
velocity all create 1.44 87287 loop geom
pair_style lj/cut 2.5
pair_coeff 1 1 1.0 1.0 2.5
neighbor 0.3 bin
neigh_modify delay 0 every 20 check no
fix 1 all nve
thermo 100
thermo_modify format float %20.15g
thermo_modify flush yes
run {steps}
"""

HPCC_INPUT = """HPLinpack benchmark input file
Innovative Computing Laboratory, University of Tennessee
HPL.out      output file name (if any)
8            device out (6=stdout,7=stderr,file)
1            # of problems sizes (N)
100          Ns
1            # of NBs
40           NBs
0            PMAP process mapping (0=Row-,1=Column-major)
1            # of process grids (P x Q)
2            Ps
2            Qs
16.0         threshold
1            # of panel fact
2            PFACTs (0=left, 1=Crout, 2=Right)
1            # of recursive stopping criterium
4            NBMINs (>= 1)
1            # of panels in recursion
2            NDIVs
1            # of recursive panel fact.
1            RFACTs (0=left, 1=Crout, 2=Right)
1            # of broadcast
1            BCASTs (0=1rg,1=1rM,2=2rg,3=2rM,4=Lng,5=LnM)
1            # of lookahead depth
1            DEPTHs (>=0)
2            SWAP (0=bin-exch,1=long,2=mix)
64           swapping threshold
0            L1 in (0=transposed,1=no-transposed) form
0            U  in (0=transposed,1=no-transposed) form
1            Equilibration (0=no,1=yes)
8            memory alignment in double (> 0)
"""

THERMO = re.compile(rb"^ +\d+ +-?[0-9.e+-]+ .*$", re.MULTILINE)


class Mpi(MpiCase):
    def lammps(self, size=10, steps=1500, ranks=4):
        path = self.testbed.new_path("melt")
        path.write_text(MELT.format(size=size, steps=steps))
        return self.start(ranks, program("lmp"), "-in", path, "-log", "none")

    def finished(self, job):
        self.assertEqual(job.process.wait(PATIENCE * max(harness.SCALE, 1)), 0, bytes(job.process.output[-3000:]))
        return THERMO.findall(job.process.output)

    def travel(self, job):
        """One rank, then each, then all at a time, there and back, while they work."""
        job.where = job.wait_ranks()
        outcome = job.check()
        self.assertEqual(outcome.status, 0, outcome)
        self.assertEqual(outcome.text.count(": movable"), job.ranks, outcome)
        self.move(job, 1, "hostC")
        self.move(job, 1, job.where[1][0])
        for rank, (home, _) in job.where.items():
            self.move(job, rank, "hostA" if home == "hostB" else "hostB")
        with concurrent.futures.ThreadPoolExecutor(job.ranks) as pool:
            list(pool.map(lambda rank: self.move(job, rank, "hostC"), job.where))
            list(pool.map(lambda rank: self.move(job, rank, job.where[rank][0]), job.where))
        self.assertIsNone(job.process.popen.poll(), "it ended before it had been moved everywhere")

    @unittest.skipUnless(program("lmp") and program("mpirun"), "no LAMMPS or Open MPI")
    def test_lammps_goes_on(self):
        expected = self.finished(self.lammps())
        self.assertGreater(len(expected), 10)
        job = self.lammps()
        self.travel(job)
        self.assertEqual(self.finished(job), expected)

    @unittest.skipUnless(program("hpcc") and program("mpirun"), "no HPCC or Open MPI")
    def test_hpcc_passes_all_its_tests(self):
        if harness.SCALE < 10:
            self.skipTest("its ranks send some 100,000 small messages to and fro: minutes; MIGRATE_SCALE=10")
        (self.testbed.work / "hpccinf.txt").write_text(HPCC_INPUT)
        job = self.start(4, program("hpcc"))
        self.travel(job)
        self.finished(job)
        told = (self.testbed.work / "hpccoutf.txt").read_text()
        self.assertIn("Success=1", told, told[-3000:])
        self.assertNotRegex(told, r"FAILED|Success=0")
        self.assertRegex(told, r"(?m)PASSED")

    def pipe(self, *words, **options):
        """NetPIPE: every length that it sends and gets back, to the end."""
        job = self.start(2, *words, hosts="hostA:1,hostB:1", **options)
        self.travel(job)
        self.assertEqual(job.process.wait(PATIENCE), 0, bytes(job.process.output[-3000:]))

    @unittest.skipUnless(program("NPopenmpi") and program("mpirun"), "no NetPIPE or Open MPI")
    def test_netpipe_goes_through_all_lengths(self):
        self.pipe(program("NPopenmpi"), "-i", "-u", 16777216, "-o", self.testbed.new_path("np"))

    @unittest.skipUnless(program("NPmpich2") and program("mpiexec.mpich"), "no NetPIPE or MPICH")
    def test_check_says_why_ranks_of_mpich_stay(self):
        """Its launcher has their pipe and sockets, too. docs/mpi.md."""
        job = self.start(2, program("NPmpich2"), "-i", "-u", 4096, "-o", self.testbed.new_path("np"),
                         mpi="mpich", hosts="hostA:1,hostB:1")
        job.where = job.wait_ranks()
        outcome = job.check()
        self.assertEqual(outcome.status, 1, outcome)
        for code in ("PIPE_SHARED", "SOCKET_SHARED"):
            self.assertEqual(outcome.text.count(code), 2, outcome)
        self.assertIsNone(job.process.popen.poll(), bytes(job.process.output[-3000:]))


if __name__ == "__main__":
    harness.main()
