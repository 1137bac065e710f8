#!/usr/bin/python3
"""Sockets that are open when their program is moved, and neither connected by TCP nor listening: it
goes on with them as it would without a move, and so do those who know their names."""

import os
import signal
import subprocess
import unittest

import harness
from calls_test import ECHO
from harness import DONE, REFUSED, wait_until
from link_ends import HOSTS, PYTHON, End, add_cases, worker_of

# Evaluates what it reads, one expression a line, and says what came of it.
PROGRAM = r"""
import errno, select, socket, sys, time
from socket import *
s = {}
def make(number, kind=SOCK_STREAM, family=AF_INET):
    s[number] = socket(family, kind)
    s[number].settimeout(30)
def on(number, level, name, value):
    s[number].setsockopt(level, name, value)
def polled(number, ms=0):
    watch = select.poll()
    watch.register(s[number], select.POLLIN | select.POLLOUT | select.POLLRDHUP)
    return [hex(event) for _, event in watch.poll(ms)]
def readable(number, seconds=20):
    return select.select([s[number]], [], [], seconds)[0] != []
def drained(number):
    while readable(number, 0.5):
        s[number].recv(65536)
def tries(number, data, to, seconds=1.5):
    # Who asks may come before who is asked.
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        s[number].sendto(data, to)
        time.sleep(0.05)
def refused(number, to):
    # Whether nobody has that name any more, within some seconds.
    s[number].connect(to)
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            s[number].send(b"?")
            time.sleep(0.05)
        except ConnectionRefusedError:
            return True
    return False
def echoed(number, data):
    s[number].sendall(data)
    return s[number].recv(len(data), MSG_WAITALL)
def answered(number, data, to):
    s[number].sendto(data, to)
    return s[number].recvfrom(65536)
print("ready", flush=True)
for line in sys.stdin:
    try:
        value = eval(line)
    except OSError as error:
        value = errno.errorcode.get(error.errno, repr(error))
    print(repr(value), flush=True)
"""

