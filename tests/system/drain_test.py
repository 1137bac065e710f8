#!/usr/bin/env python3
"""migratectl drain and undrain: all that can be moved leaves a host, which takes nothing meanwhile, and what
stays is told."""

import unittest

import harness
from harness import DONE, OTHER, REFUSED, USAGE, Testbed, finish
from mpi_jobs import make_agent

USER = 1234  # of people


class DrainCase(unittest.TestCase):
    def setUp(self):
        self.testbed = Testbed(3)
        self.addCleanup(self.testbed.down)
        self.agent = make_agent(self.testbed)
        self.kept = []

    def keeper(self, host, mib=4, user=USER):
        """A program of a user that can be moved."""
        prefix = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user else []
        process = self.testbed.start_keeper(host, f"of {host} ", mib, prefix=prefix)
        self.kept.append(process)
        return process

    def ended_well(self):
        for process in self.kept:
            self.assertEqual(finish(process), "", self.testbed.logs())

    def drain(self, *words, host="hostA", **options):
        return self.testbed.control(host, "drain", *words, **options)

    def pids(self, outcome, part):
        """{pid: entry}, of the programs of this test."""
        ours = {process.pid for process in self.kept}
        return {each["pid"]: each for each in outcome.object[part] if each["pid"] in ours}


class Drain(DrainCase):
    def test_all_that_can_be_moved_leaves_the_rest_is_told_why(self):
        large, small = self.keeper("hostA", 24), self.keeper("hostA", 2)
        roots = self.keeper("hostA", user=0)
        planned = self.drain("--plan", "--to", "hostB,hostC")
        self.assertEqual(sorted(self.pids(planned, "would_move")), sorted([large.pid, small.pid]), planned)
        self.assertFalse(planned.object["drained"])
        outcome = self.drain("--to", "hostB,hostC")
        moved = self.pids(outcome, "moved")
        self.assertEqual(list(moved), [small.pid, large.pid], f"the quickest first: {outcome}")
        self.assertTrue(outcome.object["drained"])
        self.assertLessEqual({each["to"] for each in moved.values()}, {"hostB", "hostC"})
        self.assertGreaterEqual(len(outcome.object["away"]), 2, outcome)
        self.assertEqual([each["owed_pages"] for each in outcome.object["away"]],
                         [0] * len(outcome.object["away"]), outcome)
        self.assertNotIn(roots.pid, moved)
        again = self.drain("--to", "hostB,hostC", "--user", "root")
        self.assertIn(roots.pid, self.pids(again, "moved"), again)
        self.assertEqual(self.pids(again, "stays"), {}, again)
        self.ended_well()

    def test_nothing_comes_before_it_is_undrained(self):
        guest = self.keeper("hostB")
        self.assertEqual(self.drain("--to", "hostC").object["drained"], True)
        hosts = {each["host"]: each for each in self.testbed.control("hostA", "hosts").object["hosts"]}
        self.assertEqual(hosts["hostA"]["drained"], True, hosts)
        refused = self.testbed.control("hostB", "move", guest.pid, "hostA")
        self.assertEqual((refused.status, refused.codes()), (REFUSED, ["DRAINED"]), refused)
        self.assertEqual(self.testbed.control("hostB", "check", guest.pid, "--to", "hostA").codes(), ["DRAINED"])
        self.testbed.command("restart", "hostA", check=True)
        self.assertEqual(self.testbed.control("hostB", "check", guest.pid, "--to", "hostA").codes(), ["DRAINED"],
                         "a daemon that is started again has forgotten it")
        undrained = self.testbed.control("hostA", "undrain")
        self.assertEqual((undrained.status, undrained.object["drained"]), (DONE, False), undrained)
        self.assertEqual(self.testbed.move("hostB", guest.pid, "hostA").status, DONE)
        self.ended_well()

    def test_a_host_that_does_not_answer_is_passed_over(self):
        processes = [self.keeper("hostA"), self.keeper("hostA")]
        outcome = self.drain("--to", "10.213.0.77,hostB", seconds=120)
        self.assertEqual({each["to"] for each in self.pids(outcome, "moved").values()}, {"hostB"}, outcome)
        self.assertEqual(len(self.pids(outcome, "moved")), len(processes), outcome)
        self.ended_well()

    def test_guests_go_home_first(self):
        guest = self.keeper("hostC")
        self.assertEqual(self.testbed.move("hostC", guest.pid, "hostA").status, DONE)
        outcome = self.drain("--to", "hostB,hostC")
        self.assertEqual([each["to"] for each in outcome.object["moved"]], ["hostC"], outcome)
        self.ended_well()

    def test_they_come_back(self):
        process = self.keeper("hostA")
        self.assertEqual(self.drain("--to", "hostB").status, DONE)
        undrained = self.testbed.control("hostA", "undrain", "--fetch", "--agent", self.agent)
        self.assertEqual([each["pid"] for each in undrained.object["came_back"]], [process.pid], undrained)
        self.assertEqual(undrained.object["away"], [])
        self.ended_well()

    def test_what_would_not_be_away_in_time_is_left_alone(self):
        process = self.keeper("hostA", 16)
        outcome = self.drain("--to", "hostB", "--deadline", "0.0001")
        self.assertEqual(outcome.status, REFUSED, outcome)
        self.assertEqual(self.pids(outcome, "stays")[process.pid]["code"], "DEADLINE", outcome)
        self.ended_well()

    def test_what_stays_has_a_reason(self):
        process = self.testbed.start(
            "hostA", "setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups",
            "/usr/bin/python3", "-c",
            "import socket; held = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW); print('ready', flush=True); "
            "import time; time.sleep(600)")
        self.assertTrue(process.wait_ready())
        outcome = self.drain("--to", "hostB,hostC")
        self.assertEqual(outcome.status, REFUSED, outcome)
        entry = next(each for each in outcome.object["stays"] if each["pid"] == process.pid)
        self.assertEqual(entry["code"], "SOCKET_KIND", outcome)
        self.assertTrue(entry["remedy"] and entry["reason"], entry)
        text = self.testbed.run("hostA", "migratectl", "drain", "--to", "hostB")
        self.assertIn(f"{process.pid} (/usr/bin/python3 -c", text.text)
        self.assertIn("stays: SOCKET_KIND", text.text)

    def test_another_host_is_drained_by_an_agent(self):
        process = self.keeper("hostA")
        outcome = self.drain("hostA", "--to", "hostC", "--agent", self.agent, host="hostB")
        self.assertEqual(outcome.status, DONE, outcome)
        self.assertEqual(list(self.pids(outcome, "moved")), [process.pid], outcome)
        undrained = self.testbed.control("hostB", "undrain", "hostA", "--fetch", "--agent", self.agent)
        self.assertEqual([each["pid"] for each in undrained.object["came_back"]], [process.pid], undrained)
        self.ended_well()

    def test_an_interrupt_leaves_all_that_was_not_moved(self):
        for _ in range(3):
            self.keeper("hostA", 48)
        slow = self.testbed.start("hostA", "migratectl", "drain", "--to", "hostB")
        self.assertTrue(slow.wait_output(b"moved to hostB"), bytes(slow.output))
        slow.popen.send_signal(2)
        self.assertEqual(slow.wait(), OTHER, bytes(slow.output))
        self.assertIn(b"stays: INTERRUPTED", slow.output)
        self.ended_well()


