#!/usr/bin/python3
"""A core dump written while pages are owed has zeros in their place: its name and the reports say so.
"""

import pathlib
import signal
import unittest

import harness
from harness import DONE, PROGRAMS, Testbed, wait_until

CAP_SYS_RESOURCE = 24
STATUS = pathlib.Path("/proc/self/status").read_text()
CAPABILITIES = int(STATUS.partition("CapEff:")[2].split()[0], 16)
PATTERN = pathlib.Path("/proc/sys/kernel/core_pattern").read_text().strip()


@unittest.skipIf(PATTERN != "core", f"core dumps go to {PATTERN}")
class CoreDump(unittest.TestCase):
    def setUp(self):
        self.testbed = Testbed(2)
        self.addCleanup(self.testbed.down)
        self.cores = self.testbed.work / "cores"
        self.cores.mkdir()
        self.cores.chmod(0o777)

    def dump(self, mode, prefix=(), name="dump"):
        """The program's row at home when it has dumped core at hostB."""
        stop = self.testbed.new_path()
        program = PROGRAMS / "aborts"
        process = self.testbed.start("hostA", *prefix, program, name, stop, 100)
        self.assertTrue(process.wait_ready())
        moved = self.testbed.move("hostA", process.pid, "hostB", mode, wait=(
            "done" if mode != "demand" else "resumed"))
        self.assertEqual(moved.status, DONE, moved)
        stop.touch()
        self.assertEqual(process.wait(30), -signal.SIGABRT, self.testbed.logs())
        row = self.testbed.control("hostA", "show", moved.object["process"]).object
        return row

    def names(self):
        return sorted(path.name for path in self.cores.iterdir())

    def test_it_is_named_incomplete(self):
        row = self.dump("demand")
        self.assertEqual(len(self.names()), 1, self.names())
        self.assertTrue(self.names()[0].endswith(".incomplete"), self.testbed.logs())
        self.assertGreater(row["last_move"]["core_lacks_pages"], 2000, row)
        self.assertTrue(row["last_move"]["core_file"].endswith(".incomplete"), row)
        self.assertIn("core dump that lacks", self.testbed.logs())

    @unittest.skipUnless(CAPABILITIES >> CAP_SYS_RESOURCE & 1,
                         "limits of other users' processes cannot be read here")
    def test_an_unprivileged_user_s_too(self):
        row = self.dump("demand", ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"))
        self.assertTrue(row["last_move"].get("core_file", "").endswith(".incomplete"),
                        f"{row} {self.names()} {self.testbed.logs()}")

    def test_a_file_of_that_name_stays(self):
        other = self.cores / "core.incomplete"
        other.write_text("of somebody else")
        row = self.dump("demand")
        self.assertTrue(row["last_move"]["core_file"].endswith("core.incomplete.1"), row)
        self.assertEqual(other.read_text(), "of somebody else")
        self.assertTrue((self.cores / "core.incomplete.1").exists())
        self.assertFalse((self.cores / "core").exists())

    def test_a_complete_one_keeps_its_name(self):
        row = self.dump("lazy")
        self.assertTrue(wait_until(self.names))
        self.assertFalse([name for name in self.names() if "incomplete" in name])
        self.assertNotIn("core_lacks_pages", row["last_move"])

    def test_one_of_the_next_program_is_complete(self):
        row = self.dump("demand", name="exec-dump")
        self.assertTrue(wait_until(self.names))
        self.assertFalse([name for name in self.names() if "incomplete" in name])
        self.assertNotIn("core_lacks_pages", row["last_move"])


if __name__ == "__main__":
    harness.main()
