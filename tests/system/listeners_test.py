#!/usr/bin/python3
"""Listeners of moved programs: who connects to one sees, and the program too, what both would see
without a move."""

import os
import pathlib
import signal
import subprocess
import unittest

import harness
from harness import DONE, REFUSED, program, wait_until
from link_ends import HOSTS, PATIENCE, PYTHON, End, add_cases, worker_of

# Either a server or several clients, which do what they read, one step a line, and say what came of
# it. Of links each has a number, in the order in which they were made.
ENDS = r"""
import errno, os, select, socket, struct, sys, threading, time
role, family, address, port, backlog = sys.argv[1:6]
def said(*words):
    print(*words, flush=True)
def attempt(what):
    try:
        return what()
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
kind = socket.AF_INET if family == "4" else socket.AF_INET6
links = {}
if role == "server":
    listener = socket.socket(kind, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.bind((address, int(port)))
    listener.listen(int(backlog))
    watch = select.epoll()
    watch.register(listener, select.EPOLLIN)
said("ready")
def connect(own=None):
    link = socket.socket(kind, socket.SOCK_STREAM)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if own:
        link.bind(("", own))
    link.settimeout(30)
    link.connect((address, int(port)))
    return link
for line in sys.stdin:
    word, *rest = line.split()
    number = int(rest[0]) if rest and rest[0].isdigit() else 0
    link = links.get(number)
    if word == "connect":
        links[number] = attempt(connect)
        said("connected", isinstance(links[number], socket.socket))
    elif word == "connect-from":  # A port that nobody has but by this, one at a time.
        links[number] = attempt(lambda: connect(int(port) - 3000))
        said("connected", isinstance(links[number], socket.socket))
    elif word == "refused":
        for _ in range(500):
            if attempt(connect) == "ECONNREFUSED":
                break
            time.sleep(0.02)
        said("refused", attempt(connect))
    elif word == "accept":
        link, name = listener.accept()
        links[number] = link
        said("accepted", name == link.getpeername(), name[0], link.getsockname()[:2],
             link.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY), os.get_inheritable(link.fileno()))
    elif word == "accept-none":
        listener.setblocking(False)
        said("none", attempt(listener.accept))
        listener.setblocking(True)
    elif word == "waits":
        said("events", [hex(events) for _, events in watch.poll(30)])
    elif word == "idle":
        said("events", watch.poll(0))
    elif word == "about":
        said("about", listener.getsockname(), *(listener.getsockopt(*what) for what in (
            (socket.SOL_SOCKET, socket.SO_ACCEPTCONN), (socket.SOL_SOCKET, socket.SO_REUSEADDR),
            (socket.SOL_SOCKET, socket.SO_TYPE), (socket.SOL_SOCKET, socket.SO_ERROR),
            (socket.IPPROTO_TCP, socket.TCP_NODELAY))), os.fstat(listener.fileno()).st_uid)
    elif word == "send":
        said("sent", attempt(lambda: link.send(rest[1].encode())))
    elif word == "receive":
        text = b""
        while len(text) < int(rest[1]):
            part = attempt(lambda: link.recv(int(rest[1]) - len(text)))
            if not part or isinstance(part, str):
                break
            text += part
        said("received", text)
    elif word == "to-end":
        count = 0
        while isinstance(part := attempt(lambda: link.recv(65536)), bytes) and part:
            count += len(part)
        said("to the end", count, part)
    elif word == "half":
        said("half", attempt(lambda: link.shutdown(socket.SHUT_WR)))
    elif word == "reset":
        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        said("closed", attempt(links.pop(number).close))
    elif word == "close":
        said("closed", attempt(links.pop(number).close))
    elif word == "unlisten":
        watch.close()
        said("closed", attempt(listener.close))
    elif word == "exit":
        sys.exit(int(rest[0]))
"""