class NotAllowed(DrainCase):
    def test_users_may_not(self):
        for command in ("drain", "undrain"):
            refused = self.testbed.run("hostA", "setpriv", f"--reuid={USER}", f"--regid={USER}",
                                       "--clear-groups", "migratectl", "--json", command)
            self.assertEqual(refused.status, REFUSED, refused)
            self.assertIn("only root", refused.object["error"]["message"])
        self.assertFalse(any(each.get("drained") for each in
                             self.testbed.control("hostA", "hosts").object["hosts"]))

    def test_wrong_words_are_told(self):
        for words in (("--user", "nobody-of-that-name"), ("--to", "a;b"), ("-x",), ("--deadline", "-1"),
                      ("$(reboot)",)):
            self.assertEqual(self.drain(*words).status, USAGE, words)
        nowhere = self.drain("--plan")
        self.assertEqual(nowhere.status, OTHER, nowhere)
        self.assertIn("no other host", nowhere.object["error"]["message"])

    def test_a_host_that_cannot_be_reached(self):
        outcome = self.testbed.run("hostA", "migratectl", "drain", "hostZ", "--agent", "/no/such/agent")
        self.assertEqual(outcome.status, OTHER, outcome)
        self.assertIn("cannot start /no/such/agent to reach hostZ", outcome.errors)


if __name__ == "__main__":
    harness.main()
