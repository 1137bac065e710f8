#!/usr/bin/python3
"""Connections that moved programs make, and datagrams that they send: the program sees, and whom it
calls, what both would see without a move."""

import os
import shutil
import signal
import subprocess
import unittest

import harness
from harness import DONE, wait_until
from link_ends import HOSTS, PATIENCE, PYTHON, End, add_cases, worker_of

# Calls others as it reads, one step a line, and says what came of it.
CALLER = r"""
import errno, http.client, select, socket, sys
def said(*words):
    print(*words, flush=True)
def attempt(what):
    try:
        return what()
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
links = {}
watch = select.epoll()
said("ready")
for line in sys.stdin:
    word, *rest = line.split()
    number = int(rest[0]) if rest and rest[0].isdigit() else 0
    link = links.get(number)
    if word in ("connect", "begin", "gives-up"):
        kind = socket.AF_INET6 if ":" in rest[1] else socket.AF_INET
        link = links[number] = socket.socket(kind, socket.SOCK_STREAM)
        to = (rest[1], int(rest[2]))
        if word == "begin":
            link.setblocking(False)
            said("begun", errno.errorcode.get(link.connect_ex(to)))
            watch.register(link, select.EPOLLOUT)
        elif word == "gives-up":
            link.settimeout(0.5)
            said("given up", attempt(lambda: link.connect(to)))
            link.close()
        else:
            link.settimeout(60)
            outcome = attempt(lambda: link.connect(to))
            said("connected", outcome, *(() if outcome else (link.getsockname()[0], link.getpeername())))
    elif word == "ends":
        events = watch.poll(30)
        said("ends", [hex(event) for _, event in events],
             errno.errorcode.get(link.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)))
        watch.unregister(link)
        link.setblocking(True)
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
    elif word == "half":
        said("half", attempt(lambda: link.shutdown(socket.SHUT_WR)))
    elif word == "to-end":
        count = 0
        while isinstance(part := attempt(lambda: link.recv(65536)), bytes) and part:
            count += len(part)
        said("to the end", count, part)
    elif word == "close":
        said("closed", attempt(links.pop(number).close))
    elif word == "fetch":
        http_link = http.client.HTTPConnection(rest[0], int(rest[1]), timeout=60)
        http_link.request("GET", "/")
        answer = http_link.getresponse()
        said("fetched", answer.status, len(answer.read()) > 0)
        http_link.close()
    elif word == "ask":
        with socket.socket(socket.AF_INET6 if ":" in rest[0] else socket.AF_INET,
                           socket.SOCK_DGRAM) as asking:
            asking.settimeout(30)
            asking.sendto(rest[2].encode() * 500, (rest[0], int(rest[1])))
            answer, who = asking.recvfrom(65536)
            said("answered", len(answer), who)
    elif word == "ask-nobody":
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(30)
            asking.connect((rest[0], int(rest[1])))
            asking.send(b"x")
            said("answered", attempt(lambda: asking.recv(100)))
    elif word == "exit":
        sys.exit(int(rest[0]))
"""

# Gives back what it gets, by TCP and UDP.
ECHO = r"""
import asyncio, socket, sys
address, port = sys.argv[1], int(sys.argv[2])
async def serve(reader, writer):
    try:
        while part := await reader.read(65536):
            writer.write(part)
            await writer.drain()
        writer.close()
    except ConnectionError:
        pass
class Datagrams(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport
    def datagram_received(self, data, peer):
        self.transport.sendto(data, peer)
async def main():
    server = await asyncio.start_server(serve, address, port, backlog=200)
    await asyncio.get_running_loop().create_datagram_endpoint(Datagrams, local_addr=(address, port))
    print("ready", flush=True)
    await server.serve_forever()
asyncio.run(main())
"""