# Steps of the server (p) and its clients (q); "move" where the server moves on, if it is to be
# moved. "p!" and "p?" begin a step and ask what came of it.
CASES = {
    "accepts_after_the_move": "move|q:connect 1|p:waits|p:accept 1|p:idle|q:send 1 hello|"
                              "p:receive 1 5|p:send 1 world|q:receive 1 5|move|q:send 1 again|"
                              "p:receive 1 5|q:connect 2|p:accept 2|p:send 2 x|q:receive 2 1|"
                              "p:close 1|q:to-end 1|q:close 2|p:to-end 2",
    "queue_is_carried": "q:connect 1|q:send 1 hello|q:connect 2|q:half 2|q:connect 3|move|"
                        "p:waits|p:accept 1|p:receive 1 5|p:accept 2|p:to-end 2|p:send 2 late|"
                        "q:receive 2 4|p:accept 3|p:idle|p:accept-none|move|p:send 1 bye|"
                        "q:receive 1 3|q:close 3|p:to-end 3",
    "queue_abroad_is_carried": "move|q:connect 1|q:send 1 hello|q:connect 2|q:half 2|p:waits|move|"
                               "p:waits|p:accept 1|p:accept 2|p:receive 1 5|p:to-end 2|"
                               "p:send 2 late|q:receive 2 4|p:close 2|q:to-end 2",
    "accept_waits_over_moves": "p!accept 1|move|move|q:connect 1|p?|q:send 1 x|p:receive 1 1",
    "listener_and_options": "p:about|move|p:about|p:accept-none|move|p:about",
    "closed_listener": "q:connect 1|p:accept 1|move|q:connect 2|p:waits|p:unlisten|q:to-end 2|"
                       "q:refused|p:send 1 x|q:receive 1 1|move|q:send 1 y|p:receive 1 1",
    "closed_listener_moves_on": "move|p:unlisten|move|q:refused",
    "same_port_again": "move|q:connect-from 1|p:accept 1|p:send 1 x|q:receive 1 1|q:reset 1|p:to-end 1|"
                       "p:close 1|q:connect-from 2|p:accept 2|p:send 2 y|q:receive 2 1|move|"
                       "q:close 2|p:to-end 2|p:close 2|p:idle",
    "client_leaves_first": "move|q:connect 1|q:send 1 abc|q:close 1|p:accept 1|p:to-end 1|move|"
                           "p:to-end 1|p:close 1",
    "server_ends": "move|q:connect 1|p:accept 1|q:connect 2|p:waits|move|p:exit 3|q:to-end 1|"
                   "q:to-end 2|q:refused",
    "resets": "move|q:connect 1|p:accept 1|q:reset 1|p:to-end 1|move|p:to-end 1|q:connect 2|"
              "p:accept 2|p:reset 2|q:to-end 2",
}

ECHO = r"""
import asyncio, sys
async def serve(reader, writer):
    while line := await reader.readline():
        writer.write(line)
        await writer.drain()
    writer.close()
async def main():
    server = await asyncio.start_server(serve, sys.argv[1], int(sys.argv[2]), backlog=200)
    print("ready", flush=True)
    await server.serve_forever()
asyncio.run(main())
"""

# Clients that stay, and others that come anew; each line must come back.
CALLERS = r"""
import asyncio, os, sys
address, port, stay, rounds = sys.argv[1], *map(int, sys.argv[2:5])
good = 0
async def ask(reader, writer, text):
    writer.write(text + b"\n")
    await writer.drain()
    answer = await asyncio.wait_for(reader.readline(), 60)
    assert answer == text + b"\n", (text, answer)
async def stays(number, over):
    reader, writer = await asyncio.open_connection(address, port)
    count = 0
    while not over.is_set():
        await ask(reader, writer, b"%d %d " % (number, count) + os.urandom(200).hex().encode())
        count += 1
        await asyncio.sleep(0.2)
    writer.close()
async def comes(number):
    global good
    reader, writer = await asyncio.open_connection(address, port)
    await ask(reader, writer, b"%d" % number)
    writer.close()
    good += 1
async def main():
    over = asyncio.Event()
    staying = [asyncio.create_task(stays(number, over)) for number in range(stay)]
    coming = []
    for number in range(rounds):
        coming.append(asyncio.create_task(comes(number)))
        if number % 50 == 49:
            print("at", number + 1, flush=True)
        await asyncio.sleep(0.02)
    await asyncio.gather(*coming)
    over.set()
    await asyncio.gather(*staying)
    print("all", good, flush=True)
asyncio.run(main())
"""


