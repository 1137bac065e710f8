#!/usr/bin/python3
"""Checks the models of docs/model with SPIN: each is right, and mistakes are found."""

import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

MODELS = pathlib.Path(__file__).resolve().parents[2] / "docs" / "model"
MEMORY_MIB = 2000
DEPTH = 100_000
SECONDS = 240


def build(model, folder, options, *limits):
    """Makes a verifier of a model."""
    subprocess.run(["spin", "-a", *limits, model], cwd=folder, check=True, capture_output=True)
    subprocess.run(["gcc", "-O1", *options, "-DCOLLAPSE", f"-DMEMLIM={MEMORY_MIB}",
                    "-DVECTORSZ=512", "-o", "pan", "pan.c"], cwd=folder, check=True,
                   capture_output=True)


def search(folder, *options, mistake=0):
    """Searches every state of the model; what the verifier printed."""
    return subprocess.run(["./pan", f"-m{DEPTH}", "-w22", *options], cwd=folder, check=True,
                          capture_output=True, text=True, timeout=SECONDS,
                          env=os.environ | {"MISTAKE": str(mistake)}).stdout


def errors(output):
    return int(re.search(r"errors: (\d+)", output).group(1))


@unittest.skipUnless(shutil.which("spin"), "SPIN is not installed: scripts/install-packages")
class Move(unittest.TestCase):
    model = MODELS / "move.pml"
    mistakes_at_least = 9
    fewer = ["-DCRASHES=2", "-DCUTS=1", "-DHOSTS=1"]

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = folder.name
        build(cls.model, cls.folder, ["-DSAFETY"])

    def assert_right(self, output):
        self.assertEqual(errors(output), 0, output)
        for incomplete in ("Search not completed", "max search depth too small", "out of memory"):
            self.assertNotIn(incomplete, output)
        print(re.search(r"\d+ states, stored", output).group(0))

    def test_every_state_is_right(self):
        self.assert_right(search(self.folder))

    def test_no_step_goes_round_for_ever(self):
        # Without this, a party that asks again and again would hide one that is stuck.
        with tempfile.TemporaryDirectory() as folder:
            build(self.model, folder, ["-DNP", "-DNOFAIR"], *self.fewer)
            self.assert_right(search(folder, "-l"))

    def test_mistakes_are_found(self):
        mistakes = re.findall(r"^#define (\w+) (\d)$", self.model.read_text(), re.MULTILINE)
        self.assertGreaterEqual(len(mistakes), self.mistakes_at_least)
        for name, number in mistakes:
            with self.subTest(name):
                output = search(self.folder, mistake=number)
                self.assertEqual(errors(output), 1, output)
                self.assertIn("assertion violated", output)


class Fork(Move):
    """Copies of one process that runs on."""

    model = MODELS / "fork.pml"
    mistakes_at_least = 5
    fewer = ["-DCRASHES=2", "-DCHILDREN=2"]


if __name__ == "__main__":
    unittest.main()
