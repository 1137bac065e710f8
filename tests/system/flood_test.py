#!/usr/bin/python3
"""Users who make connections to a daemon and prove nothing: nobody else's moves fail by that.

How long they take is measured by bench/flood.
"""

import pathlib
import subprocess
import sys
import time
import unittest

import flood
import harness
from harness import DONE, Testbed, finish, wait_until

MOVES = 6
CUT_SECONDS = 7  # Both sides have given the connections up by then.
SECONDS = 60
MOST_LINES = 60
MOST_CHILDREN = 64 + 8  # A user's quarter of the places, and those whom it is not to keep out.

# Fills a user's places at the local socket, and keeps them until it is killed.
LOCAL = """
import signal, socket
held = []
for _ in range(80):
    held.append(socket.socket(socket.AF_UNIX))
    held[-1].connect("/run/migrate/migrated.sock")
print("ready", flush=True)
signal.pause()
"""


class Flood(unittest.TestCase):
    options = ()

    def setUp(self):
        self.testbed = Testbed(2, self.options)
        self.addCleanup(self.testbed.down)
        self.host = next(each for each in self.testbed.hosts() if each["name"] == "hostB")

    def log_of_b(self):
        return pathlib.Path(self.host["log"]).read_text(errors="replace")

    def children_of_b(self):
        found = subprocess.run(["pgrep", "--parent", str(self.host["daemon_pid"])], check=False,
                               capture_output=True, text=True)
        return len(found.stdout.split())

    def flood(self, source, kind, **options):
        flooder = flood.start(self.testbed, source, self.host["address"], kind, SECONDS, **options)
        self.addCleanup(flooder.kill)
        return flooder

    def move_about(self):
        process = self.testbed.start_keeper("hostA", mib=1)
        for number in range(MOVES):
            moved = self.testbed.move("hostA", process.pid, ("hostB", "hostA")[number % 2])
            self.assertEqual(moved.status, DONE, f"{moved}\n{self.testbed.logs()}")
            self.assertLessEqual(self.children_of_b(), MOST_CHILDREN)
        problem = finish(process)
        self.assertFalse(problem, f"{problem}\n{self.testbed.logs()}")


class OfTheDestination(Flood):
    options = ("--tls",)

    def test_from_its_own_host(self):
        for kind in flood.KINDS:
            with self.subTest(kind):
                flooder = self.flood("hostB", kind)
                if kind in ("preamble", "hello"):  # Until it has all places that it can have.
                    self.assertTrue(wait_until(lambda: self.children_of_b() > 30))
                before = self.log_of_b().count("\n")
                self.move_about()
                flooder.kill()
                self.assertLess(self.log_of_b().count("\n") - before, MOST_LINES, self.log_of_b())

    def test_half_open_ones_cost_no_process(self):
        # The testbed has asked at the local socket whether the daemon is there: a child serves that,
        # and may do so late.
        self.assertEqual(self.testbed.control("hostB", "ping").status, DONE)
        self.assertTrue(wait_until(lambda: self.children_of_b() == 0))
        self.flood("hostB", "half")
        self.assertFalse(wait_until(lambda: self.children_of_b() > 0, 1))

    def test_from_the_host_of_the_source(self):
        """The same address as the source's daemon."""
        self.flood("hostA", "hello")
        self.move_about()

    def test_a_process_comes_back_to_its_pages(self):
        process = self.testbed.start_keeper("hostA")
        moved = self.testbed.move("hostA", process.pid, "hostB", "demand")
        self.assertEqual(moved.status, DONE, moved)
        self.flood("hostB", "hello")
        # At the door of its worker too, whose session was seen.
        session = self.testbed.control("hostA", "show", process.pid).object["session"]
        self.flood("hostB", "hello", user=flood.USER + 1, session=session)
        self.testbed.set_link("hostA", "down")
        time.sleep(CUT_SECONDS)
        self.testbed.set_link("hostA", "up")
        problem = finish(process, seconds=30)
        self.assertFalse(problem, f"{problem}\n{self.testbed.logs()}")


class WithoutKeys(Flood):
    def test_from_its_own_host(self):
        for kind in ("half", "silent"):
            with self.subTest(kind):
                flooder = self.flood("hostB", kind)
                self.move_about()
                flooder.kill()


class OfTheLocalSocket(Flood):
    def test_root_has_places_left(self):
        """Users together get no more than three quarters of the places."""
        for user in range(flood.USER, flood.USER + 4):
            filler = self.testbed.start(
                "hostB", "setpriv", "--reuid", user, "--regid", user, "--clear-groups",
                sys.executable, "-c", LOCAL)
            self.addCleanup(filler.kill)
            self.assertTrue(filler.wait_ready())
        refused = self.testbed.run("hostB", "setpriv", "--reuid", flood.USER + 9, "--regid",
                                   flood.USER, "--clear-groups", "migratectl", "ping")
        self.assertNotEqual(refused.status, DONE)
        self.assertIn("try again", refused.text + refused.errors)
        for command in (("ping",), ("ps",)):
            served = self.testbed.control("hostB", *command)
            self.assertEqual(served.status, DONE, f"{served}\n{self.testbed.logs()}")


if __name__ == "__main__":
    harness.main()
