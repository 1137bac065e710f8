#!/usr/bin/python3
"""Rules of a host about the links of processes whose home it is: what they deny is not made, before a move and
after it, from wherever the process is; who may not reach it does not."""

import ast
import subprocess
import tempfile
import unittest

import harness
from calls_test import ECHO
from harness import DONE, REFUSED, Testbed, wait_until
from link_ends import HOSTS, PYTHON
from open_sockets_test import PROGRAM

USER = 1234
OPEN, CLOSED, REACHED, UNREACHED = 7001, 7002, 7003, 7004
POLICY = f"""
[[rule]]
kind = "file"
action = "local"

[[link]]
user = "{USER}"
action = "place"

[[link]]
direction = "out"
peer = "{HOSTS['hostC']}"
port = "{CLOSED}"
action = "deny"

[[link]]
direction = "in"
port = "{UNREACHED}"
action = "deny"

[[link]]
direction = "in"
protocol = "udp"
action = "deny"
"""
AS_USER = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]


class Rules(unittest.TestCase):
    def setUp(self):
        folder = harness.BUILD / "tests" / "work"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=folder, suffix=".toml", delete=False) as file:
            file.write(POLICY)
        self.policy = file.name
        self.addCleanup(lambda: harness.pathlib.Path(self.policy).unlink())
        self.testbed = Testbed(3, [f"--daemon-arg=--policy={self.policy}"])
        self.addCleanup(self.testbed.down)
        for port in (OPEN, CLOSED):
            server = self.testbed.start("hostC", PYTHON, "-c", ECHO, HOSTS["hostC"], port)
            self.assertTrue(server.wait_ready(), bytes(server.output))

    def program(self, prefix=()):
        process = self.testbed.start("hostA", *prefix, PYTHON, "-c", PROGRAM, stdin=subprocess.PIPE)
        self.assertTrue(process.wait_ready(), bytes(process.output))
        return process

    def ask(self, process, text):
        """What the program says of that."""
        before = len(process.output)
        process.stdin.write(text.encode() + b"\n")
        process.stdin.flush()
        self.assertTrue(wait_until(lambda: b"\n" in process.output[before:]),
                        f"{text}: no answer\n{self.testbed.logs()}")
        return ast.literal_eval(bytes(process.output[before:]).split(b"\n")[0].decode())

    def connect(self, process, number, port, host="hostC"):
        return self.ask(process, f"make({number}) or s[{number}].connect(('{HOSTS[host]}', {port}))")

    def move(self, process, to, source="hostA", *options):
        outcome = self.testbed.move(source, process.pid, to, options=options)
        self.assertEqual(outcome.status, DONE, f"{outcome}\n{self.testbed.logs()}")

    def reaches(self, port, host="hostC"):
        """Whether who connects from that host hears something from the program, which greets."""
        text = (f"import socket; s = socket.create_connection(('{HOSTS['hostA']}', {port}), 20); "
                "s.settimeout(20); print(s.recv(5))")
        outcome = self.testbed.run(host, PYTHON, "-c", text)
        return outcome.text.strip() == "b'hello'"

    def rules(self, process):
        shown = self.testbed.control("hostA", "show", process.pid).object
        return {rule["text"]: rule["count"] for rule in shown.get("link_rules", [])}

    def test_what_is_denied_is_not_connected_from_anywhere(self):
        process = self.program()
        denied = f"deny out {HOSTS['hostC']}/32 port {CLOSED}"
        for place in ("hostB", "hostC", "hostA", "hostB"):
            self.move(process, place)
            self.assertIsNone(self.connect(process, 1, OPEN), place)
            self.assertEqual(self.ask(process, "echoed(1, b'abc')"), b"abc", place)
            self.assertIn(self.connect(process, 2, CLOSED), ("EHOSTUNREACH", "EACCES"), place)
            self.assertIsNone(self.ask(process, "[s.pop(number).close() for number in (1, 2)] and None"))
        self.assertTrue(wait_until(lambda: self.rules(process).get(denied) == 4), self.rules(process))
        self.assertEqual(self.rules(process)[f"deny in port {UNREACHED}"], 0)

    def test_datagrams_too(self):
        process = self.program()
        self.move(process, "hostB")
        self.assertIsNone(self.ask(process, "make(1, SOCK_DGRAM)"))
        self.assertEqual(self.ask(process, f"answered(1, b'abc', ('{HOSTS['hostC']}', {OPEN}))[0]"), b"abc")
        self.assertIsNone(self.ask(process, "make(2, SOCK_DGRAM) or s[2].settimeout(3)"))
        answer = self.ask(process, f"answered(2, b'abc', ('{HOSTS['hostC']}', {CLOSED}))[0]")
        self.assertNotEqual(answer, b"abc")
        # Answers have come; who was not asked is not heard.
        self.assertIsNone(self.ask(process, f"make(3, SOCK_DGRAM) or s[3].bind(('', {REACHED})) or s[3].settimeout(3)"))
        tell = f"""
import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(40):
    s.sendto(b'x', ('{HOSTS['hostA']}', {REACHED}))
    time.sleep(0.05)
"""
        stranger = self.testbed.start("hostC", PYTHON, "-c", tell)
        heard = self.ask(process, "s[3].recvfrom(100)")
        self.assertIsInstance(heard, str, heard)  # An error: nothing came.
        self.assertEqual(stranger.wait(), 0)
        self.assertTrue(wait_until(lambda: self.rules(process).get("deny in udp", 0) > 0), self.rules(process))

    def test_an_address_of_four_in_six_is_no_way_around(self):
        process = self.program()
        self.move(process, "hostB")
        made = f"make(1, SOCK_STREAM, AF_INET6) or s[1].connect(('::ffff:{HOSTS['hostC']}', {CLOSED}))"
        self.assertIn(self.ask(process, made), ("EHOSTUNREACH", "EACCES"))
        made = f"make(2, SOCK_STREAM, AF_INET6) or s[2].connect(('::ffff:{HOSTS['hostC']}', {OPEN}))"
        self.assertIsNone(self.ask(process, made))

    def test_who_may_not_reach_it_does_not(self):
        process = self.program()
        for number, port in ((1, REACHED), (2, UNREACHED)):
            self.assertIsNone(self.ask(process, f"make({number}) or on({number}, SOL_SOCKET, SO_REUSEADDR, 1) or "
                                                f"s[{number}].bind(('', {port})) or s[{number}].listen(5)"))
        self.move(process, "hostB")
        # Who connects waits for the program to accept; what is denied is reset before.
        with subprocess.Popen(self.testbed.words("hostC", PYTHON, "-c",
                              "import socket; s = socket.create_connection(('%s', %d), 20); s.settimeout(20); "
                              "print(s.recv(5))" % (HOSTS["hostA"], REACHED)),
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as caller:
            self.assertIsNone(self.ask(process, "s[1].accept()[0].sendall(b'hello')"))
            self.assertEqual(caller.communicate(timeout=60)[0].strip(), "b'hello'")
        self.assertFalse(self.reaches(UNREACHED))
        self.assertTrue(wait_until(lambda: self.rules(process).get(f"deny in port {UNREACHED}", 0) > 0))

    def test_a_connection_that_is_denied_keeps_a_process_at_home(self):
        process = self.program()
        self.assertIsNone(self.connect(process, 1, OPEN))
        self.assertIsNone(self.connect(process, 2, CLOSED))
        check = self.testbed.control("hostA", "check", process.pid, "--to", "hostB", "--links")
        self.assertEqual((check.status, check.codes()), (REFUSED, ["LINK_DENIED"]), f"{check} {self.testbed.logs()}")
        refused = [link for link in check.object["links"] if link["way"] == "refused"]
        self.assertEqual([(link["code"], link["peer"]) for link in refused],
                         [("LINK_DENIED", f"{HOSTS['hostC']}:{CLOSED}")], check)
        self.assertEqual(len(check.object["link_rules"]), 3, check)
        self.assertIn(self.policy, check.object["refusals"][0]["reason"])
        self.assertEqual(self.testbed.control("hostA", "move", process.pid, "hostB").codes(), ["LINK_DENIED"])
        text = self.testbed.run("hostA", "migratectl", "check", process.pid, "--links").text
        self.assertIn("deny out", text)
        self.assertIsNone(self.ask(process, "s.pop(2).close()"))
        self.move(process, "hostB")
        self.assertEqual(self.ask(process, "echoed(1, b'abc')"), b"abc")

    def test_the_network_of_the_place_is_for_whom_a_rule_lets_have_it(self):
        process = self.program()
        outcome = self.testbed.control("hostA", "move", process.pid, "hostB", "--network", "place")
        self.assertEqual((outcome.status, outcome.codes()), (REFUSED, ["LINK_RULES"]), outcome)
        # Nor from where it is by then, whose administrator has no such rules.
        self.move(process, "hostB")
        onward = self.testbed.control("hostA", "move", process.pid, "hostC", "--network", "place")
        self.assertEqual((onward.status, onward.codes()), (REFUSED, ["LINK_RULES"]), onward)
        self.move(process, "hostC")
        users = self.program(AS_USER)
        self.move(users, "hostB", "hostA", "--network", "place")

    def test_a_user_has_no_such_rules(self):
        mine = self.testbed.new_path("toml")
        mine.write_text('[[link]]\naction = "home"\n')
        process = self.program()
        outcome = self.testbed.control("hostA", "move", process.pid, "hostB", "--policy", mine)
        self.assertEqual(outcome.status, harness.USAGE, outcome)
        self.assertIn("the host's alone", outcome.object["error"]["message"])

    def test_another_worker_keeps_them(self):
        process = self.program()
        self.move(process, "hostB")
        self.assertIn(self.connect(process, 1, CLOSED), ("EHOSTUNREACH", "EACCES"))
        self.assertTrue(wait_until(lambda: 1 in self.rules(process).values()), self.rules(process))
        worker = self.testbed.control("hostA", "show", process.pid).object["worker"]
        harness.os.kill(worker, 9)
        self.assertTrue(wait_until(
            lambda: self.testbed.control("hostA", "show", process.pid).object.get("worker") not in (worker, 0, None)))
        self.assertIn(self.ask(process, f"make(2) or s[2].connect(('{HOSTS['hostC']}', {CLOSED}))"),
                      ("EHOSTUNREACH", "EACCES"))
        self.assertTrue(wait_until(lambda: 2 in self.rules(process).values()), self.rules(process))


if __name__ == "__main__":
    harness.main()