class Listeners(unittest.TestCase):
    """The server begins in hostA, its clients are in hostC, or in hostA where addresses are its own."""

    @classmethod
    def setUpClass(cls):
        cls.testbed = harness.Testbed(3)
        cls.addClassCleanup(cls.testbed.down)
        cls.port = 6000

    def next_port(self):
        type(self).port += 1
        return self.port

    def begin(self, family="4", address=HOSTS["hostA"], host="hostC", backlog=5):
        ends = {}
        port = self.next_port()
        for name, role, where in (("p", "server", "hostA"), ("q", "clients", host)):
            end = End.__new__(End)
            end.process = self.testbed.start(where, PYTHON, "-c", ENDS, role, family, address, port,
                                             backlog, stdin=subprocess.PIPE)
            ends[name] = end.ready()
        return ends

    def move(self, process, destination, *options):
        outcome = self.testbed.move("hostA", process.pid, destination, options=list(options))
        self.assertEqual(outcome.status, DONE, f"{outcome}\n{self.testbed.logs()}")

    def observe(self, steps, places, **options):
        ends = self.begin(**options)
        places = iter(places)
        seen = []
        for step in steps.split("|"):
            if step == "move":
                if place := next(places, None):
                    self.move(ends["p"].process, place)
                continue
            end, what = ends[step[0]], step[1]
            if what != "?":
                try:
                    end.tell(step[2:])
                except BrokenPipeError:
                    self.fail(f"{step}: {end.process.wait()} {bytes(end.process.output)}\n"
                              f"{self.testbed.logs(30)}")
            if step.startswith("p:exit"):
                seen.append(str(end.process.wait()))
            elif what != "!":
                seen.append(f"{step}: {end.answer()}")
        for end in ends.values():
            end.process.kill()
        return seen

    def compare(self, name, **options):
        expected = self.observe(CASES[name], [], **options)
        expected = [line.replace(str(self.port), "PORT") for line in expected]
        for places in (["hostB", "hostC"], ["hostB", "hostA"]):
            with self.subTest(case=name, places=places, **options):
                seen = self.observe(CASES[name], places, **options)
                seen = [line.replace(str(self.port), "PORT") for line in seen]
                self.assertEqual(seen, expected, self.testbed.logs(15))

    def test_ipv6(self):
        self.compare("accepts_after_the_move", family="6", address="::1", host="hostA")
        self.compare("queue_is_carried", family="6", address="::1", host="hostA")

    def test_mapped_addresses(self):
        self.compare("accepts_after_the_move", family="6", address="::ffff:127.0.0.1", host="hostA")

    def test_loopback(self):
        self.compare("queue_abroad_is_carried", address="127.0.0.1", host="hostA")

    def start_echo(self, stay, rounds):
        port = self.next_port()
        server = self.testbed.start("hostA", PYTHON, "-c", ECHO, HOSTS["hostA"], port)
        self.assertTrue(server.wait_ready(), bytes(server.output))
        callers = self.testbed.start("hostC", PYTHON, "-c", CALLERS, HOSTS["hostA"], port, stay, rounds)
        return server, callers

    def check_callers(self, callers, rounds):
        self.assertEqual(callers.wait(), 0, bytes(callers.output[-2000:]))
        self.assertTrue(callers.output.endswith(b"all %d\n" % rounds), bytes(callers.output[-300:]))

    def test_clients_stay_and_come_while_an_echo_server_moves(self):
        server, callers = self.start_echo(50, 700)
        for place, mark in (("hostB", 50), ("hostC", 200), ("hostA", 350), ("hostB", 500)):
            self.assertTrue(callers.wait_output(b"at %d\n" % mark, PATIENCE),
                            bytes(callers.output[-2000:]))
            self.move(server, place)
        self.check_callers(callers, 700)
        server.kill()

    def test_no_connection_is_lost_by_deaths_of_workers(self):
        server, callers = self.start_echo(10, 500)
        self.move(server, "hostB")
        for mark in range(50, 400, 50):
            self.assertTrue(callers.wait_output(b"at %d\n" % mark, PATIENCE),
                            f"{bytes(callers.output[-2000:])}\n{self.testbed.logs()}")
            host = "hostA" if mark % 100 else "hostB"
            os.kill(worker_of(self.testbed, host, server), signal.SIGKILL)
        self.check_callers(callers, 500)
        server.kill()

    def test_nothing_is_left_of_connections_that_are_over(self):
        server, callers = self.start_echo(0, 50)
        self.move(server, "hostB")
        self.check_callers(callers, 50)
        parts = (server.pid, worker_of(self.testbed, "hostA", server), worker_of(self.testbed, "hostB", server))

        def open_descriptors():
            return [len(os.listdir(f"/proc/{pid}/fd")) for pid in parts]

        idle = wait_until(lambda: (first := open_descriptors()) and (
            first == open_descriptors()) and first, PATIENCE)
        callers = self.testbed.start("hostC", PYTHON, "-c", CALLERS, HOSTS["hostA"], self.port, 0, 100)
        self.check_callers(callers, 100)
        self.assertTrue(wait_until(lambda: all(
            now <= before for now, before in zip(open_descriptors(), idle)), PATIENCE),
            (idle, open_descriptors()))
        server.kill()

    def test_a_listener_that_two_have_is_refused(self):
        heir = self.testbed.start("hostA", PYTHON, "-c", "import socket, os, time\n"
                                  "l = socket.create_server(('127.0.0.1', 0))\n"
                                  "if os.fork() == 0: os.setsid()\n"
                                  "else: print('ready', flush=True)\n"
                                  "time.sleep(600)")
        self.assertTrue(heir.wait_output(b"ready\n", PATIENCE))
        outcome = self.testbed.control("hostA", "check", heir.pid)
        self.assertIn("SOCKET_SHARED", outcome.codes(), outcome)

    def test_check_lists_links(self):
        ends = self.begin(backlog=7)
        for end, step in ((ends["q"], "connect 1"), (ends["p"], "accept 1")):
            end.tell(step)
            end.answer()
        outcome = self.testbed.control("hostA", "check", "--links", ends["p"].process.pid)
        self.assertEqual(outcome.status, DONE, outcome)
        links = {link["kind"]: link for link in outcome.object["links"]}
        name = f"{HOSTS['hostA']}:{self.port}"
        self.assertEqual((links["listener"]["local"], links["listener"]["backlog"],
                          links["listener"]["way"]), (name, 7, "home"), links)
        self.assertEqual((links["connection"]["local"], links["connection"]["way"]), (name, "home"))
        self.assertTrue(links["connection"]["peer"].startswith(HOSTS["hostC"] + ":"), links)
        text = self.testbed.run("hostA", "migratectl", "check", "--links", ends["p"].process.pid).text
        self.assertIn("DESCRIPTOR", text)
        other = self.testbed.start("hostA", PYTHON, "-c", "import socket, time\n"
                                   "s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)\n"
                                   "print('ready', flush=True); time.sleep(600)")
        self.assertTrue(other.wait_ready())
        outcome = self.testbed.control("hostA", "check", "--links", other.pid)
        self.assertEqual([link["code"] for link in outcome.object["links"] if link["way"] == "refused"],
                         ["SOCKET_KIND"], outcome)

    def test_show_counts_the_bytes_of_each_link(self):
        ends = self.begin()
        self.move(ends["p"].process, "hostB")
        for end, step in (("q", "connect 1"), ("p", "accept 1"), ("q", "send 1 hello"),
                          ("p", "receive 1 5"), ("p", "send 1 yes"), ("q", "receive 1 3")):
            ends[end].tell(step)
            ends[end].answer()

        def links(host, name):
            shown = self.testbed.control(host, "show", name).object
            return {link["kind"]: link for link in shown.get("links", [])}

        pid = ends["p"].process.pid
        process = self.testbed.control("hostA", "show", pid).object["process"]
        name = f"{HOSTS['hostA']}:{self.port}"
        for host, target in (("hostA", pid), ("hostB", process)):
            found = wait_until(lambda host=host, target=target: (
                seen := links(host, target)).get("connection", {}).get("out_bytes") == 3 and seen,
                PATIENCE)
            self.assertTrue(found, links(host, target))
            self.assertEqual((found["connection"]["in_bytes"], found["connection"]["local"]), (5, name))
            self.assertTrue(found["connection"]["peer"].startswith(HOSTS["hostC"] + ":"), found)
            self.assertEqual(found["listener"]["local"], name)
            self.assertIn("stream", found)  # Its standard streams.
        self.assertEqual(links("hostA", pid)["listener"]["accepted"], 1)
        self.move(ends["p"].process, "hostC")
        ends["p"].tell("send 1 again")
        ends["p"].answer()
        self.assertTrue(wait_until(
            lambda: links("hostA", pid)["connection"]["out_bytes"] == 8, PATIENCE))
        text = self.testbed.run("hostA", "migratectl", "show", pid).text
        self.assertRegex(text, rf"links:\n  STREAM .*(\n.*)*connection +{name}")

    def test_a_listener_made_in_the_network_of_the_place_is_refused(self):
        guest = self.testbed.start("hostA", PYTHON, "-c", "import socket\n"
                                   "print('ready', flush=True); input()\n"
                                   "l = socket.create_server(('127.0.0.1', 0))\n"
                                   "print('listens', flush=True); input()", stdin=subprocess.PIPE)
        self.assertTrue(guest.wait_ready())
        self.move(guest, "hostB", "--network", "place")
        guest.stdin.write(b"\n")
        guest.stdin.flush()
        self.assertTrue(guest.wait_output(b"listens", PATIENCE))
        outcome = self.testbed.control("hostA", "move", guest.pid, "hostA")
        self.assertEqual((outcome.status, outcome.codes()), (REFUSED, ["SOCKET_ABROAD"]), outcome)
        guest.stdin.write(b"\n")
        guest.stdin.flush()
        self.assertEqual(guest.wait(), 0)

    @unittest.skipUnless(program("redis-server") and program("redis-benchmark"), "no redis")
    def test_redis_serves_a_benchmark(self):
        port = self.next_port()
        server = self.testbed.start("hostA", program("redis-server"), "--bind", HOSTS["hostA"], "--port", port,
                                    "--save", "", "--protected-mode", "no", "--daemonize", "no")
        self.assertTrue(server.wait_output(b"Ready to accept", PATIENCE), bytes(server.output))
        words = ("redis-benchmark", "-h", HOSTS["hostA"], "-p", port, "-t", "incr", "-n", 12000, "-c", 5,
                 "-q")
        done = 0
        for place in ("hostB", "hostC", "hostA"):
            benchmark = self.testbed.start("hostC", *words)
            self.assertTrue(benchmark.wait_output(b"INCR", PATIENCE))
            self.move(server, place)
            self.assertEqual(benchmark.wait(), 0, bytes(benchmark.output[-500:]))
            done += 12000
            count = self.testbed.run("hostC", "redis-cli", "-h", HOSTS["hostA"], "-p", port, "get",
                                     "counter:__rand_int__")
            self.assertEqual(count.text.strip(), str(done), count)
        server.kill()

    @unittest.skipUnless(program("nginx"), "no nginx")
    def test_nginx_serves_a_download(self):
        port = self.next_port()
        root = pathlib.Path(self.testbed.work) / "nginx"
        root.mkdir(exist_ok=True)
        root.chmod(0o777)
        (root / "source").write_bytes(os.urandom(12 << 20))
        (root / "nginx.conf").write_text(
            f"daemon off; master_process off; pid {root}/pid; error_log {root}/error;\n"
            "events {}\nhttp { access_log off; "
            f"client_body_temp_path {root}/1; proxy_temp_path {root}/2; fastcgi_temp_path {root}/3; "
            f"uwsgi_temp_path {root}/4; scgi_temp_path {root}/5;\n"
            f"server {{ listen {HOSTS['hostA']}:{port}; root {root}; }} }}\n")
        server = self.testbed.start("hostA", program("nginx"), "-c", root / "nginx.conf", "-e", root / "error")
        address = f"http://{HOSTS['hostA']}:{port}/source"
        self.assertTrue(wait_until(lambda: self.testbed.run(
            "hostC", "curl", "--silent", "--head", address).status == 0, PATIENCE))
        copy = root / "copy"
        curl = self.testbed.start("hostC", "curl", "--silent", "--show-error", "--limit-rate", "3M",
                                  "--output", copy, address)
        for mib, place in ((1, "hostB"), (4, "hostC"), (7, "hostA")):
            self.assertTrue(wait_until(lambda mib=mib: copy.exists() and
                                       copy.stat().st_size >= mib << 20, PATIENCE))
            self.move(server, place)
            another = self.testbed.run("hostC", "curl", "--silent", "--output", root / "another",
                                       address)
            self.assertEqual(another.status, 0, another)
            self.assertEqual((root / "another").read_bytes(), (root / "source").read_bytes())
        self.assertEqual(curl.wait(), 0, bytes(curl.output))
        self.assertEqual(copy.read_bytes(), (root / "source").read_bytes())
        server.kill()


add_cases(Listeners, CASES)


if __name__ == "__main__":
    harness.main()