# What the process (p) and a program in hostC (q) do. HOME and FAR are the addresses of their hosts,
# SIX is one of home's, ECHO the port of servers there that give back what they get.
CASES = {
    "made": "p:make(1)|p:on(1,IPPROTO_TCP,TCP_NODELAY,1)|p:s[1].setblocking(False)|p:polled(1)|move|"
            "p:polled(1)|p:s[1].getsockname()|p:s[1].getblocking()|p:s[1].settimeout(30)|"
            "p:s[1].connect(('FAR',ECHO))|p:echoed(1,b'x'*5000)==b'x'*5000|move|p:echoed(1,b'y')|"
            "p:s[1].getsockopt(IPPROTO_TCP,TCP_NODELAY)|p:s[1].getsockname()[0]|p:s[1].close()",
    "made_and_moved_on": "p:make(1)|move|p:make(2)|move|p:s[1].connect(('FAR',ECHO))|p:echoed(1,b'x')|"
                         "p:s[2].connect(('HOME',ECHO))|p:echoed(2,b'y')|p:make(3,SOCK_STREAM,AF_INET6)|"
                         "move|p:s[3].connect(('SIX',ECHO))|p:echoed(3,b'z')",
    "bound": "p:make(1)|p:on(1,SOL_SOCKET,SO_REUSEADDR,1)|p:s[1].bind(('HOME',PORT))|move|"
             "p:s[1].getsockname()|move|p:s[1].connect(('FAR',ECHO))|p:s[1].getsockname()|p:echoed(1,b'x')|"
             "p:s[1].connect(('FAR',ECHO))|p:s[1].close()",
    "refused": "p:make(1)|move|p:s[1].connect(('FAR',9))|p:s[1].connect(('FAR',ECHO))|p:echoed(1,b'x')|"
               "p:make(2)|p:s[2].setblocking(True)|p:s[2].connect(('HOME',9))|move|p:s[2].connect(('HOME',ECHO))|p:echoed(2,b'x')",
    "answers_by_udp": "p:make(1,SOCK_DGRAM)|p:s[1].bind(('',PORT))|q:make(1,SOCK_DGRAM)|"
                      "q:s[1].bind(('FAR',PORT))|q:s[1].sendto(b'early',('HOME',PORT))|p:readable(1)|move|"
                      "p:s[1].getsockname()|p:s[1].recvfrom(100)|p:answered(1,b'to',('FAR',ECHO))|"
                      "q:s[1].sendto(b'a'*3000,('HOME',PORT))|p:s[1].recvfrom(5000)|"
                      "p:s[1].sendto(b'b',('FAR',PORT))|q:s[1].recvfrom(100)|"
                      "q:s[1].sendto(b'1',('HOME',PORT))|q:s[1].sendto(b'',('HOME',PORT))|"
                      "q:s[1].sendto(b'3',('HOME',PORT))|p:time.sleep(1)|move|p:s[1].recvfrom(100)|"
                      "p:s[1].recvfrom(100)|p:s[1].recvfrom(100)|p:s[1].sendto(b'c',('FAR',PORT))|"
                      "q:s[1].recvfrom(100)|move|q:s[1].sendto(b'd',('HOME',PORT))|p:s[1].recvfrom(100)|"
                      "p:s[1].close()|q:make(2,SOCK_DGRAM)|q:refused(2,('HOME',PORT))",
    "answers_by_udp_at_one_address": "p:make(1,SOCK_DGRAM)|p:s[1].bind(('127.0.0.1',PORT))|"
                      "p:make(2,SOCK_DGRAM)|p:s[2].bind(('HOME',PORT))|move|q:make(1,SOCK_DGRAM)|"
                      "q:s[1].bind(('FAR',PORT))|q:s[1].sendto(b'a',('HOME',PORT))|p:s[2].recvfrom(9)|"
                      "p:s[2].sendto(b'b',('FAR',PORT))|q:s[1].recvfrom(9)|p:s[1].sendto(b'c',('HOME',PORT))|"
                      "p:s[2].recvfrom(9)|move|p:s[2].sendto(b'd',('127.0.0.1',PORT))|p:s[1].recvfrom(9)",
    "connected_by_udp": "p:make(1,SOCK_DGRAM)|p:s[1].connect(('FAR',ECHO))|p:s[1].send(b'early')|p:readable(1)|"
                        "move|p:s[1].getpeername()|p:s[1].recv(9)|p:echoed(1,b'x')|move|p:echoed(1,b'y')|"
                        "p:s[1].getpeername()|p:s[1].connect(('HOME',ECHO))|p:echoed(1,b'z')",
    "nobody_answers_by_udp": "p:make(1,SOCK_DGRAM)|p:s[1].connect(('FAR',9))|move|p:s[1].send(b'x')|p:s[1].recv(9)",
    "udp_in_ipv6": "p:make(1,SOCK_DGRAM,AF_INET6)|p:s[1].bind(('::',PORT))|q:make(1,SOCK_DGRAM)|"
                   "q:s[1].bind(('FAR',PORT))|q:s[1].sendto(b'early',('HOME',PORT))|p:readable(1)|move|"
                   "p:s[1].recvfrom(9)|p:s[1].sendto(b'b',('::ffff:FAR',PORT))|q:s[1].recvfrom(9)|"
                   "p:answered(1,b'x',('SIX',ECHO))|q:s[1].sendto(b'c',('HOME',PORT))|p:time.sleep(1)|move|"
                   "p:s[1].recvfrom(9)",
    "udp_made_abroad": "move|p:make(1,SOCK_DGRAM)|p:s[1].bind(('',PORT))|q:make(1,SOCK_DGRAM)|"
                       "q:s[1].bind(('FAR',PORT))|q:tries(1,b'a',('HOME',PORT))|p:s[1].recvfrom(9)|"
                       "p:drained(1)|move|q:s[1].sendto(b'b',('HOME',PORT))|p:s[1].recvfrom(9)|"
                       "p:s[1].sendto(b'c',('FAR',PORT))|q:s[1].recvfrom(9)",
    "asks_by_udp": "p:make(1,SOCK_DGRAM)|p:on(1,SOL_SOCKET,SO_RCVBUF,200000)|move|"
                   "p:answered(1,b'x'*3000,('FAR',ECHO))|p:answered(1,b'y',('HOME',ECHO))|"
                   "p:s[1].getsockopt(SOL_SOCKET,SO_RCVBUF)",
}