# New connections all the time, beside some that stay: each byte must come back.
TRAFFIC = r"""
import asyncio, os, sys
address, port, stay, stop = sys.argv[1], *map(int, sys.argv[2:4]), sys.argv[4]
async def ask(reader, writer, text):
    writer.write(text)
    await writer.drain()
    answer = await asyncio.wait_for(reader.readexactly(len(text)), 120)
    assert answer == text, (text, answer)
async def stays(over):
    reader, writer = await asyncio.open_connection(address, port)
    while not over.is_set():
        await ask(reader, writer, os.urandom(2000))
        await asyncio.sleep(0.1)
    writer.close()
async def comes():
    reader, writer = await asyncio.open_connection(address, port)
    await ask(reader, writer, os.urandom(100))
    writer.close()
    await writer.wait_closed()
async def refused():
    try:
        await asyncio.open_connection(address, port + 1)
    except ConnectionRefusedError:
        return
    raise AssertionError("not refused")
async def main():
    over = asyncio.Event()
    staying = [asyncio.create_task(stays(over)) for _ in range(stay)]
    number = -1
    while not os.path.exists(stop):
        number += 1
        await comes()
        if number % 10 == 9:
            await refused()
            print("at", number + 1, flush=True)
        await asyncio.sleep(0.02)
    over.set()
    await asyncio.gather(*staying)
    print("all", flush=True)
print("ready", flush=True)
asyncio.run(main())
"""

# Steps of the process; "move" where it moves on, if it is to be moved. HOME, FAR and SIX are the
# addresses of servers at its home, in another host, and at home by IPv6; NONE is one of nobody.
CASES = {
    "answered": "move|p:connect 1 FAR PORT|p:send 1 hello|p:receive 1 5|move|p:send 1 again|p:receive 1 5|"
                "p:connect 2 HOME PORT|p:send 2 x|p:receive 2 1|move|p:half 1|p:to-end 1|p:close 1|"
                "p:send 2 y|p:receive 2 1|p:close 2|p:exit 3",
    "without_blocking": "move|p:begin 1 FAR PORT|p:ends 1|p:send 1 hello|p:receive 1 5|p:begin 2 FAR 9|"
                        "p:ends 2|p:begin 3 HOME PORT|p:ends 3|p:close 2|move|p:send 3 x|p:receive 3 1",
    "refused": "move|p:connect 1 FAR 9|p:close 1|p:connect 2 HOME 9|p:close 2|move|p:connect 3 HOME 9",
    "unreachable": "move|p:connect 1 198.51.100.1 80|p:close 1|p:connect 2 NONE 80|p:close 2",
    "given_up": "move|p:gives-up 1 FAR FULL|p:connect 2 FAR PORT|p:send 2 x|p:receive 2 1",
    "closed_abroad": "move|p:connect 1 FAR PORT|p:half 1|p:to-end 1|move|p:to-end 1|p:close 1|p:exit 4",
    "fetched": "move|p:fetch FAR WEB|move|p:fetch FAR WEB",
    "ipv6": "move|p:connect 1 SIX PORT|p:send 1 x|p:receive 1 1|p:connect 2 SIX 9|p:close 2|"
            "p:ask SIX PORT a|move|p:send 1 y|p:receive 1 1|p:ask SIX PORT b",
    "datagrams": "p:ask FAR PORT a|move|p:ask FAR PORT b|p:ask HOME PORT c|p:ask-nobody FAR 9|"
                 "p:ask-nobody HOME 9|move|p:ask FAR PORT d",
}
HOME_SIX = "fd00:213::1"


