"""What can be wrong with RDMA: each is told in words, and pages go over TCP."""

import subprocess
import time

from hosts import BIN, FAILED, run, wait_until
from move_case import RDMA, MoveCase

# A device of its own, which may go down and away: the wire's would have to be laid anew.
CARD = "dd"
DEVICE = "rxd"
ADDRESS = "10.9.5.1"


class Troubles(MoveCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        run("ip", "link", "add", CARD, "type", "dummy")
        run("ip", "address", "add", f"{ADDRESS}/24", "dev", CARD)
        run("ip", "link", "set", CARD, "mtu", "4400", "up")
        cls.add_device()
        for name in ("d", "e"):
            cls.add_host(name, ADDRESS)

    @staticmethod
    def add_device():
        run("rdma", "link", "add", DEVICE, "type", "rxe", "netdev", CARD)

    def set_card(self, state):
        run("ip", "link", "set", CARD, state)
        self.assertTrue(wait_until(lambda: self.port_is("ACTIVE" if state == "up" else "DOWN"), 30))

    @staticmethod
    def port_is(state):
        shown = run("rdma", "link", "show", f"{DEVICE}/1", capture_output=True, text=True).stdout
        return f"state {state}" in shown

    def says(self, name, words):
        return words in self.hosts[name].log.read_text()

    def residents(self, name):
        records = self.hosts[name].control("ps").object["processes"]
        return [each for each in records if each["role"] == "resident"]

    def test_port_down(self):
        self.set_card("down")
        self.addCleanup(self.set_card, "up")
        listed = run(BIN / "migratectl", "--socket", self.hosts["d"].socket, "hosts",
                     capture_output=True, text=True).stdout
        self.assertIn(f"no pages over rdma: port {DEVICE}/1 is down", listed)
        # Where the pages come to.
        process = self.start()
        outcome = self.move(process, "d", "--transport", "rdma", status=FAILED)
        self.assertIn(f"port {DEVICE}/1 of this host is down", str(outcome))
        self.move(process, "d", "--wait", "done", transport="tcp")
        self.assertTrue(self.says("a", f"port {DEVICE}/1 of this host is down"), self.logs())
        self.finish(process)
        # Where they come from.
        process = self.start()
        outcome = self.move_from("d", process, "b", "--transport", "rdma", status=FAILED)
        self.assertIn(f"port {DEVICE}/1", str(outcome))
        self.assertIn("is down", str(outcome))
        self.move_from("d", process, "b", "--wait", "done", transport="tcp")
        self.finish(process)

    def test_no_answer(self):
        """A port that is up, and does not answer: what to look at is told."""
        self.spoil(new_ones="loss 100%")
        process = self.start()
        outcome = self.move(process, "b", "--transport", "rdma", status=FAILED)
        self.assertIn("no firewall drops UDP port 4791", str(outcome))
        # The destination is told, and does not wait for long.
        self.assertTrue(wait_until(lambda: not self.residents("b"), 5), self.logs())
        self.move(process, "b", "--wait", "done", transport="tcp")
        self.finish(process)

    def test_device_removed(self):
        """Its pages go on over TCP, and the device is gone as soon as the process is."""
        process = self.start(pause_ms=200)
        self.move_from("d", process, "e", "--bandwidth", "2")
        with subprocess.Popen(["rdma", "link", "delete", DEVICE]) as removal:
            self.addCleanup(removal.kill)
            self.is_done_over(process, "tcp", "d")
            self.finish(process)
            self.assertEqual(removal.wait(60), 0, self.logs())
        self.add_device()
        process = self.start()
        self.move_from("d", process, "e", "--wait", "done", "--transport", "rdma")
        self.finish(process)

    def test_too_little_may_be_pinned(self):
        without = ["setpriv", "--bounding-set", "-ipc_lock", "--inh-caps", "-ipc_lock"]
        self.add_host("f", RDMA["b"], prefix=[*without, "prlimit", "--memlock=1048576:1048576"])
        process = self.start(prefix=without)  # or f could not give it what it had
        outcome = self.move(process, "f", "--transport", "rdma", status=FAILED)
        self.assertIn("may not pin enough memory", str(outcome))
        self.assertTrue(self.says("f", "RLIMIT_MEMLOCK is 1048576"), self.logs())
        self.move(process, "f", "--wait", "done", transport="tcp")
        self.finish(process)
        # And as a source.
        process = self.start(prefix=without)
        outcome = self.move_from("f", process, "b", "--transport", "rdma", status=FAILED)
        self.assertIn("RLIMIT_MEMLOCK is 1048576", str(outcome))
        self.move_from("f", process, "b", "--wait", "done", transport="tcp")
        self.finish(process)
