#!/usr/bin/python3
"""Each step of a move with a victim, as many as fit into CHAOS_SECONDS (100); `bench/chaos` does all.

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

SECONDS = float(os.environ.get("CHAOS_SECONDS", "100"))
SEED = int(os.environ.get("CHAOS_SEED", "1"))
LANES = 3


@unittest.skipUnless(chaos.steps(), "docs/protocol.md names no steps at which workers can be stopped")
class Chaos(unittest.TestCase):
    def test_steps(self):
        os.environ.setdefault("CHAOS_CUT_SECONDS", "3")
        chaos.RUN_SECONDS = 10  # Whoever waits for pages that are lost is looked at for so long.
        source = chaos.make_random(SEED)
        steps = chaos.steps()
        source.shuffle(steps)
        pairs = itertools.product(range(len(chaos.VICTIMS)), steps)
        cases = iter([(step, chaos.VICTIMS[(turn + steps.index(step)) % len(chaos.VICTIMS)])
                      for turn, step in pairs])
        end = time.monotonic() + SECONDS
        outcomes = []

        def run_lane(number):
            lane = chaos.Lane()
            try:
                while time.monotonic() < end and (case := next(cases, None)):
                    outcomes.append(lane.run(*case, chaos.make_random(f"{SEED}/{case}")))
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
