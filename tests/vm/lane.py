#!/usr/bin/python3
"""What is tested in the virtual machine, in one boot: the RDMA channel, and moves between two
daemons whose pages travel over real verbs. Run it by tests/vm/lane, which starts the machine."""

import os
import re
import shutil
import subprocess
import sys
import time
import unittest

from hosts import BUILD, FAILED, USAGE, WORK, resources, run, start_shared_keeper, wait_until
from move_case import RDMA, MoveCase
from troubles import Troubles  # noqa: F401  # a class of tests


class Channels(unittest.TestCase):
    def test_channel(self):
        """The contract of channels, and how connections come about and end."""
        completed = subprocess.run([BUILD / "tests" / "transport" / "rdma_test"], check=False,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.assertEqual(completed.returncode, 0, completed.stdout)
        self.assertNotIn("SKIPPED", completed.stdout)
        print(completed.stdout.splitlines()[-1], file=sys.stderr)


class Moves(MoveCase):
    """Between two hosts, and to one that has no RDMA."""

    def nothing_is_left(self):
        """Of each kind what a device has by itself: queue pair 1, which sets up connections."""
        own = {"pd": "1", "cq": "1", "qp": "1", "cm_id": "0", "mr": "0"}
        self.assertTrue(wait_until(lambda: all(resources()[device] == own
                                               for device in ("rxa", "rxb")), 30), resources())

    def test_modes(self):
        for mode in ("lazy", "demand", "eager"):
            with self.subTest(mode):
                process = self.start(mib=1 if mode == "demand" else 8)
                wait = "resumed" if mode == "demand" else "done"
                # The address asks for RDMA by itself.
                to = f"rdma://{self.hosts['b'].address}" if mode == "lazy" else "b"
                outcome = self.move(process, to, "--mode", mode, "--wait", wait)
                if mode != "demand":
                    self.assertEqual(outcome.object["owed_pages"], 0, outcome)
                self.finish(process)

    def test_on_to_a_third_host(self):
        """There over RDMA, on over TCP, since the third host has no RDMA."""
        self.add_host("c")
        process = self.start()
        self.move(process, "b", "--wait", "done")
        outcome = self.move(process, "c", "--wait", "done", transport="tcp")
        self.assertEqual(outcome.object["owed_pages"], 0, outcome)
        self.finish(process)
        self.assertIn("pages go over TCP", self.hosts["b"].log.read_text())

    def test_slow_and_lossy(self):
        how = "loss 1% delay 20ms"
        self.spoil(connections=how, new_ones=how)
        process = self.start()
        self.move(process, "b", "--wait", "done", "--transport", "rdma")
        self.finish(process)

    def start_slow_move(self):
        """A program that runs at b, with pages that still come for some seconds."""
        process = self.start(pause_ms=200)
        self.said = len(self.hosts["a"].log.read_text())
        self.move(process, "b", "--bandwidth", "2")
        return process

    def says(self, words):
        """Whether the source did since that move."""
        return words in self.hosts["a"].log.read_text()[self.said:]

    def test_cut_shortly(self):
        """The devices send again what was lost; the session does not notice."""
        process = self.start_slow_move()
        self.cut()
        time.sleep(1.5)
        self.mend()
        self.ends_over(process, "rdma")
        self.assertFalse(self.says("new connections"), self.logs())

    def test_cut_connections_are_made_anew(self):
        process = self.start_slow_move()
        self.spoil(connections="loss 100%")
        self.assertTrue(wait_until(lambda: self.says("goes on over new connections"), 60),
                        self.logs())
        self.mend()
        self.ends_over(process, "rdma")

    def test_cut_wire_falls_back_to_tcp(self):
        process = self.start_slow_move()
        self.cut()
        self.ends_over(process, "tcp")
        self.assertTrue(self.says("pages go over TCP"), self.logs())
        self.mend()
        # And RDMA is there again for the next one.
        process = self.start()
        self.move(process, "b", "--wait", "done", "--transport", "rdma")
        self.finish(process)

    def test_one_sided(self):
        """Shared memory is read without the source's processor, and is what it was."""
        process = self.start(make=start_shared_keeper)
        self.move(process, "b", "--mode", "demand")
        self.knock_without_the_token()
        self.finish(process)
        # The process ends before the last report of its pages; most were told of while it checked.
        shown = self.last_move(process)
        self.assertGreater(shown.get("one_sided_pages", 0), 0, f"{shown}\n{self.logs()}")

    def knock_without_the_token(self):
        """Who does not know the token is not let into a session that is there."""
        shown = run("rdma", "resource", "show", "cm_id", capture_output=True, text=True).stdout
        ports = re.findall(r"state LISTEN .*src-addr 10\.9\.0\.2:(\d+)", shown)
        self.assertTrue(ports, shown)
        for purpose in ("2", "3"):
            peer = subprocess.run([BUILD / "tests" / "transport" / "rdma_peer", ports[0], purpose],
                                  env=dict(os.environ, MIGRATE_RDMA_ADDRESS=RDMA["b"]), check=False,
                                  capture_output=True, text=True, timeout=60)
            self.assertEqual(peer.returncode, 1, peer)
            self.assertIn("another session, or the token is wrong", peer.stdout)
        self.assertIn("another session or a wrong token", self.hosts["b"].log.read_text())

    def test_many_threads_fault_at_once(self):
        """More of them than messages may be under way."""
        process = self.start(threads=200)
        self.move(process, "b", "--mode", "demand")
        self.finish(process)

    def test_a_session_that_is_over_holds_nothing(self):
        """Its process lives."""
        self.nothing_is_left()
        process = self.start(make=start_shared_keeper)
        self.move(process, "b", "--wait", "done")
        self.nothing_is_left()
        self.finish(process)

    def test_asked_for_where_it_is_not(self):
        self.add_host("c")
        process = self.start()
        outcome = self.move(process, "c", "--transport", "rdma", status=FAILED)
        self.assertIn("--listen rdma://", str(outcome))
        outcome = self.move(process, f"rdma://{self.hosts['c'].address}", status=FAILED)
        outcome = self.move(process, f"rdma://{self.hosts['b'].address}", "--transport", "tcp",
                            status=USAGE)
        self.move(process, "b", "--transport", "tcp", transport="tcp")
        self.finish(process)

    def test_hosts_tell(self):
        outcome = self.hosts["a"].control("hosts")
        rdma = outcome.object["hosts"][0]["rdma"]
        self.assertEqual(rdma["listen"], RDMA["a"], outcome)
        ports = {port["device"]: port for port in rdma["ports"]}
        self.assertEqual(ports["rxa"]["transport"], "RoCE")
        self.assertEqual(ports["rxa"]["state"], "active")
        self.assertIn(RDMA["a"], ports["rxa"]["addresses"])

    def test_many_moves(self):
        """There and back, MIGRATE_MOVES times (5); the last test looks at what they left behind."""
        process = self.start(mib=1, pause_ms=200)
        for _ in range(int(os.environ.get("MIGRATE_MOVES", "5"))):
            self.move(process, "b", "--wait", "done")
            self.move(process, "a", "--wait", "done")
        self.finish(process)

    def test_zz_nothing_is_left(self):
        """After all other moves: no object of verbs outlives its session."""
        self.nothing_is_left()


if __name__ == "__main__":
    try:
        unittest.main(verbosity=2)
    finally:
        shutil.rmtree(WORK, ignore_errors=True)
