#!/usr/bin/python3
"""MIGRATE_PAIRS (60) random pairs of a process and a move; `bench/pairs` does 5,000. MIGRATE_SEED
(1) draws others."""

import concurrent.futures
import os
import unittest

import pairs

import harness

PAIRS = int(os.environ.get("MIGRATE_PAIRS", "60"))


class Pairs(unittest.TestCase):
    def test_check_keeps_its_word(self):
        steps = pairs.list_steps()
        with pairs.make_testbed() as testbed:
            lane = pairs.Lane(testbed)
            drawn = [pairs.Pair(steps, harness.SEED, number) for number in range(PAIRS)]
            with concurrent.futures.ThreadPoolExecutor(harness.JOBS) as pool:
                outcomes = list(pool.map(lane.play, drawn))
        problems = [f"--seed {harness.SEED} --only {outcome.number}: {outcome.what}\n"
                    f"{outcome.problem}\n{outcome.detail}" for outcome in outcomes
                    if outcome.problem]
        self.assertEqual(problems, [], "\n".join(problems))
        # That the draw is one of both kinds.
        self.assertGreater([outcome.verdict for outcome in outcomes].count("moved"), PAIRS // 5)
        self.assertGreater([outcome.verdict for outcome in outcomes].count("refused"), PAIRS // 20)


if __name__ == "__main__":
    harness.main()
