"""Both ends of a connection, one of which is a process that moves, for tests that compare what they see."""

import hashlib
import os
import signal
import subprocess
import unittest

import harness
from harness import DONE, wait_until

PYTHON = "/usr/bin/python3"
HOSTS = {"hostA": "10.213.0.1", "hostB": "10.213.0.2", "hostC": "10.213.0.3"}
PATIENCE = 60

# One end of a connection, which does what it reads, one step a line, and says what came of it.
END = r"""
import errno, hashlib, os, select, socket, struct, sys, threading, time
role, family, address, port = sys.argv[1:5]
def said(*words):
    print(*words, flush=True)
kind = {"4": socket.AF_INET, "6": socket.AF_INET6, "unix": socket.AF_UNIX}[family]
name = (address.replace("@", "\0") + port) if family == "unix" else (address, int(port))
if role == "listen":
    listener = socket.socket(kind, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(name)
    listener.listen(1)
    said("ready")
    link, _ = listener.accept()
    listener.close()
else:
    link = socket.socket(kind, socket.SOCK_STREAM)
    link.connect(name)
    said("ready")
watch = select.epoll()
watch.register(link, select.EPOLLIN | select.EPOLLRDHUP)
def pattern(start, count):
    return bytes((i * 2654435761 >> 11 ^ i >> 16) & 255 for i in range(start, start + count))
def attempt(what):
    try:
        return what()
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
def read_to_end():
    everything = b""
    while True:
        part = attempt(lambda: link.recv(65536))
        if not isinstance(part, bytes):
            return "%d bytes then %s" % (len(everything), part)
        if not part:
            return "%d bytes then the end" % len(everything)
        everything += part
def pump(total):
    block = bytes(range(256)) * 64
    def write():
        for place in range(0, total, len(block)):
            link.sendall(hashlib.sha256(str(place).encode()).digest() + block[32:])
            time.sleep(0.001)
    writer = threading.Thread(target=write)
    writer.start()
    seen, count = hashlib.sha256(), 0
    while count < total:
        part = link.recv(min(1 << 20, total - count))
        if not part:
            break
        seen.update(part)
        count += len(part)
        if count % (1 << 20) < len(part):
            said("at", count >> 20)
    writer.join()
    said("pumped", count, seen.hexdigest())
for line in sys.stdin:
    word, *rest = line.split()
    if word == "send":
        said("sent", attempt(lambda: link.send(rest[0].encode())))
    elif word == "urgent":
        said("sent", attempt(lambda: link.send(rest[0].encode(), socket.MSG_OOB)))
    elif word == "receive":
        text = b""
        while len(text) < int(rest[0]):
            part = link.recv(int(rest[0]) - len(text))
            if not part:
                break
            text += part
        said("received", text)
    elif word == "receive-urgent":
        while True:
            found = attempt(lambda: link.recv(1, socket.MSG_OOB))
            if found not in ("EINVAL", "EAGAIN"):
                break
            time.sleep(0.01)
        said("urgent", found)
    elif word == "to-end":
        said(read_to_end())
    elif word == "waits":
        said("events", sorted(hex(events) for _, events in watch.poll(30)))
    elif word == "waits-for-end":  # Which may come by itself, behind the bytes before it.
        while not any(events & select.EPOLLRDHUP for _, events in watch.poll(30)):
            time.sleep(0.01)
        said("events", sorted(hex(events) for _, events in watch.poll(0)))
    elif word == "half":
        said("half", attempt(lambda: link.shutdown(socket.SHUT_WR)))
    elif word == "linger":
        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        said("lingers")
    elif word == "close":
        watch.unregister(link)
        said("closed", attempt(link.close))
    elif word == "fill":
        link.setblocking(False)
        count = 0
        while not isinstance(attempt(lambda: link.send(b"x" * 4096)), str):
            count += 1
        link.setblocking(True)
        said("filled", count > 0)
    elif word == "writes":
        while isinstance(attempt(lambda: link.send(b"x")), int):
            time.sleep(0.01)
        said("broken", attempt(lambda: link.send(b"x")))
    elif word == "names":
        said("names", link.getsockname(), attempt(link.getpeername))
    elif word == "maker":
        said("maker", struct.unpack("3i", link.getsockopt(
            socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1:])
    elif word == "set":
        link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 77)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 30000)
        if family == "4":
            link.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 8)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 50, 0))
        said("set")
    elif word == "options":
        said("options", *(link.getsockopt(level, name) for level, name in (
            (socket.SOL_SOCKET, socket.SO_KEEPALIVE), (socket.SOL_SOCKET, socket.SO_REUSEADDR),
            (socket.IPPROTO_TCP, socket.TCP_NODELAY), (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
            (socket.SOL_SOCKET, socket.SO_RCVBUF), (socket.SOL_SOCKET, socket.SO_ERROR),
            (socket.SOL_SOCKET, socket.SO_TYPE), (socket.SOL_SOCKET, socket.SO_OOBINLINE),
            (socket.IPPROTO_IP, socket.IP_TOS), (socket.SOL_SOCKET, socket.SO_PRIORITY))),
            link.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16))
    elif word == "pump":
        pump(int(rest[0]) << 20)
    elif word == "exit":
        sys.exit(int(rest[0]))
"""


