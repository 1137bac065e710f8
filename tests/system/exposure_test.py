#!/usr/bin/python3
"""How long two hosts can end a process: shown, bounded by bandwidth and deadline."""

import signal
import unittest

import harness
from harness import DONE, Testbed, finish, wait_until

MIB = 48  # that the program holds, and does not touch meanwhile


class Exposure(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        cls.testbed = Testbed(2)
        cls.addClassCleanup(cls.testbed.down)

    def setUp(self):
        self.process = self.testbed.start_keeper("hostA", mib=MIB)
        self.addCleanup(self.process.kill)

    def move(self, *options, mode="lazy", wait="resumed"):
        outcome = self.testbed.move("hostA", self.process.pid, "hostB", mode, wait, options=options)
        self.assertEqual(outcome.status, DONE, f"{outcome}\n{self.testbed.logs()}")
        return outcome.object

    def shown(self, host):
        outcome = self.testbed.control(host, "show", self.identity)
        self.assertEqual(outcome.status, DONE, outcome)
        return outcome.object

    def finish(self):
        self.assertEqual(finish(self.process), "", self.testbed.logs())

    def test_owed_pages_and_time_are_shown(self):
        self.identity = self.move("--bandwidth", "16")["process"]

        def known():
            shown = [self.shown(host) for host in ("hostA", "hostB")]
            return shown if all(each.get("expected_independence_us") for each in shown) else None
        shown = wait_until(known)
        self.assertTrue(shown, [self.shown("hostA"), self.shown("hostB")])
        for each in shown:
            self.assertTrue(0 < each["owed_pages"] < 2 * MIB * 256, each)
        for words in (["ps"], ["show", self.identity]):
            text = self.testbed.run("hostA", "migratectl", *words).text
            self.assertRegex(text, r"\(.* m?s\)|independent in +\d", words)
        self.finish()

    def test_a_cut_link_shows_on_both_sides(self):
        self.identity = self.move("--bandwidth", "1")["process"]

        def known():
            return all(self.shown(host).get("expected_independence_us")
                       for host in ("hostA", "hostB"))
        self.assertTrue(wait_until(known), [self.shown("hostA"), self.shown("hostB")])
        self.addCleanup(self.testbed.set_link, "hostB", "up")
        self.testbed.set_link("hostB", "down")

        def unknown():
            return all(self.shown(host).get("expected_independence_us", 0) is None
                       for host in ("hostA", "hostB"))
        self.assertTrue(wait_until(unknown), [self.shown("hostA"), self.shown("hostB")])
        self.assertTrue(wait_until(lambda: self.shown("hostA").get("waits_for")),
                        self.testbed.logs())
        wait_until(lambda: self.shown("hostB").get("waits_for"))
        self.assertIsNone(self.shown("hostB")["expected_independence_us"])  # no link at all by now
        self.testbed.set_link("hostB", "up")
        self.finish()

    def test_bandwidth_bounds_the_push(self):
        result = self.move("--bandwidth", "32", wait="done")
        self.assertGreater(result["owed_nothing_after_us"], 1e6)  # 48 MiB at 32 a second
        self.identity = result["process"]
        self.assertEqual(self.shown("hostA")["owed_pages"], 0)
        self.finish()

    def test_deadline_goes_before_bandwidth(self):
        result = self.move("--bandwidth", "1", "--deadline", "2", wait="done")
        self.assertLess(result["owed_nothing_after_us"], 20e6)  # 48 s by the bandwidth alone
        self.assertIn("deadline_missed", result)
        self.finish()

    def test_deadline_pushes_in_mode_demand(self):
        result = self.move("--deadline", "1", mode="demand", wait="done")
        self.assertGreater(result["pages"]["push"], 0)
        self.finish()

    def test_missed_deadline_is_told(self):
        result = self.move("--deadline", "0.001", wait="done")
        self.assertTrue(result["deadline_missed"], result)
        text = "\n".join(self.testbed.logs().splitlines())
        self.assertIn("after the 1 ms of its deadline", text)
        self.finish()


class EndOfPatience(unittest.TestCase):
    """A daemon told to end processes that cannot get their pages (`end_waiting_s`)."""

    def test_a_process_that_waits_too_long_is_ended(self):
        testbed = Testbed(2, ["--daemon-arg=--end-waiting-s=3"])
        self.addCleanup(testbed.down)
        process = testbed.start_keeper("hostA", mib=MIB)
        patient = testbed.start_keeper("hostA", mib=MIB)
        for each, wait in ((process, "resumed"), (patient, "done")):
            mode = "demand" if wait == "resumed" else "eager"
            moved = testbed.move("hostA", each.pid, "hostB", mode, wait)
            self.assertEqual(moved.status, DONE, f"{moved}\n{testbed.logs()}")
        testbed.set_link("hostB", "down")

        def told():
            return "waited for its pages for 3 s, and is ended" in testbed.logs()
        self.assertTrue(wait_until(told, 30), testbed.logs())
        testbed.set_link("hostB", "up")
        self.assertEqual(process.wait(30), -signal.SIGKILL, testbed.logs())
        self.assertEqual(finish(patient), "", testbed.logs())  # Which was owed nothing.


if __name__ == "__main__":
    harness.main()