class Calls(unittest.TestCase):
    """The process begins in hostA; whom it calls is there, or in hostC."""

    @classmethod
    def setUpClass(cls):
        cls.testbed = harness.Testbed(3)
        cls.addClassCleanup(cls.testbed.down)
        cls.testbed.run("hostA", "ip", "-6", "addr", "add", HOME_SIX + "/64", "dev", "lo", "nodad")
        cls.port, cls.full, cls.web = 6100, 6200, 6300
        for host, address in (("hostC", HOSTS["hostC"]), ("hostA", "127.0.0.1"), ("hostA", HOME_SIX)):
            echo = cls.testbed.start(host, PYTHON, "-c", ECHO, address, cls.port)
            assert echo.wait_ready(), bytes(echo.output)
        full = cls.testbed.start(
            "hostC", PYTHON, "-c", "import socket, sys, time\n"
            "l = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=0)\n"
            "c = socket.create_connection(l.getsockname())\n"
            "print('ready', flush=True); time.sleep(3600)", HOSTS["hostC"], cls.full)
        assert full.wait_ready(), bytes(full.output)
        cls.testbed.start("hostC", PYTHON, "-m", "http.server", "--bind", HOSTS["hostC"], cls.web,
                          "--directory", "/usr/share/doc")
        assert wait_until(lambda: cls.testbed.run(
            "hostC", PYTHON, "-c", "import socket, sys; socket.create_connection(sys.argv[1:])",
            HOSTS["hostC"], cls.web).status == 0, PATIENCE)

    def begin(self):
        end = End.__new__(End)
        end.process = self.testbed.start("hostA", PYTHON, "-c", CALLER, stdin=subprocess.PIPE)
        return end.ready()

    def move(self, process, destination):
        outcome = self.testbed.move("hostA", process.pid, destination)
        self.assertEqual(outcome.status, DONE, f"{outcome}\n{self.testbed.logs()}")

    def observe(self, steps, places):
        for word, value in (("HOME", "127.0.0.1"), ("FAR", HOSTS["hostC"]), ("SIX", HOME_SIX),
                            ("NONE", "10.213.0.99"), ("PORT", self.port), ("FULL", self.full),
                            ("WEB", self.web)):
            steps = steps.replace(word, str(value))
        end = self.begin()
        places = iter(places)
        seen = []
        for step in steps.split("|"):
            if step == "move":
                if place := next(places, None):
                    self.move(end.process, place)
                continue
            end.tell(step[2:])
            if step.startswith("p:exit"):
                seen.append(str(end.process.wait()))
            else:
                seen.append(f"{step}: {end.answer()}")
        end.process.kill()
        return seen

    def compare(self, name):
        expected = self.observe(CASES[name], [])
        for places in (["hostB", "hostC", "hostA"], ["hostB", "hostA", "hostB"]):
            with self.subTest(case=name, places=places):
                seen = self.observe(CASES[name], places)
                self.assertEqual(seen, expected, self.testbed.logs(15))

    def start_traffic(self, stay):
        """It goes on until its stop file is there."""
        stop = self.testbed.new_path()
        process = self.testbed.start("hostA", PYTHON, "-c", TRAFFIC, HOSTS["hostC"], self.port, stay, stop)
        process.stop_file = stop
        self.assertTrue(process.wait_ready(), bytes(process.output))
        return process

    def wait_at(self, process, mark):
        self.assertTrue(process.wait_output(b"at %d\n" % mark, PATIENCE),
                        f"{bytes(process.output[-2000:])}\n{self.testbed.logs()}")

    def test_a_client_moves_in_traffic(self):
        process = self.start_traffic(10)
        for place, mark in (("hostB", 20), ("hostC", 80), ("hostA", 140), ("hostB", 200)):
            self.wait_at(process, mark)
            self.move(process, place)
        process.stop_file.touch()
        self.assertEqual(process.wait(), 0, bytes(process.output[-2000:]))

    def test_no_connection_is_lost_by_deaths_of_workers(self):
        process = self.start_traffic(5)
        self.move(process, "hostB")
        for mark in range(20, 180, 20):
            self.wait_at(process, mark)
            host = "hostA" if mark % 40 else "hostB"
            os.kill(worker_of(self.testbed, host, process), signal.SIGKILL)
        process.stop_file.touch()
        self.assertEqual(process.wait(), 0, bytes(process.output[-2000:]))

    def test_nothing_is_left(self):
        end = self.begin()
        self.move(end.process, "hostB")
        worker = worker_of(self.testbed, "hostB", end.process)
        before = None
        for _ in range(2):
            for step in (f"connect 1 {HOSTS['hostC']} {self.port}", "send 1 x", "receive 1 1", "close 1",
                         f"connect 1 {HOSTS['hostC']} 9", "close 1"):
                end.tell(step)
                end.answer()
            parts = (end.process.pid, worker_of(self.testbed, "hostA", end.process), worker)

            def count(parts=parts):
                return [len(os.listdir(f"/proc/{pid}/fd")) for pid in parts]

            idle = wait_until(lambda: (first := count()) == count() and first, PATIENCE)
            self.assertTrue(wait_until(lambda before=before: before is None or count() <= before,
                                       PATIENCE), (before, count()))
            before = idle
        end.process.kill()

    def test_a_users_process_where_roots_are_not_taken(self):
        """Its daemon has given up what it does not need; and the user's rights count at home."""
        daemon = self.testbed.start(
            "hostB", "migrated", "--listen", f"tcp://{HOSTS['hostB']}:7272", "--insecure", "--state",
            "/var/lib/migrate/users", "--socket", "/run/migrate/users.sock", "--allow", "nobody@*")
        self.assertTrue(daemon.wait_output(b"state in"), bytes(daemon.output))
        end = End.__new__(End)
        end.process = self.testbed.start(
            "hostA", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", PYTHON, "-c", CALLER,
            stdin=subprocess.PIPE, cwd="/")
        self.move(end.ready().process, "hostB:7272")
        for step in (f"connect 1 127.0.0.1 {self.port}", "send 1 hello", "receive 1 5",
                     f"connect 2 {HOSTS['hostC']} 9", f"ask {HOSTS['hostC']} {self.port} x"):
            end.tell(step)
            self.assertIn({"connect 1": "connected None", "receive": "b'hello'", "ask": "answered 500",
                           "connect 2": "ECONNREFUSED"}.get(step[:9].rstrip() if "connect" in step
                                                            else step.split()[0], ""), end.answer(),
                          f"{step} {bytes(daemon.output)}\n{self.testbed.logs(15)}")
        inodes = {os.readlink(f"/proc/{end.process.pid}/fd/{number}")
                  for number in os.listdir(f"/proc/{end.process.pid}/fd")}
        listed = self.testbed.run("hostA", "cat", "/proc/net/tcp").text.splitlines()
        users = {line.split()[7] for line in listed[1:] if f"socket:[{line.split()[9]}]" in inodes}
        self.assertEqual(users, {"65534"}, listed)
        end.process.kill()
        daemon.kill()

    def test_programs_have_no_rights_of_others_in_the_network_of_home(self):
        """Whom such a program asks who somebody is would be of the home's choice."""
        own = self.testbed.new_path("id")
        shutil.copy("/usr/bin/id", own)
        own.chmod(0o4755)
        own.parent.chmod(0o755)
        for options, user in ((("--network", "place"), b"0"), ((), b"65534")):
            process = self.testbed.start(
                "hostA", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/bin/sh", "-c",
                f"echo ready; read x; {own} -u; exit $?", stdin=subprocess.PIPE, cwd="/")
            self.assertTrue(process.wait_ready())
            moved = self.testbed.move("hostA", process.pid, "hostB", options=options)
            self.assertEqual(moved.status, DONE, f"{moved}\n{self.testbed.logs()}")
            process.stdin.write(b"\n")
            process.stdin.flush()
            self.assertEqual(process.wait(), 0, bytes(process.output))
            self.assertEqual(bytes(process.output).split()[-1], user, bytes(process.output))

    def test_the_network_of_the_place(self):
        echo = self.testbed.start("hostB", PYTHON, "-c", ECHO, "127.0.0.1", self.port + 50)
        self.assertTrue(echo.wait_ready(), bytes(echo.output))
        end = self.begin()
        call = f"connect 1 127.0.0.1 {self.port + 50}"
        for options, outcome in ((("--network", "place"), "connected None"), ((), "ECONNREFUSED")):
            moved = self.testbed.move("hostA", end.process.pid, "hostB" if options else "hostC",
                                      options=options)
            self.assertEqual(moved.status, DONE, f"{moved}\n{self.testbed.logs()}")
            end.tell(call)
            self.assertIn(outcome, end.answer())
            end.tell("close 1")
            end.answer()
        end.process.kill()

    @unittest.skipUnless(shutil.which("curl"), "no curl")
    def test_a_script_calls_curl(self):
        script = self.testbed.start("hostA", "/bin/sh", "-c", "echo ready; read x; "
                                    f"curl -sS -o /dev/null -w '%{{http_code}}' http://{HOSTS['hostC']}:"
                                    f"{self.web}/; exit $?", stdin=subprocess.PIPE)
        self.assertTrue(script.wait_ready())
        self.move(script, "hostB")
        script.stdin.write(b"\n")
        script.stdin.flush()
        self.assertEqual(script.wait(), 0, bytes(script.output))
        self.assertTrue(script.output.endswith(b"200"), bytes(script.output))


add_cases(Calls, CASES)


if __name__ == "__main__":
    harness.main()