class OpenSockets(unittest.TestCase):
    """The process begins in hostA."""

    HOME_SIX = "fd00:213::1"

    @classmethod
    def setUpClass(cls):
        cls.testbed = harness.Testbed(3)
        cls.addClassCleanup(cls.testbed.down)
        cls.testbed.run("hostA", "ip", "-6", "addr", "add", cls.HOME_SIX + "/64", "dev", "lo", "nodad")
        cls.echo = 6100
        for host, address in (("hostC", HOSTS["hostC"]), ("hostA", HOSTS["hostA"]), ("hostA", cls.HOME_SIX)):
            echo = cls.testbed.start(host, PYTHON, "-c", ECHO, address, cls.echo)
            assert echo.wait_ready(), bytes(echo.output)
        cls.port = 6200

    def start(self, host, *user):
        end = End.__new__(End)
        end.process = self.testbed.start(host, *user, PYTHON, "-c", PROGRAM, stdin=subprocess.PIPE)
        self.addCleanup(end.process.kill)
        return end.ready()

    def move(self, process, destination, *options):
        outcome = self.testbed.move("hostA", process.pid, destination, options=list(options))
        self.assertEqual(outcome.status, DONE, f"{outcome}\n{self.testbed.logs()}")

    def observe(self, steps, places):
        type(self).port += 1
        for word, value in (("HOME", HOSTS["hostA"]), ("FAR", HOSTS["hostC"]), ("SIX", self.HOME_SIX),
                            ("ECHO", self.echo), ("PORT", self.port)):
            steps = steps.replace(word, str(value))
        ends = {"p": self.start("hostA"), "q": self.start("hostC")}
        places = iter(places)
        seen = []
        for step in steps.split("|"):
            if step == "move":
                if place := next(places, None):
                    self.move(ends["p"].process, place)
                continue
            ends[step[0]].tell(step[2:])
            seen.append(f"{step}: {ends[step[0]].answer()}".replace(str(self.port), "PORT"))
        for end in ends.values():
            end.process.kill()
        return seen

    def compare(self, name):
        expected = self.observe(CASES[name], [])
        for places in (["hostB", "hostC", "hostA"], ["hostB", "hostA", "hostB"]):
            with self.subTest(case=name, places=places):
                self.assertEqual(self.observe(CASES[name], places), expected, self.testbed.logs(15))

    def test_a_name_of_homes_needs_its_network(self):
        end = self.start("hostA")
        end.tell("make(1), make(2), s[1].bind(('127.0.0.1', 6199))")
        end.answer()
        outcome = self.testbed.control("hostA", "check", end.process.pid, "--to", "hostB",
                                       "--network", "place")
        self.assertEqual((outcome.status, outcome.codes()), (REFUSED, ["SOCKET_BOUND"]), outcome)
        outcome = self.testbed.move("hostA", end.process.pid, "hostB", options=["--network", "place"])
        self.assertEqual((outcome.status, outcome.codes()), (REFUSED, ["SOCKET_BOUND"]), outcome)
        end.tell("s[1].close()")
        end.answer()
        self.move(end.process, "hostB", "--network", "place")
        end.tell(f"s[2].connect(('{HOSTS['hostC']}', {self.echo})) or s[2].getsockname()[0]")
        self.assertEqual(end.answer(), repr(HOSTS["hostB"]))

    def test_its_datagrams_come_whoever_dies(self):
        end, far = self.start("hostA"), self.start("hostC")
        end.tell("make(1, SOCK_DGRAM), s[1].bind(('', 6197))")
        far.tell("make(1, SOCK_DGRAM), s[1].bind(('', 6196)), s[1].settimeout(0.2)")
        end.answer(), far.answer()
        self.move(end.process, "hostB")
        for host in ("hostA", "hostB", "hostA"):
            os.kill(worker_of(self.testbed, host, end.process), signal.SIGKILL)
            end.tell(f"s[1].recvfrom(9), s[1].sendto(b'back', ('{HOSTS['hostC']}', 6196)), drained(1)")
            far.tell(f"tries(1, b'x', ('{HOSTS['hostA']}', 6197), 6) or s[1].recv(9)")
            self.assertIn("b'x'", end.answer(), self.testbed.logs(15))
            self.assertEqual(far.answer(), "b'back'", self.testbed.logs(15))

    def test_nothing_is_left(self):
        end = self.start("hostA")
        end.tell("make(1, SOCK_DGRAM), s[1].bind(('', 6195)), make(2), s[2].bind(('', 6195))")
        end.answer()
        self.move(end.process, "hostB")
        end.process.kill()
        self.assertTrue(wait_until(lambda: all(":1833" not in self.testbed.run(
            "hostA", "cat", "/proc/net/" + table).text for table in ("udp", "tcp")), 20))

    def test_it_is_one_of_its_links(self):
        end = self.start("hostA")
        end.tell("make(1), s[1].bind(('127.0.0.1', 6198))")
        end.answer()
        outcome = self.testbed.control("hostA", "check", "--links", end.process.pid)
        self.assertEqual([(link["kind"], link["way"], link["local"]) for link in outcome.object["links"]
                          if link["kind"] == "socket"], [("socket", "home", "127.0.0.1:6198")], outcome)

    def test_what_another_process_has_too_is_refused(self):
        end = self.start("hostA")
        end.tell("make(1), s[1].set_inheritable(True), __import__('subprocess').Popen(['sleep', '600'], "
                 "close_fds=False, start_new_session=True, stdin=-3, stdout=-3).pid")
        end.answer()
        outcome = self.testbed.control("hostA", "check", end.process.pid)
        self.assertIn("SOCKET_SHARED", outcome.codes(), outcome)


add_cases(OpenSockets, CASES)


if __name__ == "__main__":
    harness.main()