class End:
    """An end of a connection, in a host."""

    def __init__(self, testbed, host, *arguments):
        self.process = testbed.start(host, PYTHON, "-c", END, *arguments, stdin=subprocess.PIPE)
        self.place = 0

    def ready(self):
        assert self.process.wait_ready(), bytes(self.process.output)
        self.place = len(b"ready\n")
        return self

    def tell(self, step):
        self.process.stdin.write(step.encode() + b"\n")
        self.process.stdin.flush()

    def answer(self):
        """The next line that it says; nothing if it ends, or is silent for too long."""
        wait_until(lambda: b"\n" in self.process.output[self.place:] or
                   self.process.popen.poll() is not None, PATIENCE)
        line, newline, _ = bytes(self.process.output[self.place:]).partition(b"\n")
        self.place += len(line) + len(newline)
        return line.decode()


def worker_of(testbed, host, process):
    """The pid of the process's worker in this host, once there is one."""
    rows = wait_until(lambda: [row for row in testbed.control(host, "ps").object["processes"]
                               if row.get("worker_alive") and (
                                   row["pid"] == process.pid or row["state"] == "running-here")],
                      PATIENCE)
    return rows[0]["worker"]


class LinkCase(unittest.TestCase):
    """The process begins in hostA, its peer is in hostC, or in hostA where addresses are its own."""

    cases = {}

    @classmethod
    def setUpClass(cls):
        cls.testbed = harness.Testbed(3)
        cls.addClassCleanup(cls.testbed.down)
        cls.port = 5000

    def connect(self, family="4", address=HOSTS["hostC"], host="hostC", listens=False):
        """Both ends; the process listens for its peer, or the other way round."""
        type(self).port += 1
        where = {"p": "hostA", "q": host}
        first, second = ("p", "q") if listens else ("q", "p")
        bound = address if not listens or host == "hostA" else HOSTS["hostA"]
        ends = {first: End(self.testbed, where[first], "listen", family, bound, self.port).ready()}
        ends[second] = End(self.testbed, where[second], "connect", family, bound, self.port).ready()
        return ends["p"], ends["q"]

    def move(self, end, destination):
        outcome = self.testbed.move("hostA", end.process.pid, destination)
        self.assertEqual(outcome.status, DONE, f"{outcome}\n{self.testbed.logs()}")

    def observe(self, steps, places, **options):
        process, peer = self.connect(**options)
        ends = {"p": process, "q": peer}
        places = iter(places)
        seen = []
        for step in steps.split("|"):
            if step == "move":
                place = next(places, None)
                if place:
                    self.move(process, place)
                continue
            ends[step[0]].tell(step[2:])
            if step.startswith("p:exit"):
                seen.append(str(process.process.wait()))
            else:
                answer = ends[step[0]].answer().replace(str(self.port), "PORT")
                seen.append(f"{step}: {answer}")
        for end in ends.values():
            end.process.kill()
        return seen

    def compare(self, name, **options):
        steps = self.cases[name]
        expected = self.observe(steps, [], **options)
        for places in (["hostB", "hostC"], ["hostB", "hostA"]):
            with self.subTest(case=name, places=places, **options):
                seen = self.observe(steps, places, **options)
                if "names_and_options" == name:  # Ports of clients are as they come.
                    self.assertEqual({line for line in seen if "p:names" in line}, {seen[1]})
                    seen = [line for line in seen if "names" not in line]
                    expected = [line for line in expected if "names" not in line]
                self.assertEqual(seen, expected)

    def pump(self, **options):
        """Data both ways while the process moves on, there and home."""
        process, peer = self.connect(**options)
        for end in (process, peer):
            end.tell("pump 24")
        for place, mark in (("hostB", b"at 2\n"), ("hostC", b"at 7\n"), ("hostA", b"at 12\n")):
            self.assertTrue(process.process.wait_output(mark, PATIENCE), self.testbed.logs())
            self.move(process, place)
        self.check_sums(process, peer)

    def pump_over_deaths(self):
        """The same while workers of both sides are killed."""
        process, peer = self.connect()
        self.move(process, "hostB")
        for end in (process, peer):
            end.tell("pump 24")
        for mark in range(2, 18, 3):
            self.assertTrue(process.process.wait_output(b"at %d\n" % mark, PATIENCE),
                            self.testbed.logs())
            for host in ("hostA", "hostB") if mark % 2 else ("hostB", "hostA"):
                os.kill(worker_of(self.testbed, host, process.process), signal.SIGKILL)
        self.check_sums(process, peer)

    def check_sums(self, process, peer):
        sums = []
        for end in (process, peer):
            self.assertTrue(end.process.wait_output(b"pumped", PATIENCE), self.testbed.logs())
            wait_until(lambda end=end: end.process.output.endswith(b"\n"))
            sums.append(bytes(end.process.output).split(b"pumped")[1])
        expected = hashlib.sha256()
        block = bytes(range(256)) * 64
        for place in range(0, 24 << 20, len(block)):
            expected.update(hashlib.sha256(str(place).encode()).digest() + block[32:])
        for each in sums:
            self.assertEqual(each.split(), [str(24 << 20).encode(), expected.hexdigest().encode()])


def add_cases(tests, names):
    """A test for each name, by which both a process that stays and one that moves are looked at."""
    for name in names:
        setattr(tests, "test_" + name, lambda self, name=name: self.compare(name))
