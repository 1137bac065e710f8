#!/usr/bin/python3
"""Each step of a move with a victim, as many as fit into CHAOS_SECONDS (60), and the same of copies of
a process, for a third of that; `bench/chaos` does all.

The victims change with CHAOS_SEED (1), so that runs with other seeds see other pairs.
"""

import concurrent.futures
import itertools
import os
import sys
import time
import unittest

import chaos
import harness

SECONDS = float(os.environ.get("CHAOS_SECONDS", "60"))
SEED = int(os.environ.get("CHAOS_SEED", "1"))
LANES = 3


@unittest.skipUnless(chaos.steps(), "docs/protocol.md names no steps at which workers can be stopped")
class Chaos(unittest.TestCase):
    def test_steps(self):
        steps = chaos.steps()
        chaos.make_random(SEED).shuffle(steps)
        self.check_cases(steps, chaos.VICTIMS, SECONDS)

    def test_copies(self):
        steps = chaos.fork_steps()
        chaos.make_random(SEED).shuffle(steps)
        self.check_cases(steps, chaos.FORK_VICTIMS, SECONDS / 3, True)

    def check_cases(self, steps, victims, seconds, forks=False):
        os.environ.setdefault("CHAOS_CUT_SECONDS", "3")
        chaos.RUN_SECONDS = 10  # Whoever waits for pages that are lost is looked at for so long.
        pairs = itertools.product(range(len(victims)), steps)
        cases = iter([(step, victims[(turn + steps.index(step)) % len(victims)])
                      for turn, step in pairs])
        end = time.monotonic() + seconds
        outcomes = []

        def run_lane(number):
            lane = chaos.Lane()
            try:
                while time.monotonic() < end and (case := next(cases, None)):
                    outcomes.append(lane.run(*case, chaos.make_random(f"{SEED}/{case}"), forks))
            finally:
                lane.close()
            return number

        with concurrent.futures.ThreadPoolExecutor(LANES) as pool:
            list(pool.map(run_lane, range(LANES)))
        chaos.print_table(outcomes, sys.stderr)
        problems = [f"{outcome.step} x {outcome.victim} ({outcome.mode}): {outcome.problem}\n"
                    f"{outcome.detail}" for outcome in outcomes if outcome.problem]
        self.assertEqual(problems, [], "\n".join(problems))
        self.assertTrue(outcomes)


if __name__ == "__main__":
    harness.main()
