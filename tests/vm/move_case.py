"""What tests of moves in the virtual machine share: two daemons with an RDMA device each, at the ends
of a wire that can be cut."""

import atexit
import unittest

from hosts import DONE, HERE, Daemon, finish, run, start_program

RDMA = {"a": "10.9.0.1", "b": "10.9.0.2"}
PORTS = {"a": 7071, "b": 7072, "c": 7073, "d": 7074, "e": 7075, "f": 7076}


class MoveCase(unittest.TestCase):
    """Programs check their own pages."""

    hosts = {}  # of all classes: there is one wire

    @classmethod
    def setUpClass(cls):
        if not cls.hosts:
            run(HERE / "wires")
        for name in ("a", "b"):
            cls.add_host(name, RDMA[name])

    @classmethod
    def add_host(cls, name, rdma=None, **how):
        if name not in cls.hosts:
            cls.hosts[name] = Daemon(name, f"127.0.0.1:{PORTS[name]}", rdma, **how)
            atexit.register(cls.hosts[name].stop)

    def setUp(self):
        self.mend()

    def spoil(self, connections="", new_ones=""):
        """Makes the wire bad for what belongs to connections, and for what sets up new ones."""
        run("tc", "-batch", "-", text=True, input="".join(
            f"qdisc change dev {card} handle {handle} netem limit 100000 {how}\n"
            for card in ("va", "vb") for handle, how in (("11:", new_ones), ("12:", connections))))

    def mend(self):
        self.spoil()

    def cut(self):
        self.spoil(connections="loss 100%", new_ones="loss 100%")

    def logs(self):
        return "".join(f"--- {name}\n{host.log.read_text()[-3000:]}"
                       for name, host in self.hosts.items())

    def start(self, make=start_program, **options):
        process = make(**options)
        self.addCleanup(process.kill)
        return process

    def move(self, process, to, *options, status=DONE, transport="rdma"):
        return self.move_from("a", process, to, *options, status=status, transport=transport)

    def move_from(self, name, process, to, *options, status=DONE, transport="rdma"):
        destination = self.hosts[to].address if to in self.hosts else to
        outcome = self.hosts[name].move(process, destination, *options)
        self.assertEqual(outcome.status, status, f"{outcome}\n{self.logs()}")
        if status == DONE:
            self.assertEqual(outcome.object["transport"], transport, f"{outcome}\n{self.logs()}")
        return outcome

    def last_move(self, process, name="a"):
        return self.hosts[name].control("show", process.pid).object.get("last_move", {})

    def is_done_over(self, process, transport, name="a"):
        waited = self.hosts[name].control("wait", process.pid, "--for", "done")
        self.assertEqual(waited.status, DONE, f"{waited}\n{self.logs()}")
        self.assertEqual(self.last_move(process, name)["transport"], transport, self.logs())

    def ends_over(self, process, transport):
        self.is_done_over(process, transport)
        self.finish(process)

    def finish(self, process):
        self.assertEqual(finish(process, seconds=120), "", self.logs())
