#!/usr/bin/python3
"""Compares the phases of the code, libmigrate/state/phase.h and libmigrate/move/handover_phase.h, with
those of docs/model/move.pml."""

import pathlib
import re
import sys
import unittest

ROOT = pathlib.Path(sys.argv.pop(1)) if len(sys.argv) > 1 else pathlib.Path(__file__).parents[2]
MODEL = (ROOT / "docs" / "model" / "move.pml").read_text()
HEADER = "".join((ROOT / "libmigrate" / path).read_text()
                 for path in ("state/phase.h", "move/handover_phase.h"))


def phases(enum):
    """The names of an enum as the model writes them: kAwaitsRun is AWAITS_RUN."""
    body = re.search(rf"enum class {enum} : [^{{]*{{(.*?)}};", HEADER, re.DOTALL).group(1)
    names = re.findall(r"^\s*k(\w+)", re.sub(r"///.*", "", body), re.MULTILINE)
    return [re.sub(r"(?<!^)(?=[A-Z])", "_", name).upper() for name in names]


def listed(title):
    """The names that a line of the model's comment lists, which may go on on the next."""
    found = re.search(rf"^ \* {title}: (.*(?:\n \*   .*)*)", MODEL, re.MULTILINE)
    return re.findall(r"[A-Z_]+", found.group(1))


def worker(which):
    """The names of the mtype after the comment that begins with `which`."""
    declared = re.search(r"^mtype = {(.*?)^}", MODEL, re.DOTALL | re.MULTILINE).group(1)
    part = re.search(rf"/\* {which} worker.*?\*/(.*?)(?:/\*|\Z)", declared, re.DOTALL).group(1)
    return re.findall(r"[A-Z_]+", part)


class Phases(unittest.TestCase):
    def test_of_a_home(self):
        self.assertCountEqual(phases("HomePhase"),
                              listed("HomePhase here") + listed("HomePhase left out"))
        self.assertCountEqual(worker("source"),
                              listed("HomePhase here") + listed("Source worker, no HomePhase"))

    def test_of_a_guest(self):
        self.assertCountEqual(phases("GuestPhase"),
                              listed("GuestPhase here") + listed("GuestPhase left out"))
        self.assertCountEqual(worker("destination") + ["SERVING"], listed("GuestPhase here"))

    def test_of_a_handover(self):
        self.assertCountEqual(phases("HandoverPhase"),
                              listed("HandoverPhase here") + listed("HandoverPhase left out"))
        self.assertLessEqual(set(listed("HandoverPhase here")), set(worker("source")))

    def test_the_model_uses_them(self):
        for variable, names in (("source", listed("HomePhase here") + listed("HandoverPhase here")),
                                ("guest", listed("GuestPhase here"))):
            for name in names:
                self.assertRegex(MODEL, rf"\b{variable} ==? {name}\b")


if __name__ == "__main__":
    unittest.main()
